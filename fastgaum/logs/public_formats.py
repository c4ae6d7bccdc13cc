"""Public logs as they are published: a function for each, from the file's rows to rows of displays.

A log is known by its columns, and a file without a header by its first row."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Unpack

import polars as pl

from fastgaum.logs.columns import REFUSED
from fastgaum.logs.options import ReadKeywords, ReadOptions, columns_of

_TIME = r"\d{1,2}/\d{1,2}/\d{4} \d{1,2}:\d\d:\d\d [AP]M"


@dataclass(frozen=True)
class NamelessFile:
    """A kind of file without a line of column names."""

    first_row: re.Pattern[str]
    """matches the beginning of such a file, and of no header"""
    columns: tuple[str, ...]
    """in order; one that begins with _ is not read"""
    separator: str = "\t"
    cut: bool = False
    """whether further columns of a row are cut, as a tab in a name makes them"""


NAMELESS_FILES = (
    NamelessFile(  # behaviors.tsv of MIND
        re.compile(rf"[^\t]+\t[^\t]+\t{_TIME}\t"),
        ("impression_id", "user_id", "time", "history", "impressions"),
    ),
    NamelessFile(  # news.tsv of MIND
        re.compile(r"N\d+(?:\t[^\t]*){7}$"),
        ("item", "category", "subcategory", *(f"_{i}" for i in range(5))),
    ),
    # ratings.dat of MovieLens 1M: its separator has two characters, polars takes one
    NamelessFile(
        re.compile(r"\d+::\d+::[\d.]+::\d+$"),
        ("userId", "_1", "movieId", "_2", "rating", "_3", "timestamp"),
        ":",
    ),
    NamelessFile(  # u.data of MovieLens 100K
        re.compile(r"\d+\t\d+\t[\d.]+\t\d+$"), ("userId", "movieId", "rating", "timestamp")
    ),
    NamelessFile(  # LastFM-1K
        re.compile(r"[^\t]+\t\d{4}-\d\d-\d\dT[\d:.]+Z?\t[^\t]*\t[^\t]*\t[^\t]*\t"),
        ("userid", "timestamp", "artid", "artname", "traid", "traname"),
        cut=True,
    ),
)


MakesDisplays = Callable[[pl.LazyFrame], pl.LazyFrame]


@dataclass(frozen=True)
class PublicLog:
    """One public log's layout."""

    name: str
    files: tuple[str, ...]
    columns: tuple[str, ...]
    """a file that has all of these is such a log"""
    displays: MakesDisplays | None
    """makes rows of displays from the file's rows; None: they are"""
    options: ReadOptions
    not_read: str

    def __str__(self) -> str:
        words = []
        for name, value in self.options.to_json().items():
            flag = f"--{name.replace('_', '-')}"
            given = value if isinstance(value, list) else [value]
            words += [flag if one is True else f"{flag} {one}" for one in given if name != "column"]
        brought = f" ({' '.join(words)})" if words else ""
        return self.name + brought + (f"; not read: {self.not_read}" if self.not_read else "")

    def options_with(self, given: ReadOptions) -> ReadOptions:
        """The given options, and for the others, roles included, this layout's."""
        instead = {"chosen_index": ("chosen",), "item": ("items", "chosen")}
        left_out = {other for role in given.columns for other in instead.get(role, ())}
        roles = {role: name for role, name in self.options.columns.items() if role not in left_out}
        return dataclasses.replace(given.over(self.options), columns={**roles, **given.columns})


PUBLIC_LOGS: list[PublicLog] = []
"""the first that fits is taken"""


def _public(
    title: str,
    *files: str,
    known_by: str,
    roles: str = "",
    displays: MakesDisplays | None = None,
    not_read: str = "",
    **options: Unpack[ReadKeywords],
) -> None:
    """Add a log to PUBLIC_LOGS; `known_by`: its columns; `roles`: role=column."""
    if roles:
        options["columns"] = columns_of(roles.split())
    read, known = ReadOptions.of(**options), tuple(known_by.split())
    PUBLIC_LOGS.append(PublicLog(title, files, known, displays, read, not_read))


def find_layout(columns: Iterable[str]) -> PublicLog | None:
    """Return the public log that has such columns, if any."""
    known = set(columns)
    return next((layout for layout in PUBLIC_LOGS if known.issuperset(layout.columns)), None)


def _text(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.String)


def _number(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.Int64, strict=False)


def _clicked_alone(flag: str, item: str) -> pl.Expr:
    """The item of a row that displays one item, null where it was not clicked."""
    value = _text(flag).str.to_lowercase()
    number = value.cast(pl.Float64, strict=False)
    rule = "0 (displayed) or 1 (clicked) is required: correct it or drop the row"
    return (
        pl.when((number == 1) | (value == "true"))
        .then(_text(item))
        .when((number == 0) | (value == "false"))
        .then(None)
        .otherwise(pl.format(f"{REFUSED}'{flag}' = {{}}, {rule}", _text(flag).fill_null("nothing")))
    )


def _times(column: str, written: str) -> pl.Expr:
    kinds = (written, "%Y-%m-%d %H:%M:%S%.f")
    return pl.coalesce(_text(column).str.to_datetime(kind, strict=False) for kind in kinds)


def mind(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Impressions are ids, each followed by -1 (clicked) or -0."""
    shown = _text("impressions").str.extract_all(r"\S+")
    clicked = pl.element().filter(~pl.element().str.ends_with("-0"))
    unsaid = pl.format(
        f"{REFUSED}'impressions' = … {{}} …, -0 (displayed) or -1 (clicked) is required after each "
        "id (MIND's test part has none): correct or drop the row",
        clicked,
    )
    first = pl.when(clicked.str.ends_with("-1")).then(clicked.str.replace(r"-1$", ""))
    return rows.with_columns(
        time=_times("time", "%m/%d/%Y %I:%M:%S %p"),
        history=_text("history").str.extract_all(r"\S+"),
        items=shown.list.eval(pl.element().str.replace(r"-[01]$", "")),
        chosen=shown.list.eval(first.otherwise(unsaid)),
    )


_public(
    "MIND",
    "behaviors.tsv",
    known_by="impression_id user_id time history impressions",
    roles="session=user_id user=user_id event=time event_label=impression_id items=items "
    "chosen=chosen",
    clicks="first",
    past="history",
    not_read="clicks beyond an impression's first (--clicks each reads them)",
    displays=mind,
)

_public(
    "EB-NeRD",
    "behaviors.parquet",
    known_by="user_id impression_time article_ids_inview article_ids_clicked",
    # their session_id is a browser visit: a reader's impressions in time order are one
    roles="session=user_id user=user_id event=impression_time event_label=impression_id "
    "items=article_ids_inview chosen=article_ids_clicked",
    clicks="first",
    not_read="history.parquet (--actions), clicks beyond an impression's first (--clicks each)",
)


def trivago(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Click-outs are displays; the last ones of the test part are withheld: they have no
    reference."""
    shown = (_text("action_type") == "clickout item") & pl.col("reference").is_not_null()
    prices = _text("prices").str.split("|")
    return rows.filter(shown).with_columns(
        timestamp=_number("timestamp"),
        step=_number("step"),
        items=_text("impressions").str.split("|"),
        price=prices.list.eval(pl.element().cast(pl.Float64, strict=False)),
    )


_public(
    "trivago RecSys Challenge 2019",
    "train.csv",
    known_by="user_id session_id timestamp step action_type reference platform city device "
    "impressions prices",
    roles="session=session_id user=user_id event=timestamp event_label=step items=items "
    "chosen=reference",
    ordered=True,
    outside="drop",
    candidate_fields=("price",),
    context_fields=("platform", "city", "device"),
    not_read="actions other than click-outs, filters, and click-outs that are withheld",
    displays=trivago,
)


def kuairand(rows: pl.LazyFrame) -> pl.LazyFrame:
    """A row is a display of one video."""
    return rows.with_columns(
        time_ms=_number("time_ms"),
        items=pl.concat_list(_text("video_id")),
        chosen=_clicked_alone("is_click", "video_id"),
    )


_public(
    "KuaiRand",
    "log_standard_….csv",
    known_by="user_id video_id time_ms is_click duration_ms is_rand tab",
    roles="session=user_id user=user_id event=time_ms items=items chosen=chosen",
    candidate_fields=("duration_ms",),
    context_fields=("tab",),
    not_read="likes, follows, comments, forwards, hates and times of play",
    displays=kuairand,
)


def open_bandit(rows: pl.LazyFrame) -> pl.LazyFrame:
    """A row is a display of one item. Users have no id, and a page's three places are three
    rows."""
    affinities = pl.col(r"^user-item_affinity_\d+$").cast(pl.Float64, strict=False)
    return rows.with_columns(
        session=pl.format("{}/{}", _text("timestamp"), _text("position")),
        timestamp=_text("timestamp").str.to_datetime("%Y-%m-%d %H:%M:%S%.f%:z", strict=False),
        # `position` is the name of a number that FastGAUM makes itself
        place_on_page=_text("position"),
        items=pl.concat_list(_text("item_id")),
        chosen=_clicked_alone("click", "item_id"),
        affinity=pl.concat_list(affinities).list.get(_number("item_id"), null_on_oob=True),
    )


_public(
    "Open Bandit",
    "all.csv",
    known_by="timestamp item_id position click propensity_score user_feature_0 user_feature_1 "
    "user_feature_2 user_feature_3 user-item_affinity_0",
    roles="session=session event=timestamp items=items chosen=chosen",
    candidate_fields=("affinity",),
    context_fields=("place_on_page", *(f"user_feature_{i}" for i in range(4))),
    not_read="propensity_score, unless `fastgaum ope` is told --propensity propensity_score",
    displays=open_bandit,
)

_public(
    "Wikispeedia",
    "choices.parquet",
    known_by="session event page target items chosen",
    context_fields=("page", "target"),
)

_public(
    "CLARA2",
    "displays.parquet",
    known_by="session event query items chosen clicked outside",
    roles="chosen=chosen",
    ordered=True,
    context_fields=("query",),
    not_read="clicks outside a list, and clicks beyond its first (which need --column "
    "chosen=clicked --clicks each)",
)

_OF_MODES = "dur cost access rail bus waiting changes_walk changes charge traffic"
_OF_TRIPS = (
    "purpose fueltype faretype day_of_week travel_month female driving_license car_ownership "
    "start_time_linear age distance bus_scale"
)
_public(
    "LPMC",
    "trips.parquet",
    known_by=f"person trip household item {_OF_MODES} {_OF_TRIPS}",
    roles="session=trip event=trip user=household",
    candidate_fields=_OF_MODES.split(),
    context_fields=_OF_TRIPS.split(),
    not_read="the person's earlier trips (--column session=person reads them)",
)

_public(
    "TasteNet's toy",
    "choices.parquet",
    known_by="session event item cost time wait income full_time flexible",
    roles="session=session event=event",
    candidate_fields=("cost", "time", "wait"),
    context_fields=("income", "full_time", "flexible"),
)

# rows are choices without displays (`simulate`), whatever the stars say
_public(
    "MovieLens",
    "ratings.dat",
    "u.data",
    "ratings.csv",
    known_by="userId movieId rating timestamp",
)


# rows are choices without displays, of artists by their ids, or by names where they have none
_public(
    "LastFM-1K",
    "userid-timestamp-artid-artname-traid-traname.tsv",
    known_by="userid timestamp artid artname traid traname",
    displays=lambda rows: rows.with_columns(item=pl.coalesce("artid", "artname")),
)

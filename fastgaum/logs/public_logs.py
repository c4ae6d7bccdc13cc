"""Public logs as they are published, recognised by their columns: which column plays which role,
what further columns are made of what stands there, and which options of reading fit.

Files of choices without display sets (MovieLens, LastFM) are those of `layouts`. Where the formats
are described is said on the page "Public logs" of the documentation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import polars as pl

from fastgaum.logs.nested_clicks import REFUSED
from fastgaum.logs.options import ReadOptions
from fastgaum.logs.tables import FileTable

ITEMS, CHOSEN = "items", "chosen"
"""the columns that are made of what a public log says of a display and its clicks"""


@dataclass(frozen=True)
class PublicLog:
    """One public log's layout."""

    name: str
    file: str
    """how its publisher calls the file"""
    columns: tuple[str, ...]
    """what it is recognised by: all of these"""
    roles: Mapping[str, str]
    """the column of each role, one that is made included"""
    options: ReadOptions = field(default_factory=ReadOptions)
    """how it is read, where the reader says nothing else"""
    kept: pl.Expr | None = None
    """the rows that are displays; None: all are"""
    made: Mapping[str, pl.Expr] = field(default_factory=dict)
    """columns made of the file's own"""
    own: bool = False
    """whether nearly all of its columns are named as in no other log"""
    as_rows: str | None = None
    """how its publisher calls a file of the same log, row by row (`headers`)"""
    not_read: str = ""
    """what the file says that no model is told"""

    def __str__(self) -> str:
        """Its name, with the options that it brings and what it leaves out."""
        return f"{self.name}{self._brought()}" + (
            f"; not read: {self.not_read}" if self.not_read else ""
        )

    def _brought(self) -> str:
        words = []
        for name, value in self.options.to_json().items():
            flag = f"--{name.replace('_', '-')}"
            given = value if isinstance(value, list) else [value]
            words += [flag if one is True else f"{flag} {one}" for one in given]
        return f" ({' '.join(words)})" if words else ""

    def of_rows(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """The file's rows with the columns that are made of them, those alone that are displays."""
        if self.kept is not None:
            rows = rows.filter(self.kept)
        return rows.with_columns(**self.made) if self.made else rows

    def of_table(self, table: FileTable) -> FileTable:
        """The same of an opened file or folder."""
        if self.kept is None and not self.made:
            return table
        parts = tuple((path, self.of_rows(rows)) for path, rows in table.parts)
        dtypes = dict(parts[0][1].collect_schema())
        return dataclasses.replace(table, parts=parts, dtypes=dtypes, stored=tuple(table.dtypes))

    def options_with(self, given: ReadOptions) -> ReadOptions:
        """The given options, and where one was not given, this layout's; a role's column
        likewise."""
        instead = {"chosen_index": ("chosen",), "item": ("items", "chosen")}
        left_out = {other for role in given.columns for other in instead.get(role, ())}
        roles = {role: name for role, name in self.roles.items() if role not in left_out}
        return dataclasses.replace(given.over(self.options), columns={**roles, **given.columns})


def text(column: str) -> pl.Expr:
    """A column as text: its file may be a csv, whose values are text, or a parquet."""
    return pl.col(column).cast(pl.String)


def number(column: str) -> pl.Expr:
    """A column as whole numbers, null where it is none."""
    return pl.col(column).cast(pl.Int64, strict=False)


def clicked_alone(flag: str, item: str) -> pl.Expr:
    """The item of a row that displays one item, null where the flag says that it was not clicked.
    Reading refuses another flag."""
    value = text(flag).str.to_lowercase()
    number = value.cast(pl.Float64, strict=False)
    rule = "0 (displayed) or 1 (clicked) is required: correct it or drop the row"
    return (
        pl.when((number == 1) | (value == "true"))
        .then(text(item))
        .when((number == 0) | (value == "false"))
        .then(None)
        .otherwise(pl.format(f"{REFUSED}'{flag}' = {{}}, {rule}", text(flag).fill_null("nothing")))
    )


def time_of(column: str, written: str) -> pl.Expr:
    """A column as times: written as its publisher does, or times in a frame; null if neither."""
    kinds = (written, "%Y-%m-%d %H:%M:%S%.f")
    return pl.coalesce(text(column).str.to_datetime(kind, strict=False) for kind in kinds)


_IMPRESSIONS = text("impressions").str.extract_all(r"\S+")
_CLICKED = pl.element().filter(~pl.element().str.ends_with("-0"))
_UNSAID = pl.format(
    f"{REFUSED}'impressions' = … {{}} …, -0 (displayed) or -1 (clicked) is required after each id "
    "(MIND's test part has none): correct or drop the row",
    _CLICKED,
)
_FINN_SHOWN = pl.col("slate").list.eval(pl.element().filter(pl.element() > 1))

PUBLIC_LOGS = (
    PublicLog(
        "MIND",
        "behaviors.tsv",
        ("impression_id", "user_id", "time", "history", "impressions"),
        {
            "session": "user_id",
            "user": "user_id",
            "event": "time",
            "event_label": "impression_id",
            "items": ITEMS,
            "chosen": CHOSEN,
        },
        ReadOptions.of(clicks="first", past="history"),
        made={
            "time": time_of("time", "%m/%d/%Y %I:%M:%S %p"),
            "history": text("history").str.extract_all(r"\S+"),
            ITEMS: _IMPRESSIONS.list.eval(pl.element().str.replace(r"-[01]$", "")),
            CHOSEN: _IMPRESSIONS.list.eval(
                pl.when(_CLICKED.str.ends_with("-1"))
                .then(_CLICKED.str.replace(r"-1$", ""))
                .otherwise(_UNSAID)
            ),
        },
        not_read="clicks beyond an impression's first (--clicks each reads them)",
    ),
    PublicLog(
        "EB-NeRD",
        "behaviors.parquet",
        (
            "user_id",
            "impression_time",
            "impression_id",
            "article_ids_inview",
            "article_ids_clicked",
        ),
        {
            # their session_id is a browser visit: a reader's impressions in time order are one
            "session": "user_id",
            "user": "user_id",
            "event": "impression_time",
            "event_label": "impression_id",
            "items": "article_ids_inview",
            "chosen": "article_ids_clicked",
        },
        ReadOptions.of(clicks="first"),
        own=True,
        not_read="history.parquet (--actions), clicks beyond an impression's first (--clicks each)",
    ),
    PublicLog(
        "trivago RecSys Challenge 2019",
        "train.csv",
        (
            "user_id",
            "session_id",
            "timestamp",
            "step",
            "action_type",
            "reference",
            "platform",
            "city",
            "device",
            "impressions",
            "prices",
        ),
        {
            "session": "session_id",
            "user": "user_id",
            "event": "timestamp",
            "event_label": "step",
            "items": ITEMS,
            "chosen": "reference",
        },
        ReadOptions.of(
            ordered=True,
            outside="drop",
            candidate_fields=("price",),
            context_fields=("platform", "city", "device"),
        ),
        # the last click-outs of the test part have no reference: they are what was to be predicted
        kept=(text("action_type") == "clickout item") & pl.col("reference").is_not_null(),
        made={
            "timestamp": number("timestamp"),
            "step": number("step"),
            ITEMS: text("impressions").str.split("|"),
            "price": text("prices")
            .str.split("|")
            .list.eval(pl.element().cast(pl.Float64, strict=False)),
        },
        own=True,
        not_read="actions other than click-outs, filters, and click-outs that are withheld",
    ),
    PublicLog(
        "KuaiRand",
        "log_standard_….csv",
        ("user_id", "video_id", "time_ms", "is_click", "duration_ms", "is_rand", "tab"),
        {
            "session": "user_id",
            "user": "user_id",
            "event": "time_ms",
            "items": ITEMS,
            "chosen": CHOSEN,
        },
        ReadOptions.of(candidate_fields=("duration_ms",), context_fields=("tab",)),
        made={
            "time_ms": number("time_ms"),
            ITEMS: pl.concat_list(text("video_id")),
            CHOSEN: clicked_alone("is_click", "video_id"),
        },
        own=True,
        not_read="likes, follows, comments, forwards, hates and times of play",
    ),
    PublicLog(
        "Open Bandit",
        "all.csv",
        (
            "timestamp",
            "item_id",
            "position",
            "click",
            "propensity_score",
            "user_feature_0",
            "user_feature_1",
            "user_feature_2",
            "user_feature_3",
            "user-item_affinity_0",
        ),
        {"session": "session", "event": "timestamp", "items": ITEMS, "chosen": CHOSEN},
        ReadOptions.of(
            candidate_fields=("affinity",),
            context_fields=("place_on_page", *(f"user_feature_{i}" for i in range(4))),
        ),
        made={
            # users have no id, and the three places of a page are rows of their own
            "session": pl.format("{}/{}", text("timestamp"), text("position")),
            "timestamp": text("timestamp").str.to_datetime("%Y-%m-%d %H:%M:%S%.f%:z", strict=False),
            # `position` is the name of a number that FastGAUM makes itself
            "place_on_page": text("position"),
            ITEMS: pl.concat_list(text("item_id")),
            CHOSEN: clicked_alone("click", "item_id"),
            "affinity": pl.concat_list(
                pl.col(r"^user-item_affinity_\d+$").cast(pl.Float64, strict=False)
            ).list.get(number("item_id"), null_on_oob=True),
        },
        own=True,
        not_read="propensity_score, unless `fastgaum ope` is told --propensity propensity_score",
    ),
    PublicLog(
        "FINN.no slates",
        "data.npz",
        ("userId", "step", "click", "slate", "interaction_type"),
        {
            "session": "userId",
            "user": "userId",
            "event": "step",
            "items": ITEMS,
            "chosen": CHOSEN,
        },
        ReadOptions.of(ordered=True, context_fields=("interaction_type",)),
        # 0 fills up users with fewer steps and slates with fewer items, 1 is "no click"
        kept=(pl.col("click") > 0) & (_FINN_SHOWN.list.len() > 0),
        made={
            ITEMS: _FINN_SHOWN,
            CHOSEN: pl.when(pl.col("click") > 1).then(pl.col("click")),
        },
        own=True,
    ),
    PublicLog(
        "Wikispeedia",
        "choices.parquet",
        ("session", "event", "page", "target", "items", "chosen"),
        {},
        ReadOptions.of(context_fields=("page", "target")),
        as_rows="paths_finished.tsv",
    ),
    PublicLog(
        "CLARA2",
        "displays.parquet",
        ("session", "event", "query", "items", "chosen", "clicked", "outside"),
        {"chosen": "chosen"},
        ReadOptions.of(ordered=True, context_fields=("query",)),
        as_rows="CLARA2SearchLog_beta",
        not_read="clicks outside a list, and clicks beyond its first (which need --column "
        "chosen=clicked --clicks each)",
    ),
)
"""what is recognised, the first that fits"""


def find_layout(columns: Iterable[str]) -> PublicLog | None:
    """Return the public log that has such columns; None if there is none."""
    known = set(columns)
    return next((layout for layout in PUBLIC_LOGS if known.issuperset(layout.columns)), None)

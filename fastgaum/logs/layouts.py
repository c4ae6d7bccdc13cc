"""Public files of choices without display sets, recognised by their first line: MovieLens and
LastFM-1K.

    MovieLens 1M       ratings.dat  user::item::rating::time   movies.dat  item::title (year)::…
    MovieLens 100K     u.data       user, item, rating, time   u.item      item|title|01-Jan-1995|…
    MovieLens latest   ratings.csv  userId,movieId,rating,…    movies.csv  movieId,title (year),…
    LastFM-1K          userid-timestamp-artid-artname-traid-traname.tsv: no header, ISO times

Times are whole seconds since 1970 in the MovieLens files, items are latin-1 in the first two. A
rating counts as a choice whatever its
stars say."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from fastgaum.errors import DatasetError, LogFormatError
from fastgaum.logs.headers import first_line
from fastgaum.logs.tables import check_lines
from fastgaum.untrusted_parquet import READ_ERRORS, one_line

ItemKind = Literal["artist", "track"]
Period = Literal["month", "year"]

_FIRST_BYTES = 4096
_MOST_ITEMS = 1 << 28
"""bytes of a file of items; the largest, of MovieLens 32M, has 4 million"""
_YEAR = r"\((\d{4})(?:[-–]\d{0,4})?\)\s*$"
"""a title's release year; of a series' (1975-1979) the first"""


@dataclass(frozen=True)
class Releases:
    """When items were released."""

    frame: pl.DataFrame
    """item (text) and released: months since the year 0 (12 · year + month - 1) or years; null
    where unknown"""
    period: Period
    """what `released` counts"""


@dataclass(frozen=True)
class Layout:
    """One kind of file."""

    name: str
    file: str
    """how its publisher calls the file of choices"""
    first_line: re.Pattern[str]
    """what the file of choices begins with"""
    separator: str
    """what stands between its columns, once or twice"""
    scan: Callable[[Path, ItemKind], pl.LazyFrame]
    """its rows, lazily: user (text), time (seconds, null if it is none), item (text)"""
    items: str | None = None
    """the file beside it that says when items were released"""
    releases: Callable[[Path], Releases] | None = None


@dataclass(frozen=True)
class Source:
    """A file of choices that was found."""

    layout: Layout
    path: Path
    name: str
    """what to call a log made of it: the folder's name if a folder was given, else the file's"""

    def releases(self) -> Releases:
        """Read the release dates beside it. Raises DatasetError if there are none, LogFormatError
        if they are damaged."""
        layout = self.layout
        if layout.items is None or layout.releases is None:
            raise DatasetError(
                f"{layout.name} has no release dates, rule 'released-before' needs them: use "
                "'nearest' or 'nearest-unseen'"
            )
        beside = self.path.with_name(layout.items)
        if not beside.is_file():
            raise DatasetError(
                f"release dates stand in {layout.items}, which is not beside '{self.path}': copy "
                "it there, or use the rule 'nearest' without a release field"
            )
        if beside.stat().st_size > _MOST_ITEMS:
            raise LogFormatError(
                f"'{beside.name}' has {beside.stat().st_size} bytes, at most {_MOST_ITEMS} are "
                "read: copy it again"
            )
        try:
            found = layout.releases(beside)
        except READ_ERRORS as error:
            raise LogFormatError(
                f"'{beside.name}' is not the {layout.items} of {layout.name} ({one_line(error)}): "
                "copy it again"
            ) from None
        if found.frame["released"].null_count() == found.frame.height:
            raise LogFormatError(
                f"'{beside.name}' gives no item a release {found.period}, at least one is "
                "required: copy it again"
            )
        return found


def recognise(path: Path) -> Source | None:
    """Find the choices in a file, or in a folder under their publisher's name; None if it is none
    of the layouts.

    Raises DatasetError for a folder that holds the files of two layouts.
    """
    if path.is_dir():
        found = [
            source
            for layout in LAYOUTS
            if (source := _match(path / layout.file, path.resolve().name))
        ]
        if len(found) > 1:
            files = ", ".join(source.path.name for source in found)
            raise DatasetError(
                f"'{path}' holds {files}, one file of choices is required: name the file"
            )
        return found[0] if found else None
    return _match(path, path.stem)


def find_choices(path: Path) -> Source:
    """Find the choices as `recognise` does. Raises DatasetError, with the layouts that are known,
    if there are none."""
    source = recognise(path)
    if source is None:
        if not path.exists():
            raise DatasetError(f"no such file or folder: '{path}'; check the path")
        known = ", ".join(f"{layout.file} ({layout.name})" for layout in LAYOUTS)
        found = (
            _contents(path)
            if path.is_dir()
            else f"it begins with {first_line(path, _FIRST_BYTES)[:60]!r}"
        )
        raise DatasetError(
            f"'{path}' holds no choices in a layout that is known ({found}); known are {known}: "
            "give such a file, or its folder"
        )
    return source


def _match(path: Path, name: str) -> Source | None:
    if not path.is_file():
        return None
    line = first_line(path, _FIRST_BYTES)
    layout = next((layout for layout in LAYOUTS if layout.first_line.match(line)), None)
    if layout is None:
        return None
    check_lines(path, layout.separator)
    return Source(layout, path, name)


def _contents(folder: Path) -> str:
    return "it holds " + (
        ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
    )


def _scan(path: Path, separator: str, columns: list[str]) -> pl.LazyFrame:
    """Text columns of a file without header. Further columns, as a tab within a name makes them,
    are cut off."""
    return pl.scan_csv(
        path,
        separator=separator,
        has_header=False,
        new_columns=columns,
        infer_schema=False,
        quote_char=None,
        glob=False,
        truncate_ragged_lines=True,
    )


def _ratings(table: pl.LazyFrame, user: str, item: str, time: str) -> pl.LazyFrame:
    return table.select(user=user, time=pl.col(time).cast(pl.Int64, strict=False), item=item)


def _scan_1m(path: Path, kind: ItemKind) -> pl.LazyFrame:
    # The separator has two characters, polars takes one: every second column is empty.
    columns = ["user", "_1", "item", "_2", "rating", "_3", "time"]
    return _ratings(_scan(path, ":", columns), "user", "item", "time")


def _scan_100k(path: Path, kind: ItemKind) -> pl.LazyFrame:
    return _ratings(_scan(path, "\t", ["user", "item", "rating", "time"]), "user", "item", "time")


def _scan_latest(path: Path, kind: ItemKind) -> pl.LazyFrame:
    return _ratings(
        pl.scan_csv(path, infer_schema=False, glob=False), "userId", "movieId", "timestamp"
    )


def _scan_lastfm(path: Path, kind: ItemKind) -> pl.LazyFrame:
    """Artists or tracks by their id; where a row has none, by their name (a track's after its
    artist's)."""
    table = _scan(path, "\t", ["user", "time", "artist", "artist_name", "track", "track_name"])
    artist = pl.coalesce("artist", "artist_name")
    track = pl.coalesce("track", pl.concat_str(artist, "track_name", separator=" / "))
    time = pl.col("time").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", strict=False).dt.epoch("s")
    return table.select(user="user", time=time, item=artist if kind == "artist" else track)


def _years(item: list[str] | pl.Series, title: list[str] | pl.Series) -> Releases:
    frame = pl.DataFrame(
        {"item": item, "title": title}, schema_overrides={"item": pl.String, "title": pl.String}
    )
    return Releases(
        frame.select("item", released=pl.col("title").str.extract(_YEAR).cast(pl.Int32)), "year"
    )


def _split_latin1(path: Path, separator: str) -> list[list[str]]:
    return [
        line.split(separator)
        for line in path.read_text(encoding="latin-1").splitlines()
        if line.strip()
    ]


def _releases_1m(path: Path) -> Releases:
    rows = _split_latin1(path, "::")
    return _years([row[0] for row in rows], [row[1] if len(row) > 1 else "" for row in rows])


def _releases_100k(path: Path) -> Releases:
    rows = _split_latin1(path, "|")
    date = pl.col("date").str.to_date("%d-%b-%Y", strict=False)
    frame = pl.DataFrame(
        {
            "item": [row[0] for row in rows],
            "date": [row[2] if len(row) > 2 else "" for row in rows],
        },
        schema={"item": pl.String, "date": pl.String},
    )
    return Releases(
        frame.select("item", released=12 * date.dt.year() + date.dt.month().cast(pl.Int32) - 1),
        "month",
    )


def _releases_latest(path: Path) -> Releases:
    frame = pl.read_csv(path, infer_schema=False, columns=["movieId", "title"])
    return _years(frame["movieId"], frame["title"])


LAYOUTS = (
    Layout(
        "MovieLens 1M",
        "ratings.dat",
        re.compile(r"\d+::\d+::[\d.]+::\d+$"),
        ":",
        _scan_1m,
        "movies.dat",
        _releases_1m,
    ),
    Layout(
        "MovieLens 100K",
        "u.data",
        re.compile(r"\d+\t\d+\t[\d.]+\t\d+$"),
        "\t",
        _scan_100k,
        "u.item",
        _releases_100k,
    ),
    Layout(
        "MovieLens latest",
        "ratings.csv",
        re.compile(r"userId,movieId,rating,timestamp$"),
        ",",
        _scan_latest,
        "movies.csv",
        _releases_latest,
    ),
    Layout(
        "LastFM-1K",
        "userid-timestamp-artid-artname-traid-traname.tsv",
        re.compile(r"[^\t]+\t\d{4}-\d\d-\d\dT[\d:.]+Z?\t[^\t]*\t[^\t]*\t[^\t]*\t"),
        "\t",
        _scan_lastfm,
    ),
)
"""what is recognised, the first that fits"""

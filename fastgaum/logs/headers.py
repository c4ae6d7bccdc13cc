"""Text files whose publishers gave them no line of column names: known by their first row, and
given the columns that the same log has where it is written as a table.

Two of them write what happened row by row. Their rows become displays here: the results and clicks
of a search engine (CLARA2), and the paths of players from link to link (Wikispeedia)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from fastgaum.errors import DatasetError, LogFormatError
from fastgaum.untrusted_parquet import (
    COMPRESSED,
    READ_ERRORS,
    first_lines,
    one_line,
    try_lines,
)

LONGEST_FIRST_LINE = 1 << 16
"""bytes of a file that are looked at for its first row"""
LINKS = "links.tsv"
"""the file beside Wikispeedia's paths that says which links each page has"""
MOST_SHOWN = 1 << 28
"""links that all pages of all paths may show; the published paths show 17 million"""
BACK = "<"
"""a click on the browser's button in a path"""
_TIME = r"\d{1,2}/\d{1,2}/\d{4} \d{1,2}:\d\d:\d\d [AP]M"
"""a time of MIND"""


@dataclass(frozen=True)
class Header:
    """The column names that one kind of file lacks; its columns are divided by tabs."""

    name: str
    """the file, as messages call it"""
    alike: re.Pattern[str]
    """what the first row of such a file holds, and no line of column names does"""
    first_row: re.Pattern[str]
    """what a whole first row is"""
    rule: str
    """the same in words"""
    columns: tuple[str, ...]
    """names of its columns, in order"""
    table: Callable[[pl.LazyFrame, Path], pl.LazyFrame]
    """what is read of its rows"""

    def rows(self, path: Path) -> pl.LazyFrame:
        """What is read of a file of this kind, lazily. Raises LogFormatError if it needs a file
        beside it that is not there, or is compressed and damaged."""
        if is_compressed(path):
            try_lines(path)
        rows = pl.scan_csv(
            path,
            separator="\t",
            has_header=False,
            new_columns=list(self.columns),
            infer_schema=False,
            # a quote in a title is a letter
            quote_char=None,
            skip_lines=_start_of(path)[0],
            glob=False,
        )
        return self.table(rows.filter(~pl.all_horizontal(pl.all().is_null())), path)


def search_displays(rows: pl.LazyFrame, _: Path) -> pl.LazyFrame:
    """The result lists of a log of queries (Q) and clicks (C) in order of time. A click belongs to
    its session's latest list. `clicked` are the results of a list that were clicked, each once, the
    first click first; `outside` counts clicks on others, and `all_clicks` has both."""
    asked = (pl.col("type") == "Q").cast(pl.Int64).cum_sum().over("session")
    rows = rows.with_columns(event=asked - 1)
    lists = rows.filter(pl.col("type") == "Q").select(
        "session",
        "event",
        pl.col("time").cast(pl.Int64, strict=False),
        pl.col("item").alias("query"),
        pl.concat_list(_RESULTS).list.drop_nulls().alias("items"),
    )
    inside = pl.col("items").list.contains(pl.col("item"))
    clicks = (
        rows.filter(pl.col("type") == "C")
        .join(lists.select("session", "event", "items"), on=["session", "event"])
        .group_by("session", "event", maintain_order=True)
        .agg(
            clicked=pl.col("item").filter(inside).unique(maintain_order=True),
            outside=(~inside).sum(),
            all_clicks=pl.col("item").unique(maintain_order=True),
        )
    )
    found = lists.join(clicks, on=["session", "event"], how="left", maintain_order="left")
    clicked = pl.col("clicked", "all_clicks").fill_null([])
    return found.with_columns(
        pl.col("clicked").list.first().alias("chosen"), clicked, pl.col("outside").fill_null(0)
    )


def path_displays(rows: pl.LazyFrame, path: Path) -> pl.LazyFrame:
    """The pages of each path, the links that each has, and the one that was followed.

    A click back is no event: the next page is that which it leads to. Neither is a step that is
    none of the page's links. Raises LogFormatError without the links, when it is called or when the
    rows are read."""
    names = (LINKS, *(LINKS + extension for extension in COMPRESSED))
    beside = next((file for name in names if (file := path.with_name(name)).is_file()), None)
    if beside is None:
        raise LogFormatError(
            f"'{path.name}' says which links players followed, and {LINKS} which a page has: it is "
            f"not beside '{path}': copy it there"
        )
    text, whole = pl.String(), pl.Int64()
    lists = pl.List(text)
    types = {"session": whole, "user": text, "time": whole, "event": whole, "page": text}
    schema = pl.Schema({**types, "target": text, "items": lists, "chosen": text})

    def events(frame: pl.DataFrame) -> pl.DataFrame:
        paths = enumerate(frame["path"].fill_null(""))
        steps = pl.DataFrame(
            [step for game, one in paths for step in _steps(game, one)],
            schema={"session": whole, "event": whole, "page": text, "chosen": text, "target": text},
            orient="row",
        )
        time = pl.col("time").cast(whole, strict=False)
        of_game = frame.select("user", time, session=pl.int_range(pl.len()))
        links = _links(beside)
        per_page = links.select("page", n=pl.col("items").list.len())
        n_shown = steps.join(per_page, on="page", how="left")["n"].cast(whole).sum()
        if n_shown > MOST_SHOWN:
            raise LogFormatError(
                f"the paths of '{path.name}' show {n_shown} links, at most {MOST_SHOWN} are read: "
                "give it in several files"
            )
        found = steps.join(of_game, on="session", how="left", maintain_order="left").join(
            links, on="page", how="left", maintain_order="left"
        )
        is_link = pl.col("items").list.contains(pl.col("chosen"))
        return found.filter(is_link).select(schema.names())

    return rows.map_batches(events, schema=schema)


def _steps(game: int, path: str) -> list[tuple[int, int, str, str, str]]:
    """Game, number, page, next page and target of each step of a path."""
    pages = path.split(";")
    way: list[str] = []
    steps: list[tuple[int, int, str, str, str]] = []
    for page in pages:
        if page == BACK:
            del way[max(1, len(way) - 1) :]
            continue
        if way:
            steps.append((game, len(steps), way[-1], page, pages[-1]))
        way.append(page)
    return steps


def _links(path: Path) -> pl.DataFrame:
    """The links of each page (page, items)."""
    if is_compressed(path):
        try_lines(path)
    try:
        rows = pl.read_csv(
            path,
            separator="\t",
            has_header=False,
            new_columns=["page", "link"],
            infer_schema=False,
            quote_char=None,
            skip_lines=_start_of(path)[0],
            glob=False,
        )
    except READ_ERRORS as error:
        raise LogFormatError(
            f"'{path.name}' is no list of links, a page and a link divided by a tab in each line "
            f"({one_line(error)}): copy it again"
        ) from None
    items = pl.col("link").unique(maintain_order=True)
    return rows.drop_nulls().group_by("page", maintain_order=True).agg(items=items)


def _select(*columns: str) -> Callable[[pl.LazyFrame, Path], pl.LazyFrame]:
    return lambda rows, _: rows.select(columns)


_RESULTS = [f"url_{i}" for i in range(10)]
_MIND = ("impression_id", "user_id", "time", "history", "impressions")
HEADERS = (
    Header(
        "behaviors.tsv of MIND",
        re.compile(rf"(?:^|\t){_TIME}(?:\t|$)|\tN\d+-[01](?: N\d+-[01])*$"),
        re.compile(rf"[^\t]+\t[^\t]+\t{_TIME}\t[^\t]*\t\s*\S+-[01](?:\s+\S+-[01])*\s*$"),
        "impression id, user id, time (11/15/2019 8:55:22 AM), history (N12 N7, may be empty) and "
        "impressions with their clicks (N3-1 N9-0; MIND's test part has none)",
        _MIND,
        _select(*_MIND),
    ),
    Header(
        "news.tsv of MIND",
        re.compile(r"^N\d+\t[^\t]*\t[^\t]*\t"),
        re.compile(r"N\d+(?:\t[^\t]*){7}$"),
        "news id, category, subcategory, title, abstract, url, title entities and abstract "
        "entities",
        ("item", "category", "subcategory", *(f"text_{i}" for i in range(5))),
        _select("item", "category", "subcategory"),
    ),
    Header(
        "CLARA2SearchLog",
        re.compile(r"^[^\t]+\t\d+\t[QC]\t"),
        re.compile(r"[^\t]+\t\d+\tQ\t[^\t]+\t[^\t]*(?:\t[^\t]*){10}$"),
        "session, time, Q, query, region and ten results; a click has C and the result instead",
        ("session", "time", "type", "item", "region", *_RESULTS),
        search_displays,
    ),
    Header(
        "paths_finished.tsv of Wikispeedia",
        re.compile(r"^[0-9a-f]{16}\t\d+\t\d+\t"),
        re.compile(r"[^\t]+\t\d+\t\d+\t[^\t]+\t(?:NULL|\d)$"),
        "hashed IP address, time, seconds, path (pages divided by ;) and rating; games that were "
        "given up have other columns",
        ("user", "time", "seconds", "path", "rating"),
        path_displays,
    ),
)
"""the kinds that are known"""


def first_line(path: Path, most: int = LONGEST_FIRST_LINE) -> str:
    """Return a file's first line without its end, up to `most` bytes; bytes that are not UTF-8 are
    replaced. Raises DatasetError if the file cannot be read."""
    return _text(path, most).split("\n", 1)[0].rstrip("\r")


def missing_header(path: Path) -> Header | None:
    """Return what the columns of a file without column names are; None if it is none of the known
    kinds.

    Raises:
        DatasetError: the file cannot be read.
        LogFormatError: it is nearly of such a kind, or is compressed and damaged.
    """
    _, row, whole = _start_of(path)
    header = next((header for header in HEADERS if header.alike.search(row)), None)
    if header is None or not whole:
        return header
    if not header.first_row.match(row):
        raise LogFormatError(
            f"'{path.name}' looks like {header.name}, whose rows have {len(header.columns)} "
            f"columns divided by tabs: {header.rule}; its first row has {row.count(chr(9)) + 1} "
            f"columns and ends in {row[-40:]!r}: copy the file again, or give it a line of column "
            "names and name them by role (--column item=NAME)"
        )
    return header


def _start_of(path: Path) -> tuple[int, str, bool]:
    """Number of lines before a file's first row (comments and blank ones), the row, and whether
    that is the whole of it. Raises DatasetError or LogFormatError if it cannot be read."""
    packed = is_compressed(path)
    lines = first_lines(path) or [""] if packed else _text(path, LONGEST_FIRST_LINE).split("\n")
    row = next((i for i, line in enumerate(lines) if line.strip() and line[0] != "#"), 0)
    ends = packed or row < len(lines) - 1 or path.stat().st_size < LONGEST_FIRST_LINE
    return row, lines[row].rstrip("\r"), ends


def is_compressed(path: Path) -> bool:
    """Whether a file's name says that it is compressed."""
    return path.suffix.lower() in COMPRESSED


def _text(path: Path, most: int) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(most).removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise DatasetError(
            f"cannot read '{path}': {error.strerror}; give a file that can be read"
        ) from None
    return start.decode("utf-8", errors="replace")

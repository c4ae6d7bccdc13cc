"""Text files whose publishers gave them no line of column names. What they hold is told by their
first line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from fastgaum.errors import DatasetError, LogFormatError

LONGEST_FIRST_LINE = 1 << 16
"""bytes of a first line that are looked at"""
_TIME = r"\d{1,2}/\d{1,2}/\d{4} \d{1,2}:\d\d:\d\d [AP]M"
"""a time of MIND"""


@dataclass(frozen=True)
class Header:
    """The column names that one kind of file lacks; its columns are divided by tabs."""

    name: str
    """the file, as messages call it"""
    alike: re.Pattern[str]
    """what the first line of such a file holds, and no line of column names does"""
    first_line: re.Pattern[str]
    """what a whole first line is"""
    rule: str
    """the same in words"""
    columns: tuple[str, ...]
    """names of its columns, in order"""
    kept: tuple[str, ...]
    """those that are read"""

    def rows(self, path: Path) -> pl.LazyFrame:
        """The columns that are read, as text; a quote in them is a letter."""
        return pl.scan_csv(
            path,
            separator="\t",
            has_header=False,
            new_columns=list(self.columns),
            infer_schema=False,
            quote_char=None,
            glob=False,
        ).select(self.kept)


HEADERS = (
    Header(
        "behaviors.tsv of MIND",
        re.compile(rf"(?:^|\t){_TIME}(?:\t|$)|\tN\d+-[01](?: N\d+-[01])*$"),
        re.compile(rf"[^\t]+\t[^\t]+\t{_TIME}\t[^\t]*\t\s*\S+-[01](?:\s+\S+-[01])*\s*$"),
        "impression id, user id, time (11/15/2019 8:55:22 AM), history (N12 N7, may be empty) and "
        "impressions with their clicks (N3-1 N9-0; MIND's test part has none)",
        ("impression_id", "user_id", "time", "history", "impressions"),
        ("impression_id", "user_id", "time", "history", "impressions"),
    ),
    Header(
        "news.tsv of MIND",
        re.compile(r"^N\d+\t[^\t]*\t[^\t]*\t"),
        re.compile(r"N\d+(?:\t[^\t]*){7}$"),
        "news id, category, subcategory, title, abstract, url, title entities and abstract "
        "entities",
        ("item", "category", "subcategory", *(f"text_{i}" for i in range(5))),
        ("item", "category", "subcategory"),
    ),
)
"""the kinds that are known"""


def first_line(path: Path, most: int = LONGEST_FIRST_LINE) -> str:
    """Return a file's first line without its end, up to `most` bytes; bytes that are not UTF-8 are
    replaced. Raises DatasetError if the file cannot be read."""
    try:
        with path.open("rb") as file:
            start = file.read(most).removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise DatasetError(
            f"cannot read '{path}': {error.strerror}; give a file that can be read"
        ) from None
    return start.split(b"\n", 1)[0].rstrip(b"\r").decode("utf-8", errors="replace")


def missing_header(path: Path) -> Header | None:
    """Return what the columns of a file without column names are; None if it is none of the known
    kinds.

    Raises:
        DatasetError: the file cannot be read.
        LogFormatError: it is nearly of such a kind.
    """
    line = first_line(path)
    header = next((header for header in HEADERS if header.alike.search(line)), None)
    if header is None or len(line.encode()) >= LONGEST_FIRST_LINE - 1:
        return header
    if not header.first_line.match(line):
        raise LogFormatError(
            f"'{path.name}' looks like {header.name}, whose lines have {len(header.columns)} "
            f"columns divided by tabs: {header.rule}; its first line has {line.count(chr(9)) + 1} "
            f"columns and ends in {line[-40:]!r}: copy the file again, or give it a line of column "
            "names and name them by role (--column item=NAME)"
        )
    return header

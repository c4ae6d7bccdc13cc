"""Files of rows that somebody else wrote (parquet, arrow, ndjson, text), opened by polars. A
small file may hold billions of rows: files of strangers belong in a container with a memory
limit."""

from __future__ import annotations

import codecs
import os
from operator import index
from pathlib import Path
from typing import Any

import polars as pl

from fastgaum.errors import LogFormatError
from fastgaum.panics import without_panics

PARQUET = (".parquet", ".pq")
ARROW = (".arrow", ".feather", ".ipc")
SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": "\t"}
SIGNS = ",;\t|"
"""what may divide columns"""
NDJSON = (".ndjson", ".jsonl")
COMPRESSED = (".gz", ".zst")
"""what may follow the extension of a file of text"""

MOST_COLUMNS = 10_000
"""columns of a table"""
_BITS = 63
"""of Thrift's longest numbers"""
_REPEATED = 2
"""parquet's code of a field that a row has several times"""
LONGEST_FOOTER = 1 << 20
"""bytes of a parquet footer that are looked at"""
LONGEST_FIRST_LINE = 1 << 20
"""bytes of a file that are looked at for its first row"""

# A damaged page can make polars panic, which is no PolarsError and not even an Exception.
READ_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError)


def one_line(error: BaseException) -> str:
    """First line of a library's message."""
    # a panic's message speaks of polars' code, not of the file
    if isinstance(error, pl.exceptions.PanicException):
        return "polars fails on its contents"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def file_kind(path: Path) -> str:
    """The extension that says what a file holds: `clicks.CSV.gz` → `.csv`; of a compressed file
    that is no text, both of its extensions."""
    last = path.suffix.lower()
    if last not in COMPRESSED:
        return last
    inner = Path(path.stem).suffix.lower()
    return inner if inner in SEPARATORS or inner in NDJSON else inner + last


def separator_of(kind: str, header: str) -> str:
    """The sign between columns of a file of text: that of its extension, or the one other of SIGNS
    that its first line has.

    >>> separator_of(".csv", "session;event;item"), separator_of(".csv", "session")
    (';', ',')
    """
    usual = SEPARATORS.get(kind, "\t")
    found = [sign for sign in SIGNS if sign in header]
    return found[0] if len(found) == 1 else usual


def first_line(path: Path) -> str:
    """A file's first line without its end, or the start of a longer one. Raises READ_ERRORS."""
    if path.suffix.lower() in COMPRESSED:
        lines = lazy_lines(path).head(1).collect()["line"]
        return (lines[0] if len(lines) else None) or ""
    with path.open("rb") as file:
        start = file.readline(LONGEST_FIRST_LINE).removeprefix(codecs.BOM_UTF8)
    return start.decode("utf-8", errors="replace").rstrip("\r\n")


def lazy_rows(path: Path, separator: str | None = None) -> pl.LazyFrame:
    """The rows of a file, of which only the header is read, if it has one. `separator` divides the
    columns of text; None: found in its first line. Raises READ_ERRORS."""
    kind = file_kind(path)
    if kind in SEPARATORS:
        # Everything is read as text: ids keep leading zeros, and a column of mixed types cannot
        # fail halfway.
        separator = separator or separator_of(kind, first_line(path))
        return pl.scan_csv(path, separator=separator, infer_schema=False, glob=False)
    if kind in NDJSON:
        # a column without a value has no type: it is text, as in a csv
        rows = pl.scan_ndjson([path], infer_schema_length=None)
        return rows.with_columns(pl.col(pl.Null).cast(pl.String))
    if kind in PARQUET:
        require_one_count(path)
        return pl.scan_parquet(path, hive_partitioning=False, glob=False)
    with path.open("rb") as file:
        is_stream = file.read(6) != b"ARROW1"
    if is_stream:
        return pl.read_ipc_stream(path).lazy()
    return pl.scan_ipc(path, hive_partitioning=False, glob=False)


def lazy_lines(path: Path) -> pl.LazyFrame:
    """The lines of a file of text, one column `line`. Raises READ_ERRORS."""
    return pl.scan_csv(
        path,
        # what divides units, which no line of text has
        separator="\x1f",
        has_header=False,
        new_columns=["line"],
        infer_schema=False,
        quote_char=None,
        truncate_ragged_lines=True,
        glob=False,
    )


def read_small_parquet(path: Path) -> pl.DataFrame:
    """All columns of a parquet file. Raises LogFormatError if it cannot be read."""
    try:
        with without_panics():
            return pl.read_parquet(path, glob=False)
    except READ_ERRORS as error:
        raise LogFormatError(f"'{path.name}' {damage_text(path, one_line(error))}") from None


def damage_text(path: Path, found: str) -> str:
    """What a message says of a file that a library cannot read."""
    kind = file_kind(path)
    name = "parquet" if kind in PARQUET else "arrow" if kind in ARROW else kind[1:]
    return f"is no readable {name} file (cut short or damaged): {found}; copy or write it again"


def require_one_count(path: Path) -> None:
    """Raise ValueError where a parquet file's footer gives a column another number of rows than its
    row group: polars would read as many as the group says, without a word."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 8, 0))
        length, magic = int.from_bytes(file.read(4), "little"), file.read(4)
        if magic != b"PAR1" or not 0 < length <= min(size - 8, LONGEST_FOOTER):
            return  # polars says what is wrong, or reads it
        file.seek(size - 8 - length)
        footer = file.read(length)
    try:
        about = _Thrift(footer).record()
        whole, repeats = index(about[3]), {one[4]: one.get(3) for one in about[2]}
        groups = [(index(one[3]), [chunk[3] for chunk in one[1]]) for one in about[4]]
        columns = [
            (n, b".".join(one[3]), index(one[5]), [repeats.get(name) for name in one[3]])
            for n, chunks in groups
            for one in chunks
        ]
    except (IndexError, KeyError, TypeError, AttributeError, RecursionError):
        return  # likewise
    if whole != (n := sum(n for n, _ in groups)):
        raise ValueError(f"it says {whole} rows, its row groups {n}")
    for n, name, values, repeat in columns:
        # lists have as many values as they have items, a row at least one
        is_flat = len(repeat) == 1 and repeat[0] != _REPEATED
        if values != n if is_flat else values < n:
            text = name.decode("utf-8", "replace")
            raise ValueError(f"a row group says {n} rows, its column {text!r} holds {values}")


class _Thrift:
    """Reads a record of Thrift's compact protocol, in which parquet's footers are written, as a
    dictionary by field number. Raises IndexError or TypeError for bytes that are none."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def record(self) -> dict[int, Any]:
        """The record that begins here."""
        fields, number = {}, 0
        while (head := self._byte()) != 0:
            number = number + (head >> 4) if head >> 4 else self._signed()
            kind = head & 15
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind)
        return fields

    def _value(self, kind: int) -> Any:
        if kind in (1, 2, 3):
            return self._byte()
        if kind in (4, 5, 6):
            return self._signed()
        if kind == 7:
            self.at += 8
            return None
        if kind == 8:
            n = self._unsigned()
            self.at += n
            return self.data[self.at - n : self.at]
        if kind in (9, 10):
            head = self._byte()
            n = head >> 4 if head >> 4 != 15 else self._unsigned()
            return [self._value(head & 15) for _ in range(n)]
        if kind == 12:
            return self.record()
        raise TypeError(f"kind {kind}")

    def _byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def _unsigned(self) -> int:
        found = shift = 0
        while (byte := self._byte()) & 128:
            found, shift = found | (byte & 127) << shift, shift + 7
            if shift > _BITS:
                raise TypeError("a number without end")
        return found | byte << shift

    def _signed(self) -> int:
        found = self._unsigned()
        return found >> 1 ^ -(found & 1)

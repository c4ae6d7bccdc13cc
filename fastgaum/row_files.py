"""Files of rows that somebody else wrote (parquet, arrow, ndjson, text), opened by polars. A
small file may hold billions of rows: files of strangers belong in a container with a memory
limit."""

from __future__ import annotations

import codecs
from pathlib import Path

import polars as pl

from fastgaum.errors import LogFormatError

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
        return pl.read_parquet(path, glob=False)
    except READ_ERRORS as error:
        raise LogFormatError(f"'{path.name}' {damage_text(path, one_line(error))}") from None


def damage_text(path: Path, found: str) -> str:
    """What a message says of a file that a library cannot read."""
    kind = file_kind(path)
    name = "parquet" if kind in PARQUET else "arrow" if kind in ARROW else kind[1:]
    return f"is no readable {name} file (cut short or damaged): {found}; copy or write it again"

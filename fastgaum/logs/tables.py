"""Files of rows (csv, tsv, parquet, arrow, npz, or a folder of parquet files), opened lazily by
polars, and the types of their columns where they are read in pieces.

Reading a table whole, text is numbers if every value reads as one, and a number is an id if all are
whole. A piece cannot know that: the columns in doubt are looked through first, streaming, and then
every piece is cast alike."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import polars as pl

from fastgaum.errors import LogFormatError, did_you_mean
from fastgaum.logs.fields import is_list
from fastgaum.logs.headers import missing_header
from fastgaum.logs.npz import archive_rows
from fastgaum.logs.schema import LogSchema
from fastgaum.untrusted_parquet import (
    ARROW,
    PARQUET,
    READ_ERRORS,
    lazy_rows,
    one_line,
    try_columns,
    try_header,
)

SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": "\t"}
ARCHIVE = ".npz"
EXTENSIONS = (*SEPARATORS, *PARQUET, *ARROW, ARCHIVE)

LONGEST_LINE = 1 << 20
"""bytes of a csv line: one of this length may pass, one of twice this length does not"""
MOST_COLUMNS = 10_000
"""columns of a table"""


@dataclass(frozen=True)
class FileTable:
    """An opened file or folder; nothing but its header has been read."""

    parts: tuple[tuple[Path, pl.LazyFrame], ...]
    """each file and its rows"""
    dtypes: dict[str, pl.DataType]
    """type of each column"""
    untyped: bool
    """whether every column is text because the format has no types (csv)"""
    stored: tuple[str, ...] = ()
    """columns of the files, where others are made of them; empty: all are the files' own"""

    def check(self, columns: Sequence[str]) -> None:
        """Raise LogFormatError naming a part whose columns cannot be decoded, or would grow beyond
        proportion."""
        for path, _ in self.parts:
            if path.suffix.lower() in (*PARQUET, *ARROW):
                try_columns(path, self.stored or columns)

    def read(self, columns: Sequence[str]) -> pl.DataFrame:
        """Rows of all parts, in name order, with the given columns. Raises LogFormatError naming a
        damaged part."""
        self.check(columns)
        frames = [_collect(path, part, list(columns)) for path, part in self.parts]
        try:
            return frames[0] if len(frames) == 1 else pl.concat(frames, how="vertical_relaxed")
        except pl.exceptions.PolarsError as error:
            raise LogFormatError(
                f"the shards' columns differ in type ({one_line(error)}): write them alike"
            ) from None


def open_table(path: Path) -> FileTable:
    """Open a file, or a folder of parquet shards. Raises LogFormatError if it is missing, unknown
    or damaged."""
    if not path.exists():
        near = sorted(other.name for other in path.parent.iterdir()) if path.parent.is_dir() else []
        raise LogFormatError(
            f"no such file or folder: '{path}'{did_you_mean(path.name, near)}; check the path"
        )
    if path.is_dir():
        return _open_folder(path)
    lazy = _scan(path)
    return FileTable(((path, lazy),), _dtypes(path, lazy), _is_lines(path))


def check_lines(path: Path, separator: str) -> None:
    """Raise LogFormatError for a file of lines whose lines are too long to be any, or too wide;
    only a page per MB is read."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        end = data.find(b"\n", 0, LONGEST_LINE)
        n_columns = data[: LONGEST_LINE if end < 0 else end].count(separator.encode()) + 1
        if n_columns > MOST_COLUMNS:
            raise LogFormatError(
                f"'{path.name}' has {n_columns} columns, at most {MOST_COLUMNS} are read: keep "
                "those that you need"
            )
        for start in range(0, len(data) - LONGEST_LINE, LONGEST_LINE):
            if data.find(b"\n", start, start + LONGEST_LINE) < 0:
                raise LogFormatError(
                    f"'{path.name}' has no line end in the {LONGEST_LINE} bytes from byte {start} "
                    "on, rows are shorter: write one row per line, lines ended by \\n"
                )


def _open_folder(path: Path) -> FileTable:
    shards = sorted(
        p for p in path.iterdir() if p.suffix.lower() in PARQUET and p.name[0] not in "._"
    )
    if not shards:
        found = ", ".join(sorted(p.name for p in path.iterdir())[:5]) or "nothing"
        raise LogFormatError(
            f"folder '{path}' has no parquet shards (it holds {found}): name a file, or a folder "
            "of .parquet files"
        )
    parts = tuple((shard, _scan(shard)) for shard in shards)
    dtypes = _dtypes(*parts[0])
    for shard, lazy in parts[1:]:
        missing = [column for column in dtypes if column not in _dtypes(shard, lazy)]
        if missing:
            raise LogFormatError(
                f"shard '{shard.name}' lacks the column '{missing[0]}' that '{shards[0].name}' has:"
                " all shards need the same columns"
            )
    return FileTable(parts, dtypes, untyped=False)


def _is_lines(path: Path) -> bool:
    """Whether a file is lines of text; a publisher may give it no extension."""
    return path.suffix.lower() in ("", *SEPARATORS)


def _scan(path: Path) -> pl.LazyFrame:
    suffix = path.suffix.lower()
    header = missing_header(path) if _is_lines(path) else None
    if header is None and suffix not in EXTENSIONS:
        raise LogFormatError(
            f"'{path.name}' has the extension '{suffix}', one of {', '.join(EXTENSIONS)} is "
            "required: convert it"
        )
    if path.stat().st_size == 0:
        raise LogFormatError(f"'{path.name}' is empty (0 bytes): a log needs at least one event")
    if suffix == ARCHIVE:
        return archive_rows(path)
    separator = "\t" if header is not None else SEPARATORS.get(suffix)
    if separator is not None:
        check_lines(path, separator)
    else:
        try_header(path)
    try:
        if header is not None:
            return header.rows(path)
        if separator is not None:
            # Everything is read as text: ids keep leading zeros, and a column of mixed types cannot
            # fail halfway.
            return pl.scan_csv(path, separator=separator, infer_schema=False, glob=False)
        return lazy_rows(path)
    except READ_ERRORS as error:
        raise damaged(path, error) from None


def _dtypes(path: Path, lazy: pl.LazyFrame) -> dict[str, pl.DataType]:
    try:
        dtypes = dict(lazy.collect_schema())
    except READ_ERRORS as error:
        raise damaged(path, error) from None
    # A header that is not UTF-8 is read all the same, its bytes replaced.
    if (
        path.suffix.lower() in SEPARATORS
        and any("\ufffd" in column for column in dtypes)
        and _first_non_utf8(path)
    ):
        raise damaged(path, ValueError("header"))
    return dtypes


def _collect(path: Path, lazy: pl.LazyFrame, columns: list[str]) -> pl.DataFrame:
    try:
        return lazy.select(columns).collect()
    except READ_ERRORS as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: BaseException) -> LogFormatError:
    """The clearest text for a file that polars refused."""
    if _is_lines(path):
        place = _first_non_utf8(path)
        if place is not None:
            line, byte = place
            return LogFormatError(
                f"'{path.name}' is not UTF-8: line {line} has the byte 0x{byte:02x};"
                f" convert it, for example `iconv -f latin1 -t utf-8 {path.name}`"
            )
        return LogFormatError(
            f"'{path.name}' is no well-formed csv: {one_line(error)}; check quotes and the number "
            "of columns"
        )
    kinds = {ARCHIVE: "npz", **dict.fromkeys(PARQUET, "parquet")}
    kind = kinds.get(path.suffix.lower(), "arrow")
    return LogFormatError(
        f"'{path.name}' is no readable {kind} file (cut short or damaged): {one_line(error)}; copy "
        "or write it again"
    )


def _first_non_utf8(path: Path) -> tuple[int, int] | None:
    """Line (from 1) and value of the first byte that is not UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return number, line[error.start]
    return None


TIME = pl.Datetime("us", "UTC")
CONTEXT_KINDS = (pl.Int128(), pl.Float64())
"""what an untyped column of the context may hold: ids, whose text stays as it is, or numbers"""
_ID_ROLES = ("session", "user", "item", "items", "chosen", "split")


@dataclass(frozen=True)
class TypedTable:
    """Files of one table and the type of each column that is read."""

    parts: tuple[tuple[Path, pl.LazyFrame], ...]
    types: Mapping[str, pl.DataType]

    def pieces(self, n_rows: int) -> Iterator[tuple[Path, int, pl.DataFrame]]:
        """Yield at most `n_rows` rows at a time, in order, with their file and the number of rows
        before them in it.

        Raises:
            LogFormatError: naming a damaged file.
        """
        for path, lazy in self.parts:
            before = 0
            for piece in _batches(path, lazy.select(list(self.types)), n_rows):
                for frame in piece.iter_slices(n_rows):
                    yield (
                        path,
                        before,
                        frame.select(
                            _cast(frame[name], dtype) for name, dtype in self.types.items()
                        ),
                    )
                    before += frame.height


def _batches(path: Path, lazy: pl.LazyFrame, n_rows: int) -> Iterator[pl.DataFrame]:
    try:
        yield from lazy.collect_batches(chunk_size=n_rows, maintain_order=True)
    except READ_ERRORS as error:
        raise damaged(path, error) from None


def decide_types(tables: Sequence[FileTable], schema: LogSchema) -> TypedTable:
    """Decide the type of every column that the schema names, over all tables.

    Raises:
        LogFormatError: a table lacks a column, two disagree on its type, or one is damaged.
    """
    parts = tuple(part for table in tables for part in table.parts)
    names = schema.columns()
    for table in tables:
        missing = [name for name in names if name not in table.dtypes]
        if missing:
            raise LogFormatError(
                f"'{table.parts[0][0].name}' lacks the column '{missing[0]}' that "
                f"'{parts[0][0].name}' has: all files need the same columns"
            )
    for name in names:
        if len({is_list(table.dtypes[name]) for table in tables}) > 1:
            raise LogFormatError(
                f"the files' columns differ in type ('{name}' holds lists in some): write them "
                "alike"
            )
    try:
        common = pl.concat(
            [pl.DataFrame(schema={name: table.dtypes[name] for name in names}) for table in tables],
            how="vertical_relaxed",
        ).schema
    except pl.exceptions.PolarsError as error:
        raise LogFormatError(
            f"the files' columns differ in type ({one_line(error)}): write them alike"
        ) from None
    for table in tables:
        table.check(names)
    doubts: dict[str, tuple[pl.DataType, ...]] = {}
    for role in ("event", "event_label"):
        name = getattr(schema, role)
        if name is not None and _is_text(common[name]):
            doubts[name] = (pl.Int64(), pl.Float64(), TIME)
    for name in schema.candidate_fields:
        if common[name] == pl.String and any(table.untyped for table in tables):
            doubts[name] = (pl.Int64(), pl.Float64())
    for name in schema.context_fields:
        of_text = common[name] == pl.String and name not in doubts
        if of_text and any(table.untyped for table in tables):
            doubts[name] = CONTEXT_KINDS
    for role in _ID_ROLES:
        name = getattr(schema, role)
        if name is not None and name not in doubts and _inner(common[name]).is_float():
            doubts[name] = (pl.Int64(),)
    decided = _decided(parts, doubts, common)
    for name in schema.context_fields:
        if decided.get(name) == CONTEXT_KINDS[0]:
            decided[name] = pl.String()
    return TypedTable(parts, {**common, **decided})


def _decided(
    parts: Sequence[tuple[Path, pl.LazyFrame]],
    doubts: Mapping[str, tuple[pl.DataType, ...]],
    common: pl.Schema,
) -> dict[str, pl.DataType]:
    """The first type in doubt that every filled value of a column allows; text, or what it is, if
    none does."""
    fits = {name: dict.fromkeys(kinds, True) for name, kinds in doubts.items()}
    filled = dict.fromkeys(doubts, False)
    for path, lazy in parts if doubts else ():
        tests = [
            (~_values(name, common[name]).is_null() & ~_allows(name, common[name], kind))
            .any()
            .alias(f"{i} {j}")
            for i, (name, kinds) in enumerate(doubts.items())
            for j, kind in enumerate(kinds)
        ]
        some = [
            _values(name, common[name]).is_not_null().any().alias(f"{i}")
            for i, name in enumerate(doubts)
        ]
        # one at a time: exploded lists are longer than the rest
        try:
            found = {
                k: v
                for one in (*tests, *some)
                for k, v in lazy.select(one).collect(engine="streaming").row(0, named=True).items()
            }
        except READ_ERRORS as error:
            raise damaged(path, error) from None
        for i, (name, kinds) in enumerate(doubts.items()):
            filled[name] |= bool(found[f"{i}"])
            for j, kind in enumerate(kinds):
                fits[name][kind] &= not found[f"{i} {j}"]
    decided: dict[str, pl.DataType] = {}
    for name, allowed in fits.items():
        text = pl.String() if _is_text(common[name]) else _inner(common[name])
        kind = next((kind for kind, fit in allowed.items() if fit and filled[name]), text)
        decided[name] = pl.List(kind) if is_list(common[name]) else kind
    return decided


def _is_text(dtype: pl.DataType) -> bool:
    return isinstance(dtype, pl.String | pl.Categorical | pl.Enum)


def _inner(dtype: pl.DataType) -> pl.DataType:
    inner = dtype.inner if isinstance(dtype, pl.List | pl.Array) else dtype
    return cast(pl.DataType, inner)


def _values(name: str, dtype: pl.DataType) -> pl.Expr:
    """A column's values: of a list its entries, of numbers without NaN."""
    column = pl.col(name)
    if is_list(dtype):
        column = column.explode()
    return (
        column.fill_nan(None)
        if _inner(dtype).is_float()
        else column.cast(pl.String)
        if _is_text(dtype)
        else column
    )


def _allows(name: str, dtype: pl.DataType, kind: pl.DataType) -> pl.Expr:
    """Whether a value reads as the type."""
    values = _values(name, dtype)
    if kind == TIME:
        return values.str.to_datetime(strict=False, time_zone="UTC").is_not_null()
    cast = values.cast(kind, strict=False)
    return cast.is_not_null() if _is_text(dtype) else cast.is_not_null() & (cast == values)


def _cast(column: pl.Series, dtype: pl.DataType) -> pl.Series:
    """A piece's column in the type decided on; what does not fit becomes null, and is refused."""
    if column.dtype == dtype:
        return column
    if dtype == TIME and _is_text(column.dtype):
        return column.cast(pl.String).str.to_datetime(strict=False, time_zone="UTC")
    if _inner(column.dtype).is_float() and not _inner(dtype).is_float():
        return column.cast(dtype, strict=False)
    return column.cast(dtype)

"""Files of rows (csv, tsv and ndjson, compressed or not, parquet, arrow, or a folder of parquet
files), opened lazily by polars; and frames in memory."""

from __future__ import annotations

import codecs
import mmap
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeGuard, cast

import polars as pl

from fastgaum.errors import DatasetError, LogFormatError, did_you_mean, require_path, type_name
from fastgaum.logs.public_formats import (
    NAMELESS_FILES,
    PUBLIC_LOGS,
    NamelessFile,
    PublicLog,
    find_layout,
)
from fastgaum.panics import without_panics
from fastgaum.row_files import (
    ARROW,
    COMPRESSED,
    MOST_COLUMNS,
    NDJSON,
    PARQUET,
    READ_ERRORS,
    SEPARATORS,
    SIGNS,
    damage_text,
    file_kind,
    first_line,
    lazy_rows,
    one_line,
    separator_of,
)

EXTENSIONS = (*SEPARATORS, *NDJSON, *PARQUET, *ARROW)

LONGEST_LINE = 1 << 20
"""bytes; a csv line of twice this length is refused"""


_TWICE = re.compile(r"_duplicated_\d+$")
_INDEX_LEVEL = re.compile(r"__index_level_\d+__")
"""what pyarrow calls a level of pandas' index without a name"""


@dataclass(frozen=True)
class FileTable:
    """An opened file or folder; nothing but its header has been read."""

    parts: tuple[tuple[Path, pl.LazyFrame], ...]
    dtypes: dict[str, pl.DataType]
    stored: tuple[str, ...] = ()
    """columns of the files, where others are made of them"""

    @classmethod
    def of(cls, frame: pl.DataFrame) -> FileTable:
        """A frame in memory as a table."""
        return cls(((Path("frame"), frame.lazy()),), dict(frame.schema))

    def head(self, columns: Sequence[str]) -> pl.DataFrame:
        """The first rows of the first part. Raises LogFormatError as `read`."""
        path, part = self.parts[0]
        with _reading(path):
            return part.select(columns).head(5).collect()

    def where(self, column: str, keep: Callable[[pl.Series], pl.Series]) -> FileTable:
        """The rows whose value of a column `keep` takes, which makes a mask of distinct values.
        That column alone is read now. Raises LogFormatError as `read`."""
        parts = []
        for path, part in self.parts:
            with _reading(path):
                values = part.select(pl.col(column).unique()).collect(engine="streaming")[column]
            kept = values.filter(keep(values))
            taken = pl.col(column).is_in(kept.implode(), nulls_equal=True)
            parts.append((path, part.filter(taken)))
        return replace(self, parts=tuple(parts))

    def read(self, columns: Sequence[str]) -> pl.DataFrame:
        """Rows of all parts, in name order. Raises LogFormatError naming a damaged part."""
        frames = []
        for path, part in self.parts:
            with _reading(path):
                frames.append(part.select(columns).collect())
        for name in frames[0].columns:
            held = {_kind_of(frame[name].dtype): frame[name].dtype for frame in frames}
            held.pop("nothing", None)
            if len(held) > 1 and ("times" in held or {"decimals", "text"} <= {*held}):
                raise LogFormatError(
                    f"column '{name}' is {' in one shard, '.join(map(str, held.values()))} in "
                    "another: write the shards alike"
                )
        try:
            return frames[0] if len(frames) == 1 else pl.concat(frames, how="vertical_relaxed")
        except pl.exceptions.PolarsError as error:
            raise LogFormatError(
                f"the shards' columns differ in type ({one_line(error)}): write them alike"
            ) from None


def _kind_of(dtype: pl.DataType) -> str:
    """The kind of a column's values, or of those of its lists."""
    dtype = getattr(dtype, "inner", dtype)
    if isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
        return "text"
    if dtype.is_temporal():
        return "times"
    if dtype.is_float() or dtype.is_decimal():
        return "decimals"
    return "nothing" if dtype == pl.Null else "others"


def open_table(path: Path, delimiter: str | None = None) -> FileTable:
    """Open a file, or a folder of parquet shards; `delimiter` divides the columns of text, None: as
    its first line says. Raises LogFormatError, and ConfigError if it can have no such name."""
    require_path("a table", path)
    if not path.exists():
        near = sorted(other.name for other in path.parent.iterdir()) if path.parent.is_dir() else []
        raise LogFormatError(
            f"no such file or folder: '{path}'{did_you_mean(path.name, near)}; check the path"
        )
    if path.is_dir():
        return _open_folder(path)
    kind, size = file_kind(path), path.stat().st_size
    first = _first_line(path) if _is_text(path) and size else ""
    nameless = next((one for one in NAMELESS_FILES if one.first_row.match(first)), None)
    if nameless is None and kind not in EXTENSIONS:
        raise LogFormatError(
            f"'{path.name}' has the extension '{kind}', one of {', '.join(EXTENSIONS)} is required"
            f" (text may be compressed: {', '.join(COMPRESSED)}): convert it"
        )
    if size == 0:
        raise LogFormatError(f"'{path.name}' is empty (0 bytes): a log needs at least one event")
    if nameless is not None:
        delimiter = nameless.separator
    if _is_plain(path):
        _refuse_utf16(path)
        check_lines(path, delimiter or separator_of(kind, first))
    with _reading(path):
        rows = _nameless_rows(path, nameless) if nameless else lazy_rows(path, delimiter)
    return FileTable(((path, rows),), _dtypes(path, rows))


def open_known(path: Path, delimiter: str | None = None) -> tuple[FileTable, PublicLog | None]:
    """Open a log's file or folder, and say which public log it is, if any."""
    if path.is_dir():
        for layout in PUBLIC_LOGS:
            for file in (path / (name + end) for name in layout.files for end in ("", *COMPRESSED)):
                if file.is_file() and find_layout((table := open_table(file)).dtypes) is layout:
                    return _of_layout(table, layout), layout
    return known_table(open_table(path, delimiter))


def known_table(table: FileTable) -> tuple[FileTable, PublicLog | None]:
    """A table as rows of displays, and which public log it is."""
    found = find_layout(table.dtypes)
    return (table, None) if found is None else (_of_layout(table, found), found)


def _of_layout(table: FileTable, layout: PublicLog) -> FileTable:
    if layout.displays is None:
        return table
    parts = tuple((path, layout.displays(rows)) for path, rows in table.parts)
    dtypes = dict(parts[0][1].collect_schema())
    return replace(table, parts=parts, dtypes=dtypes, stored=tuple(table.dtypes))


class ArrowFrame(Protocol):
    """A table in memory that has the Arrow PyCapsule interface."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The table as a capsule of an Arrow stream."""


Frame = ArrowFrame | pl.LazyFrame
LogSource = str | os.PathLike[str] | Frame
"""a path, or a frame in memory"""


@dataclass(frozen=True)
class _Stream:
    """Hides a frame's library: polars has ways of its own with pandas."""

    frame: ArrowFrame

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.frame.__arrow_c_stream__(requested_schema)


def is_frame(source: object) -> TypeGuard[Frame]:
    """Whether it is a frame in memory."""
    has_stream = hasattr(source, "__arrow_c_stream__") and not isinstance(source, type)
    return has_stream or isinstance(source, pl.LazyFrame)


def frame_of(source: object) -> pl.DataFrame:
    """The rows of a frame in memory, with named levels of pandas' index. Raises LogFormatError for
    no frame and for columns that a log may not hold."""
    kind = type_name(source)
    try:
        if isinstance(source, pl.LazyFrame):
            return source.collect()
        if isinstance(source, pl.DataFrame):
            return source
        if not is_frame(source):
            raise LogFormatError(
                f"a log is a path or a frame (polars, pandas, pyarrow, or another with the Arrow "
                f"PyCapsule interface), got {kind}: give one of them, "
                "polars.DataFrame(…) makes a frame of columns by name"
            )
        with without_panics():
            frame = pl.DataFrame(_Stream(cast(ArrowFrame, source)))
    except LogFormatError:
        raise
    except ImportError as error:
        raise LogFormatError(
            f"a {kind} hands over its columns by a package that is absent ({one_line(error)}): "
            "`pip install pyarrow`, or give a polars frame"
        ) from None
    # a stranger's frame may raise anything
    except (Exception, pl.exceptions.PanicException) as error:
        raise LogFormatError(
            f"the {kind} cannot be read as a frame of columns ({one_line(error)}): columns need "
            "names that differ, and each values of one kind, numbers, text, times or lists of them"
        ) from None
    return frame.drop(name for name in frame.columns if _INDEX_LEVEL.fullmatch(name))


def stem_of(path: Path) -> str:
    """A file's or folder's name without its extensions: `clicks.csv.gz` → `clicks`."""
    return Path(path.stem).stem if path.suffix.lower() in COMPRESSED else path.stem


@contextmanager
def naming(source: object, table: str = "") -> Iterator[None]:
    """Name the file in errors of its log, or of a `table` beside it."""
    try:
        yield
    except LogFormatError as error:
        path = Path(source) if isinstance(source, str | os.PathLike) else None
        if path is None:
            raise
        if not table and (f"'{path.name}'" in str(error) or str(path) in str(error)):
            raise
        raise LogFormatError(f"{table} {path.name or path}: {error}".lstrip()) from None


def check_lines(path: Path, separator: str) -> None:
    """Raise LogFormatError for a file whose lines are too long or too wide."""
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
    folders = sorted(p for p in path.iterdir() if p.is_dir() and _PARTITION.fullmatch(p.name))
    if folders and not shards:
        # as DuckDB and Spark write them: a folder of files for each value of a column
        parts = tuple(
            (folder, pl.concat([rows for _, rows in _open_folder(folder).parts]))
            for folder in folders
        )
        return _of_parts(parts, [*folders])
    if not shards:
        found = ", ".join(sorted(p.name for p in path.iterdir())[:5]) or "nothing"
        raise LogFormatError(
            f"folder '{path}' has no parquet shards (it holds {found}): name a file, or a folder "
            "of .parquet files"
        )
    others = sorted({*_tables_below(path)} - {*shards})
    if others:
        raise LogFormatError(
            f"folder '{path}' holds '{others[0].relative_to(path)}' beside its {len(shards)} "
            f"parquet shards ({len(others)} such files), one log is a folder of parquet files and "
            "of no other tables, also below it: move what is no part of the log elsewhere, or the "
            "shards into one folder"
        )
    return _of_parts(tuple(part for shard in shards for part in open_table(shard).parts), shards)


def _of_parts(parts: tuple[tuple[Path, pl.LazyFrame], ...], shards: Sequence[Path]) -> FileTable:
    """Raises LogFormatError where parts differ in their columns."""
    dtypes = _dtypes(*parts[0])
    for shard, lazy in parts[1:]:
        own = _dtypes(shard, lazy)
        missing = [name for name in (*dtypes, *own) if name not in dtypes or name not in own]
        if missing:
            lacks, has = (shard, shards[0]) if missing[0] in dtypes else (shards[0], shard)
            raise LogFormatError(
                f"shard '{lacks.name}' lacks the column '{missing[0]}' that '{has.name}' has: "
                "all shards need the same columns"
            )
    return FileTable(parts, dtypes)


_PARTITION = re.compile(r"[A-Za-z_]\w*=.*")


def _tables_below(folder: Path) -> Iterator[Path]:
    """The tables of a folder and of those below it; a .txt is taken for a note."""
    for entry in folder.iterdir():
        if entry.name[0] in "._" or entry.is_symlink():
            continue
        if entry.is_dir():
            yield from _tables_below(entry)
        elif file_kind(entry) in EXTENSIONS and file_kind(entry) != ".txt":
            yield entry


def _is_text(path: Path) -> bool:
    return file_kind(path) in ("", ".dat", ".data", *SEPARATORS, *COMPRESSED)


def _is_plain(path: Path) -> bool:
    return _is_text(path) and path.suffix.lower() not in COMPRESSED


def _first_line(path: Path) -> str:
    try:
        return first_line(path)
    except READ_ERRORS as error:
        if not _is_plain(path):
            raise damaged(path, error) from None
        raise DatasetError(
            f"cannot read '{path}': {getattr(error, 'strerror', error)}; give a file that can be "
            "read"
        ) from None


def _nameless_rows(path: Path, kind: NamelessFile) -> pl.LazyFrame:
    rows = pl.scan_csv(
        path,
        separator=kind.separator,
        has_header=False,
        new_columns=list(kind.columns),
        infer_schema=False,
        # a quote in a title is a letter
        quote_char=None,
        truncate_ragged_lines=kind.cut,
        glob=False,
    )
    rows = rows.select(name for name in kind.columns if name[0] != "_")
    return rows.filter(~pl.all_horizontal(pl.all().is_null()))


def _refuse_utf16(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise LogFormatError(
                f"'{path.name}' is UTF-16, UTF-8 is required: save it so (CSV UTF-8 of a "
                f"spreadsheet), or convert it: `iconv -f utf-16 -t utf-8 {path.name}`"
            )


def _dtypes(path: Path, lazy: pl.LazyFrame) -> dict[str, pl.DataType]:
    with _reading(path):
        dtypes = dict(lazy.collect_schema())
    if len(dtypes) > MOST_COLUMNS:
        raise LogFormatError(
            f"'{path.name}' has {len(dtypes)} columns, at most {MOST_COLUMNS} are read: keep those "
            "that you need"
        )
    if _is_text(path):
        _check_names(path, list(dtypes))
    # A header that is not UTF-8 is read all the same, its bytes replaced.
    if _is_plain(path) and any("\ufffd" in column for column in dtypes) and _first_non_utf8(path):
        raise damaged(path, ValueError("header"))
    return dtypes


def _check_names(path: Path, names: list[str]) -> None:
    # polars calls the second `item` of a header `item_duplicated_0`
    twice = next((name for name in names if _TWICE.sub("", name) in set(names) - {name}), None)
    if twice is not None:
        raise LogFormatError(
            f"'{path.name}' has two columns '{_TWICE.sub('', twice)}': rename or drop one"
        )
    if len(names) == 1 and any(sign in names[0] for sign in SIGNS):
        raise LogFormatError(
            f"'{path.name}' has one column, {names[0][:60]!r}: name what divides columns, "
            "--delimiter ';' (delimiter=';'), or write it again with commas"
        )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what polars raises on a file into the clearest LogFormatError, its panics' text into
    nothing."""
    try:
        with nullcontext() if _is_text(path) else without_panics():
            yield
    except READ_ERRORS as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: BaseException) -> LogFormatError:
    """The clearest text for a file that polars refused."""
    if _is_plain(path):
        if (place := _first_non_utf8(path)) is not None:
            line, byte = place
            return LogFormatError(
                f"'{path.name}' is not UTF-8: line {line} has the byte 0x{byte:02x};"
                f" convert it, for example `iconv -f latin1 -t utf-8 {path.name}`"
            )
        return LogFormatError(
            f"'{path.name}' is no well-formed csv: {one_line(error)}; check quotes and the number "
            "of columns"
        )
    return LogFormatError(f"'{path.name}' {damage_text(path, one_line(error))}")


def _first_non_utf8(path: Path) -> tuple[int, int] | None:
    """Line (from 1) and value of the first byte that is not UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return number, line[error.start]
    return None

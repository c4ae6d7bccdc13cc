"""A log's file, folder or frame, opened: its rows, what its columns are, and which public log it
is."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from fastgaum.errors import LogFormatError
from fastgaum.logs.number_text import MAYBE_THOUSANDS, pointed
from fastgaum.logs.options import ReadOptions
from fastgaum.logs.public_formats import PUBLIC_LOGS, PublicLog, find_layout
from fastgaum.logs.schema import LogSchema, resolve_schema
from fastgaum.logs.tables import FileTable, LogSource, frame_of, open_table
from fastgaum.row_files import COMPRESSED


@dataclass(frozen=True)
class OpenedLog:
    """A log's rows, opened: nothing but headers has been read."""

    table: FileTable
    schema: LogSchema
    options: ReadOptions
    """what was given, and what its layout adds"""

    @property
    def not_read(self) -> tuple[str, ...]:
        """Columns that play no role and are no fields. A public log says that itself."""
        columns = self.table.stored or tuple(self.table.dtypes)
        read = {*self.schema.columns()} - {self.schema.time_beside}
        return tuple(one for one in columns if one not in read and find_layout(columns) is None)


def open_log(source: LogSource | FileTable, options: ReadOptions) -> OpenedLog:
    """Open a log's file or folder, or a frame. A public log brings its roles, columns and options;
    an option that is given comes before them. Raises LogFormatError as `open_table`, and for a role
    without a column."""
    if isinstance(source, str | os.PathLike):
        table, layout = open_known(Path(source), options.delimiter)
    else:
        frame = source if isinstance(source, FileTable) else FileTable.of(frame_of(source))
        table, layout = _known(frame)
    if layout is not None:
        options = layout.options_with(options)
    try:
        schema = resolve_schema(table.dtypes, options)
    except LogFormatError as error:
        if layout is None:
            raise
        named = f"; it is read as {layout.name}: --column ROLE=COLUMN names another"
        raise LogFormatError(f"{error}{named}") from None
    return OpenedLog(with_points_in(table, schema, options), schema, options)


def with_points_in(table: FileTable, schema: LogSchema, options: ReadOptions) -> FileTable:
    """A table with the numbers of its fields written with a point, where the options name their
    decimal sign. Raises LogFormatError where none is named and 1.087 may be a thousand: what
    divides columns by semicolons often writes decimal commas."""
    fields = (*schema.candidate_fields, *schema.context_fields)
    text = [name for name in fields if table.dtypes.get(name) == pl.String]
    if not table.untyped or not text or (options.decimal is None and table.separator != ";"):
        return table
    if options.decimal is not None:
        own = [pointed(pl.col(name), options.decimal) for name in text]
        parts = tuple((path, rows.with_columns(own)) for path, rows in table.parts)
        return dataclasses.replace(table, parts=parts)
    for path, rows in table.parts:
        of_file = dataclasses.replace(table, parts=((path, rows),)).read(text)
        for name in text:
            value = of_file[name].drop_nulls().first()
            if value is not None and of_file[name].str.contains(MAYBE_THOUSANDS).all():
                raise LogFormatError(
                    f"'{name}' has values such as {value!r} alone, in a file of semicolons: does "
                    "the point divide thousands or decimals? Name the decimal sign, --decimal , "
                    "(decimal=',') or --decimal . (decimal='.')"
                )
    return table


def open_known(path: Path, delimiter: str | None = None) -> tuple[FileTable, PublicLog | None]:
    """Open a log's file or folder, and say which public log it is; None if it is none. In a folder
    that holds more, the file of displays, or of choices, is found by its publisher's name."""
    if path.is_dir():
        for layout in PUBLIC_LOGS:
            for file in (path / (name + end) for name in layout.files for end in ("", *COMPRESSED)):
                if file.is_file() and find_layout((table := open_table(file)).dtypes) is layout:
                    return _of_layout(table, layout), layout
    return _known(open_table(path, delimiter))


def _known(table: FileTable) -> tuple[FileTable, PublicLog | None]:
    found = find_layout(table.dtypes)
    return (table, None) if found is None else (_of_layout(table, found), found)


def _of_layout(table: FileTable, layout: PublicLog) -> FileTable:
    """The rows of displays of a public log's file."""
    parts = tuple((path, layout.displays(rows)) for path, rows in table.parts)
    if all(made is rows for (_, made), (_, rows) in zip(parts, table.parts, strict=True)):
        return table
    dtypes = dict(parts[0][1].collect_schema())
    return dataclasses.replace(table, parts=parts, dtypes=dtypes, stored=tuple(table.dtypes))

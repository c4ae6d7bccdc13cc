"""Reading a log: a frame, a file, a folder of files or a saved log, in; a checked, packed
SessionLog, out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Unpack

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.errors import ConfigError, LogFormatError, require_path
from fastgaum.forks import require_threads
from fastgaum.logs.action_tables import ActionTable, check_saved_actions
from fastgaum.logs.fields import require_column
from fastgaum.logs.fold import Packed, Rows, pack_rows, split_by_time
from fastgaum.logs.log import SessionLog, resplit, resplit_by
from fastgaum.logs.opened_log import lay_out, open_rows
from fastgaum.logs.options import DEFAULT_OPTIONS, ReadKeywords, ReadOptions
from fastgaum.logs.public import find_layout
from fastgaum.logs.registry import Located, resolve
from fastgaum.logs.rows import candidate_rows
from fastgaum.logs.schema import LogSchema, resolve_schema
from fastgaum.logs.side_tables import UserTable, check_saved_users, join_item_table, with_grid
from fastgaum.logs.store import is_saved_log, load_log
from fastgaum.logs.tables import LogSource, frame_of, naming, stem_of
from fastgaum.logs.user_split import USER_RULES


def load(
    name_or_path: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    options: ReadOptions = DEFAULT_OPTIONS,
    **given: Unpack[ReadKeywords],
) -> SessionLog:
    """Read a log by its registry name or its path: the library's front door.

    A registry name brings its own options, and its files are checked against their sha256. A data
    set without display sets (`movielens-small`) gets made-up ones (`logs.simulate`).

    Args:
        name_or_path: a registry name, a file or a folder.
        data_dir: where names are looked up first; then in $FASTGAUM_DATA_DIR and the user cache.
        options: how to read it.
        given: single options by name, as in `read_log`. They come first.

    Raises:
        DatasetError: an unknown name, a missing file, a wrong checksum, or a path to choices
            without display sets.
        LogFormatError, ConfigError: as `read_log`.
    """
    require_threads()
    options = ReadOptions.of(**given).over(options)
    found = resolve(name_or_path, data_dir)
    if found.simulated:
        return read_with_rows(found, options=options)[0]
    found.verify()
    return read_log(found.path, options=options.over(found.options))


def read_log(
    source: LogSource,
    *,
    options: ReadOptions = DEFAULT_OPTIONS,
    **given: Unpack[ReadKeywords],
) -> SessionLog:
    """Read a log: a frame in memory, a file (csv, tsv, txt with tabs and ndjson, as they are or
    compressed as .gz or .zst; parquet, arrow), a folder of parquet files, a public log as it is
    published (`logs.public`), or a saved log.

    Args:
        source: a file or a folder; or a frame of polars, pandas, pyarrow or any library that has
            the Arrow PyCapsule interface (of pandas, named levels of the index are columns).
        options: how to read it.
        given: single options by name, as fields of `ReadOptions`: `columns`, `candidate_fields`,
            `context_fields`, `time_fields`, `item_table`, `item_vectors`, `user_table`, `past`,
            `actions`, `ordered`, `grid`, `clicks`, `outside`, `split`, `split_seed`,
            `delimiter`, `decimal`, `name`. They come first.

    Raises:
        ConfigError: an option does not exist, or has a value that it cannot have; or the process
            was forked from one that had used polars.
        LogFormatError: the log breaks a rule; the message names the rule, the values and the cure.
    """
    require_threads()
    options = ReadOptions.of(**given).over(options)
    if not isinstance(source, str | os.PathLike):
        return read_frame(frame_of(source), options=options)
    require_path("a log", source)
    path = Path(source)
    try:
        if is_saved_log(path):
            log = _as_saved(load_log(path), options)
            if options.split in USER_RULES:
                log = resplit_by(log, options.split, options.split_seed)
        else:
            log = dataclasses.replace(_read_rows(path, options)[0], name=stem_of(path))
    except LogFormatError as error:
        raise naming(path, error) from None
    return _finished(log, options)


def read_with_rows(
    found: Located, *, options: ReadOptions = DEFAULT_OPTIONS
) -> tuple[SessionLog, Rows]:
    """A log that was found and is not a saved one, and its rows as `raw_rows` gives them: both of
    one reading.

    Raises:
        DatasetError, LogFormatError, ConfigError: as `load`.
    """
    found.verify()
    options = options.over(found.options)
    read = _read_made_up if found.simulated else _read_rows
    try:
        log, rows = read(found.path, options)
    except LogFormatError as error:
        raise naming(found.path, error) from None
    return _finished(dataclasses.replace(log, name=stem_of(found.path)), options), rows


def _read_made_up(path: Path, options: ReadOptions) -> tuple[SessionLog, Rows]:
    """A log of choices whose displays are made up, and its rows."""
    # its kernels take half a second to import
    from fastgaum.logs.simulate import make_displays

    for option in ("columns", "ordered"):
        if getattr(options, option):
            raise ConfigError(
                f"'{options.name or path.name}' has no recorded display sets, {option} says how to "
                "read some: leave the option out"
            )
    frame = make_displays(path)
    return _read_whole(frame, resolve_schema(dict(frame.schema), options), options, untyped=False)


def _finished(log: SessionLog, options: ReadOptions) -> SessionLog:
    """The log with its item table, its grid and its name."""
    log = with_grid(join_item_table(log, options), options)
    return dataclasses.replace(log, name=options.name or log.name)


def read_frame(
    frame: pl.DataFrame,
    *,
    options: ReadOptions = DEFAULT_OPTIONS,
    untyped: bool = False,
    **given: Unpack[ReadKeywords],
) -> SessionLog:
    """Read a log that is already a polars frame, as `read_log` does; `untyped`: numbers may be
    given as text (csv)."""
    options = ReadOptions.of(**given).over(options)
    frame, options = lay_out(frame, options)
    schema = resolve_schema(dict(frame.schema), options)
    return _finished(_read_whole(frame, schema, options, untyped)[0], options)


def raw_rows(
    source: LogSource,
    *,
    options: ReadOptions = DEFAULT_OPTIONS,
    **given: Unpack[ReadKeywords],
) -> Rows | None:
    """Read a log's rows as they are in its file or frame, one per displayed candidate, nothing
    folded or sorted: what an audit looks at.

    Returns None for a saved log, which has no rows any more. Options and errors are those of
    `read_log`."""
    options = ReadOptions.of(**given).over(options)
    if not isinstance(source, str | os.PathLike):
        whole = frame_of(source)
        frame, options = lay_out(whole, options)
        schema = resolve_schema(dict(frame.schema), options)
        rows = candidate_rows(frame, _roles_alone(schema), options)
        return _with_unread(rows, whole.columns, schema)
    path = Path(source)
    if is_saved_log(path):
        return None
    try:
        opened = open_rows(path, options)
        table, options, schema = opened.table, opened.options, _roles_alone(opened.schema)
        frame = table.read(schema.columns())
        rows = candidate_rows(frame, schema, options, untyped=table.untyped)
        return _with_unread(rows, table.stored or table.dtypes, opened.schema)
    except LogFormatError as error:
        raise naming(path, error) from None


def _roles_alone(schema: LogSchema) -> LogSchema:
    return dataclasses.replace(schema, candidate_fields=(), context_fields=(), past=None)


def _with_unread(rows: Rows, columns: Iterable[str], schema: LogSchema) -> Rows:
    """The rows, and which of a log's columns were not read. A public log says that itself."""
    if find_layout(columns) is not None:
        return rows
    read = {*schema.columns()} - {schema.time_beside}
    return dataclasses.replace(rows, not_read=tuple(one for one in columns if one not in read))


def _read_rows(path: Path, options: ReadOptions) -> tuple[SessionLog, Rows]:
    """A file's log and its rows."""
    opened = open_rows(path, options)
    table = opened.table
    frame = table.read(opened.schema.columns())
    try:
        log, rows = _read_whole(frame, opened.schema, opened.options, table.untyped)
    except LogFormatError as error:
        raise table.with_line(error) from None
    return log, _with_unread(rows, table.stored or table.dtypes, opened.schema)


def _read_whole(
    frame: pl.DataFrame, schema: LogSchema, options: ReadOptions, untyped: bool
) -> tuple[SessionLog, Rows]:
    rows = candidate_rows(frame, schema, options, untyped=untyped)
    users, actions = user_table_of(options, schema), action_table_of(options, schema)
    packed = pack_rows(rows, options, actions=actions)
    if actions is not None and packed.log.actions is not None:
        actions.require_some(packed.log.actions.left_out, packed.log.session_name(0))
    if users is not None:
        packed = dataclasses.replace(packed, log=users.attach(packed.log, packed.owners))
    return _with_split(packed, rows.has_times, schema, options), rows


def user_table_of(options: ReadOptions, schema: LogSchema) -> UserTable | None:
    """The table of users that the options name, for a log of this schema. Raises LogFormatError as
    `UserTable.read`."""
    if options.user_table is None:
        return None
    return UserTable.read(options.user_table, schema.user is not None, schema.user)


def action_table_of(options: ReadOptions, schema: LogSchema) -> ActionTable | None:
    """The table of actions that the options name, for a log of this schema. Raises LogFormatError
    as `ActionTable.read`."""
    return None if options.actions is None else ActionTable.read(options.actions, schema)


def _with_split(
    packed: Packed, has_times: bool, schema: LogSchema, options: ReadOptions
) -> SessionLog:
    """The log split by the rule asked for."""
    if options.split == "file":
        require_split_column(schema)
    if options.split == "time":
        return packed.log.with_split(_time_split(packed, has_times, schema))
    if options.split in USER_RULES:
        return resplit_by(packed.log, options.split, options.split_seed)
    return packed.log if schema.split is not None else resplit(packed.log, options.split_seed)


def require_split_column(schema: LogSchema) -> None:
    """Raise LogFormatError for a log that is to be split as its file says, and does not say it."""
    if schema.split is None:
        raise LogFormatError(
            "split='file' needs a split column (split, tr_val_tst), the log has none: use "
            "split='user'"
        )


def _time_split(packed: Packed, has_times: bool, schema: LogSchema) -> npt.NDArray[np.int8]:
    if schema.event is None or not has_times:
        found = "the log has none" if schema.event is None else f"'{schema.event}' is text"
        raise LogFormatError(
            f"split='time' needs an event column of numbers or times, {found}: use split='user'"
        )
    return split_by_time(packed.log, packed.first_order)


def _as_saved(log: SessionLog, options: ReadOptions) -> SessionLog:
    """A log that was saved, if the options make sense for it."""
    if options.columns:
        raise LogFormatError(
            "a saved log has no columns to name: leave columns out, or read the original"
        )
    for field in options.candidate_fields:
        require_column(field, log.columns_of("candidate"), "a candidate field")
    for field in (*options.context_fields, *options.time_fields):
        require_column(field, log.columns_of("event"), "a context field")
    if options.user_table is not None:
        # a run names the table that its log was read with: a saved log may hold it already
        check_saved_users(options.user_table, log.columns_of("user"))
    check_saved_actions(options, log.actions)
    log.clicks.check_saved(options, log.context)
    if options.ordered and not log.ordered:
        raise LogFormatError(
            "the log was saved without its display order: read the original with ordered=True"
        )
    if options.split == "time":
        raise LogFormatError(
            "a saved log keeps no times, split='time' needs them: read the original, or use "
            "split='user'"
        )
    return log

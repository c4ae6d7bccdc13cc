"""Reading a log: a frame, a file, a folder of files or a saved log, in; a checked, packed
SessionLog, out."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple, Unpack

import polars as pl

from fastgaum.arrays import IntArray
from fastgaum.errors import ConfigError, LogFormatError, no_log, require_path
from fastgaum.forks import require_threads
from fastgaum.logs.action_tables import ActionTable
from fastgaum.logs.actions import PAST
from fastgaum.logs.column_roles import (
    ROLE_NAMES,
    LogSchema,
    find_column,
    pasts_among,
    require_column,
    resolve_schema,
)
from fastgaum.logs.columns import as_list, ids_as_text
from fastgaum.logs.datasets import Located, resolve
from fastgaum.logs.fold import Rows, candidate_of_rows, pack_rows
from fastgaum.logs.hashes import hash_texts, sampling_numbers
from fastgaum.logs.log import SessionLog
from fastgaum.logs.options import DEFAULT_OPTIONS, ReadKeywords, ReadOptions
from fastgaum.logs.public_formats import PublicLog, find_layout
from fastgaum.logs.rows import candidate_rows
from fastgaum.logs.side_tables import attach_item_table, attach_user_table
from fastgaum.logs.splits import USER_RULES, resplit, resplit_by, split_by_time
from fastgaum.logs.store import StoredLog, is_saved_log, load_log
from fastgaum.logs.tables import (
    FileTable,
    Frame,
    LogSource,
    frame_of,
    is_frame,
    known_table,
    naming,
    open_known,
    open_table,
    stem_of,
)
from fastgaum.logs.wide import absent_columns, columns_of_fields, lists_of_items, say_absent

_NO_CHOICE = "(no choice yet)"


def load(
    name_or_path: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    options: ReadOptions = DEFAULT_OPTIONS,
    **given: Unpack[ReadKeywords],
) -> SessionLog:
    """Read a log by its registry name or its path.

    A registry name brings its own options, and its files must have their sha256. A data set without
    display sets (`movielens-small`) gets made-up ones.

    Args:
        name_or_path: a registry name, a file or a folder.
        data_dir: where names are looked up first; then in $FASTGAUM_DATA_DIR and the user cache.
        options: how to read it.
        given: single options, as in `read_log`.

    Raises:
        DatasetError: an unknown name, a missing file, or a wrong checksum.
        LogFormatError, ConfigError: as `read_log`.
    """
    require_threads()
    options = ReadOptions.of(**given).over(options)
    return _warned(*read_with_rows(resolve(name_or_path, data_dir), options=options))


def read_log(
    source: LogSource,
    *,
    options: ReadOptions = DEFAULT_OPTIONS,
    **given: Unpack[ReadKeywords],
) -> SessionLog:
    """Read a log: a frame in memory, a file (csv, tsv, txt, ndjson, also as .gz or .zst; parquet,
    arrow), a folder of parquet files, a public log as published, or a saved log.

    Args:
        source: a path; or a frame of polars, pandas (named levels of its index are columns),
            pyarrow or any library that has the Arrow PyCapsule interface.
        options: how to read it.
        given: single options, fields of `ReadOptions`. They come first.

    Raises:
        ConfigError: an option is wrong, or the process was forked from one that had used polars.
        LogFormatError: the log breaks a rule; the message names rule, values and cure.
    """
    require_threads()
    options = ReadOptions.of(**given).over(options)
    if isinstance(source, str | os.PathLike):
        require_path("a log", source)
    return _warned(*_read(source, options))


ONE_DISPLAY = (
    "no column tells displays apart (event): each session is one display; --column event=NAME "
    "(columns={'event': 'NAME'}) names one, the session's own says that it is so"
)


def _warned(log: SessionLog, rows: Rows | None) -> SessionLog:
    """The log; a warning says what reading decided of its events."""
    if rows is not None and rows.absent:
        warnings.warn(f"'{log.name}': {say_absent(rows.absent)}", UserWarning, stacklevel=3)
    if rows is not None and rows.by_session:
        warnings.warn(f"'{log.name}': {ONE_DISPLAY}", UserWarning, stacklevel=3)
    return log


def read_with_rows(
    found: Located, *, options: ReadOptions = DEFAULT_OPTIONS
) -> tuple[SessionLog, Rows | None]:
    """Read a log, and its rows as `raw_rows` does. Raises as `load`."""
    found.verify()
    options = options.over(found.options)
    if not found.simulated:
        return _read(found.source, options)
    # its kernels take half a second to import
    from fastgaum.logs.made_up_displays import make_displays

    for option in ("columns", "ordered"):
        if getattr(options, option):
            raise ConfigError(
                f"'{options.name or found.path.name}' has no recorded display sets, {option} says "
                "how to read some: leave the option out"
            )
    with naming(found.path):
        log, rows = _read_rows(make_displays(found.path), options)
    return dataclasses.replace(log, name=options.name or stem_of(found.path)), rows


def raw_rows(
    source: LogSource,
    *,
    options: ReadOptions = DEFAULT_OPTIONS,
    **given: Unpack[ReadKeywords],
) -> Rows | None:
    """Read a log's rows as an audit looks at them, nothing folded or sorted; None for a saved log.
    Options and errors are those of `read_log`."""
    options = ReadOptions.of(**given).over(options)
    return _read(source, options)[1]


def as_log(source: SessionLog | Frame, options: ReadOptions | None = None) -> SessionLog:
    """A log as it is, or the log of a frame. Without options each column has a role by its name.
    Raises ConfigError for neither of them, LogFormatError as `read_log`."""
    require_threads()
    if isinstance(source, SessionLog):
        return source
    if not is_frame(source):
        raise no_log(source)
    log, rows = _read_rows(source, options or DEFAULT_OPTIONS)
    _warned(log, rows)
    if rows.not_read and options is None:
        first = rows.not_read[0]
        option = f"past='{first}'" if pasts_among([first]) else f"candidate_fields=['{first}']"
        raise LogFormatError(
            f"the frame has columns without a role, {', '.join(rows.not_read)}, and a fit reads "
            "them or not as it is told: drop them, or fit on fastgaum.read_log(frame, "
            f"{option}) or context_fields=…"
        )
    return log


@dataclass(frozen=True)
class RowsToPredict:
    """Rows of a frame or of a file, and the log that they are, whose candidates get predictions."""

    frame: pl.DataFrame
    """the rows as they stand"""
    log: SessionLog
    n: int
    """displayed candidates of the rows"""
    candidate: IntArray | None = None
    """the log's candidate of each of them, shape (n,); None where displays are made as they are
    read"""
    row: IntArray | None = None
    """the row of each, shape (n,), where a row is an event; None where it is a candidate"""


def read_to_predict(
    source: LogSource, options: ReadOptions, *, any_split: bool = True
) -> RowsToPredict:
    """Read a frame or a file, of choices or without, and keep its rows. `any_split`: they need not
    have the split that the options name. Raises LogFormatError as `read_log`."""
    require_threads()
    if isinstance(source, str | os.PathLike):
        known = open_known(Path(source), options.delimiter)[0]
        frame = known.read(list(known.dtypes)) if not known.stored else pl.DataFrame()
        columns: Collection[str] = known.dtypes
    else:
        frame = source = frame_of(source)
        columns = frame.columns
    options = without_choices(options, columns)
    table, schema, _ = open_log(source, options)
    if any_split and options.split == "file" and schema.split is None:
        options = ReadOptions.of(split="user").over(options)
    log, rows = _read_rows(source, options)
    _warned(log, rows)
    items, n = schema.items, frame.height
    if schema.nested and items in frame.columns:
        n = int(as_list(frame[items]).list.len().sum())
    if table.stored or (rows.n_rows, rows.events.height) != (n, log.n_events):
        return RowsToPredict(frame, log, n)
    row = rows.event_of_row if schema.nested else None
    return RowsToPredict(frame, log, n, candidate_of_rows(rows, log), row)


def without_choices(options: ReadOptions, columns: Collection[str]) -> ReadOptions:
    """Options under which displays have no choice, nor a weight, yet, where no column says what was
    chosen."""
    given = options.columns
    named = [given[role] for role in ("chosen", "chosen_index") if role in given]
    usual = (*ROLE_NAMES["chosen"], *ROLE_NAMES["chosen_index"])
    if find_column(named or usual, columns) is not None:
        return options
    weight = options.weight if options.weight in columns else ""
    # nothing followed a choice that has not been made
    outcomes = tuple(name for name in options.outcomes if name in columns)
    none = ReadOptions.of(columns={**given, "chosen": ""}, weight=weight, outcomes=outcomes)
    return none.over(options)


class OpenedLog(NamedTuple):
    """A log of which only headers have been read."""

    table: FileTable
    schema: LogSchema
    options: ReadOptions
    """with those of a public log"""

    @property
    def columns(self) -> list[str]:
        """Columns that are read, each once."""
        return self.schema.columns(self.options)


def open_log(source: LogSource, options: ReadOptions) -> OpenedLog:
    """Open a log, of which only headers are read; a public log's options come last."""
    layout: PublicLog | None = None
    if options.wide is not None:
        if isinstance(source, str | os.PathLike):
            table = open_table(Path(source), options.delimiter)
        else:
            table = FileTable.of(frame_of(source))
        table, options = lists_of_items(table, options)
    elif isinstance(source, str | os.PathLike):
        table, layout = open_known(Path(source), options.delimiter)
    else:
        table, layout = known_table(FileTable.of(frame_of(source)))
    if layout is not None:
        options = layout.options_with(options)
    if options.columns.get("chosen") == "":
        table, options = _without_choices(table, options)
    try:
        schema = resolve_schema(table.dtypes, options)
    except LogFormatError as error:
        if layout is None:
            raise LogFormatError(f"{error}{_as_mind(table)}") from None
        named = f"; it is read as {layout.name}: --column ROLE=COLUMN names another"
        raise LogFormatError(f"{error}{named}") from None
    return OpenedLog(table, schema, options)


def _as_mind(table: FileTable) -> str:
    """What an error says of a table with a column of displays as MIND writes them."""
    text = [name for name, dtype in table.dtypes.items() if dtype == pl.String]
    first = table.head(text)
    for name in text:
        if len(first) and (first[name].str.contains(r"^\S+-[01]( \S+-[01])+$")).any():
            return (
                f"; column '{name}' holds displays as MIND writes them (N1-0 N2-1): call the "
                "columns as MIND does, impression_id, user_id, time, history and impressions"
            )
    return ""


def _without_choices(table: FileTable, options: ReadOptions) -> tuple[FileTable, ReadOptions]:
    others = {role: name for role, name in options.columns.items() if role != "chosen_index"}
    options = dataclasses.replace(options, columns={**others, "chosen": _NO_CHOICE})
    dtypes = {**table.dtypes, _NO_CHOICE: pl.Int8()}
    none = pl.lit(None, pl.String) if resolve_schema(dtypes, options).nested else pl.lit(0, pl.Int8)
    parts = tuple((path, rows.with_columns(none.alias(_NO_CHOICE))) for path, rows in table.parts)
    return dataclasses.replace(table, parts=parts, dtypes=dtypes), options


def _read(source: LogSource, given: ReadOptions) -> tuple[SessionLog, Rows | None]:
    if not isinstance(source, str | os.PathLike) or not is_saved_log(source):
        return _read_rows(source, given)
    with naming(source):
        log = _as_saved(_load_sampled(source, given.sample_users), given)
        if given.split in USER_RULES:
            log = resplit_by(log, given.split, given.split_seed)
        else:
            _refuse_seed(given, "the saved log has its own")
    return finished_log(log, given, dict(given.means)), None


def _read_rows(source: LogSource, given: ReadOptions) -> tuple[SessionLog, Rows]:
    with naming(source):
        opened, means = sampled(open_log(source, given)), dict(given.means)
        frame = opened.table.read(opened.columns)
        log, rows = log_of_rows(frame, opened, means)
    if isinstance(source, str | os.PathLike):
        log = dataclasses.replace(log, name=stem_of(Path(source)))
    return with_reading(finished_log(log, opened.options, means), given, means), rows


def log_of_rows(
    frame: pl.DataFrame, opened: OpenedLog, means: dict[str, float]
) -> tuple[SessionLog, Rows]:
    """The log of some rows of an opened one, less its item table; `means` receives what stands for
    missing numbers. Raises LogFormatError."""
    table, schema, options = opened
    with _counting_rows(options):
        rows = candidate_rows(frame, schema, options)
    log = _pack(rows, schema, options, means)
    # a public log says itself what is not read of it
    columns = table.stored or tuple(table.dtypes)
    read = columns if find_layout(columns) else {*schema.columns(options)} - {schema.time_beside}
    absent: tuple[str, ...] = ()
    if options.wide is not None:
        read = {*read, *chain(*columns_of_fields(options).values())}
        absent = absent_columns(options, table)
    # a column without a name is an index
    not_read = tuple(one for one in columns if one and one not in read)
    return log, dataclasses.replace(rows, not_read=not_read, absent=absent)


def sampled(opened: OpenedLog) -> OpenedLog:
    """The rows of the sample of users that the options ask for. Raises LogFormatError if it is
    empty."""
    table, schema, options = opened
    share = options.sample_users
    if share == 1:
        return opened
    role, column = ("user", schema.user) if schema.user else ("session", schema.session)
    any_taken = False

    def take(ids: pl.Series) -> pl.Series:
        nonlocal any_taken
        texts = ids_as_text(ids, role)
        numbers = pl.Series(sampling_numbers(hash_texts(texts.fill_null(""))))
        # a missing id is refused in every sample
        taken = (numbers < share) | texts.is_null()
        any_taken |= taken.any() or ids.is_empty()
        return taken

    table = table.where(column, take)
    _require_sampled(any_taken, share)
    return opened._replace(table=table)


def _load_sampled(folder: str | os.PathLike[str], share: float) -> SessionLog:
    if share == 1:
        return load_log(folder)
    log = StoredLog(folder).read_sample(share)
    _require_sampled(log.n_sessions > 0, share)
    return log


def _require_sampled(any_taken: bool, share: float) -> None:
    if not any_taken:
        raise LogFormatError(
            f"sample_users is {share}, and none of the log's users is in this sample: take a "
            "larger share (--sample-users, sample_users=…)"
        )


@contextmanager
def _counting_rows(options: ReadOptions) -> Iterator[None]:
    """Say in errors of a sample which rows are counted."""
    try:
        yield
    except LogFormatError as error:
        if options.sample_users == 1:
            raise
        raise LogFormatError(f"{error} (rows are counted among those of the sample)") from None


def with_reading(log: SessionLog, given: ReadOptions, means: dict[str, float]) -> SessionLog:
    """The log with the options that it was read with, and what they decided of its columns."""
    categories = frozenset(name for name, one in log.columns.items() if one.texts is not None)
    reading = dataclasses.replace(given, means=means, categories=categories)
    return dataclasses.replace(log, reading=reading)


def finished_log(log: SessionLog, options: ReadOptions, means: dict[str, float]) -> SessionLog:
    """The log with its item table, grid and name. Raises LogFormatError."""
    absent = [name for name in options.item_vectors if name not in log.vectors]
    if options.item_table is not None:
        log = attach_item_table(
            log, options.item_table, options.item_vectors, means, options.categories
        )
    elif absent:
        known = f" (the saved log has {', '.join(log.vectors)})" if log.vectors else ""
        raise LogFormatError(
            f"item vectors '{absent[0]}' are a column of the item table, and no table is given"
            f"{known}: give it (--item-table FILE, item_table=…)"
        )
    if options.grid is not None and not log.ordered:
        raise LogFormatError(
            f"grid={options.grid} gives places a row and a column, and the order of the log's "
            "displays is not declared real: read it with ordered=True (--ordered), or leave grid "
            "out"
        )
    return dataclasses.replace(log, name=options.name or log.name, grid=options.grid or log.grid)


def _pack(
    rows: Rows, schema: LogSchema, options: ReadOptions, means: dict[str, float]
) -> SessionLog:
    actions = None
    if options.actions is not None:
        with naming(options.actions, "actions"):
            actions = ActionTable.read(Path(options.actions), schema)
    of_times = rows.has_times and (options.time_fields or options.split == "time")
    if of_times and schema.time_beside is not None:
        _refuse_counter(rows.events["order"], schema.event or "", schema.time_beside)
    log, first_order = pack_rows(rows, options, actions=actions)
    if actions is not None and log.actions is not None:
        actions.require_some(log.actions.left_out, str(log.session_ids[0]))
    if options.user_table is not None:
        log = attach_user_table(log, options.user_table, schema.user, means, options.categories)
    if options.split == "file" and schema.split is None:
        raise LogFormatError(
            "split='file' needs a split column (split, tr_val_tst), the log has none: use "
            "split='user'"
        )
    if options.split == "time":
        if schema.event is None or not rows.has_times:
            found = "the log has none" if schema.event is None else f"'{schema.event}' is text"
            raise LogFormatError(
                f"split='time' needs an event column of numbers or times, {found}: use split='user'"
            )
        _refuse_seed(options, "a split by time has none")
        log = log.with_split(split_by_time(log, first_order))
    elif options.split in USER_RULES:
        log = resplit_by(log, options.split, options.split_seed)
    elif schema.split is None:
        log = resplit(log, options.split_seed)
    else:
        _refuse_seed(options, f"the log has its own, '{schema.split}'")
    return log


def _refuse_seed(options: ReadOptions, found: str) -> None:
    if "split_seed" in options.given - options.recorded:
        raise ConfigError(
            f"split_seed is {options.split_seed}, it draws a split of users, and {found}: leave it "
            "out, or draw one, --split-by user (split='user')"
        )


def _refuse_counter(order: pl.Series, event: str, beside: str) -> None:
    """Raise LogFormatError where events are ordered by a number that may be no time, beside a
    column that may be one."""
    counts = find_column(["event"], [event]) is not None and order.dtype.is_numeric()
    if counts and find_column(["step"], [beside]) is None:
        raise LogFormatError(
            f"times of events are needed, '{event}' orders them by {order.dtype} and '{beside}' "
            f"stands beside it: name the one with the times, --column event={beside} "
            f"(columns={{'event': '{beside}'}}), or '{event}' if it is that"
        )


def _as_saved(log: SessionLog, options: ReadOptions) -> SessionLog:
    """A saved log, if options do not ask for another one. Raises LogFormatError."""
    was, given, weighted = log.clicks, options.given, log.weighted_by
    kinds = set() if log.actions is None else set(log.actions.kind_names)
    for asked, found in (
        (options.columns, "it has no columns to name"),
        (options.wide, "its rows are no table"),
        (options.available, "it holds only items that could be chosen"),
        (options.user_table, "it has the columns of its users, and not their names"),
        (options.past and PAST not in kinds, "it was saved without the past of its users"),
        (options.past == "" and PAST in kinds, "it has the past of its users"),
        (options.actions and not kinds - {PAST}, "it was saved without actions"),
        (options.weight and log.weights is None, "it was saved without weights"),
        (options.weight and weighted not in ("", options.weight), f"it has --weight {weighted}"),
        ("clicks" in given and options.clicks != was.clicks, f"it has --clicks {was.clicks}"),
        ("outside" in given and options.outside != was.outside, f"it has --outside {was.outside}"),
        (options.ordered and not log.ordered, "it was saved without its display order"),
        ("ordered" in given and not options.ordered and log.ordered, "it has its display order"),
        (options.split == "time", "it keeps no times, split='time' needs them"),
    ):
        if asked:
            raise LogFormatError(
                f"a saved log was read before, {found}: read the original, or leave the option out"
            )
    if "weight" in given and not options.weight:
        log = dataclasses.replace(log, weights=None, weighted_by="")
    for field in options.candidate_fields:
        require_column(field, log.columns_of("candidate"), "a candidate field")
    for field in (*options.context_fields, *options.time_fields):
        require_column(field, log.columns_of("event"), "a context field")
    for field in options.outcomes:
        require_column(field, log.outcomes, "an outcome")
    return log

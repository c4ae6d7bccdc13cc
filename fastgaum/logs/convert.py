"""From any number of logs to one log in shards, at a memory that does not grow with them.

Files of rows are read in two passes. First pass: the rows a piece at a time, checked, and appended
to a bucket by a hash of the user (of the session where there are no users); the items and the
values of categorical fields are collected. Second pass: each bucket is packed as `read_log` packs a
log, and the buckets of a shard are written. Logs that are packed already pass through memory."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from fastgaum.errors import ConfigError, LogFormatError, OutputError
from fastgaum.logs.action_tables import ActionTable
from fastgaum.logs.clicks import ALL_DROPPED, ClickFacts
from fastgaum.logs.column_types import TypedTable, decide_types
from fastgaum.logs.columns import Vocabulary
from fastgaum.logs.cut import join_logs
from fastgaum.logs.fold import Rows, pack_rows
from fastgaum.logs.log import FieldArray, SessionLog
from fastgaum.logs.nested_clicks import as_list
from fastgaum.logs.opened_log import open_known, open_rows, with_points_in
from fastgaum.logs.options import DEFAULT_OPTIONS, ReadOptions
from fastgaum.logs.read import (
    action_table_of,
    load,
    refuse_choices,
    require_split_column,
    user_table_of,
)
from fastgaum.logs.registry import Located, resolve, verify
from fastgaum.logs.row_buckets import RowBuckets
from fastgaum.logs.rows import candidate_rows
from fastgaum.logs.schema import LogSchema
from fastgaum.logs.shard_writer import check_shards_output, require_shards, shard_log, write_shards
from fastgaum.logs.shards import ShardedLog, is_saved_log, open_shards
from fastgaum.logs.side_tables import UserTable, join_item_table, with_grid
from fastgaum.logs.tables import stem_of
from fastgaum.logs.user_split import USER_RULES, hash_texts, split_by_rule
from fastgaum.untrusted_parquet import one_line

PIECE_ROWS = 1_000_000
"""rows that the first pass works on at once"""
PER_SHARD, MOST_BUCKETS = 4, 256
"""buckets of a shard: packing takes several times what a packed bucket does; fewer where files
would be too many"""
Stages = Callable[[str, int, int | None], None]
"""called with what is being done, how much of it is done, and how much there is (None: not known)
"""


def convert_files(
    paths: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    n_shards: int,
    *,
    options: ReadOptions = DEFAULT_OPTIONS,
    piece_rows: int = PIECE_ROWS,
    progress: Stages | None = None,
    overwrite: bool = False,
) -> ShardedLog:
    """Write the rows of all files (or folders of parquet files) as one log in at most `n_shards`
    shards; return it opened.

    In one shard the log is what `read_log` makes of the files; in more, its users come in another
    order, in the same parts of a split. `split="time"` is not offered: give such a split as a
    column.

    Args:
        paths: at least one file or folder of the same columns.
        folder: where the shards are written.
        n_shards: at most so many; fewer where there are fewer users.
        options: how to read the files.
        piece_rows: rows that are read at once.
        progress: called with what is being done and how far it is.
        overwrite: whether a saved log that is there is replaced.

    Raises:
        LogFormatError: as `read_log`; a bad row is named within a range of its file's rows.
        ConfigError: an option is unknown or impossible, or a path is named twice.
        OutputError: the folder holds something else, or cannot be written.
    """
    require_shards(n_shards)
    twice = [path for path in paths if sum(Path(path).samefile(other) for other in paths) > 1]
    if twice:
        raise ConfigError(f"'{twice[0]}' is named twice: its events would be too, name it once")
    if options.split == "time":
        raise ConfigError(
            "split by time compares all sessions, a log in shards is split user by user: give the "
            "split as a column, or use --split-by user"
        )
    target = Path(folder)
    check_shards_output(target, overwrite)
    first = open_rows(Path(paths[0]), options)
    schema, options = first.schema, first.options
    more = [open_known(Path(path), options.delimiter)[0] for path in paths[1:]]
    opened = [first.table, *(with_points_in(table, schema, options) for table in more)]
    tables = [table.apart(number) for number, table in enumerate(opened)]
    if options.split == "file":
        require_split_column(schema)
    rule: str | None = options.split
    if rule not in USER_RULES:
        rule = None if schema.split is not None else "user"
    typed = decide_types(tables, schema, options.time_fields)
    users, actions = user_table_of(options, schema), action_table_of(options, schema)
    options = dataclasses.replace(options, name=options.name or stem_of(Path(paths[0])))
    say = progress or _nothing
    n_rows = 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=target.parent, prefix=f".{target.name}.rows-"
        ) as beside:
            # in one shard the files' order stays
            per_shard = 1 if n_shards == 1 else max(1, min(PER_SHARD, MOST_BUCKETS // n_shards))
            fields = (schema.candidate_fields, schema.context_fields)
            buckets = RowBuckets(Path(beside), n_shards * per_shard, *fields)
            for rows in _checked(typed, schema, options, piece_rows):
                buckets.append(rows)
                n_rows += rows.n_rows
                say("rows read", n_rows, None)
            if not buckets.filled:
                raise LogFormatError(ALL_DROPPED)
            head = buckets.head(options, actions)
            head = with_grid(join_item_table(head, options), options)
            if users is not None:
                head = users.attach(head, head.session_ids)
            with write_shards(target, head, overwrite) as writer:
                clicks = buckets.clicks
                whole = _Whole(head, users, actions, rule)
                left_out = []
                for written, log in enumerate(_packed(buckets, per_shard, whole, options), start=1):
                    writer.add(log)
                    clicks = log.clicks.plus(clicks)
                    left_out += [] if log.actions is None else [log.actions.left_out]
                    say("shards written", written, n_shards)
                writer.head = replace(writer.head, clicks=clicks)
                if actions is not None and head.actions is not None:
                    n = actions.left_out(left_out)
                    actions.require_some(n, log.session_name(0))
                    writer.head = replace(writer.head, actions=replace(head.actions, left_out=n))
    except OSError as error:
        raise OutputError(
            f"cannot write the shards '{target}': {one_line(error)}; free space or choose another "
            "folder"
        ) from None
    return open_shards(target)


def _nothing(what: str, done: int, total: int | None) -> None:
    """No progress is shown."""


def _checked(
    typed: TypedTable,
    schema: LogSchema,
    options: ReadOptions,
    piece_rows: int,
) -> Iterator[Rows]:
    """The rows of each piece."""
    before = 0
    for path, in_file, piece in typed.pieces(piece_rows):
        for start, part in _cut(piece, schema, piece_rows):
            try:
                yield candidate_rows(part, schema, options, first_row=before)
            except LogFormatError as error:
                row = in_file + start
                where = "" if row == 0 else f" (rows are counted from row {row + 1} of the file)"
                raise LogFormatError(f"{path.name}: {error}{where}") from None
            before += part.height
    if before == 0:
        raise LogFormatError("the log is empty (no rows): at least one event is required")


def _cut(
    piece: pl.DataFrame, schema: LogSchema, piece_rows: int
) -> Iterator[tuple[int, pl.DataFrame]]:
    """Parts of a piece with their first row: a row of a nested log holds many candidates, and a
    part about `piece_rows` of them."""
    if schema.items is None:
        yield 0, piece
        return
    lengths = as_list(piece[schema.items]).list.len().fill_null(0).to_numpy().astype(np.int64)
    part = np.cumsum(lengths) // piece_rows
    starts = np.flatnonzero(np.diff(part, prepend=-1)).tolist()
    for start, stop in itertools.pairwise([*starts, piece.height]):
        yield start, piece.slice(start, stop - start)


class _Whole(NamedTuple):
    """What all parts of a log share."""

    head: SessionLog
    users: UserTable | None
    actions: ActionTable | None
    rule: str | None
    """how users are split; None: the rows say it"""


def _packed(
    buckets: RowBuckets, per_shard: int, whole: _Whole, options: ReadOptions
) -> Iterator[SessionLog]:
    """Each shard's buckets as a log of all the items, split by its rows or by a rule over all
    users."""
    head, users, actions, rule = whole
    drawn, known = np.zeros(0, np.int8), np.zeros(0, np.uint64)
    no_click = buckets.have_no_click() if options.clicks == "each" else None
    if rule is not None:
        known = np.concatenate([hash_texts(buckets.users_of(one)) for one in buckets.filled])
        known.sort()
        drawn = split_by_rule(known, rule, options.split_seed)
    for _, numbers in itertools.groupby(buckets.filled, lambda number: number // per_shard):
        parts = []
        for number in numbers:
            try:
                packed = pack_rows(buckets.read(number), options, no_click, actions)
                log = packed.log if users is None else users.attach(packed.log, packed.owners)
            except LogFormatError as error:
                raise LogFormatError(f"{head.name}: {error}") from None
            if rule is not None:
                log = log.with_split(drawn[np.searchsorted(known, log.user_hashes)])
            parts.append(_with_codes_of(log, head))
        clicks = functools.reduce(ClickFacts.plus, (part.clicks for part in parts))
        log = replace(join_logs(parts), clicks=clicks)
        if actions is not None and log.actions is not None:
            n = actions.left_out(part.actions.left_out for part in parts if part.actions)
            log = replace(log, actions=replace(log.actions, left_out=n))
        yield log


def _with_codes_of(log: SessionLog, head: SessionLog) -> SessionLog:
    """The log with the items and categories of `head`; both are sorted, so that display sets keep
    their order."""

    def recoded(fields: Mapping[str, FieldArray]) -> dict[str, FieldArray]:
        turned: dict[str, FieldArray] = {}
        for name, values in fields.items():
            known = log.categories.get(name)
            turned[name] = (
                values
                if known is None
                else Vocabulary(head.categories[name]).codes_from(Vocabulary(known))[values]
            )
        return turned

    code_of_item, actions = Vocabulary(head.item_ids).codes(log.item_ids), log.actions
    return dataclasses.replace(
        log,
        items=code_of_item[log.items],
        item_ids=head.item_ids,
        candidate_fields=recoded(log.candidate_fields),
        event_fields=recoded(log.event_fields),
        user_fields=recoded(log.user_fields),
        categories=head.categories,
        item_fields=head.item_fields,
        item_vectors=head.item_vectors,
        grid=head.grid,
        views=log.views if head.views is not None else None,
        actions=(
            None
            if actions is None or head.actions is None
            else actions.recoded(code_of_item, head.actions.kind_names)
        ),
    )


def convert_logs(
    logs: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    n_shards: int,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    progress: Stages | None = None,
    options: ReadOptions = DEFAULT_OPTIONS,
    overwrite: bool = False,
) -> ShardedLog:
    """Write one or more logs (registry names, files, folders) as one log in at most `n_shards`
    shards; return it opened.

    Files of rows are read a piece at a time. A saved log, one in
    shards, and one whose displays are made up pass through memory; such a log is converted alone.

    Raises:
        DatasetError, LogFormatError, ConfigError, OutputError: as `load` and
            `logs.convert.convert_files`.
    """
    found = [resolve(log, data_dir) for log in logs]
    packed = [log for log, one in zip(logs, found, strict=True) if _is_packed(one)]
    if packed:
        if len(logs) > 1:
            raise ConfigError(
                f"'{packed[0]}' is packed already and is converted alone: give the files that it "
                "was made of"
            )
        log = load(logs[0], data_dir=data_dir, options=options)
        return shard_log(log, folder, n_shards, overwrite=overwrite)
    for one in found:
        if one.dataset is None:
            refuse_choices(one.path)
        else:
            verify(one.dataset.files[0], one.path)
    first, *others = [replace(one.options, name=None) for one in found]
    if any(other != first for other in others):
        raise ConfigError(
            "the logs are read with different options, one log has one way to be read: convert "
            "them one by one"
        )
    paths = [one.path for one in found]
    options = options.over(found[0].options)
    return convert_files(
        paths, folder, n_shards, options=options, progress=progress, overwrite=overwrite
    )


def _is_packed(found: Located) -> bool:
    simulated = found.dataset is not None and found.dataset.simulated
    return simulated or is_saved_log(found.path)

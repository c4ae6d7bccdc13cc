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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from fastgaum.errors import ConfigError, LogFormatError, OutputError
from fastgaum.logs.clicks import ALL_DROPPED, CLICKS_SO_FAR, ClickFacts
from fastgaum.logs.column_types import TypedTable, decide_types
from fastgaum.logs.columns import CodedIds, DistinctTexts, Vocabulary
from fastgaum.logs.cut import join_logs
from fastgaum.logs.fold import EVENT_COLUMNS, Rows, pack_rows
from fastgaum.logs.log import USER_RULES, FieldArray, SessionLog, split_by_rule
from fastgaum.logs.options import DEFAULT_OPTIONS, ReadOptions
from fastgaum.logs.public_logs import open_known, open_rows
from fastgaum.logs.read import load, refuse_choices, require_split_column, user_table_of
from fastgaum.logs.registry import Located, resolve, verify
from fastgaum.logs.rows import candidate_rows
from fastgaum.logs.schema import LogSchema
from fastgaum.logs.shard_writer import check_shards_output, require_shards, shard_log, write_shards
from fastgaum.logs.shards import ShardedLog, is_saved_log, open_shards
from fastgaum.logs.side_tables import UserTable, attach_item_table
from fastgaum.logs.tables import stem_of
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
) -> ShardedLog:
    """Write the rows of all files (or folders of parquet files) as one log in at most `n_shards`
    shards; return it opened.

    In one shard the log is what `read_log` makes of the files; in more, its users come in another
    order, so that a split that is drawn is drawn anew. `split="time"` is not offered: give such a
    split as a column.

    Args:
        paths: at least one file or folder of the same columns.
        folder: where the shards are written.
        n_shards: at most so many; fewer where there are fewer users.
        options: how to read the files.
        piece_rows: rows that are read at once.
        progress: called with what is being done and how far it is.

    Raises:
        LogFormatError: as `read_log`; a bad row is named within a range of its file's rows.
        ConfigError: an option is unknown or impossible.
        OutputError: the folder holds something else, or cannot be written.
    """
    require_shards(n_shards)
    if options.split == "time":
        raise ConfigError(
            "split by time compares all sessions, a log in shards is split user by user: give the "
            "split as a column, or use --split-by user"
        )
    target = Path(folder)
    check_shards_output(target)
    first = open_rows(Path(paths[0]), options)
    schema, options = first.schema, first.options
    tables = [first.table, *(open_known(Path(path))[0] for path in paths[1:])]
    if options.split == "file":
        require_split_column(schema)
    rule: str | None = options.split
    if rule not in USER_RULES:
        rule = None if schema.split is not None else "user"
    typed = decide_types(tables, schema)
    users = user_table_of(options, schema)
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
            buckets = _Buckets(Path(beside), n_shards * per_shard, *fields)
            for rows in _checked(typed, schema, options, piece_rows):
                buckets.append(rows)
                n_rows += rows.n_rows
                say("rows read", n_rows, None)
            if not buckets.filled:
                raise LogFormatError(ALL_DROPPED)
            head = buckets.head(options)
            if options.item_table is not None:
                head = attach_item_table(head, options.item_table)
            if users is not None:
                head = users.attach(head, head.session_ids)
            with write_shards(target, head) as writer:
                clicks = buckets.clicks
                parts = _packed(buckets, per_shard, _Whole(head, users, rule), options)
                for written, log in enumerate(parts, start=1):
                    writer.add(log)
                    clicks = log.clicks.plus(clicks)
                    say("shards written", written, n_shards)
                writer.head = replace(writer.head, clicks=clicks)
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
        try:
            yield candidate_rows(piece, schema, options, first_row=before)
        except LogFormatError as error:
            where = (
                "" if in_file == 0 else f" (rows are counted from row {in_file + 1} of the file)"
            )
            raise LogFormatError(f"{path.name}: {error}{where}") from None
        before += piece.height
    if before == 0:
        raise LogFormatError("the log is empty (no rows): at least one event is required")


class _Whole(NamedTuple):
    """What all parts of a log share."""

    head: SessionLog
    users: UserTable | None
    rule: str | None
    """how users are split; None: the rows say it"""


def _packed(
    buckets: _Buckets, per_shard: int, whole: _Whole, options: ReadOptions
) -> Iterator[SessionLog]:
    """Each shard's buckets as a log of all the items, split by its rows or by a rule over all
    users."""
    head, users, rule = whole
    first, drawn = 0, None
    no_click = buckets.have_no_click() if options.clicks == "each" else None
    if rule is not None:
        n_users = sum(buckets.count_users(number) for number in buckets.filled)
        drawn = split_by_rule(np.arange(n_users, dtype=np.int32), rule, options.split_seed)
    for _, numbers in itertools.groupby(buckets.filled, lambda number: number // per_shard):
        parts = []
        for number in numbers:
            try:
                packed = pack_rows(buckets.read(number), options, no_click)
                log = packed.log if users is None else users.attach(packed.log, packed.owners)
            except LogFormatError as error:
                raise LogFormatError(f"{head.name}: {error}") from None
            if drawn is not None:
                n_users = int(log.users.max()) + 1
                log = log.with_split(drawn[first : first + n_users][log.users])
                first += n_users
            parts.append(_with_codes_of(log, head))
        clicks = functools.reduce(ClickFacts.plus, (part.clicks for part in parts))
        yield replace(join_logs(parts), clicks=clicks)


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

    items = Vocabulary(head.item_ids).codes(log.item_ids)[log.items]
    return dataclasses.replace(
        log,
        items=items,
        item_ids=head.item_ids,
        candidate_fields=recoded(log.candidate_fields),
        event_fields=recoded(log.event_fields),
        user_fields=recoded(log.user_fields),
        categories=head.categories,
        item_fields=head.item_fields,
        views=log.views if head.views is not None else None,
    )


@dataclass
class _Buckets:
    """Rows by a hash of their user, in files, and what all of them say together."""

    folder: Path
    n: int
    fields: Sequence[str]
    context: Sequence[str]
    logs_views: bool = False
    clicks: ClickFacts = field(default_factory=ClickFacts)
    _written: dict[int, list[Path]] = field(default_factory=dict)
    _items: DistinctTexts = field(default_factory=DistinctTexts)
    _values: dict[str, DistinctTexts] = field(default_factory=dict)
    _types: dict[str, np.dtype[np.generic]] = field(default_factory=dict)

    @property
    def filled(self) -> list[int]:
        """Numbers of the buckets that hold rows, ascending."""
        return sorted(self._written)

    def append(self, rows: Rows) -> None:
        """Add a piece's rows, in order."""
        self.logs_views |= rows.logs_views
        self.clicks = self.clicks.plus(rows.clicks)
        self._items.add(rows.item.texts)
        for name, values in (*rows.fields.items(), *rows.context.items()):
            if isinstance(values.dtype, pl.String | pl.Categorical | pl.Enum):
                self._values.setdefault(name, DistinctTexts()).add(values.cast(pl.String))
                self._types[name] = np.dtype(np.int32)
            else:
                self._types[name] = np.dtype(np.float32)
        frame = rows.frame().with_columns(
            *(rows.fields[name].alias(f"field_{i}") for i, name in enumerate(self.fields)),
            *(
                rows.of_rows(rows.context[name]).alias(column)
                for column, name in self._context_columns.items()
            ),
        )
        owner = "user" if "user" in frame.columns else "session"
        frame = frame.with_columns((pl.col(owner).hash(0) % self.n).cast(pl.Int32).alias("bucket"))
        for (number,), part in frame.partition_by(
            "bucket", as_dict=True, include_key=False, maintain_order=True
        ).items():
            files = self._written.setdefault(number, [])
            files.append(self.folder / f"{number}-{len(files):06}.parquet")
            part.write_parquet(files[-1], compression="lz4", statistics=False)

    def head(self, options: ReadOptions) -> SessionLog:
        """All the items and categories, and no session."""
        return dataclasses.replace(
            SessionLog.empty(self._items.sorted()),
            views=np.zeros(0, np.uint16) if self.logs_views else None,
            candidate_fields={name: np.zeros(0, self._types[name]) for name in self.fields},
            event_fields={name: np.zeros(0, self._types[name]) for name in self.context}
            | ({CLICKS_SO_FAR: np.zeros(0, np.float32)} if options.clicks == "each" else {}),
            categories={
                name: self._values[name].sorted()
                for name in (*self.fields, *self.context)
                if name in self._values
            },
            ordered=options.ordered,
            name=options.name or "log",
        )

    def count_users(self, number: int) -> int:
        """Distinct users (or sessions, where there are no users) of a bucket."""
        owner = "user" if "user" in pl.read_parquet_schema(self._written[number][0]) else "session"
        return int(
            pl.scan_parquet(self._written[number], glob=False)
            .select(pl.col(owner).n_unique())
            .collect()
            .item()
        )

    def have_no_click(self) -> bool:
        """Whether an event of any bucket has no click."""
        events = (
            pl.scan_parquet(self._written[number], glob=False)
            .group_by("session", "key")
            .agg(pl.col("chosen").any())
            .select(pl.col("chosen").all())
            .collect()
            for number in self.filled
        )
        return not all(clicked.item() for clicked in events)

    def read(self, number: int) -> Rows:
        """A bucket's rows, in the order of the files; its own files are removed."""
        frame = pl.read_parquet(self._written[number], glob=False)
        for path in self._written[number]:
            path.unlink()
        fields = {name: frame[f"field_{i}"] for i, name in enumerate(self.fields)}
        context = {name: frame[column] for column, name in self._context_columns.items()}
        return Rows(
            frame.select(name for name in EVENT_COLUMNS if name in frame.columns),
            CodedIds.of(frame["item"], "item"),
            frame["chosen"].to_numpy(),
            fields,
            views=frame["views"].to_numpy(),
            context=context,
            click_order=frame["click_order"] if "click_order" in frame.columns else None,
        )

    @property
    def _context_columns(self) -> dict[str, str]:
        """Name of each context column: names are free text, so columns have numbers."""
        return {f"context_{i}": name for i, name in enumerate(self.context)}


def convert_logs(
    logs: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    n_shards: int,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    progress: Stages | None = None,
    options: ReadOptions = DEFAULT_OPTIONS,
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
        return shard_log(load(logs[0], data_dir=data_dir, options=options), folder, n_shards)
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
    return convert_files(paths, folder, n_shards, options=options, progress=progress)


def _is_packed(found: Located) -> bool:
    simulated = found.dataset is not None and found.dataset.simulated
    return simulated or is_saved_log(found.path)

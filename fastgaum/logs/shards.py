"""A log on disk: a folder of parquet files, its shards.

A log that fits memory is saved as one shard and loaded whole. A longer one has many shards, which
are read one at a time, so that its length never enters memory.

    LOG/shards.json           format, version, name; size, sha256 and counts of every file
    LOG/items.parquet         items in code order, their static fields, their vectors, counts of the
                              training split
    LOG/categories.parquet    values of categorical fields, kinds of actions
    LOG/shard-00000.parquet   one row per event: start, session, user, split, label, items (codes),
                              choice, views, fields, context, fields of the user, actions before

All sessions of a user are in one shard: what a user's own past says of a candidate, and what the
counts must leave out for that user, is found without reading another shard."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.errors import LogFormatError, no_log, require_known, require_path
from fastgaum.files import read_whole
from fastgaum.forks import require_threads
from fastgaum.logs.actions import Actions
from fastgaum.logs.clicks import ClickFacts
from fastgaum.logs.cut import MAX_ROWS, join_logs
from fastgaum.logs.digests import fingerprint_of, split_digest
from fastgaum.logs.log import (
    SPLITS,
    Counted,
    FieldArray,
    FloatArray,
    IntArray,
    ItemCounts,
    SessionLog,
    SplitName,
    line_of_log,
)
from fastgaum.logs.shard_files import (
    HASHED_AT_ONCE,
    MANIFEST,
    WAYS_OUT,
    Shard,
    check_counts,
    check_files,
    check_hash,
    check_part,
    read_head,
    read_manifest,
    read_rows,
)
from fastgaum.logs.user_split import split_by_rule
from fastgaum.untrusted_parquet import READ_ERRORS, one_line


@dataclass(frozen=True)
class ShardedLog:
    """A log in shards. It has the names of a `SessionLog`, and `parts` gives its sessions, a shard
    at a time."""

    folder: Path
    head: SessionLog
    """items, fields, categories and name of the log, and no session"""
    shards: tuple[Shard, ...]
    digests: dict[str, str]
    item_counts: ItemCounts | None
    """of the training split; None where the log was split anew"""
    drawn: npt.NDArray[np.int8] | None = None
    """split of each user where the log was split anew"""
    _hashed: set[str] = field(default_factory=set, compare=False)
    """files whose sha256 was found right"""
    _checked: set[str] = field(default_factory=set, compare=False)
    """files whose values were found right"""

    def __repr__(self) -> str:
        return line_of_log(self)

    @property
    def name(self) -> str:
        """What tables and messages call it."""
        return self.head.name

    @property
    def ordered(self) -> bool:
        """Whether the display order is real."""
        return self.head.ordered

    @property
    def grid(self) -> int:
        """Columns of the grid that a display fills, as in `SessionLog`."""
        return self.head.grid

    @property
    def views(self) -> npt.NDArray[np.uint16] | None:
        """No views, or None where the log has none."""
        return self.head.views

    @property
    def candidate_fields(self) -> dict[str, FieldArray]:
        """The candidate fields, without values."""
        return self.head.candidate_fields

    @property
    def event_fields(self) -> dict[str, FieldArray]:
        """The context of events, without values."""
        return self.head.event_fields

    @property
    def user_fields(self) -> dict[str, FieldArray]:
        """The fields of users, without values."""
        return self.head.user_fields

    @property
    def item_fields(self) -> dict[str, FieldArray]:
        """Static item columns, as in `SessionLog`."""
        return self.head.item_fields

    @property
    def item_vectors(self) -> dict[str, FloatArray]:
        """Vectors of the items, as in `SessionLog`."""
        return self.head.item_vectors

    @property
    def categories(self) -> dict[str, pl.Series]:
        """Values of each categorical field, as in `SessionLog`."""
        return self.head.categories

    @property
    def item_ids(self) -> pl.Series:
        """The log's own item ids, length n_items."""
        return self.head.item_ids

    @property
    def clicks(self) -> ClickFacts:
        """What was done with several clicks on a display, as in `SessionLog`."""
        return self.head.clicks

    @property
    def actions(self) -> Actions | None:
        """Kinds of actions, and no action; None where the log has none."""
        return self.head.actions

    @property
    def n_items(self) -> int:
        """Number of distinct items in the vocabulary."""
        return self.head.n_items

    @property
    def n_sessions(self) -> int:
        """Number of sessions."""
        return self.count("sessions")

    @property
    def n_events(self) -> int:
        """Number of events."""
        return self.count("events")

    @property
    def n_candidates(self) -> int:
        """Number of displayed candidates."""
        return self.count("candidates")

    @property
    def n_actions(self) -> int:
        """Number of actions."""
        return self.count("actions")

    @property
    def n_users(self) -> int:
        """Number of users."""
        return sum(shard.users for shard in self.shards)

    @property
    def has_no_click(self) -> bool:
        """Whether any event ends without a choice."""
        return self.count("choices") < self.n_events

    @cached_property
    def fingerprint(self) -> str:
        """That of the same log in memory."""
        return fingerprint_of(self.digests, self.head)

    def count(self, what: Counted, split: SplitName = "all") -> int:
        """Number of sessions, events, choices, candidates or actions of a split."""
        of_splits = self.counts()[what]
        return sum(of_splits) if split == "all" else of_splits[SPLITS.index(split)]

    def counts(self) -> dict[str, tuple[int, ...]]:
        """Sessions, events, choices, candidates and actions of each split."""
        return totals_of_splits(self.shards)

    def parts(self, ids: bool = True) -> Iterator[SessionLog]:
        """Each shard as `read` gives it. Raises LogFormatError for a file that is not what it
        was."""
        return (self.read(number, ids) for number in range(len(self.shards)))

    def training_counts(self) -> ItemCounts:
        """What the training split says of each item: as it was written, or where the log was split
        anew by reading all."""
        if self.item_counts is not None:
            return self.item_counts
        counts = ItemCounts.zeros(self.n_items)
        for part in self.parts(ids=False):
            counts.add(part)
        return counts

    def read(self, number: int, ids: bool = True) -> SessionLog:
        """One shard as a log of all the items; users are numbered within it; without `ids` sessions
        and events are nameless.

        Raises:
            LogFormatError: the file is not what the manifest says.
        """
        shard = self.shards[number]
        path = self.folder / shard.file
        if shard.file not in self._hashed:
            check_hash(path, shard.sha256)
            self._hashed.add(shard.file)
        is_new = shard.file not in self._checked
        try:
            part = read_rows(path, self.head, ids)
            if is_new:
                check_part(part)
            if part.user_ids is None and ids and len(self.shards) > 1:
                # of a version that kept no ids: users have their number in the whole log
                first = sum(one.users for one in self.shards[:number])
                names = pl.Series("user", part.users + first).cast(pl.String)
                part = dataclasses.replace(part, user_ids=names)
        except (*READ_ERRORS, TypeError, IndexError, LogFormatError) as error:
            raise LogFormatError(
                f"shard '{path}' is damaged ({one_line(error.__cause__ or error)}): {WAYS_OUT}"
            ) from None
        if is_new:
            check_counts(part, shard, path)
            self._checked.add(shard.file)
        if self.drawn is not None:
            first = sum(one.users for one in self.shards[:number])
            return part.with_split(self.drawn[first : first + shard.users][part.users])
        return part

    def first_sessions(self) -> IntArray:
        """Row of each shard's first session in the whole log, shape (n_shards + 1,), int64."""
        return np.cumsum([0, *(shard.n_sessions for shard in self.shards)])

    def session_name(self, row: int) -> str:
        """Id of a session, by its row in the whole log; its shard is read."""
        first = self.first_sessions()
        number = int(np.searchsorted(first, row, side="right")) - 1
        return str(self.read(number).session_ids[int(row - first[number])])

    def load(self) -> SessionLog:
        """The whole log in memory.

        Raises:
            LogFormatError: it is too long for one log in memory, or a shard is damaged.
        """
        if self.n_candidates > MAX_ROWS:
            raise LogFormatError(
                f"log '{self.name}' has {self.n_candidates} candidates, at most {MAX_ROWS} fit one "
                "log in memory: train, evaluate, predict and data audit read it shard by shard"
            )
        parts = list(self.parts())
        return join_logs(parts) if parts else self.head

    def resplit(self, rule: str, seed: int) -> ShardedLog:
        """The log split anew by one of `user_split.USER_RULES`, as it would be in memory; its
        shards are read to count."""
        hashes = np.zeros(self.n_users, np.uint64)
        first = np.cumsum([0, *(shard.users for shard in self.shards)])
        for start, part in zip(first, self.parts(), strict=False):
            hashes[start + part.users] = part.user_hashes
        drawn = split_by_rule(hashes, rule, seed)
        again = dataclasses.replace(self, drawn=drawn, item_counts=None)
        shards, splits = [], []
        for number, shard in enumerate(self.shards):
            part = again.read(number, ids=False)
            counts: dict[str, Any] = part.counts()
            shards.append(msgspec.structs.replace(shard, **counts))
            splits.append(part.split)
        digests = {**self.digests, "split": split_digest(np.concatenate(splits))}
        return dataclasses.replace(again, shards=tuple(shards), digests=digests)


AnyLog = SessionLog | ShardedLog


def require_log(log: object) -> None:
    """Raise ConfigError for what is no log, or in a forked process that cannot read one."""
    require_threads()
    if not isinstance(log, AnyLog):
        raise no_log(log)


def require_split(log: AnyLog, split: SplitName) -> None:
    """Raise ConfigError for what is no log or no split, LogFormatError for an empty split."""
    require_log(log)
    require_known("split", split, (*SPLITS, "all"))
    if log.count("sessions", split) == 0:
        raise LogFormatError(
            f"log '{log.name}' has no session in split '{split}': choose another split"
        )


def is_saved_log(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a saved log (it has a shards.json)."""
    return (Path(path) / MANIFEST).is_file()


def count_shards(folder: str | os.PathLike[str]) -> int:
    """Number of shards of a saved log. Raises LogFormatError if its shards.json is damaged."""
    return len(read_manifest(Path(folder)).shards)


def load_log(folder: str | os.PathLike[str]) -> SessionLog:
    """Load a saved log into memory, all of its shards; `open_shards` reads one at a time.

    Each file's sha256 and each array's bounds are checked, since kernels trust them. A log that is
    replaced meanwhile is read again.

    Raises:
        LogFormatError: the folder is no saved log, a file is damaged, or the log is too long for
            one log in memory.
    """
    require_path("the folder of a log", folder)
    path = Path(folder)
    return read_whole(path / MANIFEST, lambda: open_shards(path).load())


def open_shards(folder: str | os.PathLike[str], verify: bool = False) -> ShardedLog:
    """Open a saved log: all files are looked at, none is decoded whole.

    Missing and cut short files are found at once; those with other content at once too, if all
    files together are small (HASHED_AT_ONCE) or with `verify`, else when the file is first read.

    Raises:
        LogFormatError: naming the file at fault.
    """
    path = Path(folder)
    about = read_manifest(path)
    tables = (about.tables.items, about.tables.categories)
    files = (*tables, *about.shards)
    check_files(path, files)
    small = verify or sum(one.bytes for one in files) <= HASHED_AT_ONCE
    hashed = files if small else tables
    for one in hashed:
        check_hash(path / one.file, one.sha256)
    try:
        head, counts = read_head(path, about)
    except (TypeError, *READ_ERRORS, LogFormatError) as error:
        raise LogFormatError(
            f"'{path}' is damaged ({one_line(error.__cause__ or error)}): {WAYS_OUT}"
        ) from None
    return ShardedLog(
        path,
        head,
        about.shards,
        about.digests,
        counts,
        _hashed={one.file for one in hashed},
    )


def cut_of(shards: Sequence[Shard]) -> str:
    """A line about the cut: how many shards, and the least and the most events of one."""
    events = [sum(shard.events) for shard in shards]
    return (
        f"{len(shards)} shards of {min(events)} to {max(events)} events" if events else "no shard"
    )


def totals_of_splits(shards: Sequence[Shard]) -> dict[str, tuple[int, ...]]:
    """What is counted of each split, summed over shards."""
    names = get_args(Counted)
    each = {name: [getattr(shard, name) for shard in shards] or [(0, 0, 0)] for name in names}
    return {name: tuple(map(sum, zip(*counts, strict=True))) for name, counts in each.items()}

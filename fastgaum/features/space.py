"""FeatureSpace: what the training split says of items and fields, and how a log becomes bags under
it.

A candidate's bag holds one id per categorical field (its item, its category …) and one weighted
entry per number. Every candidate has every number, so that part of the bag is kept as a dense block
`numbers`; both parts together are the sparse multi-hot vector whose linear map is the scorers'
first layer.

Ids share one space: 0 is "no click" (only histories use it), then per field one unknown row and its
values."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.errors import ConfigError, FeatureMismatchError, LogFormatError
from fastgaum.features.encoder import Encoder, UsersOwn, number_names, varying_columns
from fastgaum.features.sessions import EncodedSessions, chunks, select_sessions
from fastgaum.kernels.candidate_counts import PackedSessions
from fastgaum.kernels.candidate_formulas import (
    relation_numbers,
)
from fastgaum.kernels.relations import (
    PairCounts,
    PairRecords,
    PairTables,
    follow_records,
    rival_records,
    sum_runs,
)
from fastgaum.logs.log import TRAIN, FloatArray, IntArray, ItemCounts, SessionLog
from fastgaum.logs.shards import AnyLog


@dataclass(frozen=True)
class CategoricalField:
    """A family of ids: `start` is its unknown row, `start + 1 + i` the i-th value of `values`."""

    name: str
    source: str
    """"item" (identity), "item_field", "candidate_field" or "position" """
    start: int
    values: pl.Series

    @property
    def stop(self) -> int:
        """One past the field's last id."""
        return self.start + 1 + len(self.values)


@dataclass(frozen=True)
class FeatureSpace:
    """Built once from the training split; then maps any log with the same fields to bags."""

    protocol: str
    set_context: bool
    categorical: tuple[CategoricalField, ...]
    number_names: tuple[str, ...]
    """base numbers, before the set-relative copies"""
    mean: FloatArray
    """training mean of each number, shape (n_numbers,)"""
    scale: FloatArray
    """training standard deviation of each number (1 where it is 0), shape (n_numbers,)"""
    least: FloatArray
    """smallest value of each number in training, not standardised, shape (n_numbers,)"""
    most: FloatArray
    """largest value of each number in training, likewise"""
    item_counts: ItemCounts
    """what the training split says of each item of the identity field, by space row"""
    prior_rate: float
    """choices per display in the training split"""
    no_click: bool
    """whether the training split holds an event without a choice"""
    ordered: bool
    fingerprint: str
    """of the training log: its training sessions are left out of their own users' counts, other
    logs' are not"""
    field_names: tuple[str, ...] = field(default=())
    """declared candidate and item columns, sorted"""
    relations: Relations | None = None
    """what pairs of items have been to each other in training; None where numbers about them are
    not asked for"""

    @property
    def n_ids(self) -> int:
        """Number of ids, no click and unknown rows included."""
        return self.categorical[-1].stop

    @property
    def n_numbers(self) -> int:
        """Width of the number block."""
        return len(self.number_names) + len(varying_columns(self.number_names, self.set_context))

    @property
    def unknown_of_id(self) -> IntArray:
        """Unknown row of each id's field, shape (n_ids,): what id dropout puts in its place."""
        unknown = np.zeros(self.n_ids, dtype=np.int32)
        for part in self.categorical:
            unknown[part.start : part.stop] = part.start
        return unknown

    @classmethod
    def fit(
        cls, log: AnyLog, protocol: str = "bags", set_context: bool = True, relations: bool = False
    ) -> FeatureSpace:
        """Build the space from the training split of `log`; `relations` adds the
        numbers of `Relations`.

        Raises:
            ConfigError: protocol `views` on a log without view counts, or too many pairs for
                relations.
            LogFormatError: the log has no training session.
        """
        of_split = {what: of_splits[TRAIN] for what, of_splits in log.counts().items()}
        if of_split["sessions"] == 0:
            raise LogFormatError(
                f"log '{log.name}' has no training session: give a split column or --split user"
            )
        if protocol == "views" and log.views is None:
            raise ConfigError(
                f"protocol 'views' needs repeated view rows, log '{log.name}' has none: use 'bags'"
            )
        counts = log.training_counts()
        known = np.flatnonzero(counts.displays)
        space = cls(
            protocol=protocol,
            set_context=set_context,
            categorical=_categorical_fields(log, known),
            number_names=number_names(log, protocol, relations),
            mean=np.zeros(0, np.float32),
            scale=np.zeros(0, np.float32),
            least=np.zeros(0, np.float32),
            most=np.zeros(0, np.float32),
            item_counts=ItemCounts(
                counts.displays[known], counts.choices[known], counts.expected[known]
            ),
            prior_rate=of_split["choices"] / of_split["candidates"],
            no_click=of_split["choices"] < of_split["events"],
            ordered=log.ordered,
            fingerprint=log.fingerprint,
            field_names=tuple(sorted([*log.candidate_fields, *log.item_fields])),
            relations=_relations(log, counts.displays) if relations else None,
        )
        mean, scale, least, most = space.encoder(log).moments()
        return dataclasses.replace(
            space,
            mean=mean,
            scale=np.where(scale > 1e-6, scale, np.float32(1)),
            least=least,
            most=most,
        )

    def check_fields(self, log: AnyLog) -> None:
        """Raise FeatureMismatchError when a log's declared fields, order or views differ from the
        training log's."""
        fields = tuple(sorted([*log.candidate_fields, *log.item_fields]))
        if fields != self.field_names:
            missing = sorted(set(self.field_names) - set(fields))
            extra = sorted(set(fields) - set(self.field_names))
            raise FeatureMismatchError(
                f"the model was trained on fields {list(self.field_names)}, log '{log.name}' "
                f"declares {list(fields)}"
                f" (missing {missing}, extra {extra}): declare the same fields"
            )
        if self.ordered and not log.ordered:
            raise FeatureMismatchError(
                f"the model was trained on displays whose order is real, log '{log.name}' is "
                "unordered: read it with --ordered"
            )
        if self.protocol == "views" and log.views is None:
            raise FeatureMismatchError(f"the model reads view counts, log '{log.name}' has none")
        for part in self.categorical:
            if part.source.endswith("_field") and part.name not in log.categories:
                raise FeatureMismatchError(
                    f"field '{part.name}' holds categories in the training log, numbers in "
                    f"'{log.name}'"
                )
        for name in self.number_names:
            if name in log.categories:
                raise FeatureMismatchError(
                    f"field '{name}' holds numbers in the training log, categories in '{log.name}'"
                )

    def encoder(self, log: AnyLog) -> Encoder:
        """What turns sessions of `log` into bags, chunk by chunk; of a log in shards, `Encoder.on`
        each part. Raises FeatureMismatchError if its fields are not those of the training log."""
        self.check_fields(log)
        return Encoder(self, log)

    def encode(self, log: SessionLog, rows: IntArray) -> EncodedSessions:
        """Turn the sessions `rows` of `log` into bags. Raises FeatureMismatchError as `encoder`."""
        return self.encoder(log).encode(rows)


def _relations(log: AnyLog, displays: npt.NDArray[np.int64]) -> Relations:
    space_rows = np.where(displays > 0, np.cumsum(displays > 0) - 1, -1).astype(np.int32)
    n_items = int((displays > 0).sum())
    fitted: Relations | None = None
    for part in log.parts(ids=False):
        picked = select_sessions(part, part.sessions_in("train"))
        items = np.asarray(part.items)[picked.candidates]
        of_part = Relations.fit(picked.packed(space_rows[items]), n_items)
        fitted = of_part if fitted is None else fitted.plus(of_part)
    assert fitted is not None
    return fitted


def _categorical_fields(
    log: AnyLog, known_items: npt.NDArray[np.integer]
) -> tuple[CategoricalField, ...]:
    every = len(known_items) == log.n_items
    fields = [
        CategoricalField(
            "item", "item", 1, log.item_ids if every else log.item_ids.gather(known_items)
        )
    ]

    def add(name: str, source: str, values: pl.Series) -> None:
        fields.append(CategoricalField(name, source, fields[-1].stop, values))

    for name in sorted(log.item_fields):
        if name in log.categories:
            codes = np.unique(log.item_fields[name][known_items])
            add(name, "item_field", log.categories[name].gather(codes[codes >= 0]))
    shown, longest = _shown_codes(log)
    for name, codes in shown.items():
        add(name, "candidate_field", log.categories[name].gather(codes))
    if log.ordered:
        add("position", "position", pl.Series([str(position) for position in range(longest)]))
    return tuple(fields)


def _shown_codes(log: AnyLog) -> tuple[dict[str, npt.NDArray[np.integer]], int]:
    """Codes that training candidates have in each categorical candidate field, and the longest
    display set."""
    names = sorted(name for name in log.candidate_fields if name in log.categories)
    # one entry more: code -1, a missing value, writes to the last
    seen = {name: np.zeros(len(log.categories[name]) + 1, dtype=bool) for name in names}
    longest = 0
    for part in log.parts(ids=False) if names or log.ordered else ():
        for chunk in chunks(part, part.sessions_in("train")):
            picked = select_sessions(part, chunk)
            longest = max(longest, int(np.diff(picked.display_offsets).max(initial=0)))
            for name in names:
                seen[name][part.candidate_fields[name][picked.candidates]] = True
    return {name: np.flatnonzero(flags[:-1]) for name, flags in seen.items()}, longest


WINDOW = 20
"""how many of a session's last choices are looked back at, as many as the paper's position weights
"""
MOST_RECORDS = 100_000_000
"""pairs of training candidates beyond which the tables would take many gigabytes"""


class Relations(PairTables):
    """What the training split says of an item beside these rivals, and after these choices: two
    tables of ordered pairs of training items, counted over training events.

        rivals   (a, b) in one display set: displays together, choices of a, choices of b
        follows  (h, a), h among the session's last choices, a displayed later: displays, choices

    A choice is made among rivals, so an item that few ever chose may still have beaten the ones it
    stands beside now; and a choice is made after others, which is what item-to-item neighbours
    count. Everything that the event's own user said is left out of both, or the label comes back
    in."""

    @classmethod
    def fit(cls, sessions: PackedSessions, n_items: int) -> Self:
        """Count training sessions; they have space rows as items. Raises ConfigError for a log of
        too many pairs for tables of this kind."""
        return cls(
            _by_left_item(_rivals(sessions, n_items), n_items),
            _by_left_item(_follows(sessions, n_items), n_items),
        )

    def plus(self, other: Relations) -> Relations:
        """The relations of two parts of a log together. Raises ConfigError as `fit`."""
        return Relations(_sum(self.rivals, other.rivals), _sum(self.follows, other.follows))

    def check(self, n_items: int) -> None:
        """Raise ValueError unless loops may trust the tables: what a file holds is not known to be
        what was written."""
        for table, width in ((self.rivals, 3), (self.follows, 2)):
            ends_right = (
                table.starts.shape == (n_items + 1,)
                and table.starts[0] == 0
                and table.starts[-1] == len(table.keys)
            )
            if (
                not ends_right
                or (np.diff(table.starts) < 0).any()
                or table.counts.shape != (len(table.keys), width)
            ):
                raise ValueError("a table of item pairs does not fit its items")

    def write_numbers(
        self,
        sessions: PackedSessions,
        own: UsersOwn | None,
        columns: npt.NDArray[np.int64],
        numbers: FloatArray,
    ) -> None:
        """Write RELATION_NUMBERS of each candidate.

        Args:
            sessions: with space rows as items, -1 for an unknown one.
            own: what the events' own users said in training, which is left out; None: nothing.
            columns: where each number stands in `numbers`, -1 for one that is not asked for.
            numbers: shape (n_candidates, ·).
        """
        n_items = self.rivals.n_items
        if own is None:
            users = np.full(len(sessions.choices), -1, dtype=np.int32)
            tables = PairTables(
                _summed(_room(0, 3), users[:0], 0, n_items),
                _summed(_room(0, 2), users[:0], 0, n_items),
            )
        else:
            users = own.part_users
            n_users = 1 + int(max(own.users.max(initial=-1), users.max(initial=-1)))
            rivals, follows = _rivals(own.sessions, n_items), _follows(own.sessions, n_items)
            tables = PairTables(
                _summed(rivals, own.users[rivals.events], n_users, n_items),
                _summed(follows, own.users[follows.events], n_users, n_items),
            )
        relation_numbers(sessions, users, self, tables, WINDOW, columns, numbers)


def _rivals(sessions: PackedSessions, n_items: int) -> PairRecords:
    size = np.diff(sessions.display_offsets).astype(np.int64)
    records = _room(int((size * (size - 1)).sum()), 3)
    rival_records(sessions, n_items, records)
    return records


def _follows(sessions: PackedSessions, n_items: int) -> PairRecords:
    n = follow_records(sessions, WINDOW, n_items, _room(0, 2), False)
    records = _room(n, 2)
    follow_records(sessions, WINDOW, n_items, records, True)
    return records


def _room(n: int, width: int) -> PairRecords:
    _require_room(n)
    return PairRecords(np.empty(n, np.int64), np.empty((n, width), np.int32), np.empty(n, np.int32))


def _require_room(n: int) -> None:
    if n > MOST_RECORDS:
        raise ConfigError(
            f"relations of {n:,} pairs of candidates are more than {MOST_RECORDS:,}: pass "
            "relations = false, or the preset large"
        )


def _by_left_item(records: PairRecords, n_items: int) -> PairCounts:
    return _summed(records, records.keys // n_items, n_items, n_items)


def _summed(
    records: PairRecords, groups: npt.NDArray[np.integer], n_groups: int, n_items: int
) -> PairCounts:
    """Sum records of equal group and key."""
    keys, values, _ = records
    order = np.lexsort((keys, groups))
    # one number per (group, key): where a new one starts, a new pair does
    fresh = np.ones(len(order), dtype=np.int64)
    fresh[1:] = (np.diff(keys[order]) != 0) | (np.diff(groups[order]) != 0)
    run = np.cumsum(fresh)
    unique = np.empty(len(order), dtype=np.int64)
    sums = np.zeros(values.shape, dtype=np.int32)
    n = sum_runs(run, order, values, unique, sums)
    first = order[np.flatnonzero(fresh)]
    starts = np.searchsorted(groups[first], np.arange(n_groups + 1))
    return PairCounts(n_items, starts.astype(np.int64), keys[first], sums[:n])


def _sum(one: PairCounts, other: PairCounts) -> PairCounts:
    """The sum of two tables whose groups are left items."""
    keys = np.concatenate([one.keys, other.keys])
    counts = np.concatenate([one.counts, other.counts])
    table = _by_left_item(PairRecords(keys, counts, keys), one.n_items)
    _require_room(len(table.keys))
    return table

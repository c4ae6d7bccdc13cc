"""What the training split says of pairs of items: beside these rivals, and after these choices."""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from fastgaum.errors import TooLargeError
from fastgaum.kernels.candidate_counts import PackedSessions
from fastgaum.kernels.candidate_formulas import relation_numbers
from fastgaum.kernels.relations import (
    PairCounts,
    PairRecords,
    PairTables,
    follow_records,
    rival_records,
    sum_runs,
)
from fastgaum.logs.log import FloatArray, IntArray

WINDOW = 20
"""how many of a session's last choices are looked back at, as many as the paper's position weights
"""
MOST_RECORDS = 100_000_000
"""pairs of training candidates beyond which the tables would take many gigabytes"""


class UsersOwn(NamedTuple):
    """The training sessions of the users of a part of the training log."""

    sessions: PackedSessions
    """with space rows as items"""
    users: IntArray
    """user of each of their events, 0 to n − 1"""
    part_users: IntArray
    """user of each event of the part, likewise"""


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
        """Count training sessions; they have space rows as items. Raises TooLargeError for a log
        of too many pairs for tables of this kind."""
        return cls(
            _by_left_item(_rivals(sessions, n_items), n_items),
            _by_left_item(_follows(sessions, n_items), n_items),
        )

    def plus(self, other: Relations) -> Relations:
        """The relations of two parts of a log together. Raises TooLargeError as `fit`."""
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
        raise TooLargeError(
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

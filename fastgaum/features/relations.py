"""Relations: what the training split says of an item beside these rivals, and after these choices.

Two tables of ordered pairs of training items, counted over training events:

    rivals   (a, b) in one display set: displays together, choices of a, choices of b
    follows  (h, a), h among the session's last choices, a displayed later: displays, choices

A choice is made among rivals, so an item that few ever chose may still have beaten the ones it
stands beside now; and a choice is made after others, which is what item-to-item neighbours count.
Everything that the event's own user said is left out of both, or the label comes back in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fastgaum.errors import ConfigError
from fastgaum.features.selection import Selection
from fastgaum.kernels.relations import (
    follow_records,
    follow_sums,
    rival_records,
    rival_sums,
    sum_runs,
)
from fastgaum.logs.log import IntArray

NUMBERS = (
    "rivals_met",
    "rivals_known",
    "rivals_won",
    "rivals_odds",
    "follows_shown",
    "follows_chosen",
)
"""log displays with the rivals, share of them met, log odds of all wins, sum of log odds, log
displays and choices"""
WINDOW = 20
"""how many of a session's last choices are looked back at, as many as the paper's position weights
"""
MOST_RECORDS = 100_000_000
"""pairs of training candidates beyond which the tables would take many gigabytes"""

Counts = npt.NDArray[np.int32]
Keys = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PairTable:
    """Counts of ordered pairs, grouped: keys left · n_items + right ascending within each group."""

    starts: Keys
    """start of each group in keys, shape (n_groups + 1,); a group is a left item, or a user in an
    own table"""
    keys: Keys
    counts: Counts
    """shape (n_pairs, 3) or (n_pairs, 2)"""

    @classmethod
    def of(cls, keys: Keys, groups: npt.NDArray[Any], n_groups: int, values: Counts) -> Self:
        """Sum records of equal group and key."""
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
        return cls(starts.astype(np.int64), keys[first], sums[:n])

    def plus(self, other: PairTable, n_items: int) -> PairTable:
        """The sum of two tables whose groups are left items."""
        keys = np.concatenate([self.keys, other.keys])
        return PairTable.of(
            keys, keys // n_items, n_items, np.concatenate([self.counts, other.counts])
        )

    def check(self, n_groups: int, width: int) -> None:
        """Raise ValueError unless loops may trust the table: what a file holds is not known to be
        what was written."""
        ends_right = (
            self.starts.shape == (n_groups + 1,)
            and self.starts[0] == 0
            and self.starts[-1] == len(self.keys)
        )
        if (
            not ends_right
            or (np.diff(self.starts) < 0).any()
            or self.counts.shape != (len(self.keys), width)
        ):
            raise ValueError("a table of item pairs does not fit its items")


@dataclass(frozen=True)
class Relations:
    """Both tables over the training items."""

    n_items: int
    rivals: PairTable
    follows: PairTable

    @classmethod
    def fit(cls, part: Selection, rows: IntArray, n_items: int) -> Self:
        """Count the training sessions; rows: row of each candidate's item among the training items.

        Raises:
            ConfigError: the log has too many pairs for tables of this kind.
        """
        keys, values, _ = _rivals(part, rows, n_items)
        rivals = PairTable.of(keys, keys // n_items, n_items, values)
        keys, values, _ = _follows(part, rows, n_items)
        return cls(n_items, rivals, PairTable.of(keys, keys // n_items, n_items, values))

    def plus(self, other: Relations) -> Relations:
        """The relations of two parts of a log together.

        Raises:
            ConfigError: they have too many pairs for tables of this kind.
        """
        tables = [
            mine.plus(theirs, self.n_items)
            for mine, theirs in ((self.rivals, other.rivals), (self.follows, other.follows))
        ]
        for table in tables:
            _require_room(len(table.keys))
        return Relations(self.n_items, *tables)

    def numbers(
        self,
        part: Selection,
        rows: IntArray,
        own: tuple[Selection, IntArray, IntArray, IntArray] | None,
    ) -> dict[str, npt.NDArray[Any]]:
        """The numbers of NUMBERS for each candidate.

        rows: row of each candidate's item among the training items, or -1. `own`, for the training
        log, holds the training sessions, their candidates' rows, and the user of each of their and
        of this part's events, coded 0 to n_users - 1."""
        users = np.full(len(part.choices), -1, dtype=np.int32)
        own_rivals = own_follows = None
        if own is not None:
            train, train_rows, train_users, users = own
            n_users = 1 + int(max(train_users.max(initial=-1), users.max(initial=-1)))
            keys, values, events = _rivals(train, train_rows, self.n_items)
            own_rivals = PairTable.of(keys, train_users[events], n_users, values)
            keys, values, events = _follows(train, train_rows, self.n_items)
            own_follows = PairTable.of(keys, train_users[events], n_users, values)
        rivals = np.zeros((len(rows), 5))
        rival_sums(
            part.display_offsets,
            rows,
            users,
            self.n_items,
            *_arrays(self.rivals),
            *_arrays(own_rivals),
            rivals,
        )
        follows = np.zeros((len(rows), 2))
        follow_sums(
            part.session_offsets,
            part.display_offsets,
            rows,
            part.choices,
            users,
            WINDOW,
            self.n_items,
            *_arrays(self.follows),
            *_arrays(own_follows),
            follows,
        )
        size = np.diff(part.display_offsets)
        others = np.repeat(np.maximum(size - 1, 1), size)
        return {
            "rivals_met": np.log1p(rivals[:, 0]),
            "rivals_known": rivals[:, 1] / others,
            "rivals_won": np.log((rivals[:, 2] + 0.5) / (rivals[:, 3] + 0.5)),
            "rivals_odds": rivals[:, 4],
            "follows_shown": np.log1p(follows[:, 0]),
            "follows_chosen": np.log1p(follows[:, 1]),
        }


def _arrays(table: PairTable | None) -> tuple[Keys, Keys, Counts]:
    if table is None:
        return np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros((0, 3), np.int32)
    return table.starts, table.keys, table.counts


def _rivals(part: Selection, rows: IntArray, n_items: int) -> tuple[Keys, Counts, IntArray]:
    size = np.diff(part.display_offsets).astype(np.int64)
    keys, values, events = _room(int((size * (size - 1)).sum()), 3)
    rival_records(part.display_offsets, rows, part.choices, n_items, keys, values, events)
    return keys, values, events


def _follows(part: Selection, rows: IntArray, n_items: int) -> tuple[Keys, Counts, IntArray]:
    arguments = (part.session_offsets, part.display_offsets, rows, part.choices, WINDOW, n_items)
    n = follow_records(*arguments, *_room(0, 2), False)
    room = _room(n, 2)
    follow_records(*arguments, *room, True)
    return room


def _room(n: int, width: int) -> tuple[Keys, Counts, IntArray]:
    _require_room(n)
    return np.empty(n, np.int64), np.empty((n, width), np.int32), np.empty(n, np.int32)


def _require_room(n: int) -> None:
    if n > MOST_RECORDS:
        raise ConfigError(
            f"relations of {n:,} pairs of candidates are more than {MOST_RECORDS:,}: pass "
            "relations = false, or the preset large"
        )

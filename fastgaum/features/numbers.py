"""The numbers of a candidate by name, in which columns they stand, and what pairs of items say.
Their formulas are in kernels/candidate_formulas.py.

Each formula is written there once, in a function of one candidate's counts: `numbers_of_session`,
`numbers_of_training` (the rate of choices, for instance) or `numbers_of_relations`. `Encoder`
applies it to all candidates of a log at once, for training and evaluation; a world applies it to
the slate that it shows, step by step. tests/features/test_numbers.py holds both to the same
numbers.

`Relations` are what the training split says of an item beside these rivals, and after these
choices: two tables of ordered pairs of training items, counted over training events.

    rivals   (a, b) in one display set: displays together, choices of a, choices of b
    follows  (h, a), h among the session's last choices, a displayed later: displays, choices

A choice is made among rivals, so an item that few ever chose may still have beaten the ones it
stands beside now; and a choice is made after others, which is what item-to-item neighbours count.
Everything that the event's own user said is left out of both, or the label comes back in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from fastgaum.errors import ConfigError
from fastgaum.kernels.candidate_counts import PackedSessions, TrainingTotals
from fastgaum.kernels.candidate_formulas import (
    RELATION_NUMBERS,
    TRAINING_NUMBERS,
    relation_numbers,
    training_numbers,
)
from fastgaum.kernels.relations import (
    PairCounts,
    PairRecords,
    PairTables,
    follow_records,
    rival_records,
    sum_runs,
)
from fastgaum.logs.log import FloatArray, IntArray, ItemCounts

CONTEXT_NUMBERS = (
    "displayed_before",
    "chosen_before",
    "log_displays",
    "log_choices",
    "choice_rate",
    "choice_lift",
    "never_seen",
    "never_chosen",
    "log_set_size",
    "event_number",
)
"""SESSION_NUMBERS and TRAINING_NUMBERS in the order in which a candidate has them"""
SAME_FOR_SET = ("log_set_size", "event_number")
"""numbers that all candidates of a display set share: relative to their mean they are nothing"""
LOG_VIEWS = "log_views"


def made_numbers(protocol: str, relations: bool) -> tuple[str, ...]:
    """Names of the numbers that are made, in order; a log's own numeric fields follow them."""
    return (
        *(CONTEXT_NUMBERS if protocol != "identity" else ()),
        *(RELATION_NUMBERS if relations else ()),
        *((LOG_VIEWS,) if protocol == "views" else ()),
    )


def number_columns(wanted: Sequence[str], number_names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Column of each wanted number, -1 for one that is not there, shape (len(wanted),)."""
    at = {name: column for column, name in enumerate(number_names)}
    return np.array([at.get(name, -1) for name in wanted], np.int64)


def varying_columns(number_names: Sequence[str], set_context: bool) -> npt.NDArray[np.int64]:
    """Columns of the numbers that also come less their mean over the display set, in the order of
    those copies."""
    names = number_names if set_context else ()
    return np.array([at for at, name in enumerate(names) if name not in SAME_FOR_SET], np.int64)


def totals_of(counts: ItemCounts, space_rows: IntArray) -> TrainingTotals:
    """Training counts of the items in those rows, (n,) each; zeros for an unknown item, row -1."""
    known = space_rows >= 0
    return TrainingTotals(
        np.where(known, counts.displays[space_rows], 0),
        np.where(known, counts.choices[space_rows], 0),
        np.where(known, counts.expected[space_rows], 0.0),
    )


def item_numbers(totals: TrainingTotals, prior_rate: float) -> FloatArray:
    """TRAINING_NUMBERS of n items, shape (n, 6)."""
    numbers = np.empty((len(totals.displays), len(TRAINING_NUMBERS)), np.float32)
    training_numbers(totals, prior_rate, np.arange(len(TRAINING_NUMBERS)), numbers)
    return numbers


def log_views(views: npt.NDArray[np.number]) -> npt.NDArray[np.floating]:
    """The number that protocol `views` makes of view counts (each at least 1), shape (n,)."""
    numbers: npt.NDArray[np.floating] = np.log(views)
    return numbers


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
    """Both tables over the training items."""

    @classmethod
    def fit(cls, sessions: PackedSessions, n_items: int) -> Self:
        """Count training sessions; they have space rows as items.

        Raises:
            ConfigError: the log has too many pairs for tables of this kind.
        """
        return cls(
            _by_left_item(_rivals(sessions, n_items), n_items),
            _by_left_item(_follows(sessions, n_items), n_items),
        )

    def plus(self, other: Relations) -> Relations:
        """The relations of two parts of a log together.

        Raises:
            ConfigError: they have too many pairs for tables of this kind.
        """
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

"""Training counts of pairs of items: beside these rivals, and after these choices. Displays alone
say which are left out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastgaum.arrays import IntArray
from fastgaum.kernels.candidate_counts import PackedSessions
from fastgaum.kernels.pairs import PairCounts, enter_pairs
from fastgaum.kernels.relations import (
    LatestChoices,
    PairSlots,
    PairTables,
    RivalRule,
    count_follows,
    count_rivals,
    find_latest_choices,
    move_pairs,
)
from fastgaum.logs.context import training_events
from fastgaum.logs.cut import stable_order
from fastgaum.logs.log import SessionLog
from fastgaum.presets import LARGE_DISPLAYS

WINDOW = 20
"""how many of a session's last choices are looked back at"""
MOST_COMPARISONS = 1 << 26
"""training candidates times rivals of each at most: rivals displayed most count"""
MOST_RIVALS = 1 << 10
"""rivals that a candidate is compared with at most"""
MOST_PAIRS = 1 << 24
"""pairs of a table at most: those of the items displayed least are dropped"""
FIRST_SLOTS = 1 << 7
"""so few that a small log's tables grow too, and compile that"""
SLICES = 16
"""of the left items, whose pairs are added up one after the other"""


class Relations(PairTables):
    """The tables of pairs of training items, which a file may hold."""

    def check(self, n_items: int) -> None:
        """Raise ValueError unless loops may trust a file's tables."""
        ranks, most = self.rule.ranks, self.rule.most
        if not 1 <= most <= MOST_RIVALS or len(ranks) != n_items:
            raise ValueError(f"candidates cannot be compared with {most} rivals each")
        for table, width in ((self.rivals, 3), (self.follows, 2)):
            ends_right = (
                table.starts.shape == (n_items + 1,)
                and table.starts[0] == 0
                and table.starts[-1] == len(table.keys)
            )
            if (
                not ends_right
                or (np.diff(table.starts) < 0).any()
                or not (0 <= table.keys.min(initial=0) <= table.keys.max(initial=0) < n_items**2)
                or table.counts.shape != (len(table.keys), width)
                or (table.counts < 0).any()
            ):
                raise ValueError("a table of item pairs does not fit its items")

    def completed(self) -> Relations:
        """The same with what a file does not hold: limits, and what finds pairs."""
        n, ranks = self.rivals.n_items, self.rule.ranks

        def complete(table: PairCounts) -> PairCounts:
            sides = (table.keys // n, table.keys % n) if n else ()
            limit = 1 + max((int(ranks[rows].max(initial=-1)) for rows in sides), default=-1)
            return with_entries(table._replace(limit=limit))

        return Relations(complete(self.rivals), complete(self.follows), self.rule)


def rule_of(displays: npt.NDArray[np.integer]) -> RivalRule:
    """Which rivals count, by the training displays of each item's row."""
    most = min(max(MOST_COMPARISONS // max(int(displays.sum()), 1), 1), MOST_RIVALS)
    return RivalRule(most, ranks_of(displays))


class PlacedPairs(NamedTuple):
    """Counts of pairs of a part of a log, beside the table of the whole log."""

    places: IntArray
    """of each pair in the whole's keys, ascending, shape (n_pairs,)"""
    counts: IntArray
    """shape (n_pairs, 3) or (n_pairs, 2)"""


def pairs_of(
    n_items: int,
    limit: int,
    counted: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], IntArray],
) -> PairCounts:
    """Starts, keys and counts as a table without what finds a pair."""
    return PairCounts(n_items, limit, *counted, np.zeros(0, np.uint16), np.zeros((0, 2), np.int32))


def with_entries(table: PairCounts) -> PairCounts:
    """The table with what finds a pair."""
    n = len(table.keys)
    marks, entries = np.zeros(n, np.uint16), np.full((2 * n, 2), -1, np.int32)
    table = table._replace(marks=marks, entries=entries)
    enter_pairs(table)
    return table


def add_pairs(tables: Sequence[PairCounts], rule: RivalRule) -> PairCounts:
    """The pairs of parts of a log, each counted by the rule, without what finds one; what one part
    has dropped is in no pair."""
    n_items, limit = tables[0].n_items, min(table.limit for table in tables)
    added = [(tables[0].keys[:0], tables[0].counts[:0])]
    # a slice of the left items at a time, for sorting takes several times its size
    lasts = np.linspace(0, n_items, SLICES + 1).astype(np.int64)
    for first, last in pairwise(lasts.tolist()):
        own = [slice(table.starts[first], table.starts[last]) for table in tables]
        keys = np.concatenate([one.keys[at] for one, at in zip(tables, own, strict=True)])
        if not len(keys):
            continue
        counts = np.concatenate([one.counts[at] for one, at in zip(tables, own, strict=True)])
        order = stable_order(keys)
        keys, counts = keys[order], counts[order]
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        keys, counts = keys[starts], np.add.reduceat(counts, starts, axis=0).astype(counts.dtype)
        if limit < n_items:
            kept = np.maximum(rule.ranks[keys // n_items], rule.ranks[keys % n_items]) < limit
            keys, counts = keys[kept], counts[kept]
        added.append((keys, counts))
    keys, counts = (np.concatenate(each) for each in zip(*added, strict=True))
    return _sorted_pairs(n_items, limit, keys, counts)


def place_pairs(part: PairCounts, whole: PairCounts) -> PlacedPairs:
    """The pairs of a part of a log by their places in the whole's; what the whole has dropped is
    left out."""
    places = np.searchsorted(whole.keys, part.keys)
    places[places == len(whole.keys)] = 0
    known = whole.keys[places] == part.keys if len(whole.keys) else np.zeros(len(places), np.bool_)
    return PlacedPairs(places[known].astype(np.int32), part.counts[known])


def subtract_pairs(whole: PairCounts, part: PlacedPairs) -> PairCounts:
    """The pairs of a log less those of a part of it: the whole's pairs with counts of their own,
    which are 0 where only the part has the pair."""
    counts = whole.counts.copy()
    counts[part.places] -= part.counts
    return whole._replace(counts=counts)


def _sorted_pairs(
    n_items: int, limit: int, keys: npt.NDArray[np.int64], counts: IntArray
) -> PairCounts:
    starts = np.searchsorted(keys, np.arange(n_items + 1) * n_items).astype(np.int64)
    return pairs_of(n_items, limit, (starts, keys, counts))


def ranks_of(displays: npt.NDArray[np.integer]) -> IntArray:
    """Rank of each item, 0 for most displays; of equal ones the first row's is lower."""
    ranks = np.empty(len(displays), np.int32)
    ranks[np.argsort(-displays.astype(np.int64), kind="stable")] = np.arange(len(displays))
    return ranks


def mean_display(log: SessionLog) -> float:
    """Candidates of the display in which a training candidate stands, in the mean over these
    candidates: Σ k² / Σ k over displays of k; 0 without training."""
    sizes = np.diff(log.display_offsets)[training_events(log)].astype(np.float64)
    return float(sizes @ sizes / max(sizes.sum(), 1))


def left_out(log: SessionLog) -> str:
    """Why models that may choose read no relations of a log, in words; empty where they do."""
    size = mean_display(log)
    if size <= LARGE_DISPLAYS:
        return ""
    return (
        f"a training candidate of log '{log.name}' is displayed among {size:,.0f} in the mean, and "
        f"relations are read up to {LARGE_DISPLAYS}: their cost grows with the square"
    )


class PairCounter:
    """Counts the pairs of one table (width 3: rivals, 2: follows), at most MOST_PAIRS."""

    def __init__(self, width: int, rule: RivalRule, n_counters: int = 1) -> None:
        """Begin with nothing. n_counters: whose pairs are added up, so that each has its share of
        MOST_PAIRS."""
        n_items, self.most = len(rule.ranks), MOST_PAIRS // n_counters
        self.width, self.rule, self.limit = width, rule, n_items
        self.slots = self._empty(FIRST_SLOTS)

    def add(self, sessions: PackedSessions) -> None:
        """Count the pairs of sessions."""
        event, n_events = 0, len(sessions.choices)
        while True:
            of_rest = (sessions, event, self.limit, self.rule, self.slots)
            event = count_rivals(*of_rest) if self.width == 3 else count_follows(*of_rest, WINDOW)
            if event == n_events:
                return
            if self.slots.used[0] > self.most:
                self._drop()
            else:
                self._move(2 * len(self.slots.keys))

    def table(self) -> PairCounts:
        """The pairs, sorted, without what finds one."""
        if self.slots.used[0] > self.most:
            self._drop()
        used = np.flatnonzero(self.slots.keys != -1)
        used = used[np.argsort(self.slots.keys[used])]
        n_items = self.slots.n_items
        return _sorted_pairs(n_items, self.limit, self.slots.keys[used], self.slots.counts[used])

    def _drop(self) -> None:
        """Drop pairs of items displayed least, until half of the most are left."""
        keys, ranks, n = self.slots.keys, self.rule.ranks, self.slots.n_items
        keys = keys[keys != -1]
        highest = np.maximum(ranks[keys // n], ranks[keys % n])
        self.limit = int(np.partition(highest, self.most // 2)[self.most // 2])
        self._move(len(self.slots.keys))

    def _move(self, n_slots: int) -> None:
        slots = self._empty(n_slots)
        move_pairs(self.slots, self.rule.ranks, self.limit, slots)
        self.slots = slots

    def _empty(self, n: int) -> PairSlots:
        keys, counts = np.full(n, -1, np.int64), np.zeros((n, self.width), np.int32)
        return PairSlots(len(self.rule.ranks), keys, counts, np.zeros(1, np.int64))


NO_CHOICES = LatestChoices(np.empty((0, WINDOW), np.int32), np.empty(0, np.int32))


def latest_choices(sessions: PackedSessions) -> LatestChoices:
    """The last choices before each event."""
    n = len(sessions.choices)
    latest = LatestChoices(np.empty((n, WINDOW), np.int32), np.empty(n, np.int32))
    find_latest_choices(sessions, latest)
    return latest

"""What pairs of items have been to each other in training displays: counting and looking up, by
loops over ragged arrays."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ._jit import Array, jit, jit_part
from .candidate_counts import PackedSessions


class PairCounts(NamedTuple):
    """Counts of ordered pairs of items, in groups: by left item, or by user in an own table."""

    n_items: int
    starts: Array
    """start of each group in keys, shape (n_groups + 1,)"""
    keys: Array
    """left · n_items + right, ascending within each group, shape (n_pairs,)"""
    counts: Array
    """shape (n_pairs, 3) or (n_pairs, 2)"""


class PairTables(NamedTuple):
    """Both tables of all training events, or of each user's own."""

    rivals: PairCounts
    """(a, b) in one display set: displays together, choices of a, choices of b"""
    follows: PairCounts
    """(h, a), a displayed after the choice of h: displays, choices"""


TOGETHER, MET, WON, LOST, ODDS, SHOWN_AFTER, CHOSEN_AFTER = range(7)
"""columns of a candidate's sums over both tables"""
N_SUMS = 7


class PairRecords(NamedTuple):
    """Pairs as they are met, not yet summed."""

    keys: Array
    """left · n_items + right, int64, shape (n,)"""
    values: Array
    """shape (n, 3) or (n, 2)"""
    events: Array
    """event of each record, shape (n,)"""


@jit
def rival_records(sessions: PackedSessions, n_items: int, records: PairRecords) -> None:
    """Write a record for every ordered pair (a, b) of distinct candidates of a display set, Σ k (k
    − 1) of them: 1, whether a was chosen, whether b was.

    sessions: with training rows as items."""
    at = 0
    _, display_offsets, items, choices = sessions
    keys, values, events = records
    for event in range(len(display_offsets) - 1):
        first, last = display_offsets[event], display_offsets[event + 1]
        chosen = first + choices[event] if choices[event] >= 0 else -1
        for a in range(first, last):
            for b in range(first, last):
                if a != b:
                    keys[at] = np.int64(items[a]) * n_items + items[b]
                    values[at, 0] = 1
                    values[at, 1] = a == chosen
                    values[at, 2] = b == chosen
                    events[at] = event
                    at += 1


@jit
def follow_records(
    sessions: PackedSessions, window: int, n_items: int, records: PairRecords, fill: bool
) -> int:
    """Write a record for every pair (h, a), h among the last `window` choices of the session, a
    displayed after it: 1, whether a was chosen.

    sessions: with training rows as items. Returns the number of records; with fill = False nothing
    is written."""
    at = 0
    session_offsets, display_offsets, items, choices = sessions
    keys, values, events = records
    for session in range(len(session_offsets) - 1):
        start = session_offsets[session]
        for event in range(start, session_offsets[session + 1]):
            first, last = display_offsets[event], display_offsets[event + 1]
            taken = 0
            before = event - 1
            while before >= start and taken < window:
                if choices[before] >= 0:
                    taken += 1
                    if fill:
                        h = items[display_offsets[before] + choices[before]]
                        for a in range(first, last):
                            keys[at] = np.int64(h) * n_items + items[a]
                            values[at, 0] = 1
                            values[at, 1] = a - first == choices[event]
                            events[at] = event
                            at += 1
                    else:
                        at += last - first
                before -= 1
    return at


@jit
def sum_runs(sorted_keys: Array, order: Array, values: Array, unique: Array, sums: Array) -> int:
    """Sum values (n, k) over runs of equal keys; returns the number of runs. sums (n, k) is zero on
    entry."""
    runs = 0
    for i in range(len(sorted_keys)):
        if i == 0 or sorted_keys[i] != sorted_keys[i - 1]:
            unique[runs] = sorted_keys[i]
            runs += 1
        for k in range(values.shape[1]):
            sums[runs - 1, k] += values[order[i], k]
    return runs


@jit_part
def find_key(keys: Array, key: int, low: int, high: int) -> int:
    """Position of key in the ascending keys[low:high], or −1."""
    end = high
    while low < high:
        middle = (low + high) // 2
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low if low < end and keys[low] == key else -1


@jit_part
def add_rivals(rows: Array, rivals: PairCounts, own: PairCounts, user: int, sums: Array) -> None:
    """Add what each candidate of a display set and its rivals there have been to each other,
    without the events of the group `user` of the own table; −1: nothing is left out.

    rows: training row of each candidate, (k,); one outside 0 … n_items − 1 is unknown. sums, (k,
    N_SUMS): TOGETHER is displays together, MET how many rivals were met, WON and LOST choices of
    the one and of the other, ODDS is Σ log((wins + ½) / (losses + ½)) over the rivals."""
    n_items, starts, keys, counts = rivals
    _, own_starts, own_keys, own_counts = own
    for place in range(len(rows)):
        a = rows[place]
        if a < 0 or a >= n_items:
            continue
        together, met, won, lost, odds = 0, 0, 0, 0, 0.0
        for other in range(len(rows)):
            b = rows[other]
            if other == place or b < 0 or b >= n_items:
                continue
            key = np.int64(a) * n_items + b
            at = find_key(keys, key, starts[a], starts[a + 1])
            if at < 0:
                continue
            shown, wins, losses = counts[at, 0], counts[at, 1], counts[at, 2]
            if user >= 0:
                at = find_key(own_keys, key, own_starts[user], own_starts[user + 1])
                if at >= 0:
                    shown -= own_counts[at, 0]
                    wins -= own_counts[at, 1]
                    losses -= own_counts[at, 2]
            together += shown
            met += shown > 0
            won += wins
            lost += losses
            odds += math.log((wins + 0.5) / (losses + 0.5))
        sums[place, TOGETHER] += together
        sums[place, MET] += met
        sums[place, WON] += won
        sums[place, LOST] += lost
        sums[place, ODDS] += odds


@jit_part
def add_follows(
    rows: Array, h: int, follows: PairCounts, own: PairCounts, user: int, sums: Array
) -> None:
    """Add displays and choices of each candidate of a display set after a choice of the item h;
    rows, own and user as in `add_rivals`."""
    n_items, starts, keys, counts = follows
    _, own_starts, own_keys, own_counts = own
    for place in range(len(rows) if 0 <= h < n_items else 0):
        a = rows[place]
        if a < 0 or a >= n_items:
            continue
        key = np.int64(h) * n_items + a
        at = find_key(keys, key, starts[h], starts[h + 1])
        if at < 0:
            continue
        shown, chosen = counts[at, 0], counts[at, 1]
        if user >= 0:
            at = find_key(own_keys, key, own_starts[user], own_starts[user + 1])
            if at >= 0:
                shown -= own_counts[at, 0]
                chosen -= own_counts[at, 1]
        sums[place, SHOWN_AFTER] += shown
        sums[place, CHOSEN_AFTER] += chosen

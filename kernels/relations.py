"""What pairs of items have been to each other in training displays: counted in an open hash table,
looked up in rows of `pairs.py`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ._jit import Array, jit, jit_leaf
from .candidate_counts import PackedSessions, slot
from .pairs import Hashed, PairCounts, find_marked, find_pair
from .row_loops import copy


class RivalRule(NamedTuple):
    """Which candidates of a display set each of the others is compared with."""

    most: int  # how many at most, those of the lowest ranks
    ranks: Array  # rank of each item by training displays, from 0, (n_items,)


class PairTables(NamedTuple):
    """Both tables of all training events."""

    rivals: PairCounts  # (a, b), b compared with a: displays together, choices of a, of b
    follows: PairCounts  # (h, a), a displayed after the choice of h: displays, choices
    rule: RivalRule


class PairSlots(NamedTuple):
    """Counts of pairs while they grow, by an open hash of (left, right)."""

    n_items: int
    keys: Array  # left · n_items + right, -1 where free, int64, (n_slots,), a power of 2
    counts: Array  # int32, (n_slots, 3) or (n_slots, 2)
    used: Array  # how many slots are, int64, (1,)


TOGETHER, MET, WON, LOST, ODDS, SHOWN_AFTER, CHOSEN_AFTER = range(7)
"""columns of a candidate's sums over both tables"""
N_SUMS = 7


@jit_leaf
def _add(slots: PairSlots, key: Any, first: int, second: int) -> None:
    """Add a display to a pair, and its choices."""
    at = slot(slots.keys, key)
    if slots.keys[at] < 0:
        # a slot stays free, or a search would not end: a crafted file has too few pairs
        if slots.used[0] == len(slots.keys) - 1:
            return
        slots.keys[at] = key
        slots.used[0] += 1
    slots.counts[at, 0] += 1
    slots.counts[at, 1] += first
    if slots.counts.shape[1] > 2:
        slots.counts[at, 2] += second


@jit_leaf
def _has_room(slots: PairSlots, n: int) -> bool:
    """Whether n pairs more leave a quarter of the slots free."""
    return bool(4 * (slots.used[0] + n) <= 3 * len(slots.keys))


@jit
def move_pairs(slots: PairSlots, ranks: Array, limit: int, to: PairSlots) -> None:
    """Enter pairs whose ranks are both below `limit` into empty slots of another number."""
    for i in range(len(slots.keys)):
        key = slots.keys[i]
        if key < 0:
            continue
        if limit < slots.n_items:
            left, right = key // slots.n_items, key % slots.n_items
            if ranks[left] >= limit or ranks[right] >= limit:
                continue
        at = slot(to.keys, key)
        to.keys[at] = key
        to.used[0] += 1
        copy(to.counts[at], slots.counts[i])


@jit_leaf
def find_rivals(rows: Array, rule: RivalRule, places: Array) -> int:
    """Write to `places` the candidates that others of a display set are compared with, and return
    how many: all, or the most + 1 of the lowest ranks, in order.

    rows: training row of each candidate, (k,), outside 0 … n_items − 1 unknown."""
    if len(rows) <= rule.most + 1:
        for place in range(len(rows)):
            places[place] = place
        return len(rows)
    ranks, last, n = rule.ranks, -1, 0
    while n <= rule.most:
        lowest = len(ranks)
        for place in range(len(rows)):
            if 0 <= rows[place] < len(ranks) and last < ranks[rows[place]] < lowest:
                lowest, places[n] = ranks[rows[place]], place
        if lowest == len(ranks):
            break
        last, n = lowest, n + 1
    return n


@jit_leaf
def _add_choice(sessions: PackedSessions, event: int, n_chosen: int, latest: Array) -> int:
    """Write an event's choice, if any, over the oldest in `latest`; return how many there are."""
    _, display_offsets, items, choices = sessions
    if choices[event] < 0:
        return n_chosen
    latest[n_chosen % len(latest)] = items[display_offsets[event] + choices[event]]
    return n_chosen + 1


class LatestChoices(NamedTuple):
    """The last choices of its session before each event."""

    items: Array  # rows of items: choice c is at c % window, (n_events, window)
    n: Array  # choices until then, (n_events,)


@jit
def find_latest_choices(sessions: PackedSessions, latest: LatestChoices) -> None:
    """Write the last choices before each event of whole sessions."""
    now = np.zeros(latest.items.shape[1], np.int32)
    session_offsets = sessions.session_offsets
    for session in range(len(session_offsets) - 1):
        n_chosen = 0
        for event in range(session_offsets[session], session_offsets[session + 1]):
            latest.n[event] = n_chosen
            copy(latest.items[event], now)
            n_chosen = _add_choice(sessions, event, n_chosen, now)


@jit
def count_rivals(
    sessions: PackedSessions, event: int, limit: int, rule: RivalRule, slots: PairSlots
) -> int:
    """Count, from an event on, every pair (a, b) of a candidate and one that it is compared with:
    displays, choices of a, choices of b, but none with a rank of `limit` or more. Items are
    training rows. Return the event before which the slots may become too few, or the number of
    events."""
    _, display_offsets, items, choices = sessions
    ranks = rule.ranks
    while event < len(choices):
        rows = items[display_offsets[event] : display_offsets[event + 1]]
        places = np.empty(len(rows), np.int64)
        n = find_rivals(rows, rule, places)
        if not _has_room(slots, len(rows) * n):
            break
        for a in range(len(rows)):
            left = rule.most if ranks[rows[a]] < limit else 0
            for b in places[:n]:
                if b == a or left == 0:
                    continue
                left -= 1
                if ranks[rows[b]] < limit:
                    key = np.int64(rows[a]) * slots.n_items + rows[b]
                    _add(slots, key, a == choices[event], b == choices[event])
        event += 1
    return event


@jit
def count_follows(
    sessions: PackedSessions,
    event: int,
    limit: int,
    rule: RivalRule,
    slots: PairSlots,
    window: int,
) -> int:
    """Count likewise every pair (h, a), h among the last `window` choices of the session, a
    displayed after it: displays, choices of a."""
    session_offsets, display_offsets, items, choices = sessions
    ranks, session, n_chosen, latest = rule.ranks, 0, 0, np.empty(window, np.int32)
    # the first event may be within a session
    while event < len(choices) and session_offsets[session + 1] <= event:
        session += 1
    for before in range(session_offsets[session], event):
        n_chosen = _add_choice(sessions, before, n_chosen, latest)
    while event < len(choices):
        while session_offsets[session + 1] <= event:
            session += 1
            n_chosen = 0
        rows = items[display_offsets[event] : display_offsets[event + 1]]
        known = latest[: min(n_chosen, window)]
        if not _has_room(slots, len(rows) * len(known)):
            break
        for h in known:
            if ranks[h] >= limit:
                continue
            for place in range(len(rows)):
                if ranks[rows[place]] < limit:
                    key = np.int64(h) * slots.n_items + rows[place]
                    _add(slots, key, place == choices[event], 0)
        n_chosen = _add_choice(sessions, event, n_chosen, latest)
        event += 1
    return event


@jit_leaf
def log_odds(wins: float, losses: float) -> float:
    """log((wins + ½) / (losses + ½)), without a call where they are equal."""
    return math.log((wins + 0.5) / (losses + 0.5)) if wins != losses else 0.0


@jit_leaf
def add_rivals(shown: Hashed, tables: PairTables, sums: Array) -> None:
    """Add to sums, (k, N_SUMS), what each candidate and those it is compared with have been to each
    other: displays TOGETHER, how many MET, choices WON and LOST, ODDS the sum of `log_odds`."""
    rows, hashes, _, places, marked = shown
    n_items, _, starts, _, counts, marks, entries = tables.rivals
    most = tables.rule.most
    places = places[: find_rivals(rows, tables.rule, places)]
    for place in range(len(rows)):
        a = rows[place]
        if a < 0 or a >= n_items:
            continue
        others = places
        # one that no other is compared with has one rival more beside it
        if len(places) > most and _absent(place, places):
            others = places[:most]
        start, size = starts[a], starts[a + 1] - starts[a]
        for i in range(find_marked(start, size, marks, hashes, others, marked)):
            other = marked[i]
            at = find_pair(start, size, entries, rows[other], hashes[other, 0])
            if at < 0 or other == place:
                continue
            seen, wins, losses = counts[at, 0], counts[at, 1], counts[at, 2]
            sums[place, TOGETHER] += seen
            sums[place, MET] += seen > 0
            sums[place, WON] += wins
            sums[place, LOST] += losses
            sums[place, ODDS] += log_odds(wins, losses)


@jit_leaf
def _absent(place: int, places: Array) -> bool:
    times = 0
    for other in places:
        times += other == place
    return times == 0


@jit_leaf
def add_follows(shown: Hashed, h: int, follows: PairCounts, sums: Array) -> None:
    """Add displays and choices of each candidate of a display set after a choice of the item h."""
    rows, hashes, all_places, _, marked = shown
    n_items, _, starts, _, counts, marks, entries = follows
    if h < 0 or h >= n_items:
        return
    start, size = starts[h], starts[h + 1] - starts[h]
    for i in range(find_marked(start, size, marks, hashes, all_places, marked)):
        place = marked[i]
        at = find_pair(start, size, entries, rows[place], hashes[place, 0])
        if at < 0:
            continue
        seen, chosen = counts[at, 0], counts[at, 1]
        sums[place, SHOWN_AFTER] += seen
        sums[place, CHOSEN_AFTER] += chosen

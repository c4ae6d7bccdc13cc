"""Counts of pairs (value of a context field, item): what training says of a candidate under the
context of its event, its own user's events left out.

The pairs of all training events are sorted by value and item. Those of each user are in an open
hash table, which is made for a part of the log at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ._jit import Array, jit, jit_part
from .candidate_formulas import log1p_count, log_odds

NO_ITEM = -1
"""stands for no item: events that have the value, whatever they display"""


class CrossedCounts(NamedTuple):
    """Training counts of the pairs of one context field."""

    events: Array
    """events that have each value, int32, shape (n_values,)"""
    starts: Array
    """start of each value in `items`, int64, shape (n_values + 1,)"""
    items: Array
    """rows of items, ascending within a value, int32, shape (n_pairs,)"""
    displays: Array
    """int32, shape (n_pairs,)"""
    choices: Array
    """int32, shape (n_pairs,)"""
    expected: Array
    """choices, had every training choice been uniform, float32, shape (n_pairs,)"""


class OwnPairs(NamedTuple):
    """Pairs of each user, by an open hash of (user, value, item)."""

    n_values: int
    n_items: int
    keys: Array
    """-1 for a free slot, int64, shape (n_slots,), a power of 2"""
    counts: Array
    """displays, choices and expected choices, float32, shape (n_slots, 3)"""


class CrossedEvents(NamedTuple):
    """Events of a part of the log."""

    display_offsets: Array
    """start of each display set in `items`, int32, shape (n_events + 1,)"""
    items: Array
    """row of each candidate's item, -1 for an unknown one, int32, shape (n_candidates,)"""
    choices: Array
    """position of each choice, -1 for none, int32, shape (n_events,)"""
    values: Array
    """row of each event's value, -1 for an unknown one, int32, shape (n_events,)"""
    users: Array
    """user of each event, 0 to n − 1; -1: nothing is left out; int32, shape (n_events,)"""


@jit_part
def _key(own: OwnPairs, user: int, value: int, item: int) -> Any:
    of_user = np.int64(user) * (own.n_values + 1) + value
    return of_user * (own.n_items + 1) + item + 1


@jit_part
def _slot(own: OwnPairs, key: Any) -> Any:
    """Where a key stands, or would."""
    mask = np.int64(len(own.keys) - 1)
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    # the high bits are the mixed ones
    at = np.int64(mixed >> np.uint64(33)) & mask
    while own.keys[at] != key and own.keys[at] >= 0:
        at = (at + 1) & mask
    return at


@jit
def add_own(events: CrossedEvents, own: OwnPairs) -> None:
    """Count the pairs of the events' users; the table has at least twice as many slots as there are
    candidates and events."""
    for event in range(len(events.values)):
        user, value = events.users[event], events.values[event]
        if value < 0 or user < 0:
            continue
        first, last = events.display_offsets[event], events.display_offsets[event + 1]
        for candidate in range(first - 1, last):
            item = events.items[candidate] if candidate >= first else NO_ITEM
            if candidate >= first and item < 0:
                continue
            key = _key(own, user, value, item)
            at = _slot(own, key)
            own.keys[at] = key
            own.counts[at, 0] += 1
            if candidate >= first and events.choices[event] >= 0:
                own.counts[at, 1] += candidate - first == events.choices[event]
                own.counts[at, 2] += 1 / (last - first)


@jit_part
def _place(table: CrossedCounts, value: int, item: int) -> int:
    """Where a pair stands, -1 where training has none."""
    low, high = table.starts[value], table.starts[value + 1]
    end = high
    while low < high:
        middle = (low + high) // 2
        if table.items[middle] < item:
            low = middle + 1
        else:
            high = middle
    return low if low < end and table.items[low] == item else -1


@jit
def crossed_numbers(
    events: CrossedEvents, table: CrossedCounts, own: OwnPairs, columns: Array, out: Array
) -> None:
    """Write, of each candidate under its event's value, the log odds of its choices against uniform
    choice and log(1 + displays) to the two `columns` of out (n_candidates, ·)."""
    for event in range(len(events.values)):
        user, value = events.users[event], events.values[event]
        for candidate in range(events.display_offsets[event], events.display_offsets[event + 1]):
            displays, choices, expected = 0.0, 0.0, 0.0
            item = events.items[candidate]
            at = _place(table, value, item) if value >= 0 and item >= 0 else -1
            if at >= 0:
                displays, choices = float(table.displays[at]), float(table.choices[at])
                expected = float(table.expected[at])
                if user >= 0:
                    slot = _slot(own, _key(own, user, value, item))
                    displays -= own.counts[slot, 0]
                    choices -= own.counts[slot, 1]
                    # not below 0 by rounding
                    expected = max(expected - own.counts[slot, 2], 0.0)
            out[candidate, columns[0]] = log_odds(choices, expected)
            out[candidate, columns[1]] = log1p_count(displays)


@jit
def lead_numbers(
    events: CrossedEvents,
    targets: Array,
    table: CrossedCounts,
    own: OwnPairs,
    columns: Array,
    out: Array,
) -> None:
    """Write, of each candidate a as a value of the table's field, whether the item `targets` of its
    event was displayed there, and log(1 + events of that value), to the two `columns` of
    out (n_candidates, ·).

    targets: row of an item, -1 for none, (n_events,)."""
    for event in range(len(events.values)):
        user, target = events.users[event], targets[event]
        for candidate in range(events.display_offsets[event], events.display_offsets[event + 1]):
            item = events.items[candidate]
            shown, n = 0.0, 0.0
            if 0 <= item < len(table.events):
                n = float(table.events[item])
                if user >= 0:
                    n -= own.counts[_slot(own, _key(own, user, item, NO_ITEM)), 0]
                at = _place(table, item, target) if target >= 0 else -1
                if at >= 0:
                    shown = float(table.displays[at])
                    if user >= 0:
                        shown -= own.counts[_slot(own, _key(own, user, item, target)), 0]
            out[candidate, columns[0]] = 1.0 if shown > 0 else 0.0
            out[candidate, columns[1]] = log1p_count(n)

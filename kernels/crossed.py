"""Counts of pairs (value of a context field, item): what training says of a candidate under the
context of its event.

The pairs of all training events are sorted by value and item, and once more by item."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._jit import Array, jit, jit_leaf
from .candidate_formulas import log1p_whole, log_lift


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


class Displayers(NamedTuple):
    """The same pairs by item: the values under which it was displayed."""

    starts: Array
    """start of each item in `values`, int64, shape (n_items + 1,)"""
    values: Array
    """rows of values, ascending within an item, int32, shape (n_pairs,)"""
    pairs: Array
    """where each pair stands in the table by value, int64, shape (n_pairs,)"""


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


class CountedPairs(NamedTuple):
    """Pairs in any order, shape (n_pairs,) each."""

    values: Array
    items: Array
    displays: Array
    choices: Array
    expected: Array


@jit
def count_pairs(events: CrossedEvents, order: Array, n_items: int, pairs: CountedPairs) -> int:
    """Count the pairs of events; return how many there are. Those of one value come as their items
    do.

    order: the events by value, shape (n_events,); pairs: room for a pair per candidate."""
    counts = np.zeros((n_items, 3), np.float64)
    values, first, n = events.values, 0, 0
    while first < len(order):
        value, last = values[order[first]], first + 1
        while last < len(order) and values[order[last]] == value:
            last += 1
        if value >= 0:
            for i in range(first, last):
                _add_display(events, order[i], counts)
            for i in range(first, last):
                n = _write_pairs(events, order[i], counts, pairs, n)
        first = last
    return n


@jit_leaf
def _add_display(events: CrossedEvents, event: int, counts: Array) -> None:
    """Add displays, choices and expected choices of an event's items to counts, (n_items, 3)."""
    start, stop = events.display_offsets[event], events.display_offsets[event + 1]
    choice = events.choices[event]
    for candidate in range(start, stop):
        item = events.items[candidate]
        if item >= 0:
            counts[item, 0] += 1
            if choice >= 0:
                counts[item, 1] += candidate - start == choice
                counts[item, 2] += 1 / (stop - start)


@jit_leaf
def _write_pairs(
    events: CrossedEvents, event: int, counts: Array, pairs: CountedPairs, n: int
) -> int:
    """Write what has been counted of an event's items, and set it to 0."""
    for candidate in range(events.display_offsets[event], events.display_offsets[event + 1]):
        item = events.items[candidate]
        if item >= 0 and counts[item, 0] > 0:
            pairs.values[n], pairs.items[n] = events.values[event], item
            pairs.displays[n] = counts[item, 0]
            pairs.choices[n] = counts[item, 1]
            pairs.expected[n] = counts[item, 2]
            counts[item, 0] = counts[item, 1] = counts[item, 2] = 0
            n += 1
    return n


@jit_leaf
def _place(sorted_items: Array, low: int, high: int, item: int) -> int:
    """First place from `low` to `high` whose item is not below `item`: steps that double, then
    halves, for an item that is likely near."""
    step = 1
    while low + step < high and sorted_items[low + step] < item:
        low += step
        step *= 2
    high = min(high, low + step)
    while low < high:
        middle = (low + high) // 2
        if sorted_items[middle] < item:
            low = middle + 1
        else:
            high = middle
    return low


@jit
def crossed_numbers(
    events: CrossedEvents, table: CrossedCounts, columns: Array, out: Array
) -> None:
    """Write, of each candidate under its event's value, the log odds of its choices against uniform
    choice and log(1 + displays) to the two `columns` of out (n_candidates, ·)."""
    for event in range(len(events.values)):
        value, latest, at, end = events.values[event], -1, 0, 0
        for candidate in range(events.display_offsets[event], events.display_offsets[event + 1]):
            item = events.items[candidate]
            odds, shown = 0.0, 0.0
            if value >= 0 and item >= 0:
                if item <= latest or end == 0:
                    at, end = table.starts[value], table.starts[value + 1]
                latest = item
                at = _place(table.items, at, end, item)
                if at < end and table.items[at] == item:
                    odds = log_lift(float(table.choices[at]), float(table.expected[at]))
                    shown = log1p_whole(int(table.displays[at]))
            out[candidate, columns[0]] = odds
            out[candidate, columns[1]] = shown


@jit
def lead_numbers(
    events: CrossedEvents,
    table: CrossedCounts,
    displayers: Displayers,
    turns: Array,
    columns: Array,
    out: Array,
) -> None:
    """Write, of each candidate as a value of the table's field, whether the event's item was
    displayed there, and log(1 + events of that value), to the two `columns` of out (n_candidates,
    ·).

    events: their values are the items of another field, (n_events,); turns: the events by value."""
    n_values = len(table.events)
    leads, target = np.zeros(n_values, np.uint8), -1
    for event in turns:
        if events.values[event] != target:
            _mark(displayers, target, 0, leads)
            target = events.values[event]
            _mark(displayers, target, 1, leads)
        for candidate in range(events.display_offsets[event], events.display_offsets[event + 1]):
            item = events.items[candidate]
            lead, n = 0.0, 0
            if 0 <= item < n_values:
                lead, n = float(leads[item]), int(table.events[item])
            out[candidate, columns[0]] = lead
            out[candidate, columns[1]] = log1p_whole(n)


@jit_leaf
def _mark(displayers: Displayers, item: int, mark: int, leads: Array) -> None:
    """Mark the values under which an item was displayed."""
    if item >= 0:
        for i in range(displayers.starts[item], displayers.starts[item + 1]):
            leads[displayers.values[i]] = mark

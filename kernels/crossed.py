"""Training counts of pairs (value of a context field, item), sorted by value and item, and once
more by item."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._jit import Array, jit, jit_leaf
from .candidate_formulas import log1p_whole, log_lift
from .row_loops import copy


class CrossedCounts(NamedTuple):
    """Training counts of the pairs of one context field."""

    events: Array  # events of each value, int32, (n_values,)
    starts: Array  # start of each value in `items`, int64, (n_values + 1,)
    items: Array  # item rows, ascending within a value, int32, (n_pairs,)
    displays: Array  # int32, (n_pairs,)
    choices: Array  # int32, (n_pairs,)
    expected: Array  # choices, had all been uniform, float32, (n_pairs,)


class Displayers(NamedTuple):
    """The same pairs by item: the values under which it was displayed."""

    starts: Array  # start of each item in `values`, int64, (n_items + 1,)
    values: Array  # rows of values, ascending within an item, int32, (n_pairs,)


class CrossedEvents(NamedTuple):
    """Events of a part of the log."""

    display_offsets: Array  # start of each display set in `items`, int32, (n_events + 1,)
    items: Array  # row of each item, -1 for unknown, int32, (n_candidates,)
    choices: Array  # position of each choice, -1 for none, int32, (n_events,)
    values: Array  # row of each event's value, -1 for unknown, int32, (n_events,)


@jit
def count_pairs(
    events: CrossedEvents, order: Array, n_items: int, keys: Array, counts: Array, expected: Array
) -> int:
    """Count the pairs of events; return how many. Those of one value come as their items do.

    order: the events by value, (n_events,). With room for a pair per candidate: keys, value ·
    n_items + item, int64; counts, displays and choices, (·, 2); expected choices."""
    offsets, items, choices, values = events
    of_item, expected_of_item = np.zeros((n_items, 2), np.int32), np.zeros(n_items)
    first, n = 0, 0
    while first < len(order):
        value, last = values[order[first]], first + 1
        while last < len(order) and values[order[last]] == value:
            last += 1
        of_value = order[first : last if value >= 0 else first]
        for event in of_value:
            start, stop = offsets[event], offsets[event + 1]
            for candidate in range(start, stop):
                item = items[candidate]
                if item >= 0:
                    of_item[item, 0] += 1
                    if choices[event] >= 0:
                        of_item[item, 1] += candidate - start == choices[event]
                        expected_of_item[item] += 1 / (stop - start)
        for event in of_value:
            for candidate in range(offsets[event], offsets[event + 1]):
                item = items[candidate]
                if item >= 0 and of_item[item, 0] > 0:
                    keys[n] = np.int64(value) * n_items + item
                    copy(counts[n], of_item[item])
                    expected[n] = expected_of_item[item]
                    of_item[item, 0] = of_item[item, 1] = 0
                    expected_of_item[item] = 0
                    n += 1
        first = last
    return n


@jit_leaf
def _place(sorted_items: Array, low: int, high: int, item: int) -> int:
    """The first place from `low` to `high` whose item is not below `item`, likely near: steps that
    double, then halves."""
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
    """Write each candidate's log lift under its event's value and log(1 + displays) to the two
    `columns` of out (n_candidates, ·)."""
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
    displayed there, and log(1 + events of that value), to two `columns` of out (n_candidates, ·).

    events: their values are the items of another field; turns: the events by value."""
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
    if item >= 0:
        for i in range(displayers.starts[item], displayers.starts[item + 1]):
            leads[displayers.values[i]] = mark

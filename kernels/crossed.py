"""Counts of pairs (value of a context field, item): what training says of a candidate under the
context of its event, its own user's events left out.

The pairs of all training events are sorted by value and item, and once more by item. A user's own
events are counted into arrays over items or values, which serve all its events of one value."""

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
    users: Array
    """user of each event, 0 to n − 1; -1: nothing is left out; int32, shape (n_events,)"""


class OwnEvents(NamedTuple):
    """What is left out: the training events of the users of some events."""

    events: CrossedEvents
    order: Array
    """`events` by user and value, shape (n_own_events,)"""
    turns: Array
    """the events that are counted for, so that those of one user and one value follow each other,
    shape (n_events,)"""
    first: Array
    """where in `order` the own events begin that each of those leaves out, shape (n_events,)"""
    last: Array
    """where they end, shape (n_events,)"""


class CountedPairs(NamedTuple):
    """Pairs in any order, shape (n_pairs,) each."""

    values: Array
    items: Array
    displays: Array
    choices: Array
    expected: Array


@jit_leaf
def add_displays(own: OwnEvents, first: int, last: int, counts: Array) -> None:
    """Add displays, choices and expected choices of the items of own events to counts, (n_items,
    3)."""
    for i in range(first, last):
        event = own.order[i]
        start, stop = own.events.display_offsets[event], own.events.display_offsets[event + 1]
        choice = own.events.choices[event]
        for candidate in range(start, stop):
            item = own.events.items[candidate]
            if item >= 0:
                counts[item, 0] += 1
                if choice >= 0:
                    counts[item, 1] += candidate - start == choice
                    counts[item, 2] += 1 / (stop - start)


@jit_leaf
def forget_displays(own: OwnEvents, first: int, last: int, counts: Array) -> None:
    """Set to 0 what `add_displays` has counted."""
    for i in range(first, last):
        event = own.order[i]
        for candidate in range(
            own.events.display_offsets[event], own.events.display_offsets[event + 1]
        ):
            if own.events.items[candidate] >= 0:
                counts[own.events.items[candidate]] = 0


@jit
def count_pairs(own: OwnEvents, n_items: int, pairs: CountedPairs) -> int:
    """Count the pairs of events in `own.order`, those of one value following each other; return how
    many pairs there are. Those of one value come as their items do.

    pairs: room for a pair per candidate."""
    counts = np.zeros((n_items, 3), np.float64)
    values, first, n = own.events.values, 0, 0
    while first < len(own.order):
        value, last = values[own.order[first]], first + 1
        while last < len(own.order) and values[own.order[last]] == value:
            last += 1
        if value >= 0:
            add_displays(own, first, last, counts)
            n = _write_pairs(own, first, last, counts, pairs, n)
        first = last
    return n


@jit_leaf
def _write_pairs(
    own: OwnEvents, first: int, last: int, counts: Array, pairs: CountedPairs, n: int
) -> int:
    """Write what `add_displays` has counted, and set it to 0."""
    for i in range(first, last):
        event = own.order[i]
        for candidate in range(
            own.events.display_offsets[event], own.events.display_offsets[event + 1]
        ):
            item = own.events.items[candidate]
            if item >= 0 and counts[item, 0] > 0:
                pairs.values[n], pairs.items[n] = own.events.values[event], item
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
    events: CrossedEvents,
    table: CrossedCounts,
    own: OwnEvents,
    n_items: int,
    columns: Array,
    out: Array,
) -> None:
    """Write, of each candidate under its event's value, the log odds of its choices against uniform
    choice and log(1 + displays) to the two `columns` of out (n_candidates, ·)."""
    counts = np.zeros((n_items if len(own.order) > 0 else 0, 3), np.float32)
    first, last = 0, 0
    for event in own.turns:
        if own.first[event] != first or own.last[event] != last:
            forget_displays(own, first, last, counts)
            first, last = own.first[event], own.last[event]
            add_displays(own, first, last, counts)
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
                    displays, choices = int(table.displays[at]), int(table.choices[at])
                    expected = float(table.expected[at])
                    if last > first:
                        displays -= int(counts[item, 0])
                        choices -= int(counts[item, 1])
                        # not below 0 by rounding
                        expected = max(expected - counts[item, 2], 0.0)
                    odds, shown = log_lift(choices, expected), log1p_whole(displays)
            out[candidate, columns[0]] = odds
            out[candidate, columns[1]] = shown


@jit
def lead_numbers(
    events: CrossedEvents,
    table: CrossedCounts,
    displayers: Displayers,
    own: OwnEvents,
    own_starts: Array,
    columns: Array,
    out: Array,
) -> None:
    """Write, of each candidate as a value of the table's field, whether the event's item was
    displayed there, and log(1 + events of that value), to the two `columns` of out (n_candidates,
    ·).

    events: their values are the items of another field, (n_events,); own.order: by user and value
    of the table's field; own_starts: start of each user in it, (n_users + 1,)."""
    n_values = len(table.events)
    leads = np.zeros(n_values, np.uint8)
    room = n_values if len(own.order) > 0 else 0
    counts, starts = np.zeros(room, np.int32), np.zeros(room, np.int32)
    user, target = -1, -1
    for event in own.turns:
        if events.users[event] != user or events.values[event] != target:
            _mark(displayers, target, 0, leads)
        if events.users[event] != user:
            if user >= 0:
                for i in range(own_starts[user], own_starts[user + 1]):
                    if own.events.values[own.order[i]] >= 0:
                        counts[own.events.values[own.order[i]]] = 0
            user = events.users[event]
            if user >= 0:
                for i in range(own_starts[user], own_starts[user + 1]):
                    value = own.events.values[own.order[i]]
                    if value >= 0:
                        if counts[value] == 0:
                            starts[value] = i
                        counts[value] += 1
            target = -1
        if events.values[event] != target:
            target = events.values[event]
            _mark(displayers, target, 1, leads)
            if room > 0 and user >= 0 and target >= 0:
                _leave_out(table, displayers, target, own, counts, starts, leads)
        for candidate in range(events.display_offsets[event], events.display_offsets[event + 1]):
            item = events.items[candidate]
            lead, n = 0.0, 0
            if 0 <= item < n_values:
                lead, n = float(leads[item]), int(table.events[item])
                if room > 0 and user >= 0:
                    n -= counts[item]
            out[candidate, columns[0]] = lead
            out[candidate, columns[1]] = log1p_whole(n)


@jit_leaf
def _mark(displayers: Displayers, item: int, mark: int, leads: Array) -> None:
    """Mark the values under which an item was displayed."""
    if item >= 0:
        for i in range(displayers.starts[item], displayers.starts[item + 1]):
            leads[displayers.values[i]] = mark


@jit_leaf
def _leave_out(
    table: CrossedCounts,
    displayers: Displayers,
    item: int,
    own: OwnEvents,
    counts: Array,
    starts: Array,
    leads: Array,
) -> None:
    """Take the mark from values under which the user alone saw the item."""
    for i in range(displayers.starts[item], displayers.starts[item + 1]):
        value = displayers.values[i]
        if counts[value] > 0:
            seen = 0
            for j in range(starts[value], starts[value] + counts[value]):
                event = own.order[j]
                for candidate in range(
                    own.events.display_offsets[event], own.events.display_offsets[event + 1]
                ):
                    seen += own.events.items[candidate] == item
            if seen >= table.displays[displayers.pairs[i]]:
                leads[value] = 0

"""Walks on the displays of a context field whose values are items: from an item to one of those
that were displayed under it, each as likely, and on from there.

What the event's own user alone was shown is not there."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ._jit import Array, jit, jit_leaf
from .crossed import (
    CrossedCounts,
    CrossedEvents,
    Displayers,
    OwnEvents,
    add_displays,
    forget_displays,
)

FLOOR = 1e-5
"""probability that is added to a walk's, which may be 0"""


class AlonePairs(NamedTuple):
    """Pairs that a user alone was shown."""

    starts: Array
    """start of each user in `pairs`, int64, shape (n_users + 1,)"""
    pairs: Array
    """where the pairs stand in the table by value, int64"""


@jit
def find_alone(table: CrossedCounts, own: OwnEvents, n_items: int, alone: AlonePairs) -> None:
    """Write each user's `AlonePairs`; there is room for a pair per own candidate."""
    counts = np.zeros((n_items, 3), np.float32)
    users, values = own.events.users, own.events.values
    first, n = 0, 0
    for user in range(len(alone.starts) - 1):
        alone.starts[user] = n
        while first < len(own.order) and users[own.order[first]] == user:
            value, last = values[own.order[first]], first + 1
            while (
                last < len(own.order)
                and users[own.order[last]] == user
                and values[own.order[last]] == value
            ):
                last += 1
            if value >= 0:
                add_displays(own, first, last, counts)
                for i in range(table.starts[value], table.starts[value + 1]):
                    if counts[table.items[i], 0] >= table.displays[i]:
                        alone.pairs[n] = i
                        n += 1
                forget_displays(own, first, last, counts)
            first = last
    alone.starts[len(alone.starts) - 1] = n


class Nearness(NamedTuple):
    """A walk that goes from a value to one of the items that were displayed under it, each as
    likely, and on from there; what a user alone was shown is not there."""

    gone: Array
    """of each pair, whether it is left out, uint8; of length 0 where no user has such pairs"""
    lost: Array
    """of each value, how many of its pairs are, int32; likewise"""
    two: Array
    """probability to be at the target after two steps from each value, float32; as long as there
    are values, or items if these are more"""
    back: Array
    """whether each item is displayed under the target, uint8, shape (n_items,)"""


@jit
def walk_numbers(
    events: CrossedEvents,
    table: CrossedCounts,
    displayers: Displayers,
    alone: AlonePairs,
    turns: Array,
    columns: Array,
    out: Array,
) -> None:
    """Write, of each candidate as a value of the table's field, the log of the probability (and
    FLOOR) that a walk from it is at its event's item after two and after three steps, whether it
    can be after two, and whether the candidate is displayed under that item, to the four `columns`
    of out (n_candidates, ·).

    events: their values are the items of another field; users: -1 for one without pairs of its
    own, (n_events,) each. turns: the events by user and value."""
    n_values = len(table.events)
    some = len(alone.pairs) > 0
    walk = Nearness(
        np.zeros(len(table.items) if some else 0, np.uint8),
        np.zeros(n_values if some else 0, np.int32),
        np.zeros(max(n_values, len(displayers.starts) - 1), np.float32),
        np.zeros(len(displayers.starts) - 1, np.uint8),
    )
    values = np.zeros(len(displayers.pairs) if some else 0, np.int32)
    if some:
        for i in range(len(displayers.pairs)):
            values[displayers.pairs[i]] = displayers.values[i]
    user, target = -1, -1
    for event in turns:
        if events.users[event] != user or events.values[event] != target:
            _forget_walk(table, displayers, target, walk)
            if events.users[event] != user:
                _leave_out_pairs(alone, user, values, -1, walk)
                user = events.users[event]
                _leave_out_pairs(alone, user, values, 1, walk)
            target = events.values[event]
            _walk_back(table, displayers, target, user >= 0, walk)
        for candidate in range(events.display_offsets[event], events.display_offsets[event + 1]):
            item, two, three, back = events.items[candidate], 0.0, 0.0, 0
            if item >= 0 and target >= 0:
                back = walk.back[item]
            if 0 <= item < n_values and target >= 0:
                two = float(walk.two[item])
                three = _mean_of_row(table, item, user >= 0, walk)
            out[candidate, columns[0]] = math.log(two + FLOOR)
            out[candidate, columns[1]] = math.log(three + FLOOR)
            out[candidate, columns[2]] = 1.0 if two > 0 else 0.0
            out[candidate, columns[3]] = back


@jit_leaf
def _leave_out_pairs(
    alone: AlonePairs, user: int, values: Array, change: int, walk: Nearness
) -> None:
    """Take out the pairs that a user alone was shown, or with −1 put them back."""
    if user >= 0:
        for i in range(alone.starts[user], alone.starts[user + 1]):
            walk.gone[alone.pairs[i]] = change > 0
            walk.lost[values[alone.pairs[i]]] += change


@jit_leaf
def _degree(table: CrossedCounts, value: int, leaves_out: bool, walk: Nearness) -> Any:
    n = table.starts[value + 1] - table.starts[value]
    return n - walk.lost[value] if leaves_out else n


@jit_leaf
def _walk_back(
    table: CrossedCounts, displayers: Displayers, target: int, leaves_out: bool, walk: Nearness
) -> None:
    """Write the probabilities of two steps to a target, and what is displayed there; all 0 on
    entry."""
    if target < 0:
        return
    n_items = len(displayers.starts) - 1
    if target < len(table.events):
        for i in range(table.starts[target], table.starts[target + 1]):
            walk.back[table.items[i]] = not (leaves_out and walk.gone[i])
    for i in range(displayers.starts[target], displayers.starts[target + 1]):
        middle = displayers.values[i]
        if leaves_out and walk.gone[displayers.pairs[i]]:
            continue
        step = np.float32(1) / np.float32(_degree(table, middle, leaves_out, walk))
        if middle >= n_items:
            continue
        for j in range(displayers.starts[middle], displayers.starts[middle + 1]):
            if not (leaves_out and walk.gone[displayers.pairs[j]]):
                value = displayers.values[j]
                walk.two[value] += step / np.float32(_degree(table, value, leaves_out, walk))


@jit_leaf
def _forget_walk(table: CrossedCounts, displayers: Displayers, target: int, walk: Nearness) -> None:
    """Set to 0 what `_walk_back` has written."""
    if target < 0:
        return
    if target < len(table.events):
        for i in range(table.starts[target], table.starts[target + 1]):
            walk.back[table.items[i]] = 0
    for i in range(displayers.starts[target], displayers.starts[target + 1]):
        middle = displayers.values[i]
        if middle < len(displayers.starts) - 1:
            for j in range(displayers.starts[middle], displayers.starts[middle + 1]):
                walk.two[displayers.values[j]] = 0


@jit_leaf
def _mean_of_row(table: CrossedCounts, value: int, leaves_out: bool, walk: Nearness) -> Any:
    """Mean of the probabilities of two steps over what was displayed under a value."""
    total = np.float32(0)
    first, last = np.uint64(table.starts[value]), np.uint64(table.starts[value + 1])
    n = _degree(table, value, leaves_out, walk)
    if n <= 0:
        return 0.0
    if leaves_out:
        for i in range(first, last):
            if not walk.gone[i]:
                total += walk.two[np.uint32(table.items[i])]
    else:
        for i in range(first, last):
            total += walk.two[np.uint32(table.items[i])]
    return float(total) / n

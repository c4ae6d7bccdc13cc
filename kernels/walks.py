"""Walks on the displays of a context field of items: from an item to one of those displayed under
it, each as likely, and on from there."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._jit import Array, jit, jit_leaf
from .crossed import CrossedCounts, CrossedEvents, Displayers

FLOOR = 1e-5
"""probability that is added to a walk's, which may be 0"""


@jit
def walk_numbers(
    events: CrossedEvents,
    table: CrossedCounts,
    displayers: Displayers,
    turns: Array,
    columns: Array,
    out: Array,
) -> None:
    """Write, of each candidate as a value of the table's field, to four `columns` of out
    (n_candidates, ·): the log of the probability (and FLOOR) that a walk from it is at its event's
    item after two and after three steps, whether it can be after two, and whether that item
    displays it. events, turns: as in `lead_numbers`."""
    n_values = len(table.events)
    n_items, target = len(displayers.starts) - 1, -1
    # probability to be at the target after two steps from each value, and whether each item is
    # displayed under the target
    near, back = np.zeros(max(n_values, n_items), np.float32), np.zeros(n_items, np.uint8)
    for event in turns:
        if events.values[event] != target:
            _walk_back(table, displayers, target, 0, near, back)
            target = events.values[event]
            _walk_back(table, displayers, target, 1, near, back)
        for candidate in range(events.display_offsets[event], events.display_offsets[event + 1]):
            item, two, three, leads = events.items[candidate], 0.0, 0.0, 0
            if item >= 0 and target >= 0:
                leads = back[item]
            if 0 <= item < n_values and target >= 0:
                two = float(near[item])
                three = _mean_of_row(table, item, near)
            out[candidate, columns[0]] = math.log(two + FLOOR)
            out[candidate, columns[1]] = math.log(three + FLOOR)
            out[candidate, columns[2]] = 1.0 if two > 0 else 0.0
            out[candidate, columns[3]] = leads


@jit_leaf
def _degree(table: CrossedCounts, value: int) -> Any:
    return table.starts[value + 1] - table.starts[value]


@jit_leaf
def _walk_back(
    table: CrossedCounts, displayers: Displayers, target: int, mark: int, near: Array, back: Array
) -> None:
    """Write the probabilities of two steps to a target, and what is displayed there; with mark 0,
    set them to 0 again."""
    if target < 0:
        return
    n_items = len(displayers.starts) - 1
    if target < len(table.events):
        for i in range(table.starts[target], table.starts[target + 1]):
            back[table.items[i]] = mark
    for i in range(displayers.starts[target], displayers.starts[target + 1]):
        middle = displayers.values[i]
        step = np.float32(1) / np.float32(_degree(table, middle))
        if middle >= n_items:
            continue
        for j in range(displayers.starts[middle], displayers.starts[middle + 1]):
            value = displayers.values[j]
            if mark == 0:
                near[value] = 0
            else:
                near[value] += step / np.float32(_degree(table, value))


@jit_leaf
def _mean_of_row(table: CrossedCounts, value: int, near: Array) -> Any:
    """The mean of the probabilities of two steps over what a value displayed."""
    total = np.float32(0)
    first, last = np.uint64(table.starts[value]), np.uint64(table.starts[value + 1])
    n = _degree(table, value)
    if n <= 0:
        return 0.0
    for i in range(first, last):
        total += near[np.uint32(table.items[i])]
    return float(total) / n

"""Two towers over packed display sets: the dot product of a user's vector with each candidate's,
forward and backward.

    score(a) = Σ_{f in bag(a)} ⟨u, T_f⟩ + ⟨q, numbers(a)⟩

u is the event's user vector and q = Nᵀ u the weights that it gives to the candidates' numbers, so a
candidate's own vector is never written. A row of the table is read once on the way forward, once on
the way back. Its gradient is summed slot by slot: no two threads write to one row."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._jit import Array, jit_fast
from .cells import ZERO
from .dropout import DropoutRule, drop
from .prefetch import AHEAD, prefetch_row


class Displays(NamedTuple):
    """Packed display sets."""

    offsets: Array
    """each event's first candidate, shape (n_events + 1,)"""
    ids: Array
    """shape (n_candidates, n_fields)"""
    numbers: Array
    """shape (n_candidates, n_numbers)"""


class Users(NamedTuple):
    """What each event's user makes of a candidate."""

    vectors: Array
    """u, shape (n_events, d)"""
    weights: Array
    """q, shape (n_events, n_numbers)"""


@jit_fast
def tower_scores(
    first_event: int,
    last_event: int,
    displays: Displays,
    users: Users,
    table: Array,
    scores: Array,
) -> None:
    """Write the scores of the candidates of events first to last − 1.

    table: T, (n_ids, d); scores: (n_candidates,)."""
    offsets, ids, numbers = displays
    vectors, weights = users
    n_fields, d, n_numbers = ids.shape[1], table.shape[1], numbers.shape[1]
    end = offsets[last_event]
    for event in range(first_event, last_event):
        vector, weight = vectors[event], weights[event]
        for candidate in range(offsets[event], offsets[event + 1]):
            if candidate + AHEAD < end:
                for f in range(n_fields):
                    prefetch_row(table, ids[candidate + AHEAD, f])
            score = ZERO
            for f in range(n_fields):
                row = table[ids[candidate, f]]
                for j in range(d):
                    score += vector[j] * row[j]
            for j in range(n_numbers):
                score += weight[j] * numbers[candidate, j]
            scores[candidate] = score


@jit_fast
def set_means(
    first_event: int,
    last_event: int,
    displays: Displays,
    table: Array,
    rows: Array,
    numbers: Array,
) -> None:
    """Write the mean over each display set of Σ_f T_f, (n_events, d), and of the candidates'
    numbers, (n_events, n_numbers); zeros for an empty set."""
    offsets, ids, values = displays
    for event in range(first_event, last_event):
        row, number = rows[event], numbers[event]
        row[:] = 0
        number[:] = 0
        for candidate in range(offsets[event], offsets[event + 1]):
            for f in range(ids.shape[1]):
                entry = table[ids[candidate, f]]
                for j in range(len(row)):
                    row[j] += entry[j]
            for j in range(len(number)):
                number[j] += values[candidate, j]
        size = row.dtype.type(max(offsets[event + 1] - offsets[event], 1))
        for j in range(len(row)):
            row[j] /= size
        for j in range(len(number)):
            number[j] /= size


@jit_fast
def user_gradients(
    first_event: int,
    last_event: int,
    displays: Displays,
    grad_scores: Array,
    table: Array,
    grads: Users,
) -> None:
    """Write Σ_a g_a Σ_f T_f, (n_events, d), and Σ_a g_a numbers(a), (n_events, n_numbers)."""
    offsets, ids, numbers = displays
    vectors, weights = grads
    n_fields, d, n_numbers = ids.shape[1], table.shape[1], numbers.shape[1]
    end = offsets[last_event]
    for event in range(first_event, last_event):
        vector, weight = vectors[event], weights[event]
        vector[:] = 0
        weight[:] = 0
        for candidate in range(offsets[event], offsets[event + 1]):
            if candidate + AHEAD < end:
                for f in range(n_fields):
                    prefetch_row(table, ids[candidate + AHEAD, f])
            g = grad_scores[candidate]
            for f in range(n_fields):
                row = table[ids[candidate, f]]
                for j in range(d):
                    vector[j] += g * row[j]
            for j in range(n_numbers):
                weight[j] += g * numbers[candidate, j]


class BagGradients(NamedTuple):
    """The gradients of the bags that name rows of one table: the candidates' as factors, those of
    all other bags written out."""

    events: Array
    """event of each candidate, shape (n_candidates,)"""
    scores: Array
    """g of each candidate, shape (n_candidates,)"""
    vectors: Array
    """u of each event, shape (n_events, d)"""
    pulls: Array
    """what each candidate of an event gets beside g u, shape (n_events, d); of length 0: nothing"""
    rows: Array
    """of the bags after the candidates', shape (n_bags − n_candidates, d)"""


@jit_fast
def row_gradients(
    first: int,
    last: int,
    starts: Array,
    bags: Array,
    grads: BagGradients,
    total: Array,
) -> None:
    """Write the sum over the bags that name each slot, slots first to last − 1, in order of the
    bags.

    starts, bags: as `rows.group_bags` gives them; total: (n_slots, d)."""
    events, scores, vectors, pulls, rows = grads
    n_candidates, d = len(scores), total.shape[1]
    pulled = len(pulls) > 0
    for slot in range(first, last):
        target = total[slot]
        target[:] = 0
        for entry in range(starts[slot], starts[slot + 1]):
            bag = bags[entry]
            if bag < n_candidates:
                event, g = events[bag], scores[bag]
                vector = vectors[event]
                for j in range(d):
                    target[j] += g * vector[j]
                if pulled:
                    pull = pulls[event]
                    for j in range(d):
                        target[j] += pull[j]
            else:
                row = rows[bag - n_candidates]
                for j in range(d):
                    target[j] += row[j]


@jit_fast
def drop_matrix(values: Array, dropout: DropoutRule) -> None:
    """Dropout of all entries, (n, d), in place; twice the same rule drops the same entries."""
    key, threshold, scale = dropout
    for i in range(len(values)):
        drop(values[i], np.uint32(i * values.shape[1]), key, threshold, scale)

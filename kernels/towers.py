"""Two towers over packed display sets: the dot product of a user's vector with each candidate's,
forward and backward.

    score(a) = Σ_{f in bag(a)} ⟨u, T_f⟩ + ⟨w, numbers(a)⟩

u is the event's user vector; a candidate's own vector is never written. A row of the table is read
once on the way forward, once on the way back. Its gradient is summed slot by slot: no two threads
write to one row."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._jit import AHEAD, Array, jit_fast, prefetch_row
from .activations import ZERO
from .draws import DropoutRule, drop
from .products import add, copy, dot, multiply_rows

TILE = 96
"""users whose vectors are worked out at once, a multiple of 3"""


class Displays(NamedTuple):
    """Packed display sets."""

    offsets: Array
    """each event's first candidate, shape (n_events + 1,)"""
    ids: Array
    """shape (n_candidates, n_fields)"""
    numbers: Array
    """shape (n_candidates, n_numbers)"""


class Users(NamedTuple):
    """What scores a candidate, or its gradient."""

    vectors: Array
    """u, shape (n_events, d)"""
    weights: Array
    """w, shape (n_numbers,); as a gradient that of each event, (n_events, n_numbers)"""


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
        vector = vectors[event]
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
                score += weights[j] * numbers[candidate, j]
            scores[candidate] = score


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

    starts, bags: as `optimiser.group_bags` gives them; total: (n_slots, d)."""
    events, scores, vectors, rows = grads
    n_candidates, d = len(scores), total.shape[1]
    for slot in range(first, last):
        target = total[slot]
        target[:] = 0
        for entry in range(starts[slot], starts[slot + 1]):
            bag = bags[entry]
            if bag < n_candidates:
                vector, g = vectors[events[bag]], scores[bag]
                for j in range(d):
                    target[j] += g * vector[j]
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


class TowerTables(NamedTuple):
    """Two folded towers."""

    table: Array
    """what a row adds to a candidate's vector, shape (·, d)"""
    hidden: Array
    """W₁ transposed, shape (S, 2 d)"""
    hidden_bias: Array
    """shape (2 d,)"""
    out: Array
    """W₂ transposed, its last column 0, shape (2 d, d)"""
    direct: Array
    """D transposed, its last column 0, shape (S, d)"""
    bias: Array
    """b₂, then 1, shape (d,)"""
    numbers: Array
    """w, shape (n_numbers,)"""


@jit_fast
def slate_tower_scores(
    first: int,
    last: int,
    rows: Array,
    numbers: Array,
    states: Array,
    tower: TowerTables,
    scores: Array,
) -> None:
    """Write the scores of each place of the slates of users first to last − 1, (n, k), 0 where
    nothing is displayed.

    rows as in `candidate_formulas.Slates`; numbers (n, k, n_numbers); states (n, S)."""
    table = tower.table
    k, n_rows, d = rows.shape[1], rows.shape[2], table.shape[1]
    state_dim, width = tower.hidden.shape
    of_users = np.zeros((TILE, state_dim), table.dtype)
    hidden, vectors = np.zeros((TILE, width), table.dtype), np.zeros((TILE, d), table.dtype)
    beside = np.zeros((TILE, d), table.dtype)
    for start in range(first, last, TILE):
        users = min(TILE, last - start)
        for i in range(users):
            copy(of_users[i], states[start + i])
        multiply_rows(of_users, tower.hidden, users, hidden)
        for i in range(users):
            for j in range(width):
                value = hidden[i, j] + tower.hidden_bias[j]
                hidden[i, j] = value if value > 0 else ZERO
        multiply_rows(hidden, tower.out, users, vectors)
        multiply_rows(of_users, tower.direct, users, beside)
        for i in range(users):
            user, vector = start + i, vectors[i]
            add(vector, beside[i])
            add(vector, tower.bias)
            for place in range(k):
                if rows[user, place, 0] < 0:
                    scores[user, place] = ZERO
                    continue
                score = dot(tower.numbers, numbers[user, place])
                for f in range(n_rows):
                    row = rows[user, place, f]
                    if row >= 0:
                        score += dot(vector, table[row])
                scores[user, place] = score

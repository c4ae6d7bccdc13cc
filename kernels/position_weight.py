"""Position weights: the state s_t = vec[σ(F_{t-m:t-1} W + B)] as a ragged bag of weighted features,
never dense.

Column j of F is the multi-hot of the token j steps back (lag 1 is the newest), W is (m, n): Chen et
al., ICML 2019, §4.1. A feature absent from the last m tokens contributes the constant σ(B), which
the readout's bias absorbs; a feature present contributes σ(u + B) − σ(B), u the sum of W's rows at
its lags.

A worked miniature, m = 2, one sequence with bags {5}, {7}, {5, 7}: the states after its tokens hold
    [5] at lags [1]  |  [7, 5] at lags [1], [2]  |  [5, 7] at lags [1], [1, 2]
so state_offsets [0, 1, 3, 5], state_ids [5, 7, 5, 5, 7], entries [0, 1, 2, 3, 4, 4], lags [1, 1, 2,
1, 1, 2]."""

from __future__ import annotations

import math
from typing import Any

from ._jit import Array, jit, jit_fast, jit_part
from .cells import ONE, add_product, tanh

IDENTITY, TANH, ELU = 0, 1, 2


@jit
def count_occurrences(offsets: Array, id_offsets: Array, window: int) -> tuple[int, int]:
    """Return how many (state, token, id) triples the states' windows hold, and the most that one
    state holds."""
    total = 0
    widest = 0
    for sequence in range(len(offsets) - 1):
        first = offsets[sequence]
        for row in range(first, offsets[sequence + 1]):
            held = id_offsets[row + 1] - id_offsets[max(first, row - window + 1)]
            total += held
            widest = max(widest, held)
    return total, widest


@jit
def fill_structure(
    offsets: Array,
    ids: Array,
    id_offsets: Array,
    window: int,
    table_ids: Array,
    table_entries: Array,
    state_offsets: Array,
    state_ids: Array,
    entries: Array,
    lags: Array,
) -> int:
    """Write each state's distinct ids (newest token first) and, per occurrence, its entry and lag;
    return the entries.

    `table_ids`, `table_entries` are a scratch hash table: a power of two of slots, at least twice
    the widest state; `table_entries` is −1 on entry. A slot whose entry is older than the state's
    first entry counts as free, so the table is never cleared."""
    mask = len(table_ids) - 1
    n_entries = 0
    occurrence = 0
    state_offsets[0] = 0
    for sequence in range(len(offsets) - 1):
        first = offsets[sequence]
        for row in range(first, offsets[sequence + 1]):
            state_start = n_entries
            for lag in range(1, min(window, row - first + 1) + 1):
                token = row - lag + 1
                for i in range(id_offsets[token], id_offsets[token + 1]):
                    # multiplicative hashing, the product within int64
                    slot = (((int(ids[i]) & 0x7FFFFFFF) * 0x9E3779B1) >> 16) & mask
                    while table_entries[slot] >= state_start and table_ids[slot] != ids[i]:
                        slot = (slot + 1) & mask
                    if table_entries[slot] < state_start:
                        table_ids[slot] = ids[i]
                        table_entries[slot] = n_entries
                        state_ids[n_entries] = ids[i]
                        n_entries += 1
                    entries[occurrence] = table_entries[slot]
                    lags[occurrence] = lag
                    occurrence += 1
            state_offsets[row + 1] = n_entries
    return n_entries


@jit_part
def _activate_row(row: Array, activation: int) -> None:
    """Apply the activation to a row, in place."""
    if activation == TANH:
        for j in range(len(row)):
            row[j] = tanh(row[j])
    if activation == ELU:
        for j in range(len(row)):
            if row[j] < 0:
                row[j] = math.expm1(row[j])


@jit_part
def _slope(value: Any, activation: int) -> Any:
    """Derivative of the activation, from its value."""
    if activation == TANH:
        return ONE - value * value
    if activation == ELU and value < 0:
        return ONE + value
    return ONE


@jit_fast
def weigh(
    entries: Array, lags: Array, lag_weights: Array, bias: Array, activation: int, weights: Array
) -> None:
    """Write σ(u + bias) − σ(bias) for each entry, (n_entries, n); lag_weights (m, n), bias (n,)."""
    n_entries, n = weights.shape
    rest = bias.copy()
    _activate_row(rest, activation)
    for entry in range(n_entries):
        for j in range(n):
            weights[entry, j] = bias[j]
    for occurrence in range(len(entries)):
        entry, lag = entries[occurrence], lags[occurrence] - 1
        for j in range(n):
            weights[entry, j] += lag_weights[lag, j]
    _activate_row(weights.reshape(n_entries * n), activation)
    for entry in range(n_entries):
        for j in range(n):
            weights[entry, j] -= rest[j]


@jit_fast
def weigh_backward(
    grad: Array,
    entries: Array,
    lags: Array,
    bias: Array,
    activation: int,
    weights: Array,
    grad_u: Array,
    grad_lag_weights: Array,
    grad_bias: Array,
) -> None:
    """Write the gradients of lag_weights and bias from that of the weights; `grad_u` is scratch,
    (n_entries, n)."""
    n_entries, n = weights.shape
    rest = bias.copy()
    _activate_row(rest, activation)
    grad_bias[:] = 0
    for entry in range(n_entries):
        for j in range(n):
            slope = _slope(weights[entry, j] + rest[j], activation)
            grad_u[entry, j] = grad[entry, j] * slope
            grad_bias[j] += grad[entry, j] * (slope - _slope(rest[j], activation))
    grad_lag_weights[:] = 0
    for occurrence in range(len(entries)):
        entry, lag = entries[occurrence], lags[occurrence] - 1
        for j in range(n):
            grad_lag_weights[lag, j] += grad_u[entry, j]


@jit_fast
def outer_sum(
    table: Array, state_ids: Array, state_offsets: Array, weights: Array, result: Array
) -> int:
    """Write Σ_k Σ_j weights[k, j] · table[state_ids[k], j] per state, (n_rows, n, D) → (n_states,
    D).

    Returns −1, or the position in state_ids of the first id that is not a row of the table; the sum
    then stops there."""
    n_rows, width = table.shape[0], table.shape[2]
    for state in range(len(state_offsets) - 1):
        out = result[state]
        for d in range(width):
            out[d] = 0
        for k in range(state_offsets[state], state_offsets[state + 1]):
            row = state_ids[k]
            if row < 0 or row >= n_rows:
                return k
            add_product(weights[k], table[row], out)
    return -1


@jit_fast
def outer_sum_backward(
    grad: Array, table: Array, state_ids: Array, state_offsets: Array, grad_weights: Array
) -> None:
    """Write ⟨grad[state], table[state_ids[k], j]⟩ for each entry k and column j, (n_entries, n)."""
    n, width = table.shape[1], table.shape[2]
    for state in range(len(state_offsets) - 1):
        for k in range(state_offsets[state], state_offsets[state + 1]):
            row = state_ids[k]
            for j in range(n):
                dot = grad.dtype.type(0)
                for d in range(width):
                    dot += grad[state, d] * table[row, j, d]
                grad_weights[k, j] = dot


@jit_fast
def outer_sum_scatter(
    grad: Array, state_ids: Array, state_offsets: Array, weights: Array, grad_table: Array
) -> None:
    """Add weights[k, j] · grad[state] to grad_table[state_ids[k], j], (n_rows, n, D), in place."""
    n, width = grad_table.shape[1], grad_table.shape[2]
    for state in range(len(state_offsets) - 1):
        for k in range(state_offsets[state], state_offsets[state + 1]):
            row = state_ids[k]
            for j in range(n):
                weight = weights[k, j]
                for d in range(width):
                    grad_table[row, j, d] += weight * grad[state, d]

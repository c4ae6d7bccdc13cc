"""Position weights: the state s_t = vec[tanh(F_{t-m:t-1} W + B)] as a ragged bag of weighted
features, never dense.

Column j of F is the multi-hot of the token j steps back (lag 1 is the newest), W is (m, n): Chen et
al., ICML 2019, §4.1. A feature absent from the last m tokens contributes the constant tanh(B),
which the readout's bias absorbs; a feature present contributes tanh(u + B) − tanh(B), u the sum of
W's rows at its lags.

A worked miniature, m = 2, one sequence with bags {5}, {7}, {5, 7}: the states after its tokens hold
    [5] at lags [1]  |  [7, 5] at lags [1], [2]  |  [5, 7] at lags [1], [1, 2]
so starts [0, 1, 3, 5], ids [5, 7, 5, 5, 7], entries [0, 1, 2, 3, 4, 4], lags [1, 1, 2, 1, 1,
2]."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._jit import Array, jit, jit_fast
from .activations import ONE, tanh
from .products import add_product


class TokenBags(NamedTuple):
    """The ids of the tokens of sequences."""

    offsets: Array
    """start of each sequence in the tokens, (n_sequences + 1,)"""
    ids: Array
    """bag after bag, (nnz,)"""
    id_offsets: Array
    """start of each token's bag in `ids`, (n_tokens + 1,)"""


class StateEntries(NamedTuple):
    """Which ids the state after each token holds, and at which lags (1 is that token itself)."""

    starts: Array
    """start of each state in the entries, (n_tokens + 1,)"""
    ids: Array
    """id of each entry, distinct within a state, newest token first, (n_entries,)"""
    entries: Array
    """entry of each occurrence of an id in a state's window, (n_occurrences,)"""
    lags: Array
    """lag of each occurrence, 1 to the window, (n_occurrences,)"""


class IdTable(NamedTuple):
    """A scratch hash table of ids: a power of two of slots, at least twice the widest state."""

    ids: Array
    entries: Array
    """entry of each slot's id; −1 before"""


class LagMap(NamedTuple):
    """What makes the weight of an entry of its lags."""

    weights: Array
    """(window, n)"""
    bias: Array
    """(n,)"""


class LagMapGrads(NamedTuple):
    """What a backward pass writes."""

    sums: Array
    """scratch, (n_entries, n)"""
    weights: Array
    """(window, n)"""
    bias: Array
    """(n,)"""


@jit
def count_occurrences(bags: TokenBags, window: int) -> tuple[int, int]:
    """Return how many (state, token, id) triples the states' windows hold, and the most that one
    state holds."""
    offsets, _, id_offsets = bags
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
def fill_entries(bags: TokenBags, window: int, table: IdTable, written: StateEntries) -> int:
    """Write each state's distinct ids (newest token first) and, per occurrence, its entry and lag;
    return the entries.

    A slot of the table whose entry is older than the state's first entry counts as free, so the
    table is never cleared."""
    offsets, ids, id_offsets = bags
    table_ids, table_entries = table
    state_offsets, state_ids, entries, lags = written
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


@jit_fast
def weigh(states: StateEntries, lag_map: LagMap, weights: Array) -> None:
    """Write tanh(u + bias) − tanh(bias) for each entry, (n_entries, n)."""
    _, _, entries, lags = states
    lag_weights, bias = lag_map
    n_entries, n = weights.shape
    rest = np.empty_like(bias)
    for j in range(n):
        rest[j] = tanh(bias[j])
    for entry in range(n_entries):
        for j in range(n):
            weights[entry, j] = bias[j]
    for occurrence in range(len(entries)):
        entry, lag = entries[occurrence], lags[occurrence] - 1
        for j in range(n):
            weights[entry, j] += lag_weights[lag, j]
    flat = weights.reshape(n_entries * n)
    for i in range(len(flat)):
        flat[i] = tanh(flat[i])
    for entry in range(n_entries):
        for j in range(n):
            weights[entry, j] -= rest[j]


@jit_fast
def weigh_backward(
    grad: Array, states: StateEntries, bias: Array, weights: Array, grads: LagMapGrads
) -> None:
    """Write the gradients of the lags' map from that of the weights."""
    _, _, entries, lags = states
    grad_sums, grad_lag_weights, grad_bias = grads
    n_entries, n = weights.shape
    rest = np.empty_like(bias)
    for j in range(n):
        rest[j] = tanh(bias[j])
    grad_bias[:] = 0
    for entry in range(n_entries):
        for j in range(n):
            value = weights[entry, j] + rest[j]
            slope = ONE - value * value
            grad_sums[entry, j] = grad[entry, j] * slope
            grad_bias[j] += grad[entry, j] * (slope - (ONE - rest[j] * rest[j]))
    grad_lag_weights[:] = 0
    for occurrence in range(len(entries)):
        entry, lag = entries[occurrence], lags[occurrence] - 1
        for j in range(n):
            grad_lag_weights[lag, j] += grad_sums[entry, j]


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

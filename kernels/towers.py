"""Two towers over packed display sets: the dot product of a user's vector with each candidate's,
forward and backward. What w adds for numbers comes in `scorer.scorer_pass`.

    x = drop(state)
    u = [W₂ drop(relu(W₁ x + b₁)) + b₂ + D x ; 1]
    score(a) = Σ_{f in bag(a)} ⟨u, T_f⟩ + ⟨u, W own(a)⟩"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._jit import AHEAD, Array, jit_fast, jit_part, prefetch_row
from .activations import ONE, RELU, ZERO, activate
from .draws import DropoutRule, drop
from .row_loops import add, add_scaled, copy, dot, matrix
from .scorer import ScorerInputs, ScorerOutputs


class TowerWeights(NamedTuple):
    """Two towers."""

    table: Array  # T, (n_ids, d)
    dense: Array  # W₁, b₁, W₂, b₂, D and W, flat, one after another
    width: int  # units of the user's hidden layer
    first: int  # column of the first of own(a) in the numbers
    n_own: int


class TowerPass(NamedTuple):
    """Arrays that a forward pass writes."""

    x: Array  # states after dropout, (n_events, S)
    hidden: Array  # the user's hidden layer after dropout, (n_events, width)
    users: Array  # u, (n_events, d)
    scores: Array  # (n_candidates,)


@jit_part
def _matrices(
    dense: Array, state_dim: int, width: int, d: int, n_own: int
) -> tuple[Array, Array, Array, Array, Array, Array]:
    """W₁, b₁, W₂, b₂, D and W of a flat array, as views."""
    out = width * state_dim + width
    direct = out + (d - 1) * width + d - 1
    tastes = direct + (d - 1) * state_dim
    return (
        matrix(dense, 0, width, state_dim),
        dense[out - width : out],
        matrix(dense, out, d - 1, width),
        dense[direct - d + 1 : direct],
        matrix(dense, direct, d - 1, state_dim),
        matrix(dense, tastes, n_own, d),
    )


@jit_fast
def tower_forward(
    first_event: int,
    last_event: int,
    inputs: ScorerInputs,
    weights: TowerWeights,
    dropouts: tuple[DropoutRule, DropoutRule],
    written: TowerPass,
) -> None:
    """Write the user vectors of events first to last − 1 and the scores of their candidates.

    dropouts: of the state, and of the user's hidden layer."""
    offsets, ids, numbers, states, _ = inputs
    table, dense, width, first, n_own = weights
    n, d, n_fields = last_event - first_event, table.shape[1], ids.shape[1]
    state_dim = states.shape[1]
    hidden_weight, hidden_bias, out_weight, out_bias, direct, tastes = _matrices(
        dense, state_dim, width, d, n_own
    )
    x, hidden = written.x[first_event:last_event], written.hidden[first_event:last_event]
    users, scores = written.users[first_event:last_event], written.scores
    (key, threshold, scale), (of_hidden, least, grown) = dropouts
    for i in range(n):
        copy(x[i], states[first_event + i])
        if threshold > 0:
            drop(x[i], (first_event + i) * state_dim, key, threshold, scale)
    np.dot(x, hidden_weight.T, hidden)
    for i in range(n):
        activate(hidden[i], hidden_bias, RELU)
        if least > 0:
            drop(hidden[i], (first_event + i) * hidden.shape[1], of_hidden, least, grown)
    deep, beside = np.empty((n, d - 1), x.dtype), np.empty((n, d - 1), x.dtype)
    np.dot(hidden, out_weight.T, deep)
    np.dot(x, direct.T, beside)
    for i in range(n):
        user = users[i]
        for j in range(d - 1):
            user[j] = deep[i, j] + beside[i, j] + out_bias[j]
        user[d - 1] = ONE
    end, coefficients = offsets[last_event], np.empty(n_own, x.dtype)
    for i in range(n):
        user = users[i]
        for j in range(n_own):
            coefficients[j] = dot(user, tastes[j])
        for candidate in range(offsets[first_event + i], offsets[first_event + i + 1]):
            if candidate + AHEAD < end:
                for f in range(n_fields):
                    prefetch_row(table, ids[candidate + AHEAD, f])
            score = ZERO
            for f in range(n_fields):
                score += dot(user, table[ids[candidate, f]])
            for j in range(n_own):
                score += coefficients[j] * numbers[candidate, first + j]
            scores[candidate] = score


@jit_fast
def tower_backward(
    first_event: int,
    last_event: int,
    inputs: ScorerInputs,
    weights: TowerWeights,
    dropouts: tuple[DropoutRule, DropoutRule],
    written: TowerPass,
    grads: ScorerOutputs,
) -> None:
    """Write to `grads`, whose `grad_scores` are read, the gradients of the dense parameters and of
    the slots' rows, and add that of the states."""
    offsets, ids, numbers, _, slots = inputs
    table, dense, width, first, n_own = weights
    grad_scores, grad_dense, grad_rows = grads.grad_scores, grads.dense, grads.rows
    grad_states = grads.states
    n, d, n_fields = last_event - first_event, table.shape[1], ids.shape[1]
    x, hidden = written.x[first_event:last_event], written.hidden[first_event:last_event]
    state_dim = x.shape[1]
    hidden_weight, _, out_weight, _, direct, tastes = _matrices(dense, state_dim, width, d, n_own)
    of_hidden, of_hidden_bias, of_out, of_out_bias, of_direct, of_tastes = _matrices(
        grad_dense, state_dim, width, d, n_own
    )
    begin, end = offsets[first_event], offsets[last_event]
    of_hidden_bias[:] = ZERO
    of_out_bias[:] = ZERO
    grad, grad_hidden = np.empty((n, d - 1), x.dtype), np.empty((n, width), x.dtype)
    of_user, of_coefficients = np.empty(d, x.dtype), np.empty(n_own, x.dtype)
    for j in range(n_own):
        of_tastes[j] = ZERO
    filled = slots[begin, 0] if end > begin and n_fields > 0 else 0
    for i in range(n):
        user = written.users[first_event + i]
        of_user[:] = ZERO
        of_coefficients[:] = ZERO
        for candidate in range(offsets[first_event + i], offsets[first_event + i + 1]):
            if candidate + AHEAD < end:
                for f in range(n_fields):
                    prefetch_row(table, ids[candidate + AHEAD, f])
                    prefetch_row(grad_rows, slots[candidate + AHEAD, f])
            g = grad_scores[candidate]
            for f in range(n_fields):
                slot = slots[candidate, f]
                if slot == filled:
                    grad_rows[slot] = ZERO
                    filled += 1
                add_scaled(grad_rows[slot], g, user)
                add_scaled(of_user, g, table[ids[candidate, f]])
            for j in range(n_own):
                of_coefficients[j] += g * numbers[candidate, first + j]
        for j in range(n_own):
            add_scaled(of_tastes[j], of_coefficients[j], user)
            add_scaled(of_user, of_coefficients[j], tastes[j])
        # the last unit of a user is a constant
        copy(grad[i], of_user)
        add(of_out_bias, grad[i])
    np.dot(grad.T, hidden, of_out)
    np.dot(grad.T, x, of_direct)
    np.dot(grad, out_weight, grad_hidden)
    grown = dropouts[1].scale
    for i in range(n):
        row, value = grad_hidden[i], hidden[i]
        for j in range(width):
            # a unit that was dropped is 0 too
            row[j] = row[j] * grown if value[j] > 0 else ZERO
        add(of_hidden_bias, row)
    np.dot(grad_hidden.T, x, of_hidden)
    if len(grad_states) == 0:
        return
    of_states = grad_states[first_event:last_event]
    grad_x, beside = np.empty((n, state_dim), x.dtype), np.empty((n, state_dim), x.dtype)
    np.dot(grad_hidden, hidden_weight, grad_x)
    np.dot(grad, direct, beside)
    key, threshold, scale = dropouts[0]
    for i in range(n):
        add(grad_x[i], beside[i])
        if threshold > 0:
            drop(grad_x[i], (first_event + i) * state_dim, key, threshold, scale)
        add(of_states[i], grad_x[i])

"""Losses of next-item training with their gradients in one pass: cross-entropy within blocks of
targets, and BPR.

Own-batch cross-entropy: the targets are drawn into blocks, and each must be told from the others of
its block.

    scores = S Tᵀ + b,  P = softmax of each row,  loss = Σ −log P_ii / n
    P' = (P − I) / n,   dS = P' T,   dT = P'ᵀ S,   db = column sums of P'

S holds the block's states, (B, H), T and b its targets' rows of the table, whose last column is the
bias. Rows of P go through a few at a time, so that they stay in cache and BLAS takes its path for
small products. A target that stands twice in a block is its own negative there."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from ._jit import Array, jit_fast, jit_part
from .activations import exp_nonpositive
from .cells import ONE, add, copy

SMALL_PRODUCT = 1_000_000
"""multiplications up to which OpenBLAS takes operands as they lie: (28, 64) @ (64, 512) then runs
at 111 GFLOP/s on one core, (32, 64) @ (64, 512) at 70"""
TURN = 16
_SIGN: Any = np.int32(31)
_NOT_SIGN: Any = np.int32(0x7FFFFFFF)


@jit_part
def _in_order(bits: Any) -> Any:
    """Turn the bits of a float32 into an int32 of the same order, and back; a NaN becomes larger
    than all numbers."""
    # numba lifts int32 to int64 in every operation
    return np.int32(bits ^ ((bits >> _SIGN) & _NOT_SIGN))


def to_key(x: Any) -> Any:
    """Return what is compared for x: an int32 for float32, x itself for float64; a compiled kernel
    chooses by type.

    A maximum of integers vectorises; one of floats does not as long as a NaN keeps its meaning.
    """
    return _in_order(x.view(np.int32)) if isinstance(x, np.float32) else x


def from_key(key: Any) -> Any:
    """Return the x of which `key` is the key."""
    return _in_order(key).view(np.float32) if isinstance(key, np.int32) else key


@overload(to_key)  # type: ignore[untyped-decorator,unused-ignore]
def _to_key_by_type(x: Any) -> Any:
    def ordered(x: Any) -> Any:
        value = np.float32(x)  # numba gives a view only of what it sees made
        return _in_order(value.view(np.int32))

    def same(x: Any) -> Any:
        return x

    return ordered if x == types.float32 else same


@overload(from_key)  # type: ignore[untyped-decorator,unused-ignore]
def _from_key_by_type(key: Any) -> Any:
    def ordered(key: Any) -> Any:
        bits = np.int32(_in_order(key))
        return bits.view(np.float32)

    def same(key: Any) -> Any:
        return key

    return ordered if key == types.int32 else same


@jit_part
def _softmax_row(row: Array, bias: Array, right: int, share: Any, grad_bias: Array) -> Any:
    """Turn a row of S Tᵀ into one of P', add it to `grad_bias` and return its −log P_ii."""
    most = to_key(row[0] + bias[0])
    for j in range(len(row)):
        x = row[j] + bias[j]
        row[j] = x
        key = to_key(x)
        most = key if key > most else most
    top = from_key(most)
    loss = np.float64(top) - np.float64(row[right])
    total = row[0] * 0
    for j in range(len(row)):
        e = exp_nonpositive(row[j] - top)
        row[j] = e
        total += e
    scale = share / total
    for j in range(len(row)):
        row[j] *= scale
        grad_bias[j] += row[j]
    row[right] -= share
    grad_bias[right] -= share
    return loss + np.log(np.float64(total))


@jit_part
def _turn(matrix: Array, turned: Array) -> None:
    """Write the transpose, 16 rows at a time: they are read side by side and written one after the
    other."""
    rows, width = matrix.shape
    for first in range(0, rows, TURN):
        last = min(first + TURN, rows)
        for j in range(width):
            for i in range(first, last):
                turned[j, i] = matrix[i, j]


@jit_fast
def own_batch(
    first: int,
    last: int,
    block: int,
    split: int,
    drawn: Array,
    targets: Array,
    states: Array,
    table: Array,
    grad_states: Array,
    grad_targets: Array,
    losses: Array,
) -> None:
    """Write the gradients of pieces first to last − 1 and each piece's summed loss, losses
    (n_pieces,) in float64.

    Block k holds entries k · block to (k + 1) · block − 1 of the permutation drawn (n,); its rows
    of P are cut into `split` pieces k · split, k · split + 1, …, so that even few blocks share out
    evenly. targets (n,) are rows of table (n_items, H + 1); states and grad_states (n, H). Each
    piece adds to all targets of its block: grad_targets (split · n, H + 1) holds what first pieces
    give, then what second ones do. Gradients are those of the mean over n."""
    n, size = states.shape
    most = min(block, n)
    limit = max(SMALL_PRODUCT // (most * size), 1)
    share = ONE / states.dtype.type(n)
    right, grad_right = np.empty((most, size), states.dtype), np.empty((most, size), states.dtype)
    left, grad_left = (
        np.empty((min(limit, most), size), states.dtype),
        np.empty((min(limit, most), size), states.dtype),
    )
    product = np.empty((most, size), states.dtype)
    bias, grad_bias = np.empty(most, states.dtype), np.empty(most, states.dtype)
    flat_turned, flat_scores = (
        np.empty(size * most, states.dtype),
        np.empty(len(left) * most, states.dtype),
    )
    for piece in range(first, last):
        start, part = piece // split * block, piece % split
        width = min(block, n - start)
        for i in range(width):
            row = table[targets[drawn[start + i]]]
            copy(right[i], row)
            bias[i] = row[size]
            grad_bias[i] = 0
            for j in range(size):
                grad_right[i, j] = 0
        turned = flat_turned[: size * width].reshape(size, width)
        _turn(right[:width], turned)
        loss = 0.0
        begin, end = width * part // split, width * (part + 1) // split
        # tiles of the same height: a low last one costs the addition below for little
        n_tiles = (end - begin + limit - 1) // limit
        for tile in range(n_tiles):
            low, high = (
                begin + (end - begin) * tile // n_tiles,
                begin + (end - begin) * (tile + 1) // n_tiles,
            )
            held = high - low
            for i in range(held):
                copy(left[i], states[drawn[start + low + i]])
            scores = flat_scores[: held * width].reshape(held, width)
            np.dot(left[:held], turned, scores)
            for i in range(held):
                loss += _softmax_row(scores[i], bias[:width], low + i, share, grad_bias[:width])
            np.dot(scores, right[:width], grad_left[:held])
            for i in range(held):
                copy(grad_states[drawn[start + low + i]], grad_left[i])
            np.dot(scores.T, left[:held], product[:width])
            for i in range(width):
                add(grad_right[i], product[i])
        for i in range(width):
            row = grad_targets[part * n + drawn[start + i]]
            copy(row[:size], grad_right[i])
            row[size] = grad_bias[i]
        losses[piece] = loss


@jit_fast
def bpr(
    first: int,
    last: int,
    targets: Array,
    negatives: Array,
    states: Array,
    table: Array,
    grad_states: Array,
    grad_targets: Array,
    grad_negatives: Array,
    losses: Array,
) -> None:
    """Write the gradients of the mean of −log σ(score − negative's score), targets first to last −
    1, and losses[0].

    Bayesian personalised ranking (Rendle et al., UAI 2009) with one negative each. Shapes as in
    `own_batch`."""
    n, size = states.shape
    loss = 0.0
    for i in range(first, last):
        state, target, negative = states[i], table[targets[i]], table[negatives[i]]
        of_state, of_target, of_negative = grad_states[i], grad_targets[i], grad_negatives[i]
        margin = target[size] - negative[size]
        for j in range(size):
            of_state[j] = target[j] - negative[j]
            margin += state[j] * of_state[j]
        # σ(−m) and log(1 + exp(−m)), without an exponent that overflows
        small = np.exp(-abs(np.float64(margin)))
        wrong = (small if margin > 0 else 1.0) / (1.0 + small)
        loss += np.log1p(small) + max(-np.float64(margin), 0.0)
        pull = states.dtype.type(-wrong / n)
        for j in range(size):
            of_state[j] *= pull
            of_target[j] = pull * state[j]
            of_negative[j] = -of_target[j]
        of_target[size] = pull
        of_negative[size] = -pull
    losses[0] = loss


GATE_ROWS = 80
"""rows of an input projection that go through at once: OpenBLAS takes operands as they are while a
product has at most a million multiplications"""


@jit_fast
def item_gates(
    first: int,
    last: int,
    items: Array,
    table: Array,
    turned: Array,
    bias: Array,
    x: Array,
    gates: Array,
) -> None:
    """Write x (n, H) and gates (n, G) of events first to last − 1.

    items (n,) rows of the table, of which the first H columns enter; turned (H, G) is W_ihᵀ; bias
    (G,)."""
    for start in range(first, last, GATE_ROWS):
        stop = min(start + GATE_ROWS, last)
        for i in range(start, stop):
            copy(x[i], table[items[i]])
        np.dot(x[start:stop], turned, gates[start:stop])
        for i in range(start, stop):
            add(gates[i], bias)


@jit_fast
def item_gates_backward(
    first: int,
    last: int,
    x: Array,
    weight: Array,
    grad: Array,
    grad_rows: Array,
    grad_weight: Array,
    grad_bias: Array,
) -> None:
    """Write the gradients of the rows of events first to last − 1, and of W_ih and b over these
    events.

    x (n, H); weight and grad_weight (G, H); grad (n, G) that of the gates; grad_rows (n, H or
    more), 0 beyond H."""
    width, size = weight.shape
    back, product = np.empty((GATE_ROWS, size), grad.dtype), np.empty((width, size), grad.dtype)
    for j in range(width):
        grad_bias[j] = 0
        for k in range(size):
            grad_weight[j, k] = 0
    for start in range(first, last, GATE_ROWS):
        stop = min(start + GATE_ROWS, last)
        np.dot(grad[start:stop], weight, back[: stop - start])
        for i in range(start, stop):
            add(grad_bias, grad[i])
            copy(grad_rows[i, :size], back[i - start])
            for j in range(size, grad_rows.shape[1]):
                grad_rows[i, j] = 0
        np.dot(grad[start:stop].T, x[start:stop], product)
        for j in range(width):
            add(grad_weight[j], product[j])

"""The packed GRU, forward and backward: gates r, z, n as in torch.nn.GRU.

    r, z = logistic(x + q),  n = tanh(x + r q),  h = (1 − z) n + z h',  q = W h' + b

x (with b_ih) and q (with b_hh) have a part for each gate. Saved for the backward pass, as one row
of 4H per token: r, z, n and the n-part of q. Tiles, and blocks of weights with three gates, are
those of `kernels/lstm.py`; b comes in such blocks too, (n_blocks, 3 · units)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._jit import Array, jit_fast, jit_leaf, prefetch_row
from .activations import ONE, ZERO, logistic, tanh
from .packing import Sequences, length_of, now_running, padded, room, still_running
from .products import add, copy


class GruPass(NamedTuple):
    """What a forward pass read and what it wrote."""

    x: Array
    """(n_tokens, 3H)"""
    saved: Array
    """(n_tokens, 4H)"""
    h: Array
    """(n_tokens, H)"""


class GruGrads(NamedTuple):
    """The gradient that a backward pass reads, `h`, and those that it writes."""

    h: Array
    """(n_tokens, H)"""
    x: Array
    """(n_tokens, 3H)"""
    q: Array
    """(n_tokens, 3H)"""


@jit_leaf
def logistics(sums: Array) -> None:
    """Replace sums by their logistic function."""
    for j in range(len(sums)):
        sums[j] = logistic(sums[j])


@jit_leaf
def new_state(r: Array, q: Array, x: Array, n: Array) -> None:
    """Write n = tanh(x + r q)."""
    for j in range(len(n)):
        n[j] = tanh(x[j] + r[j] * q[j])


@jit_leaf
def mix(z: Array, n: Array, before: Array, after: Array) -> None:
    """Write h = (1 − z) n + z h'."""
    for j in range(len(after)):
        after[j] = (ONE - z[j]) * n[j] + z[j] * before[j]


@jit_leaf
def _cell(
    unit: int, q: Array, bias: Array, x: Array, saved: Array, before: Array, after: Array
) -> None:
    """Take a token's units from `unit` on a step further, from W h', (3 · units,), and the rows x,
    saved, h' and h."""
    size, units = len(after), len(q) // 3
    last = min(unit + units, size)
    length = last - unit
    add(q, bias)
    for k in range(2):
        add(q[k * units : k * units + length], x[k * size + unit : k * size + last])
    logistics(q[: 2 * units])
    r, z, of_n = q[:length], q[units : units + length], q[2 * units : 2 * units + length]
    n = saved[2 * size + unit : 2 * size + last]
    copy(saved[unit:last], r)
    copy(saved[size + unit : size + last], z)
    copy(saved[3 * size + unit : 3 * size + last], of_n)
    new_state(r, of_n, x[2 * size + unit : 2 * size + last], n)
    mix(z, n, before[unit:last], after[unit:last])


@jit_leaf
def _cell_backward(
    saved: Array, h_before: Array, carry: Array, grad_x: Array, grad_q: Array
) -> None:
    """Turn the gradient of h (`carry`) into those of x and q, (3H,) each; carry becomes z · carry,
    h's direct path."""
    size = len(carry)
    # several short loops, for the reason given in the LSTM's cell
    for j in range(size):
        n = saved[2 * size + j]
        grad_x[2 * size + j] = carry[j] * (ONE - saved[size + j]) * (ONE - n * n)
    for j in range(size):
        z = saved[size + j]
        grad_x[size + j] = carry[j] * (h_before[j] - saved[2 * size + j]) * z * (ONE - z)
        carry[j] *= z
    for j in range(size):
        r = saved[j]
        grad_x[j] = grad_x[2 * size + j] * saved[3 * size + j] * r * (ONE - r)
    for j in range(2 * size):
        grad_q[j] = grad_x[j]
    for j in range(size):
        grad_q[2 * size + j] = grad_x[2 * size + j] * saved[j]


@jit_fast
def gru_tiles(
    tiles: Array,
    sequences: Sequences,
    weights: Array,
    bias: Array,
    forward: GruPass,
) -> None:
    """Write `saved` and `h` of the sequences in order[tiles[k]:tiles[k + 1]], all k."""
    gates_x, saved, h = forward
    order, offsets = sequences
    n_blocks, size, width = weights.shape
    units, rows = width // 3, room(tiles)
    states = np.zeros((2, rows, size), h.dtype)
    q, starts = np.empty((rows, width), h.dtype), np.empty(rows, np.int64)
    for tile in range(len(tiles) - 1):
        first, active = tiles[tile], tiles[tile + 1] - tiles[tile]
        for rank in range(active):
            starts[rank] = offsets[order[first + rank]]
            for j in range(size):
                states[0, rank, j] = ZERO
        for step in range(length_of(first, sequences)):
            active = still_running(step, first, active, sequences)
            before, after = states[step % 2], states[1 - step % 2]
            for block in range(n_blocks):
                np.dot(before[: padded(active)], weights[block], q[: padded(active)])
                for rank in range(active):
                    row = starts[rank] + step
                    rows_of = gates_x[row], saved[row], before[rank], after[rank]
                    _cell(block * units, q[rank], bias[block], *rows_of)
            for rank in range(active):
                token = starts[rank] + step
                copy(h[token], after[rank])
                if token + 1 < len(h):
                    prefetch_row(gates_x, token + 1)
                    prefetch_row(saved, token + 1)


@jit_fast
def gru_tiles_backward(
    tiles: Array,
    sequences: Sequences,
    weights: Array,
    forward: GruPass,
    grads: GruGrads,
) -> None:
    """Write the gradients of x and q."""
    _, saved, h = forward
    order, offsets = sequences
    grad_h, grad_x, grad_q = grads
    n_blocks, width, units = weights.shape
    size, rows = width // 3, room(tiles)
    carry, nothing = np.empty((rows, size), h.dtype), np.zeros(size, h.dtype)
    # rows beyond the active ones enter the product too, and what comes of them is not read
    grad_sums, product = np.zeros((rows, width), h.dtype), np.empty((rows, units), h.dtype)
    for tile in range(len(tiles) - 1):
        first, last, active = tiles[tile], tiles[tile + 1], 0
        carry[:] = 0
        for step in range(length_of(first, sequences) - 1, -1, -1):
            active = now_running(step, first, last, active, sequences)
            for rank in range(active):
                row = offsets[order[first + rank]] + step
                add(carry[rank], grad_h[row])
                h_before = h[row - 1] if step > 0 else nothing
                _cell_backward(saved[row], h_before, carry[rank], grad_x[row], grad_sums[rank])
                copy(grad_q[row], grad_sums[rank])
                if step > 1:
                    prefetch_row(saved, row - 1)
                    prefetch_row(grad_h, row - 1)
                    prefetch_row(h, row - 2)
            for block in range(n_blocks):
                np.dot(grad_sums[: padded(active)], weights[block], product[: padded(active)])
                unit = block * units
                for rank in range(active):
                    add(carry[rank, unit : min(unit + units, size)], product[rank])

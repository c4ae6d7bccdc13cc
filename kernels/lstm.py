"""The packed LSTM, forward and backward: gates i, f, g, o as in torch.nn.LSTM.

    i, f, o = logistic(q),  g = tanh(q),  q = W_hh h' + b + x,  c = f c' + i g,  h = o tanh(c)

Tokens are session-major. A tile of sequences (`kernels/packing.py`) advances together: one matrix
product for a step's states. A token's x is its own row of the array `x`, or row source[token].
Rows of x are parts of q, (·, 4H), or inputs of a projection, (·, D): the states of a tile are then
rows [h', x] of `depth` = H + D, and the weights [W_hh, W_ih].

Weights come in blocks. Forward, block b is (depth, 4 · units): column k · units + j is gate k of
unit b · units + j. Backward, it is (4H, units), columns of [W_hh, W_ih]. The last block may be
padded with zeros."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._jit import Array, jit_fast, jit_leaf, jit_part, prefetch_row
from .activations import HALF, ONE, ZERO, tanh
from .packing import Sequences, length_of, now_running, padded, room, still_running
from .row_loops import add, copy


class LstmPass(NamedTuple):
    """Arrays that a forward pass reads and writes."""

    x: Array  # sums of gates (·, 4H), or inputs of the projection (·, D)
    source: Array  # row of x of each token, (n_tokens,); (0,): its own
    gates: Array  # (n_tokens, 4H)
    h: Array  # (n_tokens, H)
    c: Array  # (n_tokens, H)
    first_h: Array  # h before each sequence, (n_sequences, H), or (0, H) for zeros
    first_c: Array  # c likewise


class LstmGrads(NamedTuple):
    """The gradient that a backward pass reads, `h`, and those it writes; `x` and `bias` of length 0
    are not wanted."""

    h: Array  # (n_tokens, H)
    gates: Array  # of q, (n_tokens, 4H); may be the array of the gates
    x: Array  # of the projection's inputs, (n_tokens, D)
    weight: Array  # of these tiles, (n_outer, 4H, outer): `outer` columns of [W_hh, W_ih] a block
    bias: Array  # of these tiles, (4H,)


@jit_leaf
def _row_of(token: int, source: Array) -> int:
    return int(source[token]) if len(source) > 0 else int(token)


@jit_leaf
def _cell(
    unit: int, sums: Array, x: Array, gating: Array, gate: Array, memory: Array, state: Array
) -> None:
    """Take a token's units from `unit` on a step further, from a block's product, (4 · units,); c'
    (`memory`) becomes c. x: (4H,) or (0,); gating: bias, scale and shift, (3, 4H)."""
    size, units = len(memory), len(sums) // 4
    last = min(unit + units, size)
    # a whole row at once, or each gate's share of it
    runs, length = (1, 4 * size) if units == size else (4, last - unit)
    for k in range(runs):
        here, start = k * units, k * size + unit
        stop = start + length
        part, own = sums[here : here + length], gate[start:stop]
        if len(x) > 0:
            add(part, x[start:stop])
        bias, scale, shift = gating[0, start:stop], gating[1, start:stop], gating[2, start:stop]
        for j in range(len(own)):
            own[j] = shift[j] + scale[j] * tanh(scale[j] * (part[j] + bias[j]))
    # slices: an index that is a sum of variables is guarded against being negative, and such a loop
    # stays scalar
    i, f = gate[unit:last], gate[size + unit : size + last]
    g, o = gate[2 * size + unit : 2 * size + last], gate[3 * size + unit : 3 * size + last]
    now, h = memory[unit:last], state[unit:last]
    for j in range(len(now)):
        c = f[j] * now[j] + i[j] * g[j]
        now[j] = c
        h[j] = o[j] * tanh(c)


@jit_fast
def lstm_tiles(
    tiles: Array,
    sequences: Sequences,
    weights: Array,
    bias: Array,
    forward: LstmPass,
) -> None:
    """Write gates, h and c of the sequences in order[tiles[k]:tiles[k + 1]], all k.

    weights: blocks of the forward form; bias: (4H,)."""
    x, source, gates, h, c, first_h, first_c = forward
    order, offsets = sequences
    n_blocks, depth, width = weights.shape
    units, rows, size = width // 4, room(tiles), h.shape[1]
    projected = depth > size
    states, memory = np.zeros((2, rows, depth), h.dtype), np.empty((rows, size), h.dtype)
    sums, starts = np.empty((rows, width), h.dtype), np.empty(rows, np.int64)
    gating = np.empty((3, 4 * size), h.dtype)
    for j in range(4 * size):
        is_g = 2 * size <= j < 3 * size
        gating[0, j] = bias[j]
        gating[1, j] = ONE if is_g else HALF
        gating[2, j] = ZERO if is_g else HALF
    for tile in range(len(tiles) - 1):
        first, active = tiles[tile], tiles[tile + 1] - tiles[tile]
        for rank in range(active):
            sequence = order[first + rank]
            starts[rank] = offsets[sequence]
            if len(first_h) > 0:
                copy(states[0, rank, :size], first_h[sequence])
                copy(memory[rank], first_c[sequence])
                continue
            for j in range(size):
                states[0, rank, j] = memory[rank, j] = ZERO
        for step in range(length_of(first, sequences)):
            active = still_running(step, first, active, sequences)
            before, after = states[step % 2], states[1 - step % 2]
            if projected:
                for rank in range(active):
                    copy(before[rank, size:], x[_row_of(starts[rank] + step, source)])
            for block in range(n_blocks):
                np.dot(before[: padded(active)], weights[block], sums[: padded(active)])
                for rank in range(active):
                    token = starts[rank] + step
                    row = x[_row_of(token, source)]
                    _cell(
                        block * units,
                        sums[rank],
                        row[: 0 if projected else 4 * size],
                        gating,
                        gates[token],
                        memory[rank],
                        after[rank, :size],
                    )
            for rank in range(active):
                token = starts[rank] + step
                copy(h[token], after[rank, :size])
                copy(c[token], memory[rank])
                if token + 1 < len(h):
                    prefetch_row(x, _row_of(token + 1, source))
                    prefetch_row(gates, token + 1)


@jit_leaf
def _cell_backward(
    gate: Array, c_before: Array, c: Array, carry_h: Array, carry_c: Array, grad: Array
) -> None:
    """Turn the gradients of a token's h and c (the carries) into those of q, (4H,); carry_c becomes
    that of c'."""
    size = len(c)
    i, f, g, o = gate[:size], gate[size : 2 * size], gate[2 * size : 3 * size], gate[3 * size :]
    grad_i, grad_f = grad[:size], grad[size : 2 * size]
    grad_g, grad_o = grad[2 * size : 3 * size], grad[3 * size :]
    # three loops: for all gates at once, proofs that arrays are apart cost more than the arithmetic
    for j in range(size):
        squashed = tanh(c[j])
        grad_o[j] = carry_h[j] * squashed * o[j] * (ONE - o[j])
        carry_c[j] += carry_h[j] * o[j] * (ONE - squashed * squashed)
    for j in range(size):
        grad_i[j] = carry_c[j] * g[j] * i[j] * (ONE - i[j])
        grad_g[j] = carry_c[j] * i[j] * (ONE - g[j] * g[j])
    for j in range(size):
        grad_f[j] = carry_c[j] * c_before[j] * f[j] * (ONE - f[j])
        carry_c[j] *= f[j]


@jit_leaf
def _spread(row: Array, first: int, at: int, inputs: Array) -> None:
    """Write a row as columns `first`, … of row `at` of the inputs, whose columns are in blocks."""
    units, done = inputs.shape[2], 0
    while done < len(row):
        block, column = (first + done) // units, (first + done) % units
        length = min(units - column, len(row) - done)
        copy(inputs[block, at, column : column + length], row[done : done + length])
        done += length


@jit_part
def _add_products(
    grads: Array, inputs: Array, product: Array, grad_weight: Array, grad_bias: Array
) -> None:
    """Add Σ grads ⊗ inputs, by blocks of the inputs' columns, and Σ grads."""
    for block in range(len(inputs)):
        np.dot(grads.T, inputs[block, : len(grads)], product)
        for k in range(len(product)):
            add(grad_weight[block, k], product[k])
    for at in range(len(grads)):
        add(grad_bias, grads[at])


@jit_fast
def lstm_tiles_backward(
    tiles: Array,
    sequences: Sequences,
    weights: Array,
    depth: int,
    most: int,
    forward: LstmPass,
    grads: LstmGrads,
) -> None:
    """Write the gradients of the sequences in order[tiles[k]:tiles[k + 1]], all k.

    weights: blocks of the backward form; most: tokens over which their gradient is taken at a
    time."""
    x, source, gates, h, c, _, _ = forward
    order, offsets = sequences
    grad_h, grad_gates, grad_x, grad_weight, grad_bias = grads
    n_blocks, width, units = weights.shape
    size, rows = width // 4, room(tiles)
    n_outer, _, outer = grad_weight.shape
    projected = depth > size
    most = max(most, rows)
    carry_h, carry_c = np.empty((rows, size), c.dtype), np.empty((rows, size), c.dtype)
    # rows beyond the active ones enter the product too, and what comes of them is not read
    sums = np.zeros((most + 4, width), c.dtype)
    inputs, nothing = np.zeros((n_outer, most + 4, outer), c.dtype), np.zeros(size, c.dtype)
    product, back = np.empty((width, outer), c.dtype), np.empty((rows, units), c.dtype)
    grad_weight[:] = 0
    grad_bias[:] = 0
    held = 0
    for tile in range(len(tiles) - 1):
        first, last, active = tiles[tile], tiles[tile + 1], 0
        carry_h[:] = 0
        carry_c[:] = 0
        for step in range(length_of(first, sequences) - 1, -1, -1):
            active = now_running(step, first, last, active, sequences)
            if held + active > most:
                _add_products(sums[:held], inputs, product, grad_weight, grad_bias)
                held = 0
            for rank in range(active):
                token = offsets[order[first + rank]] + step
                add(carry_h[rank], grad_h[token])
                c_before = c[token - 1] if step > 0 else nothing
                own = sums[held + rank]
                _cell_backward(gates[token], c_before, c[token], carry_h[rank], carry_c[rank], own)
                copy(grad_gates[token], own)
                _spread(h[token - 1] if step > 0 else nothing, 0, held + rank, inputs)
                if projected:
                    _spread(x[_row_of(token, source)], size, held + rank, inputs)
                if step > 1:
                    prefetch_row(gates, token - 1)
                    prefetch_row(c, token - 2)
                    prefetch_row(h, token - 2)
                    prefetch_row(grad_h, token - 1)
            for block in range(n_blocks):
                np.dot(sums[held : held + padded(active)], weights[block], back[: padded(active)])
                low, high = block * units, min(block * units + units, depth)
                for rank in range(active):
                    if low < size:
                        copy(carry_h[rank, low : min(high, size)], back[rank])
                    if high > size and len(grad_x) > 0:
                        start = max(low, size)
                        token = offsets[order[first + rank]] + step
                        copy(grad_x[token, start - size : high - size], back[rank, start - low :])
            held += active
    if held > 0:
        _add_products(sums[:held], inputs, product, grad_weight, grad_bias)

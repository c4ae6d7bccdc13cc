"""The packed LSTM, forward and backward: gates i, f, g, o as in torch.nn.LSTM.

    i, f, o = logistic(x + W h'),  g = tanh(x + W h'),  c = f c' + i g,  h = o tanh(c)

Tokens are session-major; h' and c' are the previous token's, or h0 and c0. A tile of sequences (`kernels/packing.py`)
advances together, time inside the tile: one matrix product for the states of a step, then one pass over its rows.

The weights come in blocks of `units` hidden units, so that every product is small: BLAS then reads them where they lie,
without copying them into its own order first. Forward, block b is (H, 4 · units): column k · units + j belongs to gate
k of unit b · units + j. Backward, it is (4H, units), those columns of weight_hh. The last block may be padded.
"""

from __future__ import annotations

import numpy as np

from ._jit import Array, jit_fast, jit_part
from .cells import HALF, ONE, add, copy, tanh
from .packing import length_of, now_running, padded, room, still_running


@jit_part
def activate_gates(sums: Array, units: int) -> None:
    """Turn gate sums, (4 · units,), into gates, in place."""
    # one loop over all four gates, by logistic(x) = ½ + ½ tanh(x / 2), vectorises twice as well as one for each
    for j in range(4 * units):
        is_g = 2 * units <= j < 3 * units
        squashed = tanh(sums[j] if is_g else HALF * sums[j])
        sums[j] = squashed if is_g else HALF + HALF * squashed


@jit_part
def advance_units(gate: Array, units: int, memory: Array, state: Array) -> None:
    """Turn c' (`memory`) into c and write h; the last block may have fewer than `units` of them."""
    # Numba guards an index against being negative, and the loop vectorises only where LLVM sees that it cannot be
    if units > 0:
        for j in range(len(memory)):
            c = gate[units + j] * memory[j] + gate[j] * gate[2 * units + j]
            memory[j] = c
            state[j] = gate[3 * units + j] * tanh(c)


@jit_part
def _cell(unit: int, units: int, sums: Array, x: Array, gate: Array, memory: Array, state: Array) -> None:
    """Take a token's units from `unit` on a step further, from W h', (4 · units,), and the rows x, gate, c' and h."""
    size = len(memory)
    last = min(unit + units, size)
    # a whole row at once, or each gate's share of it
    runs, length = (1, 4 * size) if units == size else (4, last - unit)
    for k in range(runs):
        here, there = k * units, k * size + unit
        add(sums[here : here + length], x[there : there + length])
    activate_gates(sums, units)
    for k in range(runs):
        here, there = k * units, k * size + unit
        copy(gate[there : there + length], sums[here : here + length])
    advance_units(sums, units, memory[unit:last], state[unit:last])


@jit_part
def _cell_backward(gate: Array, c_before: Array, c: Array, carry_h: Array, carry_c: Array, grad_gate: Array) -> None:
    """Turn the gradients of a token's h and c (the carries) into those of its gate sums; carry_c becomes that of c'.

    A loop for each gate: every array that a vectorised loop touches must first be proved apart from those it writes,
    which for all gates at once costs more than the arithmetic.
    """
    size = len(c)
    for j in range(size):
        o, squashed = gate[3 * size + j], tanh(c[j])
        grad_gate[3 * size + j] = carry_h[j] * squashed * o * (ONE - o)
        carry_c[j] += carry_h[j] * o * (ONE - squashed * squashed)
    for j in range(size):
        i = gate[j]
        grad_gate[j] = carry_c[j] * gate[2 * size + j] * i * (ONE - i)
    for j in range(size):
        g = gate[2 * size + j]
        grad_gate[2 * size + j] = carry_c[j] * gate[j] * (ONE - g * g)
    for j in range(size):
        f = gate[size + j]
        grad_gate[size + j] = carry_c[j] * c_before[j] * f * (ONE - f)
        carry_c[j] *= f


@jit_fast
def lstm_tiles(
    tiles: Array,
    order: Array,
    offsets: Array,
    weights: Array,
    gates_x: Array,
    h0: Array,
    c0: Array,
    gates: Array,
    h: Array,
    c: Array,
) -> None:
    """Write gates (n_tokens, 4H), h and c (n_tokens, H) of the sequences in order[tiles[k]:tiles[k + 1]], all k."""
    n_blocks, size, width = weights.shape
    units, rows = width // 4, room(tiles)
    states, memory = np.zeros((2, rows, size), h.dtype), np.empty((rows, size), h.dtype)
    sums, starts = np.empty((rows, width), h.dtype), np.empty(rows, np.int64)
    for tile in range(len(tiles) - 1):
        first, active = tiles[tile], tiles[tile + 1] - tiles[tile]
        for rank in range(active):
            sequence = order[first + rank]
            starts[rank] = offsets[sequence]
            copy(states[0, rank], h0[sequence])
            copy(memory[rank], c0[sequence])
        for step in range(length_of(order[first], offsets)):
            active = still_running(step, first, active, order, offsets)
            before, after = states[step % 2], states[1 - step % 2]
            for block in range(n_blocks):
                np.dot(before[: padded(active)], weights[block], sums[: padded(active)])
                for rank in range(active):
                    row = starts[rank] + step
                    _cell(block * units, units, sums[rank], gates_x[row], gates[row], memory[rank], after[rank])
            for rank in range(active):
                copy(h[starts[rank] + step], after[rank])
                copy(c[starts[rank] + step], memory[rank])


@jit_fast
def lstm_tiles_backward(
    tiles: Array,
    order: Array,
    offsets: Array,
    weights: Array,
    grad_h: Array,
    grad_c: Array,
    c0: Array,
    gates: Array,
    c: Array,
    grad_gates: Array,
    grad_h0: Array,
    grad_c0: Array,
) -> None:
    """Write the gradients of the gate sums (n_tokens, 4H), h0 and c0.

    `grad_h` or `grad_c` of length 0 stands for zeros.
    """
    n_blocks, width, units = weights.shape
    size, rows = width // 4, room(tiles)
    carry_h, carry_c = np.empty((rows, size), c.dtype), np.empty((rows, size), c.dtype)
    # rows beyond the active ones enter the product too, and what comes of them is not read
    grad_sums, product = np.zeros((rows, width), c.dtype), np.empty((rows, units), c.dtype)
    for tile in range(len(tiles) - 1):
        first, last, active = tiles[tile], tiles[tile + 1], 0
        carry_h[:] = 0
        carry_c[:] = 0
        for step in range(length_of(order[first], offsets) - 1, -1, -1):
            active = now_running(step, first, last, active, order, offsets)
            for rank in range(active):
                sequence = order[first + rank]
                row = offsets[sequence] + step
                if len(grad_h) > 0:
                    add(carry_h[rank], grad_h[row])
                if len(grad_c) > 0:
                    add(carry_c[rank], grad_c[row])
                c_before = c[row - 1] if step > 0 else c0[sequence]
                _cell_backward(gates[row], c_before, c[row], carry_h[rank], carry_c[rank], grad_sums[rank])
                copy(grad_gates[row], grad_sums[rank])
            for block in range(n_blocks):
                np.dot(grad_sums[: padded(active)], weights[block], product[: padded(active)])
                unit = block * units
                for rank in range(active):
                    copy(carry_h[rank, unit : min(unit + units, size)], product[rank])
        for rank in range(last - first):
            copy(grad_h0[order[first + rank]], carry_h[rank])
            copy(grad_c0[order[first + rank]], carry_c[rank])

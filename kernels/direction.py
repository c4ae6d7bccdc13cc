"""One direction of one LSTM layer over a few sequences with large weights: what a bidirectional
encoder is made of.

All sequences advance together, longest first, so that those which hold a token at a step are the
first few of `order`. Weights are read once per step for all of them (`products.py`); a first step
has no state before it and reads none. Backward in time is the same walk from each sequence's other
end. Gates and formulas are those of `lstm.py`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._jit import Array, jit_fast, jit_leaf
from .lstm import Gating, _cell_backward, activate_gates, advance_units, gate_scales
from .packing import Sequences, length_of, now_running, still_running
from .products import add, add_times, copy, times_transposed


class Walk(NamedTuple):
    """How the sequences, none of them empty, are walked."""

    sequences: Sequences
    reverse: bool
    """steps count from the last token"""


class DirectionWeights(NamedTuple):
    """Weights of one direction; those of the input are not read where it comes projected."""

    ih: Array
    """(4H, k)"""
    bias: Array
    """(4H,), or of length 0: `gates` holds the input's share already"""
    hh: Array
    """(4H, H)"""


class DirectionPass(NamedTuple):
    """What a forward pass writes."""

    gates: Array
    """(n, 4H)"""
    c: Array
    """(n, H)"""
    h: Array
    """(n, 2H), of which H columns are written"""


@jit_leaf
def _row(rank: int, step: int, walk: Walk) -> int:
    """Where the token of that step stands, of the sequence at a place of the order."""
    (order, offsets), reverse = walk
    sequence = order[rank]
    if reverse:
        return int(offsets[sequence + 1] - 1 - step)
    return int(offsets[sequence] + step)


@jit_fast
def direction_forward(
    walk: Walk,
    x: Array,
    weights: DirectionWeights,
    written: DirectionPass,
    column: int,
) -> None:
    """Write gates, c and H columns of h from `column`. x is (n, k)."""
    sequences = walk.sequences
    weight_ih, bias, weight_hh = weights
    gates, c, h = written
    size = weight_hh.shape[1]
    if len(bias) > 0:
        times_transposed(x, weight_ih, gates)
        for row in range(len(gates)):
            add(gates[row], bias)
    active, nothing = len(sequences.order), np.zeros(4 * size, gates.dtype)
    scale, shift = np.empty(4 * size, gates.dtype), np.empty(4 * size, gates.dtype)
    gate_scales(size, scale, shift)
    gating = Gating(nothing, scale, shift)
    before, sums = np.empty((active, size), gates.dtype), np.empty((active, 4 * size), gates.dtype)
    for step in range(length_of(0, sequences)):
        active = still_running(step, 0, active, sequences)
        if step > 0:
            for rank in range(active):
                copy(
                    before[rank],
                    h[_row(rank, step - 1, walk), column : column + size],
                )
            times_transposed(before[:active], weight_hh, sums[:active])
        for rank in range(active):
            row = _row(rank, step, walk)
            if step > 0:
                add(gates[row], sums[rank])
                copy(c[row], c[_row(rank, step - 1, walk)])
            else:
                copy(c[row], nothing)
            gate = gates[row]
            activate_gates(gate, gating, gate)
            i, f, g, o = (
                gate[:size],
                gate[size : 2 * size],
                gate[2 * size : 3 * size],
                gate[3 * size :],
            )
            advance_units(i, f, g, o, c[row], h[row, column : column + size])


@jit_fast
def direction_backward(
    walk: Walk,
    weights: DirectionWeights,
    forward: DirectionPass,
    grad_h: Array,
    column: int,
    grads: tuple[Array, Array],
) -> None:
    """Write `grads`: of the gate sums (n, 4H) and, unless it has no row, of x (n, k)."""
    sequences = walk.sequences
    weight_ih, _, weight_hh = weights
    gates, c, _ = forward
    grad_gates, grad_x = grads
    size = weight_hh.shape[1]
    n, active, nothing = len(sequences.order), 0, np.zeros(size, gates.dtype)
    carry_h, carry_c = np.zeros((n, size), gates.dtype), np.zeros((n, size), gates.dtype)
    sums = np.empty((n, 4 * size), gates.dtype)
    for step in range(length_of(0, sequences) - 1, -1, -1):
        active = now_running(step, 0, n, active, sequences)
        for rank in range(active):
            row = _row(rank, step, walk)
            add(carry_h[rank], grad_h[row, column : column + size])
            c_before = c[_row(rank, step - 1, walk)] if step > 0 else nothing
            _cell_backward(gates[row], c_before, c[row], carry_h[rank], carry_c[rank], sums[rank])
            copy(grad_gates[row], sums[rank])
        if step > 0:
            carry_h[:active] = 0
            add_times(sums[:active], weight_hh, carry_h[:active])
    if len(grad_x) > 0:
        grad_x[:] = 0
        add_times(grad_gates, weight_ih, grad_x)


@jit_fast
def add_rows_at(rows: Array, positions: Array, result: Array) -> None:
    """Write Σ of the rows of each position, (n, width) → (n_positions, width); positions without
    one get zeros."""
    result[:] = 0
    for i in range(len(positions)):
        add(result[positions[i]], rows[i])

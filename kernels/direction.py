"""One direction of one LSTM layer over a few sequences with large weights: what a bidirectional
encoder is made of.

All sequences advance together, longest first, so that those which hold a token at a step are the
first few of `order`. Weights are read once per step for all of them (`products.py`); a first step
has no state before it and reads none. Backward in time is the same walk from each sequence's other
end. Gates and formulas are those of `lstm.py`."""

from __future__ import annotations

import numpy as np

from ._jit import Array, jit_fast, jit_part
from .cells import add, copy
from .lstm import _cell_backward, activate_gates, advance_units, gate_scales
from .packing import length_of, now_running, still_running
from .products import add_times, times_transposed


@jit_part
def _row(sequence: int, step: int, offsets: Array, reverse: bool) -> int:
    """Where a sequence's token of that step stands; with `reverse` steps count from the last
    token."""
    return int(offsets[sequence + 1] - 1 - step if reverse else offsets[sequence] + step)


@jit_fast
def direction_forward(
    order: Array,
    offsets: Array,
    reverse: bool,
    x: Array,
    weight_ih: Array,
    bias: Array,
    weight_hh: Array,
    gates: Array,
    c: Array,
    h: Array,
    column: int,
) -> None:
    """Write gates (n, 4H), c (n, H) and H columns of h from `column`, (n, 2H), of sequences that
    are not empty.

    x (n, k), weight_ih (4H, k), bias (4H,); a bias of length 0 says that `gates` holds the input's
    share already."""
    size = weight_hh.shape[1]
    if len(bias) > 0:
        times_transposed(x, weight_ih, gates)
        for row in range(len(gates)):
            add(gates[row], bias)
    active, nothing = len(order), np.zeros(4 * size, gates.dtype)
    scale, shift = np.empty(4 * size, gates.dtype), np.empty(4 * size, gates.dtype)
    gate_scales(size, scale, shift)
    before, sums = np.empty((active, size), gates.dtype), np.empty((active, 4 * size), gates.dtype)
    for step in range(length_of(order[0], offsets)):
        active = still_running(step, 0, active, order, offsets)
        if step > 0:
            for rank in range(active):
                copy(
                    before[rank],
                    h[_row(order[rank], step - 1, offsets, reverse), column : column + size],
                )
            times_transposed(before[:active], weight_hh, sums[:active])
        for rank in range(active):
            row = _row(order[rank], step, offsets, reverse)
            if step > 0:
                add(gates[row], sums[rank])
                copy(c[row], c[_row(order[rank], step - 1, offsets, reverse)])
            else:
                copy(c[row], nothing)
            gate = gates[row]
            activate_gates(gate, nothing, scale, shift, gate)
            i, f, g, o = (
                gate[:size],
                gate[size : 2 * size],
                gate[2 * size : 3 * size],
                gate[3 * size :],
            )
            advance_units(i, f, g, o, c[row], h[row, column : column + size])


@jit_fast
def direction_backward(
    order: Array,
    offsets: Array,
    reverse: bool,
    weight_ih: Array,
    weight_hh: Array,
    gates: Array,
    c: Array,
    grad_h: Array,
    column: int,
    grad_gates: Array,
    grad_x: Array,
) -> None:
    """Write the gradients of the gate sums (n, 4H) and, unless `grad_x` has no row, of x (n, k)."""
    size = weight_hh.shape[1]
    n, active, nothing = len(order), 0, np.zeros(size, gates.dtype)
    carry_h, carry_c = np.zeros((n, size), gates.dtype), np.zeros((n, size), gates.dtype)
    sums = np.empty((n, 4 * size), gates.dtype)
    for step in range(length_of(order[0], offsets) - 1, -1, -1):
        active = now_running(step, 0, n, active, order, offsets)
        for rank in range(active):
            row = _row(order[rank], step, offsets, reverse)
            add(carry_h[rank], grad_h[row, column : column + size])
            c_before = c[_row(order[rank], step - 1, offsets, reverse)] if step > 0 else nothing
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

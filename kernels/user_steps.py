"""One recurrent step of many users, in place: what each has just chosen moves its state, whatever
came before.

The input is folded: a row of `table` holds all that an item's ids say to the gates, so that a step
is a gather, two small products, over tiles of rows as in `slates.py`, and the cell of the packed
kernels. For a layer above the first the inputs have no rows, and their numbers are the state of the
layer below."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._jit import Array, jit_fast, jit_leaf
from .lstm import Gating, activate_gates, advance_units, gate_scales
from .products import add, copy, multiply_rows
from .slates import TILE


class StepInputs(NamedTuple):
    """What moves n users' states."""

    rows: Array
    """table rows of the choice, -1 for none, shape (n, 1, n_rows)"""
    numbers: Array
    """shape (n, 1, d)"""


class StepTables(NamedTuple):
    """A folded layer; G is 4H."""

    table: Array
    """what a row adds to the gates, shape (·, G)"""
    nothing: int
    """the row of no click"""
    from_numbers: Array
    """shape (d, G)"""
    bias: Array
    """shape (G,)"""
    weight: Array
    """weight_hh, transposed, shape (H, G)"""


@jit_leaf
def _gates(
    start: int, count: int, inputs: StepInputs, layer: StepTables, held: Array, gates: Array
) -> None:
    """Write the input gates, bias and all, of `count` users from `start` on; `held` is scratch for
    their numbers."""
    rows, numbers = inputs
    bias = layer.bias
    n_numbers = numbers.shape[2]
    if n_numbers > 0:
        for i in range(count):
            copy(held[i], numbers[start + i, 0])
        multiply_rows(held, layer.from_numbers, count, gates)
    for i in range(count):
        if n_numbers > 0:
            add(gates[i], bias)
        else:
            copy(gates[i], bias)
        for f in range(rows.shape[2]):
            row = rows[start + i, 0, f]
            if row < 0 and f == 0:
                row = layer.nothing
            if row >= 0:
                add(gates[i], layer.table[row])


@jit_fast
def lstm_step(
    first: int,
    last: int,
    active: Array,
    inputs: StepInputs,
    layer: StepTables,
    h: Array,
    c: Array,
) -> None:
    """Advance h and c, (n, H), of the active users."""
    numbers = inputs.numbers
    size, width = layer.weight.shape
    before, held = np.zeros((TILE, size), h.dtype), np.zeros((TILE, numbers.shape[2]), h.dtype)
    sums, gates = np.empty((TILE, width), h.dtype), np.empty((TILE, width), h.dtype)
    scale, shift, gate = (
        np.empty(width, h.dtype),
        np.empty(width, h.dtype),
        np.empty(width, h.dtype),
    )
    gate_scales(size, scale, shift)
    i_part, f_part, g_part, o_part = (
        gate[:size],
        gate[size : 2 * size],
        gate[2 * size : 3 * size],
        gate[3 * size :],
    )
    for start in range(first, last, TILE):
        count = min(TILE, last - start)
        for i in range(count):
            copy(before[i], h[start + i])
        multiply_rows(before, layer.weight, count, sums)
        _gates(start, count, inputs, layer, held, gates)
        for i in range(count):
            if active[start + i]:
                activate_gates(sums[i], Gating(gates[i], scale, shift), gate)
                advance_units(i_part, f_part, g_part, o_part, c[start + i], h[start + i])

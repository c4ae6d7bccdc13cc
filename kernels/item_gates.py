"""The input projection of a recurrent layer over items: each event's table row, turned into the
sums of the gates.

    gates = x W_ihᵀ + b,   x = table[item]

Rows go through in tiles: OpenBLAS takes operands as they lie while a product has at most a million
multiplications, which 80 rows of 64 units and three gates do not exceed; one core then does 115
GFLOP/s instead of 99."""

from __future__ import annotations

import numpy as np

from ._jit import Array, jit_fast
from .cells import add, copy

TILE = 80


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
    for start in range(first, last, TILE):
        stop = min(start + TILE, last)
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
    back, product = np.empty((TILE, size), grad.dtype), np.empty((width, size), grad.dtype)
    for j in range(width):
        grad_bias[j] = 0
        for k in range(size):
            grad_weight[j, k] = 0
    for start in range(first, last, TILE):
        stop = min(start + TILE, last)
        np.dot(grad[start:stop], weight, back[: stop - start])
        for i in range(start, stop):
            add(grad_bias, grad[i])
            copy(grad_rows[i, :size], back[i - start])
            for j in range(size, grad_rows.shape[1]):
                grad_rows[i, j] = 0
        np.dot(grad[start:stop].T, x[start:stop], product)
        for j in range(width):
            add(grad_weight[j], product[j])

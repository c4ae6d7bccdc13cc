"""Products of a few rows with large matrices, which read each matrix once, and AdamW on a matrix
from its gradient's factors.

Up to about a million multiplications BLAS reads a matrix where it lies; above, it first copies it
into an order of its own, which for a few rows takes longer than the product. So matrices are taken
some rows at a time.

The gradient of a layer's weights is left.T @ right, of as many terms as the batch has rows. Where
these are few it is cheaper made again, a piece in cache at a time, than written to memory and read
back."""

from __future__ import annotations

import numpy as np

from ._jit import Array, jit_fast, jit_part
from .cells import ONE, add, add_product, copy
from .rows import AdamRates

SMALL = 1_000_000
"""multiplications up to which BLAS does not copy"""
WHOLE = 32
"""rows from which one large product is as quick"""
FEW = 8
"""terms of a gradient up to which loops make a row of it as quickly as BLAS makes a block"""


@jit_part
def _taken(rows: int, width: int, size: int) -> int:
    """How many of a matrix's `size` rows of `width` floats to multiply with `rows` others at a
    time."""
    if rows >= WHOLE:
        return size
    return min(max(SMALL // (max(rows, 1) * max(width, 1)) // 16 * 16, 16), size)


@jit_part
def times_transposed(x: Array, matrix: Array, result: Array) -> None:
    """Write x @ matrix.T, (M, k), (n, k) → (M, n)."""
    n, width = matrix.shape
    taken = _taken(len(x), width, n)
    room = np.empty(len(x) * taken, x.dtype)
    for first in range(0, n, max(taken, 1)):
        last = min(first + taken, n)
        part = room[: len(x) * (last - first)].reshape(len(x), last - first)
        np.dot(x, matrix[first:last].T, part)
        for i in range(len(x)):
            copy(result[i, first:last], part[i])


@jit_part
def add_times(x: Array, matrix: Array, result: Array) -> None:
    """Add x @ matrix, (M, k), (k, n) → (M, n)."""
    size, width = matrix.shape
    taken = _taken(len(x), width, size)
    room, product = np.empty(len(x) * taken, x.dtype), np.empty((len(x), width), x.dtype)
    for first in range(0, size, max(taken, 1)):
        last = min(first + taken, size)
        part = room[: len(x) * (last - first)].reshape(len(x), last - first)
        for i in range(len(x)):
            copy(part[i], x[i, first:last])
        np.dot(part, matrix[first:last], product)
        for i in range(len(x)):
            add(result[i], product[i])


@jit_part
def _gradient(left: Array, right: Array, result: Array) -> None:
    """Write left @ right, (rows, terms), (terms, width) → (rows, width)."""
    if len(right) > FEW:
        np.dot(left, right, result)
        return
    for i in range(len(result)):
        result[i, :] = 0
        add_product(left[i], right, result[i])


@jit_part
def _block(terms: int, width: int) -> int:
    """Rows of a gradient made at a time: few enough to stay in cache."""
    return min(max(SMALL // max(terms * width, 1) // 4 * 4, 4), 16)


@jit_fast
def product_squares(
    first: int, last: int, left: Array, right: Array, part: int, sums: Array
) -> None:
    """Write the sum of squares of rows first to last − 1 of left @ right to sums[part]: left (n,
    terms), right (terms, width)."""
    taken = _block(len(right), right.shape[1])
    room = np.empty((taken, right.shape[1]), right.dtype)
    total = 0.0
    for row in range(first, last, taken):
        rows = min(taken, last - row)
        _gradient(left[row : row + rows], right, room[:rows])
        for i in range(rows):
            few = room[i, 0] * 0
            for j in range(room.shape[1]):
                few += room[i, j] * room[i, j]
            total += np.float64(few)
    sums[part] = total


@jit_fast
def adam_product(
    first: int,
    last: int,
    values: Array,
    m: Array,
    v: Array,
    left: Array,
    right: Array,
    rates: AdamRates,
) -> None:
    """One step of AdamW, as `rows.adam_dense`, on rows first to last − 1 of a matrix whose gradient
    is left @ right.

    values, m, v (n, width); left (n, terms); right (terms, width).
    """
    shrink, lr, decay, beta1, beta2, correction1, correction2, eps = rates
    step, grow = lr / correction1, ONE / correction2
    taken = _block(len(right), values.shape[1])
    grad = np.empty((taken, values.shape[1]), values.dtype)
    for row in range(first, last, taken):
        rows = min(taken, last - row)
        _gradient(left[row : row + rows], right, grad[:rows])
        for i in range(rows):
            value, mean, square, slope = values[row + i], m[row + i], v[row + i], grad[i]
            for j in range(len(value)):
                g = slope[j] * shrink
                mean[j] = beta1 * mean[j] + (ONE - beta1) * g
                square[j] = beta2 * square[j] + (ONE - beta2) * g * g
                value[j] = value[j] * (ONE - decay) - step * mean[j] / (
                    np.sqrt(square[j]) * grow + eps
                )

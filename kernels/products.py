"""Loops over rows, and products of a few rows with matrices.

Up to about a million multiplications BLAS reads a matrix where it lies; above, it first copies it
into an order of its own, which for a few rows takes longer than the product. So `times_transposed`
and `add_times` take a matrix some rows at a time, and read each row once."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._jit import Array, jit_leaf, jit_part
from .activations import ZERO

SMALL = 1_000_000
"""multiplications up to which BLAS does not copy"""
WHOLE = 32
"""rows from which one large product is as quick"""


@jit_leaf
def add(target: Array, row: Array) -> None:
    """Add to `target` as many entries of `row`, in place."""
    for j in range(len(target)):
        target[j] += row[j]


@jit_leaf
def add_scaled(row: Array, factor: np.float32, other: Array) -> None:
    """Add a multiple of another row."""
    for j in range(len(row)):
        row[j] += factor * other[j]


@jit_leaf
def add_columns(rows: Array, total: Array) -> None:
    """Add the sum of each column of `rows`."""
    for i in range(len(rows)):
        add(total, rows[i])


@jit_leaf
def copy(target: Array, row: Array) -> None:
    """Copy as many entries of `row` as `target` holds: for short rows quicker than target[:] =
    row."""
    for j in range(len(target)):
        target[j] = row[j]


@jit_leaf
def dot(left: Array, right: Array) -> Any:
    """Σ left · right over the length of `left`."""
    total = ZERO
    for j in range(len(left)):
        total += left[j] * right[j]
    return total


@jit_part
def matrix(flat: Array, start: int, rows: int, columns: int) -> Array:
    """The (rows, columns) matrix that begins at `start` of a flat array, a view."""
    return flat[start : start + rows * columns].reshape(rows, columns)


@jit_leaf
def add_product(vector: Array, matrix: Array, row: Array) -> None:
    """Add vector @ matrix to row, (k,), (k, n) → (n,).

    Four rows of the matrix at a time: the target is then loaded and stored once per four products.
    """
    size, width = matrix.shape
    whole = size - size % 4
    for k in range(0, whole, 4):
        a0, a1, a2, a3 = vector[k], vector[k + 1], vector[k + 2], vector[k + 3]
        for j in range(width):
            row[j] += (
                a0 * matrix[k, j]
                + a1 * matrix[k + 1, j]
                + a2 * matrix[k + 2, j]
                + a3 * matrix[k + 3, j]
            )
    for k in range(whole, size):
        a0 = vector[k]
        for j in range(width):
            row[j] += a0 * matrix[k, j]


@jit_leaf
def multiply_rows(rows: Array, matrix: Array, count: int, result: Array) -> None:
    """Write rows @ matrix for the first `count` rows, (n, k), (k, m) → (n, m): each row's bits
    follow from it alone.

    n is a multiple of 3, and rows up to the next such are written too. Three rows and four terms at
    a time keep twelve factors in registers, and load a result once per four products."""
    size, width = matrix.shape
    whole = size - size % 4
    for i in range(0, count, 3):
        x, y, z = rows[i], rows[i + 1], rows[i + 2]
        of_x, of_y, of_z = result[i], result[i + 1], result[i + 2]
        for j in range(width):
            of_x[j] = ZERO
            of_y[j] = ZERO
            of_z[j] = ZERO
        for k in range(0, whole, 4):
            x0, x1, x2, x3 = x[k], x[k + 1], x[k + 2], x[k + 3]
            y0, y1, y2, y3 = y[k], y[k + 1], y[k + 2], y[k + 3]
            z0, z1, z2, z3 = z[k], z[k + 1], z[k + 2], z[k + 3]
            for j in range(width):
                m0, m1, m2, m3 = matrix[k, j], matrix[k + 1, j], matrix[k + 2, j], matrix[k + 3, j]
                of_x[j] += x0 * m0 + x1 * m1 + x2 * m2 + x3 * m3
                of_y[j] += y0 * m0 + y1 * m1 + y2 * m2 + y3 * m3
                of_z[j] += z0 * m0 + z1 * m1 + z2 * m2 + z3 * m3
        for k in range(whole, size):
            x0, y0, z0 = x[k], y[k], z[k]
            for j in range(width):
                m0 = matrix[k, j]
                of_x[j] += x0 * m0
                of_y[j] += y0 * m0
                of_z[j] += z0 * m0


@jit_leaf
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

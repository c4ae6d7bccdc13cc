"""Loops over rows, and products of a few rows with matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._jit import Array, jit_leaf, jit_part
from .activations import ZERO


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

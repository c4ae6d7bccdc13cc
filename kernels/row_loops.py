"""Loops over rows."""

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
    """Copy as many entries of `row` as `target` holds: for short rows quicker than a slice."""
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

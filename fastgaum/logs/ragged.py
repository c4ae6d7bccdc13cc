"""Picking rows out of a ragged array."""

from __future__ import annotations

import numpy as np

from fastgaum.kernels.batching import picked_size, ragged_index
from fastgaum.logs.log import IntArray


def pick_rows(offsets: IntArray, rows: IntArray) -> tuple[IntArray, IntArray]:
    """Return the picked rows' own offsets, shape (n_rows + 1,), and the flat positions of their
    entries.

    >>> offsets, rows = np.array([0, 2, 3, 6], np.int32), np.array([2, 0], np.int32)
    >>> [part.tolist() for part in pick_rows(offsets, rows)]
    [[0, 3, 5], [3, 4, 5, 0, 1]]

    Raises:
        IndexError: a row does not exist.
    """
    offsets, rows = np.asarray(offsets), np.asarray(rows, dtype=np.int32)
    n = picked_size(offsets, rows)
    if n < 0:
        raise IndexError(f"a row outside 0 … {len(offsets) - 2} was asked for")
    picked, index = np.empty(len(rows) + 1, dtype=np.int32), np.empty(n, dtype=np.int32)
    ragged_index(offsets, rows, picked, index)
    return picked, index

"""Distinct items drawn for each key: Floyd's algorithm, whose cost is the sample's size and not the catalogue's."""

from __future__ import annotations

import numpy as np

from ._jit import Array, jit
from .keyed import mixed, uniform


@jit
def draw_pools(keys: Array, n_items: int, pools: Array) -> None:
    """Write m distinct numbers below n_items to each row of pools (n, m) int32.

    Bentley and Floyd 1987: for j = n_items − m … n_items − 1 take a number up to j, or j itself where that is taken already.
    """
    n, m = pools.shape
    held = np.zeros(n_items, np.bool_)
    for row in range(n):
        key = keys[row]
        for t in range(m):
            j = n_items - m + t
            key = np.uint64(mixed(key))
            number = int(uniform(key) * (j + 1))
            if held[number]:
                number = j
            held[number] = True
            pools[row, t] = number
        for t in range(m):
            held[pools[row, t]] = False

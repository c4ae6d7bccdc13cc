"""Slow, obvious twins of the recurrences and of position weights, in plain Python and numpy."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def logistic(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def product(matrix: Array, vector: Array) -> Array:
    """matrix @ vector without BLAS, (m, n), (n,) → (m,).

    OpenBLAS's float32 product for AVX-512 loads stack that was never written and discards what it
    computes of it. Where a signalling NaN happens to lie there, the processor's flag "invalid" is
    set, and numpy warns of a result that is right."""
    return np.einsum("mn,n->m", matrix, vector)


def lstm(
    gates_x: Array, offsets: Array, weight_hh: Array, h0: Array, c0: Array
) -> tuple[Array, Array]:
    """h and c after each token, (n_tokens, H)."""
    all_h, all_c = np.zeros((len(gates_x), h0.shape[1])), np.zeros((len(gates_x), h0.shape[1]))
    for sequence in range(len(offsets) - 1):
        h, c = h0[sequence], c0[sequence]
        for row in range(offsets[sequence], offsets[sequence + 1]):
            i, f, g, o = np.split(gates_x[row] + product(weight_hh, h), 4)
            c = logistic(f) * c + logistic(i) * np.tanh(g)
            h = logistic(o) * np.tanh(c)
            all_h[row], all_c[row] = h, c
    return all_h, all_c


def order_by_length(offsets: list[int]) -> list[int]:
    """Sequences by falling length, ties in their own order."""
    return sorted(
        range(len(offsets) - 1), key=lambda sequence: offsets[sequence] - offsets[sequence + 1]
    )


def dense_position_weight(
    offsets: list[int],
    bags: list[list[int]],
    n_ids: int,
    lag_weights: Array,
    bias: Array,
) -> Array:
    """The paper's dense state tanh(F W + B) after each token, (n_tokens, n_ids, n)."""
    window = len(lag_weights)
    states = []
    for first, last in pairwise(offsets):
        for row in range(first, last):
            F = np.zeros((n_ids, window))
            for lag in range(1, window + 1):
                if row - lag + 1 >= first:
                    for feature in bags[row - lag + 1]:
                        F[feature, lag - 1] += 1
            states.append(np.tanh(F @ lag_weights + bias))
    return np.array(states).reshape(-1, n_ids, len(bias))

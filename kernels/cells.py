"""What the recurrent kernels share: tanh, the logistic function, and loops over rows.

Numba has no vector maths library here, so a call of math.tanh keeps a loop scalar. For float32 a
rational function of x stands in, which LLVM vectorises; float64 keeps the exact function, for
gradient checks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from ._jit import Array, jit_part

# Constants are float32 scalars: a Python float or int beside a float32 would silently lift the loop
# to float64.
ZERO = np.float32(0)
ONE = np.float32(1)
HALF = np.float32(0.5)
_BOUND = np.float32(7.90531110763549805)
_P13 = np.float32(-2.76076847742355e-16)
_P11 = np.float32(2.00018790482477e-13)
_P9 = np.float32(-8.60467152213735e-11)
_P7 = np.float32(5.12229709037114e-08)
_P5 = np.float32(1.48572235717979e-05)
_P3 = np.float32(6.37261928875436e-04)
_P1 = np.float32(4.89352455891786e-03)
_Q6 = np.float32(1.19825839466702e-06)
_Q4 = np.float32(1.18534705686654e-04)
_Q2 = np.float32(2.26843463243900e-03)
_Q0 = np.float32(4.89352518554385e-03)


@jit_part
def rational_tanh(x: np.float32) -> np.float32:
    """Return tanh(x) within 4e-7 for float32 (the 13/6 minimax quotient of Eigen's
    generic_fast_tanh_float).

    The comparisons are written so that a NaN passes through.
    """
    x = _BOUND if x > _BOUND else x
    x = -_BOUND if x < -_BOUND else x
    y = x * x
    p = _P13 * y + _P11
    p = p * y + _P9
    p = p * y + _P7
    p = p * y + _P5
    p = p * y + _P3
    p = p * y + _P1
    q = _Q6 * y + _Q4
    q = q * y + _Q2
    q = q * y + _Q0
    return x * p / q


def tanh(x: np.float32) -> np.float32:
    """Return tanh(x): `rational_tanh` for float32, exact for float64; a compiled kernel chooses by
    type."""
    return rational_tanh(x) if isinstance(x, np.float32) else np.tanh(x)


@overload(tanh)
def _tanh_by_type(x: Any) -> object:
    def quotient(x: Any) -> np.float32:
        return rational_tanh(x)

    def exact(x: Any) -> Any:
        return np.tanh(x)

    return quotient if x == types.float32 else exact


@jit_part
def logistic(x: np.float32) -> np.float32:
    """Return 1 / (1 + exp(−x)) = ½ + ½ tanh(x / 2)."""
    return HALF + HALF * tanh(HALF * x)


@jit_part
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


@jit_part
def add(target: Array, row: Array) -> None:
    """Add to `target` as many entries of `row`, in place."""
    for j in range(len(target)):
        target[j] += row[j]


@jit_part
def copy(target: Array, row: Array) -> None:
    """Copy as many entries of `row` as `target` holds: for short rows quicker than target[:] =
    row."""
    for j in range(len(target)):
        target[j] = row[j]

"""Activations: float32 takes formulas that vectorise. float64 is exact, for gradient checks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from ._jit import Array, jit_leaf

RELU = 0  # any other kind is ELU

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
_LOG2E = np.float32(1.4426950408889634)
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(-2.12194440e-4)
_LOWEST = np.float32(-87.0)
_E0 = np.float32(1.9875691500e-4)
_E1 = np.float32(1.3981999507e-3)
_E2 = np.float32(8.3334519073e-3)
_E3 = np.float32(4.1665795894e-2)
_E4 = np.float32(1.6666665459e-1)
_E5 = np.float32(5.0000001201e-1)


@jit_leaf
def rational_tanh(x: np.float32) -> np.float32:
    """tanh(x) within 4e-7 for float32 (the 13/6 minimax quotient of Eigen's
    generic_fast_tanh_float); NaN passes through."""
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
    """tanh(x): `rational_tanh` for float32, exact for float64."""
    return rational_tanh(x) if isinstance(x, np.float32) else np.tanh(x)


overload(tanh)(
    lambda x: (lambda x: rational_tanh(x)) if x == types.float32 else (lambda x: np.tanh(x))
)


@jit_leaf
def polynomial_exp(x: np.float32) -> Any:
    """exp(x) for float32 x <= 0, within 4e-7 relative; below −87 exp(−87), about 1.6e-38 (Cephes'
    expf). x = n ln 2 + r with |r| <= ½ ln 2."""
    x = _LOWEST if x < _LOWEST else x
    n = np.floor(x * _LOG2E + HALF)
    r = x - n * _LN2_HIGH
    r = r - n * _LN2_LOW
    p = _E0 * r + _E1
    p = p * r + _E2
    p = p * r + _E3
    p = p * r + _E4
    p = p * r + _E5
    p = p * r * r + r + ONE
    # 2^n: n + 127 in the exponent's bits
    bits = np.int32((np.int32(n) + np.int32(127)) << np.int32(23))
    return p * bits.view(np.float32)


def exp_nonpositive(x: np.float32) -> Any:
    """exp(x) for x <= 0: `polynomial_exp` for float32, exact for float64."""
    return polynomial_exp(x) if isinstance(x, np.float32) else np.exp(x)


overload(exp_nonpositive)(
    lambda x: (lambda x: polynomial_exp(x)) if x == types.float32 else (lambda x: np.exp(x))
)


@jit_leaf
def activate(row: Array, bias: Array, kind: int) -> None:
    """Replace a row of sums by the activations of row + bias; a NaN stays one."""
    if kind == RELU:
        for j in range(len(row)):
            x = row[j] + bias[j]
            row[j] = ZERO if x < ZERO else x
    else:
        for j in range(len(row)):
            x = row[j] + bias[j]
            row[j] = (ZERO if x < ZERO else x) + (exp_nonpositive(min(x, ZERO)) - ONE)

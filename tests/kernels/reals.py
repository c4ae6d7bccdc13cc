"""The numbers that tests draw for kernels: float64 as plain Python, float32 compiled, as the library
calls them. A float64 copy would be compiled for tests alone."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

REAL: Any = np.float64 if numba.config.DISABLE_JIT else np.float32
SINGLE = 3e-5
"""what float32 may be away, of the largest number that is expected"""


def eighths(*shape: int) -> Tensor:
    """Normal numbers in steps of an eighth: float32 sums products of some of them exactly, and no
    unit of a relu is on another side than in float64."""
    return (8 * torch.randn(*shape, dtype=torch.float64)).round() / 8


def assert_near(found: Any, expected: Any, rtol: float = 0.0, atol: float = 0.0) -> None:
    """These tolerances are those of float64."""
    if REAL is np.float32:
        largest = np.abs(np.asarray(expected)).max(initial=1.0)
        rtol, atol = 0.0, SINGLE * float(largest)
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)

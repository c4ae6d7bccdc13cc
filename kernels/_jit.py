"""The one decorator through which every kernel is compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy.typing as npt

Array = npt.NDArray[Any]

F = TypeVar("F", bound=Callable[..., Any])


def jit(function: F) -> F:
    """Compile a kernel: no Python objects, no GIL, cached on disk between processes.

    Kernels are serial; threads, where used, stand above them. NUMBA_DISABLE_JIT=1 runs them as plain Python.
    """
    return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))


def jit_fast(function: F) -> F:
    """Compile a kernel whose sums may be reassociated for vectorisation; NaN and infinities keep their meaning."""
    loose = {"reassoc", "contract", "nsz", "arcp"}
    return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=loose)(function))

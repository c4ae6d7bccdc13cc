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


def jit_part(function: F) -> F:
    """Compile, as `jit_fast`, a part that other kernels call: always inlined into them.

    Left as a function of its own it would be compiled twice, alone and within its caller, with sums in another order; which
    of the two a process runs would then depend on whether the kernel came from the cache, and so would the last bits.
    """
    loose = {"reassoc", "contract", "nsz", "arcp"}
    decorate = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=loose, forceinline=True)
    return cast(F, decorate(function))

"""The decorators through which every kernel is compiled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

try:
    from ._cache import KernelCache
except ImportError:  # a numba whose cache is built in another way: its own must do
    KernelCache = None  # type: ignore[assignment,misc]

Array = npt.NDArray[Any]
Real = float | np.float32
"""a number that a kernel takes in either width"""

F = TypeVar("F", bound=Callable[..., Any])

_LOOSE = {"reassoc", "contract", "nsz", "arcp"}


_KERNEL: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
"""what all kernels share; nothing in C calls one, and a wrapper for it would be compiled beside
each"""


def jit(function: F) -> F:
    """Compile a kernel: no Python objects, no GIL, kept on disk between processes.

    Kernels are serial; threads, where used, stand above them. NUMBA_DISABLE_JIT=1 runs them as
    plain Python."""
    return _cached(numba.njit(**_KERNEL)(function), function)


def jit_fast(function: F) -> F:
    """Compile a kernel whose sums may be reassociated for vectorisation; NaN and infinities keep
    their meaning."""
    return _cached(numba.njit(**_KERNEL, fastmath=_LOOSE)(function), function)


def jit_part(function: F) -> F:
    """Compile, as `jit_fast`, a part that other kernels call: always inlined into them, and kept on
    disk within them only.

    Left as a function of its own it would be compiled twice, alone and within its caller, with sums
    in another order; which of the two a process runs would then depend on whether the kernel came
    from the cache, and so would the last bits."""
    return cast(F, numba.njit(**_KERNEL, fastmath=_LOOSE, forceinline=True)(function))


def _cached(kernel: Any, function: F) -> F:
    """Give a dispatcher its place on disk. A function from elsewhere gets none: the key knows the
    files here only."""
    here = Path(function.__code__.co_filename).parent == Path(__file__).parent
    if here and hasattr(
        kernel, "enable_caching"
    ):  # without, numba is disabled and the kernel is plain Python
        if KernelCache is None:
            kernel.enable_caching()
        else:
            kernel._cache = KernelCache(function)
    return cast(F, kernel)

"""The decorators that compile every kernel, and prefetching, which numba lacks."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload, typeof_impl

from ._cache import KernelCache, folder

Array = npt.NDArray[Any]
Real = float | np.float32
"""a number in either width"""

F = TypeVar("F", bound=Callable[..., Any])

_LOOSE = {"reassoc", "contract", "nsz", "arcp"}
_KERNEL: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
"""shared by all kernels; C calls none of them"""
_PART: dict[str, Any] = {
    **_KERNEL,
    "fastmath": _LOOSE,
    "forceinline": True,
    "no_cpython_wrapper": True,
}
_LEAF: dict[str, Any] = {**_PART, "_nrt": False}
"""without numba's runtime, which counts references and makes arrays"""


def jit(function: F) -> F:
    """Compile a kernel: no Python objects, no GIL, kept on disk between processes.
    NUMBA_DISABLE_JIT=1 runs it as plain Python."""
    return _cached(numba.njit(**_KERNEL)(function), function)


def jit_fast(function: F) -> F:
    """Compile a kernel whose sums may be reassociated; NaN and infinities keep their meaning."""
    return _cached(numba.njit(**_KERNEL, fastmath=_LOOSE)(function), function)


def jit_part(function: F) -> F:
    """Compile, as `jit_fast`, a part that is always inlined into other kernels."""
    return _part(numba.njit(**_PART)(function), function)


def jit_leaf(function: F) -> F:
    """Compile a part, as `jit_part`, that makes no array and returns none: references to its arrays
    are not counted."""
    return _part(numba.njit(**_LEAF)(function), function)


class _Part:
    """A part as kernels see it; Python calls the function itself."""

    def __init__(self, compiled: Any, function: Callable[..., Any]) -> None:
        self.compiled, self.py_func = compiled, function
        update_wrapper(self, function)

    def __call__(self, *arguments: Any) -> Any:
        return self.py_func(*arguments)


@typeof_impl.register(_Part)
def _type_of_part(part: _Part, context: object) -> object:
    return typeof_impl(part.compiled, context)


def _part(compiled: Any, function: F) -> F:
    # with NUMBA_DISABLE_JIT the compiled one is the function
    return cast(F, function if compiled is function else _Part(compiled, function))


def _cached(kernel: Any, function: F) -> F:
    """Give a dispatcher its place on disk, unless the function is of another folder."""
    here = Path(function.__code__.co_filename).parent == Path(__file__).parent
    # without `enable_caching`, numba is disabled and the kernel is plain Python
    if here and hasattr(kernel, "enable_caching") and folder() is not None:
        kernel._cache = kept = KernelCache(function)
        kernel.compile = kept.once(kernel.compile)
    return cast(F, kernel)


# Rows read at random out of a large table come from memory one by one, unless each is asked for
# ahead of its use.

AHEAD = 6
"""rows before its use that a row is asked for; 4 to 16 take the same time"""
_LINE_FLOATS = 16


def _asking(typing_context: object, array: Any, *position: Any) -> Any:
    """llvm.prefetch of array[position], for any position."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> object:
        kind = signature.args[0]
        made = context.make_array(kind)(context, builder, arguments[0])
        unpack: Any = cgutils.unpack_tuple
        shape, strides = (unpack(builder, part, kind.ndim) for part in (made.shape, made.strides))
        pointer: Any = cgutils.get_item_pointer2
        address = pointer(context, builder, made.data, shape, strides, kind.layout, arguments[1:])
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind_of = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind_of)
        builder.call(function, [builder.bitcast(address, byte), number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(array, *[types.intp] * len(position)), codegen


@intrinsic
def _prefetch(typing_context: object, array: Any, row: Any, column: Any) -> Any:
    return _asking(typing_context, array, row, column)


@intrinsic
def _prefetch_entry(typing_context: object, array: Any, position: Any) -> Any:
    return _asking(typing_context, array, position)


def prefetch_entry(vector: Array, position: int) -> None:
    """Ask for the cache line of vector[position]; does nothing in plain Python."""


@overload(prefetch_entry, inline="always")
def _ask_entry(vector: object, position: object) -> object:
    def ask(vector: object, position: object) -> None:
        _prefetch_entry(vector, position)  # type: ignore[call-arg,unused-ignore]

    return ask


def prefetch_row(table: Array, row: int) -> None:
    """Ask for all of table[row], a cache line at a time; does nothing in plain Python."""


@overload(prefetch_row, inline="always")
def _prefetch_row(table: Any, row: object) -> object:
    def ask(table: Any, row: object) -> None:
        for column in range(0, table.shape[1], _LINE_FLOATS):
            _prefetch(table, row, column)  # type: ignore[call-arg,unused-ignore]

    return ask

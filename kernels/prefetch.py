"""Asking for a table row before it is needed: rows read at random out of a large table come from
memory one by one otherwise."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from ._jit import Array

AHEAD = 6
"""how many rows before its use a row is asked for; from 4 to 16 the time is the same"""
_LINE_FLOATS = 16


def _asking(typing_context: object, array: Any, *position: Any) -> Any:
    """llvm.prefetch of array[position], for reading, into all caches; nothing is read, so any
    position will do."""

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
    """Ask for the cache line of vector[position]; nothing is read, and nothing happens outside
    compiled code."""


@overload(prefetch_entry, inline="always")
def _ask_entry(vector: object, position: object) -> object:
    def ask(vector: object, position: object) -> None:
        _prefetch_entry(vector, position)  # type: ignore[call-arg,unused-ignore]

    return ask


def prefetch_row(table: Array, row: int) -> None:
    """Ask for all of table[row], a cache line at a time; nothing is read, and nothing happens
    outside compiled code."""


@overload(prefetch_row, inline="always")
def _prefetch_row(table: Any, row: object) -> object:
    def ask(table: Any, row: object) -> None:
        for column in range(0, table.shape[1], _LINE_FLOATS):
            _prefetch(table, row, column)  # type: ignore[call-arg,unused-ignore]

    return ask

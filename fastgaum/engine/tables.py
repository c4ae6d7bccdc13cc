"""Tables over ids as the engine trains them, by the rows that a batch names, and memory that is
used again."""

from __future__ import annotations

import math
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fastgaum import threads
from fastgaum.arrays import FloatArray, IntArray
from fastgaum.kernels import optimiser as kernels


class Buffer:
    """One array of its owner, that grows and never shrinks."""

    def __init__(self, dtype: type[np.generic] = np.float32) -> None:
        self.held: npt.NDArray[np.generic] = np.empty(0, dtype)
        self.view: npt.NDArray[np.generic] = self.held
        self.shape: tuple[int, ...] = (0,)

    def __call__(self, *shape: int) -> npt.NDArray[Any]:
        """An array of that shape; it holds what was last written, in the order of memory."""
        # one step asks for the same array several times, and in a small step making the view is
        # what takes long
        if self.shape == shape:
            return self.view
        size = math.prod(shape)
        if self.held.size < size:
            self.held = np.empty(size + size // 4, self.held.dtype)
        self.view, self.shape = self.held[:size].reshape(shape), shape
        return self.view


BETA1, BETA2, EPS = np.float32(0.9), np.float32(0.999), np.float32(1e-8)
SHARED_FLOATS = 1 << 17
"""floats of a table update that are worth a second thread"""
TABLE_PARTS = 8


class NamedRoom:
    """Memory of a `Named`, to be used again."""

    def __init__(self) -> None:
        self.slots, self.rows, self.starts, self.bags = (Buffer(np.int32) for _ in range(4))


class Named:
    """The distinct rows that a batch's ids name, numbered once for all tables over the same ids."""

    def __init__(
        self, ids: IntArray, offsets: IntArray, slot_of: IntArray, room: NamedRoom | None = None
    ) -> None:
        """Number them. slot_of: (n_ids,), −1. Raises IndexError for an id that is not one of
        them."""
        self.offsets, self.room = offsets, room or NamedRoom()
        self.slots, self.rows = self.room.slots(len(ids)), self.room.rows(len(ids))
        self.count = int(kernels.number_rows(ids, slot_of, self.slots, self.rows))
        if self.count < 0:
            raise _unknown(ids[-1 - self.count], slot_of)

    @cached_property
    def bags(self) -> tuple[IntArray, IntArray]:
        """Bags that name each slot: their starts (count + 1,) and the bags (nnz,)."""
        starts, bags = self.room.starts(self.count + 1), self.room.bags(len(self.slots))
        kernels.group_bags(self.slots, self.offsets, starts, bags)
        return starts, bags


def parts_of_slots(starts: IntArray, width: int) -> list[tuple[int, int]]:
    """Ranges of slots that are named about equally often, of the `starts` of each slot's bags,
    (n_slots + 1,)."""
    n_slots, n_named = len(starts) - 1, int(starts[-1])
    if n_named * width <= SHARED_FLOATS:
        return [(0, n_slots)]
    even = np.arange(1, TABLE_PARTS) * (n_named / TABLE_PARTS)
    return list(pairwise(sorted({0, n_slots, *np.searchsorted(starts, even).tolist()})))


def _unknown(row: int, slot_of: IntArray) -> IndexError:
    return IndexError(f"id {row} is not one of the {len(slot_of)} ids of the feature space")


class NamedParts:
    """The distinct rows that display sets name, numbered for each part of the events alone: no two
    parts write to one row.

    Attributes:
        slots: number of each id, (n_candidates, n_fields), ascending over the parts.
        count: how many there are.
        rows: row of each, (count,); a row that two parts name stands twice.
        whole: the rows of all parts together."""

    def __init__(
        self,
        ids: IntArray,
        display_offsets: IntArray,
        parts: list[tuple[int, int]],
        slot_of: IntArray,
        rooms: tuple[NamedRoom, NamedRoom],
    ) -> None:
        """As `Named`, of ids (n_candidates, n_fields) and ranges of events; rooms: the parts' and
        the whole's."""
        flat, width = ids.reshape(-1), ids.shape[1]
        self.alone = len(parts) == 1
        if self.alone:
            # each number of the part is one of the whole: nothing is summed a second time
            self.whole = Named(flat, flat[:0], slot_of, rooms[1])
            self.slots, self.count = self.whole.slots.reshape(ids.shape), self.whole.count
            self.rows = self.whole.rows[: self.count]
            return
        slots, rows, self.count = rooms[0].slots(len(flat)), rooms[0].rows(len(flat)), 0
        for first, last in parts:
            start, stop = (int(display_offsets[event]) * width for event in (first, last))
            own = slots[start:stop]
            named = kernels.number_rows(flat[start:stop], slot_of, own, rows[self.count :])
            if named < 0:
                raise _unknown(flat[start - 1 - named], slot_of)
            own += self.count
            self.count += named
        self.slots, self.rows = slots.reshape(ids.shape), rows[: self.count]
        starts = np.arange(self.count + 1, dtype=np.int32)
        self.whole = Named(self.rows, starts, slot_of, rooms[1])


class SparseTable:
    """A table of one block of rows per id, (n_ids · block, width); a step touches named ids
    only."""

    def __init__(self, parameter: nn.Parameter, n_ids: int) -> None:
        self.parameter = parameter
        self._grad, self._of_parts = Buffer(), Buffer()
        self.n_ids, self.width = n_ids, parameter.numel() // n_ids
        self.values: FloatArray = parameter.detach().view(n_ids, self.width).numpy()
        self.shrunk = np.zeros(n_ids)
        self.m, self.v = np.zeros_like(self.values), np.zeros_like(self.values)
        self.named: Named | None = None
        self.grad: FloatArray = self._grad(0, self.width)

    def buffer(self, named: Named) -> FloatArray:
        """Where the summed gradient of the named rows is written, (n_named, width)."""
        self.named = named
        self.grad = self._grad(named.count, self.width)
        return self.grad

    def rows_after(self, n: int) -> FloatArray:
        """Room for n rows after those of the ids, (n, width), that are no weights."""
        if len(self.values) < self.n_ids + n:
            room = np.empty((self.n_ids + n + n // 4, self.width), np.float32)
            room[: self.n_ids] = self.values[: self.n_ids]
            weights = torch.from_numpy(room[: self.n_ids])
            self.values, self.parameter.data = room, weights.view(self.parameter.shape)
        return self.values[self.n_ids : self.n_ids + n]

    def add(self, named: Named, grad: FloatArray) -> None:
        """Sum the gradients of bags, (n_bags, width), into the rows that the bags name."""
        total = self.buffer(named)
        threads.run(
            kernels.add_rows,
            [
                (grad, *named.bags, *part, total)
                for part in parts_of_slots(named.bags[0], self.width)
            ],
        )

    def rows_of(self, named: NamedParts) -> FloatArray:
        """Where the parts sum the gradients of their rows, (named.count, width)."""
        if named.alone:
            return self.buffer(named.whole)
        return self._of_parts(named.count, self.width)

    def add_parts(self, named: NamedParts) -> None:
        """Sum what stands in `rows_of` over the parts."""
        if not named.alone:
            self.add(named.whole, self._of_parts(named.count, self.width))

    def moves(
        self, shrink: float, lr: float, log_decay: float, corrections: tuple[np.float32, np.float32]
    ) -> list[threads.Call]:
        """The calls that move the named rows."""
        if self.named is None:
            return []
        count, rows, small = self.named.count, self.named.rows, np.float32
        size = count if count * self.width <= SHARED_FLOATS else math.ceil(count / 8)
        rates = kernels.AdamRates(
            small(shrink), small(lr), log_decay, BETA1, BETA2, *corrections, EPS
        )
        self.named, state = None, (self.values, self.m, self.v, self.shrunk)
        cuts = [slice(at, min(at + size, count)) for at in range(0, count, max(size, 1))]
        return [(kernels.adam_rows, (*state, rows[cut], self.grad[cut], rates)) for cut in cuts]

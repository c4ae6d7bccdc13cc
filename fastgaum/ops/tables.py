"""Tables over ids as operators train them, by the rows that a batch names, and memory that is used
again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

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


class OfParts(NamedTuple):
    """The gradient of a pass over display sets: of each number of `named`, (named.count, width)."""

    named: NamedParts
    rows: FloatArray


class OfBags(NamedTuple):
    """The gradient of sums of rows: of each bag's sum, (n_bags, width)."""

    ids: IntArray
    """(nnz,)"""
    offsets: IntArray
    """(n_bags + 1,)"""
    rows: FloatArray


class Table:
    """A table of rows of ids that an optimiser owns, and the gradients that a step leaves for it,
    by the rows that a batch names: no tensor of the table's size is ever made.

    Operators find it as the parameter's `learned` (`learned_table`)."""

    def __init__(self, parameter: nn.Parameter) -> None:
        self.parameter = parameter
        parameter.learned = self  # type: ignore[attr-defined]
        self.n_ids, self.width = parameter.shape
        self.slot_of = np.full(self.n_ids, -1, np.int32)
        self.given: list[OfParts | OfBags] = []
        self.after: FloatArray = np.empty((0, self.width), np.float32)
        self.room = NamedRoom()
        self._total, self._rows = Buffer(), Buffer()
        self._ids, self._offsets = Buffer(np.int32), Buffer(np.int32)

    @property
    def values(self) -> FloatArray:
        """The rows, (n_ids, width), a view."""
        values: FloatArray = self.parameter.detach().numpy()
        return values

    def followed_by(self, rows: FloatArray) -> FloatArray:
        """The table's rows, then others, (n_ids + n, width), in one array; the table moves to
        another one where it has no room behind it."""
        n = self.n_ids + len(rows)
        values, room = self.values, self.after
        if len(room) < n or room.ctypes.data != values.ctypes.data:
            self.after = room = np.empty((n + n // 4, self.width), np.float32)
            room[: self.n_ids] = values
            self.parameter.data = torch.from_numpy(room[: self.n_ids])
        room[self.n_ids : n] = rows
        return room[:n]

    def give(self, gradient: OfParts | OfBags) -> None:
        """Leave a gradient for the next step. Its arrays must stay as they are until then."""
        self.given.append(gradient)

    def take(self) -> tuple[IntArray, FloatArray] | None:
        """The rows that gradients were left for, each once, (n_named,), and their sums, (n_named,
        width), valid until the next call; None: nothing was left. Nothing is left after."""
        given, self.given = self.given, []
        sparse = self.parameter.grad
        if sparse is not None:
            self.parameter.grad = None
            sparse = sparse.coalesce()
            rows = sparse.indices()[0].numpy().astype(np.int32)
            given.append(
                OfBags(rows, np.arange(len(rows) + 1, dtype=np.int32), sparse.values().numpy())
            )
        if not given:
            return None
        if len(given) == 1:
            (one,) = given
            if isinstance(one, OfParts):
                if one.named.alone:
                    return one.named.rows, one.rows
                return self._sum(one.named.whole, one.rows)
            return self._sum(Named(one.ids, one.offsets, self.slot_of, self.room), one.rows)
        ids: list[IntArray] = [
            one.named.rows if isinstance(one, OfParts) else one.ids for one in given
        ]
        sizes = [
            np.ones(len(one.rows), np.int32) if isinstance(one, OfParts) else np.diff(one.offsets)
            for one in given
        ]
        all_ids, offsets = self._ids(sum(map(len, ids))), self._offsets(1 + sum(map(len, sizes)))
        np.concatenate(ids, out=all_ids)
        offsets[0] = 0
        np.cumsum(np.concatenate(sizes), out=offsets[1:])
        grads = self._rows(len(offsets) - 1, self.width)
        np.concatenate([one.rows for one in given], out=grads)
        return self._sum(Named(all_ids, offsets, self.slot_of, self.room), grads)

    def _sum(self, named: Named, grad: FloatArray) -> tuple[IntArray, FloatArray]:
        total = self._total(named.count, self.width)
        threads.run(
            kernels.add_rows,
            [
                (grad, *named.bags, *part, total)
                for part in parts_of_slots(named.bags[0], self.width)
            ],
        )
        return named.rows[: named.count], total


def pointers_of(parameters: Sequence[Tensor]) -> list[int]:
    """Where the parameters' values lie: elsewhere after an optimiser has taken or released them, or
    their owner has replaced one."""
    return [one.data_ptr() for one in parameters]


def learned_table(parameter: Tensor | None) -> Table | None:
    """The table that an optimiser made of a parameter, if one did."""
    return getattr(parameter, "learned", None)

"""Display sets of a batch as scorers' kernels read them, and memory that is used again."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from fastgaum.arrays import FloatArray, IntArray
from fastgaum.ops.tables import Buffer, NamedParts, NamedRoom

CANDIDATES_OF_PART = 1024
"""candidates per part that are worth a thread"""


class DisplayBatch:
    """Display sets of a batch, and the rows that they name, numbered once."""

    def __init__(
        self,
        offsets: IntArray,
        ids: IntArray,
        numbers: FloatArray,
        parts: list[tuple[int, int]],
        vector_rows: IntArray | None = None,
        vector_ids: IntArray | None = None,
    ) -> None:
        """offsets: each event's first candidate, (n_events + 1,); ids (n_candidates, n_fields);
        numbers (n_candidates, n_numbers); parts: ranges of events that threads share; vector_rows:
        row of each candidate's vector, (n_candidates,); vector_ids: ids as towers read them, whose
        table holds the vectors' rows behind the ids', (n_candidates, n_fields + 1)."""
        self.offsets, self.ids, self.numbers, self.parts = offsets, ids, numbers, parts
        self.vector_rows, self.vector_ids = vector_rows, vector_ids
        self.rooms: tuple[NamedRoom, NamedRoom] | None = None
        """memory of the numbering, used again by the next batch's; None: its own"""
        self._named: NamedParts | None = None
        self._read: FloatArray | None = None

    def slice(self, first: int, last: int) -> DisplayBatch:
        """The display sets of events `first` to `last` − 1."""
        offsets = self.offsets[first : last + 1] - self.offsets[first]
        part = slice(self.offsets[first], self.offsets[last])
        of_vectors = [
            None if one is None else one[part] for one in (self.vector_rows, self.vector_ids)
        ]
        return DisplayBatch(
            offsets, self.ids[part], self.numbers[part], parts_of(offsets), *of_vectors
        )

    def read(self, n: int | None) -> FloatArray:
        """The first n numbers of the candidates, which kernels read, (n_candidates, n); None:
        all."""
        if n is None:
            return self.numbers
        if self._read is None:
            self._read = np.ascontiguousarray(self.numbers[:, :n])
        return self._read

    def named(self, slot_of: IntArray) -> NamedParts:
        """The numbered rows of `ids`; slot_of: (n_ids,), −1."""
        if self._named is None:
            rooms = self.rooms or (NamedRoom(), NamedRoom())
            self._named = NamedParts(self.ids, self.offsets, self.parts, slot_of, rooms)
        return self._named


class Room:
    """Arrays of a scorer's passes, by name, used again by the next."""

    def __init__(self) -> None:
        self.buffers: dict[str, Buffer] = {}

    def __call__(self, name: str, *shape: int) -> FloatArray:
        """An array of that name and shape, which holds anything."""
        found = self.buffers.get(name)
        if found is None:
            found = self.buffers[name] = Buffer()
        array: FloatArray = found(*shape)
        return array


def allocate(_: str, *shape: int) -> FloatArray:
    """An array of its own, where one pass alone is made."""
    return np.empty(shape, np.float32)


def parts_of(
    display_offsets: IntArray, least: int = CANDIDATES_OF_PART, most: int = 16
) -> list[tuple[int, int]]:
    """Cut events into at most `most` ranges of about `least` candidates and more."""
    n_candidates, n_events = int(display_offsets[-1]), len(display_offsets) - 1
    # an even number: two threads then end together
    n_parts = min(most, n_candidates // least) // 2 * 2
    if n_parts == 0:
        return [(0, n_events)]
    bounds = np.searchsorted(
        display_offsets, np.arange(1, n_parts) * (n_candidates / n_parts)
    ).tolist()
    cuts = sorted({0, n_events, *bounds})
    return list(pairwise(cuts))

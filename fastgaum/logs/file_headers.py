"""How much a parquet or arrow file says that it holds, read from its headers before anything is
decoded.

Both formats pack a column of equal values into a few bytes, so a file of a kilobyte may stand for
billions of rows. The page headers of parquet (Thrift, compact protocol) and the record batches of
arrow (FlatBuffers) say how many values and bytes will be made of a column: `check_declared` reads
those and refuses a file that would grow out of all proportion."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastgaum.errors import LogFormatError

FREE_VALUES = 1 << 22
"""values that any file may hold"""
VALUES_PER_BYTE = 100
"""values per byte of the file beyond them: logs have 1 to 4"""
FREE_BYTES = 1 << 26
"""bytes of decoded pages that any file may hold"""
BYTES_PER_BYTE = 100
"""decoded bytes per byte of the file beyond them"""
_DEPTH = 32
"""nesting of a header's structs; the formats' own have 5"""
_DAMAGE = (struct.error, IndexError, KeyError, TypeError, ValueError, OverflowError, AttributeError)


@dataclass
class Declared:
    """What headers promise, added up."""

    values: int = 0
    decoded: int = 0
    """bytes"""


def check_declared(path: Path, kind: str) -> None:
    """Raise LogFormatError if a parquet or arrow file (`kind`) is damaged in its headers, or would
    grow beyond proportion."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        view = memoryview(data)
        try:
            found = Declared()
            parts = _parquet(view) if kind == "parquet" else _arrow(view)
            for values, decoded in parts:
                if values < 0 or decoded < 0:
                    raise ValueError("a count is negative")
                found.values += values
                found.decoded += decoded
                _check_growth(path, found, len(view))
        except _DAMAGE as error:
            raise LogFormatError(
                f"'{path.name}' is no readable {kind} file (cut short or damaged): its headers do "
                "not hold together"
                f" ({type(error).__name__}); copy or write it again"
            ) from None
        finally:
            view.release()


def _check_growth(path: Path, found: Declared, size: int) -> None:
    most_values, most_bytes = (
        FREE_VALUES + VALUES_PER_BYTE * size,
        FREE_BYTES + BYTES_PER_BYTE * size,
    )
    if found.values > most_values or found.decoded > most_bytes:
        raise LogFormatError(
            f"'{path.name}' has {size} bytes and says that it holds {found.values} values and "
            f"{found.decoded} decoded bytes"
            f" or more, at most {most_values} and {most_bytes} are read from such a file: if you "
            "trust it, write it again,"
            " uncompressed or as csv"
        )


# -- parquet


def _parquet(view: memoryview) -> Iterator[tuple[int, int]]:
    """Values and decoded bytes of each page."""
    if len(view) < 12 or bytes(view[:4]) != b"PAR1" or bytes(view[-4:]) != b"PAR1":
        raise ValueError("no PAR1 at both ends")
    length = struct.unpack_from("<I", view, len(view) - 8)[0]
    if length > len(view) - 12:
        raise ValueError("the footer is longer than the file")
    footer = _Thrift(view, len(view) - 8 - length).struct()
    if footer[3] < 0 or sum(group[3] for group in footer.get(4, [])) != footer[3]:
        raise ValueError("row groups do not add up")
    yield footer[3], 0
    for group in footer.get(4, []):
        for chunk in group[1]:
            yield from _pages(view, chunk[3])


def _pages(view: memoryview, chunk: dict[int, Any]) -> Iterator[tuple[int, int]]:
    at = chunk[11] if chunk.get(11, 0) > 0 else chunk[9]
    end = at + chunk[7]
    if not 4 <= at <= end <= len(view):
        raise ValueError("a column lies outside the file")
    while at < end:
        reader = _Thrift(view, at)
        page = reader.struct()
        about = page.get(5) or page.get(8) or page.get(7) or {1: 0}
        yield about[1], page[2]
        if page[3] < 0:
            raise ValueError("a page of negative length")
        at = reader.at + page[3]


class _Thrift:
    """A reader of Thrift's compact protocol: structs as {field: value}; what is not needed is read
    all the same."""

    def __init__(self, view: memoryview, at: int) -> None:
        self.view, self.at = view, at

    def struct(self, depth: int = 0) -> dict[int, Any]:
        if depth > _DEPTH:
            raise ValueError("nested too deeply")
        fields: dict[int, Any] = {}
        last = 0
        while head := self._byte():
            last = last + (head >> 4) if head >> 4 else self._zigzag()
            fields[last] = self._value(head & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2):
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._zigzag()
        if kind == 7:
            self.at += 8
            return None
        if kind == 8:
            return self._skip(self._varint())
        if kind in (9, 10):
            return self._list(depth + 1)
        if kind == 12:
            return self.struct(depth + 1)
        raise ValueError(f"no such type: {kind}")

    def _list(self, depth: int) -> list[Any]:
        if depth > _DEPTH:
            raise ValueError("nested too deeply")
        head = self._byte()
        size = head >> 4 if head >> 4 < 15 else self._varint()
        if size > len(self.view) - self.at:
            raise ValueError("a list is longer than the file")
        kind = head & 15
        return [self._byte() if kind in (1, 2) else self._value(kind, depth) for _ in range(size)]

    def _byte(self) -> int:
        self.at += 1
        return self.view[self.at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _skip(self, n: int) -> None:
        if n > len(self.view) - self.at:
            raise ValueError("a text is longer than the file")
        self.at += n


# -- arrow


def _arrow(view: memoryview) -> Iterator[tuple[int, int]]:
    """Values and decoded bytes of each column of each record batch."""
    blocks = _file_blocks(view) if bytes(view[:6]) == b"ARROW1" else _stream_blocks(view)
    for meta, body, body_length in blocks:
        if not 0 <= meta <= body <= body + body_length <= len(view):
            raise ValueError("a record batch lies outside the file")
        message = _Table.root(view, meta)
        kind, header = message.byte(1), message.table(2)
        if kind == 2 and header is not None:
            header = header.table(1)
        if kind in (2, 3) and header is not None:
            yield from _batch(view, header, body, body_length)


def _batch(
    view: memoryview, batch: _Table, body: int, body_length: int
) -> Iterator[tuple[int, int]]:
    yield batch.long(0), 0
    without_gaps = gaps = empty = 0
    for at in batch.structs(1, 16):
        length, n_gaps = struct.unpack_from("<qq", view, at)
        if not 0 <= n_gaps <= length:
            raise ValueError("a column has more gaps than values")
        without_gaps, gaps = without_gaps + (n_gaps == 0), gaps + n_gaps
        yield length, 0
    compressed = batch.table(3) is not None
    for at in batch.structs(2, 16):
        offset, length = struct.unpack_from("<qq", view, at)
        if not 0 <= offset <= offset + length <= body_length or 0 < length < (
            8 if compressed else 1
        ):
            raise ValueError("a buffer lies outside its batch")
        empty += length == 0
        # A compressed buffer starts with its length, -1 for one that is stored as it is.
        yield (
            0,
            max(struct.unpack_from("<q", view, body + offset)[0], length)
            if compressed and length
            else length,
        )
    # polars panics where a compressed column has gaps and no buffer that says which: only one
    # without gaps may lack it.
    if compressed and gaps and empty > without_gaps:
        raise ValueError("a column with gaps does not say where they are")


def _file_blocks(view: memoryview) -> Iterator[tuple[int, int, int]]:
    """Where each dictionary's and record batch's metadata and body stand, as the footer says."""
    if len(view) < 18 or bytes(view[-6:]) != b"ARROW1":
        raise ValueError("no ARROW1 at both ends")
    length = struct.unpack_from("<i", view, len(view) - 10)[0]
    if not 4 <= length <= len(view) - 18:
        raise ValueError("the footer is longer than the file")
    footer = _Table.root(view, len(view) - 10 - length)
    for slot in (2, 3):
        for at in footer.structs(slot, 24):
            offset, meta_length, body_length = struct.unpack_from("<qixxxxq", view, at)
            if offset < 0 or meta_length < 8 or body_length < 0:
                raise ValueError("a block lies outside the file")
            marked = struct.unpack_from("<I", view, offset)[0] == 0xFFFFFFFF
            yield offset + (8 if marked else 4), offset + meta_length, body_length


def _stream_blocks(view: memoryview) -> Iterator[tuple[int, int, int]]:
    at = 0
    while at + 4 <= len(view):
        length = struct.unpack_from("<I", view, at)[0]
        at += 4
        if length == 0xFFFFFFFF:
            length = struct.unpack_from("<I", view, at)[0]
            at += 4
        if length == 0:
            return
        body_length = _Table.root(view, at).long(3)
        yield at, at + length, body_length
        if body_length < 0:
            raise ValueError("a body of negative length")
        at += length + body_length


class _Table:
    """A FlatBuffers table, its fields by slot."""

    def __init__(self, view: memoryview, at: int) -> None:
        self.view, self.at = view, at
        self.fields = at - struct.unpack_from("<i", view, at)[0]
        if self.fields < 0:
            raise ValueError("a table outside the file")
        self.size = struct.unpack_from("<H", view, self.fields)[0]

    @classmethod
    def root(cls, view: memoryview, at: int) -> _Table:
        return cls(view, at + struct.unpack_from("<I", view, at)[0])

    def _place(self, slot: int) -> int | None:
        at = 4 + 2 * slot
        offset = (
            struct.unpack_from("<H", self.view, self.fields + at)[0] if at + 2 <= self.size else 0
        )
        return self.at + offset if offset else None

    def byte(self, slot: int) -> int:
        place = self._place(slot)
        return 0 if place is None else self.view[place]

    def long(self, slot: int) -> int:
        place = self._place(slot)
        return 0 if place is None else int(struct.unpack_from("<q", self.view, place)[0])

    def table(self, slot: int) -> _Table | None:
        place = self._place(slot)
        return None if place is None else _Table.root(self.view, place)

    def structs(self, slot: int, size: int) -> range:
        """Where each struct of a vector stands."""
        place = self._place(slot)
        if place is None:
            return range(0)
        start = place + struct.unpack_from("<I", self.view, place)[0]
        n = struct.unpack_from("<I", self.view, start)[0]
        if n * size > len(self.view) - start - 4:
            raise ValueError("a vector is longer than the file")
        return range(start + 4, start + 4 + n * size, size)

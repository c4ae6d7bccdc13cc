"""Arrays in a numpy archive (.npz) as the rows of a table, a piece at a time.

An archive holds what was seen of n users, one array for each kind of thing: shape (n,) of a user,
(n, steps) of each of their steps, (n, steps, width) a list at each step. A row of the table is one
step of one user. An archive of shape (n,) alone is a table of items: a row is one entry, with its
number as `item`, and values are codes, given as text.

Arrays are decompressed as they are read, so that none is ever in memory whole."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import polars as pl
from polars.io.plugins import register_io_source

from fastgaum.errors import LogFormatError
from fastgaum.untrusted_parquet import BYTES_PER_BYTE, FREE_BYTES

STEP = "step"
"""the column that numbers a user's steps, from 0"""
_PIECE_VALUES = 1 << 22
"""values of the widest array that are read at once"""
_MOST_PER_USER = 1 << 20
"""values of an array that one user may have"""
_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError)


@dataclass(frozen=True)
class _Array:
    """One array of an archive, of which only the header has been read."""

    member: str
    """its file in the archive"""
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    @property
    def name(self) -> str:
        """Its name, and its column's."""
        return self.member.removesuffix(".npy")

    @property
    def native(self) -> np.dtype[np.generic]:
        """Its type in the order of bytes of this machine."""
        return self.dtype.newbyteorder("=")

    def column(self, values: npt.NDArray[np.generic], n_steps: int) -> pl.Series:
        """The values of some users as a column of their steps, or of some items (no steps)."""
        if n_steps == 0:
            return pl.Series(self.name, values).cast(pl.Int64, strict=False).cast(pl.String)
        if len(self.shape) == 1:
            values = np.repeat(values, n_steps)
        elif len(self.shape) == 2:
            values = values.reshape(-1)
        else:
            lists = pl.Series(self.name, values.reshape(-1, self.shape[2]))
            return lists.arr.to_list()
        return pl.Series(self.name, values)


def archive_rows(path: Path) -> pl.LazyFrame:
    """Return the rows of an archive, lazily.

    Raises:
        LogFormatError: it is no archive of arrays that fit together.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = [_header(archive, name) for name in archive.namelist()]
    except _ERRORS as error:
        raise _damaged(path, error) from None
    _check(path, arrays)
    n_steps = next((array.shape[1] for array in arrays if len(array.shape) > 1), 0)
    empty = {
        array.name: array.column(np.zeros((0, *array.shape[1:]), array.native), n_steps).dtype
        for array in arrays
    }
    schema = pl.Schema({**empty, STEP if n_steps else "item": pl.Int64()})

    def pieces(
        columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _: int | None
    ) -> Iterator[pl.DataFrame]:
        wanted = [array for array in arrays if columns is None or array.name in columns]
        for frame in _pieces(path, wanted or arrays[:1], n_steps):
            frame = frame.select(schema.names() if columns is None else columns)
            if n_rows is not None:
                frame = frame.head(n_rows)
                n_rows -= frame.height
            yield frame if predicate is None else frame.filter(predicate)
            if n_rows == 0:
                return

    return register_io_source(pieces, schema=schema)


def _pieces(path: Path, arrays: list[_Array], n_steps: int) -> Iterator[pl.DataFrame]:
    """Some users' rows at a time, of the given arrays."""
    widest = max(int(np.prod(array.shape[1:])) for array in arrays)
    most = max(1, _PIECE_VALUES // max(widest, 1))
    n_users = arrays[0].shape[0]
    try:
        with zipfile.ZipFile(path) as archive:
            streams = [_values(archive, array) for array in arrays]
            for start in range(0, n_users, most):
                n = min(most, n_users - start)
                columns = [
                    array.column(_read(stream, array, n), n_steps)
                    for array, stream in zip(arrays, streams, strict=True)
                ]
                number = (
                    pl.Series(STEP, np.tile(np.arange(n_steps), n))
                    if n_steps
                    else pl.Series("item", np.arange(start, start + n))
                )
                yield pl.DataFrame([*columns, number])
    except _ERRORS as error:
        raise _damaged(path, error) from None


def _header(archive: zipfile.ZipFile, name: str) -> _Array:
    if archive.getinfo(name).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"'{name}' is compressed in a way that numpy does not write")
    with archive.open(name) as file:
        shape, fortran, dtype = _read_header(file)
    if fortran and len(shape) > 1:
        raise ValueError(f"'{name}' is stored column by column")
    return _Array(name, shape, dtype)


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def _values(archive: zipfile.ZipFile, array: _Array) -> IO[bytes]:
    """An array's values, as a stream behind its header."""
    file = archive.open(array.member)
    _read_header(file)
    return file


def _read(file: IO[bytes], array: _Array, n: int) -> npt.NDArray[np.generic]:
    shape = (n, *array.shape[1:])
    size = int(np.prod(shape)) * array.dtype.itemsize
    data = file.read(size)
    if len(data) < size:
        raise EOFError(f"'{array.name}' ends before its values do")
    return np.frombuffer(data, array.dtype).astype(array.native, copy=False).reshape(shape)


def _check(path: Path, arrays: list[_Array]) -> None:
    """Raise LogFormatError unless the arrays are of the same users and hold numbers."""
    rule = "arrays of numbers, shape (users,), (users, steps) or (users, steps, width), are read"
    for array in arrays:
        per_user = int(np.prod(array.shape[1:], dtype=object))
        if (
            not 1 <= len(array.shape) <= 3
            or array.dtype.kind not in "iuf"
            or not 0 < per_user <= _MOST_PER_USER
        ):
            raise LogFormatError(
                f"'{path.name}' has the array '{array.name}' of shape {array.shape} and type "
                f"{array.dtype}, {rule}: leave it out"
            )
    held = sum(int(np.prod(one.shape, dtype=object)) * one.dtype.itemsize for one in arrays)
    most = FREE_BYTES + BYTES_PER_BYTE * path.stat().st_size
    if held > most:
        raise LogFormatError(
            f"'{path.name}' holds {held} bytes when it is decompressed, at most {most} are read of "
            "a file of its size: if you trust it, save the arrays uncompressed (numpy.savez)"
        )
    names = [array.name for array in arrays]
    users = {array.shape[0] for array in arrays}
    steps = {array.shape[1] for array in arrays if len(array.shape) > 1}
    clash = {STEP, "item"}.intersection(names) or len(set(names)) < len(names)
    if len(users) != 1 or len(steps) > 1 or clash:
        shapes = ", ".join(f"{array.name} {array.shape}" for array in arrays) or "nothing"
        raise LogFormatError(
            f"'{path.name}' holds {shapes}: {rule}, all of the same users and steps, none "
            f"called {STEP} or item, no two alike: save such arrays alone"
        )


def _damaged(path: Path, error: BaseException) -> LogFormatError:
    return LogFormatError(
        f"'{path.name}' is no readable npz archive (cut short or damaged): "
        f"{str(error) or type(error).__name__}; copy or write it again"
    )

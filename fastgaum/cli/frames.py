"""Writing a long table part by part, so that its length never enters memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fastgaum.errors import OutputError
from fastgaum.files import atomic

if TYPE_CHECKING:
    from polars import DataFrame


def check_frame_output(out: Path) -> None:
    """Raise OutputError unless `out` ends in .parquet or .csv."""
    if out.suffix not in (".parquet", ".csv"):
        raise OutputError(
            f"'{out}' ends in '{out.suffix}', a table is written as .parquet or .csv: rename it"
        )


def write_frames(frames: Iterator[DataFrame], out: Path) -> int:
    """Write frames of the same columns one below the other, as .csv or .parquet; return the number
    of rows.

    The file appears whole or not at all; the frames are taken one at a time.

    Raises:
        OutputError: the output cannot be written.
    """
    with atomic(out) as beside:
        return (
            _write_csv(frames, beside)
            if out.suffix == ".csv"
            else _write_parquet(frames, beside, out)
        )


def _write_csv(frames: Iterator[DataFrame], path: Path) -> int:
    n_rows = 0
    with open(path, "wb") as file:
        for frame in frames:
            frame.write_csv(file, include_header=n_rows == 0)
            n_rows += frame.height
    return n_rows


def _write_parquet(frames: Iterator[DataFrame], path: Path, out: Path) -> int:
    """A file per part, then one file of all: polars streams parquet from files, not from an
    iterator."""
    import polars as pl

    n_rows = 0
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f"{path.name}s.") as folder:
        parts: list[Path] = []
        for frame in frames:
            parts.append(Path(folder) / f"{len(parts):06}.parquet")
            with _disk_named(out):
                frame.write_parquet(parts[-1], compression="lz4")
            n_rows += frame.height
        with _disk_named(out):
            pl.scan_parquet(parts, glob=False).sink_parquet(path)
    return n_rows


@contextmanager
def _disk_named(out: Path) -> Iterator[None]:
    """What polars says of a full disk becomes one OutputError."""
    from polars.exceptions import PolarsError

    from fastgaum.logs.decoder import one_line

    try:
        yield
    except PolarsError as error:
        raise OutputError(
            f"cannot write '{out}': {one_line(error)}; free space or choose another folder"
        ) from None

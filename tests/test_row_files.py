"""What a library raises on damaged contents is one line that names the file."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from fastgaum.errors import LogFormatError
from fastgaum.row_files import one_line, read_small_parquet


def test_a_small_table_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "good.parquet"
    pl.DataFrame({"a": [1, 2], "b": ["x", None]}).write_parquet(path)
    assert read_small_parquet(path).height == 2
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(LogFormatError, match=r"'good\.parquet' is no readable parquet file"):
        read_small_parquet(path)


def test_a_panic_speaks_of_the_file() -> None:
    error = pl.exceptions.PanicException("called `Result::unwrap()`: internal error: num_bits 68")
    assert one_line(error) == "polars fails on its contents"
    assert one_line(OSError("cut short\nat 12")) == "cut short"

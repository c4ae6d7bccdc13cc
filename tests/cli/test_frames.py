"""Tables written part by part: the same rows as at once, the file whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from fastgaum.cli.output import write_frames
from fastgaum.errors import NumericsError, OutputError

PARTS = [
    pl.DataFrame({"item": ["a", "b"], "utility": pl.Series([0.1, float("nan")], dtype=pl.Float32)}),
    pl.DataFrame({"item": ["c"], "utility": pl.Series([None], dtype=pl.Float32)}),
]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_parts_stand_one_below_the_other(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"[table*].{suffix}"
    assert write_frames(iter(PARTS), out) == 3
    whole = pl.concat(PARTS)
    if suffix == "csv":
        assert out.read_text() == whole.write_csv()
    else:
        assert pl.read_parquet(out, glob=False).equals(whole)
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_failure_leaves_what_was_there(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"table.{suffix}"
    out.write_text("before")

    def failing() -> Iterator[pl.DataFrame]:
        yield PARTS[0]
        raise NumericsError("a utility is not finite")

    with pytest.raises(NumericsError):
        write_frames(failing(), out)
    assert out.read_text() == "before"
    assert list(tmp_path.iterdir()) == [out]


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise pl.exceptions.ComputeError("No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    with pytest.raises(OutputError, match=r"table\.parquet': No space left on device; free space"):
        write_frames(iter(PARTS), tmp_path / "table.parquet")
    assert list(tmp_path.iterdir()) == []

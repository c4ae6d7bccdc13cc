"""A large file read a part at a time is the log that reading at once gives, and what cannot be read
so is read at once."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fastgaum.errors import LogFormatError
from fastgaum.logs import read
from fastgaum.logs.log import SessionLog
from fastgaum.logs.pack import to_frame
from fastgaum.logs.read import read_log
from tests.builders import random_log


def assert_equal(left: SessionLog, right: SessionLog) -> None:
    assert left.fingerprint == right.fingerprint
    for field in dataclasses.fields(left):
        a, b = getattr(left, field.name), getattr(right, field.name)
        if isinstance(a, pl.Series):
            assert a.equals(b), field.name
            assert a.dtype == b.dtype
        elif isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b, field.name)
            assert a.dtype == b.dtype
        elif isinstance(a, dict):
            assert a.keys() == b.keys()
            for key in a:
                np.testing.assert_array_equal(a[key], b[key])
        else:
            assert a == b, field.name


in_parts = read._read_in_parts


def both(
    path: Path, monkeypatch: pytest.MonkeyPatch, size: int, **options: Any
) -> tuple[SessionLog, SessionLog, int]:
    """The log read at once, and in parts of so many rows; and how many logs reading in
    parts gave."""
    at_once = read_log(path, **options)
    given = []

    def counted(*arguments: Any, **named: Any) -> Any:
        result = in_parts(*arguments, **named)
        given.append(result is not None)
        return result

    monkeypatch.setattr(read, "PART_ROWS", size)
    monkeypatch.setattr(read, "_read_in_parts", counted)
    return at_once, read_log(path, **options), sum(given)


def frame_of(seed: int = 5) -> pl.DataFrame:
    log = random_log(seed, n_sessions=40, no_click=0.3, shared_users=True)
    frame = to_frame(log)
    rng = np.random.default_rng(seed)
    # every session its own time, every user a name
    return frame.with_columns(
        price=rng.normal(size=frame.height),
        event=pl.col("event") + 10 * pl.col("session").rle_id(),
        user=pl.lit("u") + pl.col("user").cast(pl.String),
        event_label=pl.col("event_label").cast(pl.Int64),
    )


@pytest.mark.parametrize("size", [1, 7, 50, 100_000])
@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@pytest.mark.parametrize("split", ["file", "time", "user", "other-half"])
def test_parts_give_the_same_log(
    size: int, suffix: str, split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame, path = frame_of(), tmp_path / f"log.{suffix}"
    frame.write_parquet(path) if suffix == "parquet" else frame.write_ipc(path)
    left, right, given = both(path, monkeypatch, size, candidate_fields=["price"], split=split)
    assert given == (size < frame.height)
    assert_equal(left, right)


def test_shards_and_whole_numbers_as_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = (
        frame_of()
        .with_columns(
            session=pl.col("session").rle_id(), item=pl.col("item").str.slice(1).cast(pl.Int64)
        )
        .drop("user", "split", "event_label")
    )
    for number, start in enumerate(range(0, frame.height, 60)):
        frame.slice(start, 60).write_parquet(tmp_path / f"{number}.parquet")
    left, right, given = both(tmp_path, monkeypatch, 50)
    assert given == 1
    assert_equal(left, right)


@pytest.mark.parametrize("what", ["scattered", "text event", "categories", "floats as ids", "csv"])
def test_what_needs_the_whole_file_is_read_at_once(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame, path = frame_of(), tmp_path / "log.parquet"
    options: dict[str, Any] = {}
    if what == "scattered":
        frame = frame.sample(fraction=1, shuffle=True, seed=1)
    elif what == "text event":
        frame = frame.with_columns(pl.col("event").cast(pl.String))
    elif what == "categories":
        frame = frame.with_columns(brand=pl.col("item"))
        options = {"candidate_fields": ["brand"]}
    elif what == "floats as ids":
        frame = frame.with_columns(item=pl.col("item").str.slice(1).cast(pl.Float64))
    if what == "csv":
        path = tmp_path / "log.csv"
        frame.write_csv(path)
    else:
        frame.write_parquet(path)
    left, right, given = both(path, monkeypatch, 50, **options)
    assert given == 0
    assert_equal(left, right)


def test_errors_name_the_row_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = frame_of().with_columns(
        item=pl.when(pl.int_range(pl.len()) == 101).then(None).otherwise("item")
    )
    frame.write_parquet(tmp_path / "log.parquet")
    monkeypatch.setattr(read, "PART_ROWS", 20)
    with pytest.raises(LogFormatError, match="row 102 has no item"):
        read_log(tmp_path / "log.parquet")

"""The trial of strangers' files: what kills it is an error of one line, and the next file is read."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import polars as pl
import pytest

from fastgaum import untrusted_parquet
from fastgaum.errors import LogFormatError
from fastgaum.untrusted_parquet import read_small_parquet, try_columns, try_header


@pytest.fixture
def good(tmp_path: Path) -> Path:
    pl.DataFrame({"a": [1, 2], "b": ["x", None]}).write_parquet(tmp_path / "good.parquet")
    return tmp_path / "good.parquet"


def trial() -> int:
    assert untrusted_parquet._Trial.running is not None
    return untrusted_parquet._Trial.running.process.pid


def test_one_process_serves_all_files(good: Path) -> None:
    try_header(good)
    first = trial()
    try_columns(good, ["a"])
    assert read_small_parquet(good).height == 2
    assert trial() == first


def test_a_list_of_a_billion_kills_the_trial_alone(
    good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    zeros = pl.zeros(100_000_000, dtype=pl.Int64, eager=True)
    for kind in ("parquet", "arrow"):
        path = tmp_path / f"bomb.{kind}"
        frame = pl.DataFrame({"items": pl.Series([zeros])})
        frame.write_parquet(path) if kind == "parquet" else frame.write_ipc(
            path, compression="zstd"
        )
        try_header(path)
        with pytest.raises(LogFormatError, match=r"bomb\..*(more than \d+ MB of memory|decoded)"):
            try_columns(path, ["items"])
        assert read_small_parquet(good).height == 2
    assert capfd.readouterr() == ("", "")


def test_a_trial_that_was_killed_is_started_again(good: Path) -> None:
    try_header(good)
    os.kill(trial(), signal.SIGKILL)
    with pytest.raises(LogFormatError, match="takes more than"):
        try_header(good)
    try_header(good)


def test_a_trial_that_hangs_is_ended(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try_header(good)
    monkeypatch.setattr(untrusted_parquet, "PATIENCE", 0.1)
    os.kill(trial(), signal.SIGSTOP)
    with pytest.raises(LogFormatError, match=r"or 0 s"):
        try_header(good)


def test_columns_of_nothing_are_counted_too(tmp_path: Path) -> None:
    path = tmp_path / "nulls.parquet"
    pl.DataFrame({"a": pl.repeat(None, 20_000_000, eager=True)}).write_parquet(path)
    with pytest.raises(LogFormatError, match="when it is decoded"):
        try_columns(path, ["a"])


def test_a_panic_speaks_of_the_file() -> None:
    error = pl.exceptions.PanicException("called `Result::unwrap()`: internal error: num_bits 68")
    assert untrusted_parquet.one_line(error) == "polars fails on its contents"
    assert untrusted_parquet.one_line(OSError("cut short\nat 12")) == "cut short"

"""Context made of the times of events: the gap since the event before, the hour, the day."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fastgaum.errors import LogFormatError
from fastgaum.logs.options import ReadOptions
from fastgaum.logs.read import read_log
from fastgaum.logs.store import save_log

TIMED = pl.DataFrame(
    {
        "session": ["s1", "s2", "s1", "s1"],
        "time": pl.Series([5, 0, 3_605, 3_604]).cast(pl.Duration("ms")) * 1000
        + dt.datetime(2024, 5, 5, 23, 0, tzinfo=dt.UTC),
        "items": [["a", "b"], ["a", "c"], ["b", "c"], ["a", "b"]],
        "chosen": ["a", "a", "b", None],
    }
)


def test_fields_are_made_of_times(tmp_path: Path) -> None:
    """Events stand by time: 5 s, 3,604 s and 3,605 s after eleven on a Sunday."""
    names = ["gap", "hour", "day"]
    log = read_log(TIMED, time_fields=names)
    np.testing.assert_allclose(
        log.columns["gap"].values, np.log1p([0.0, 3599.0, 1.0, 0.0]).astype(np.float32)
    )
    for name, expected in (("hour", ["23", "0", "0", "23"]), ("day", ["Sun", "Mon", "Mon", "Sun"])):
        values = log.columns[name].categories.gather(log.columns[name].values).to_list()
        assert values == expected
    TIMED.write_parquet(tmp_path / "log.parquet")
    options = ReadOptions.of(time_fields=names)
    saved = save_log(read_log(tmp_path / "log.parquet", options=options), tmp_path / "1")
    assert read_log(saved, options=options).fingerprint == log.fingerprint
    # a clock of its own zone, and numbers with the unit that they have
    east = TIMED.with_columns(pl.col("time").dt.convert_time_zone("Asia/Tokyo"))
    moved = read_log(east, time_fields=names)
    assert moved.columns["hour"].categories[int(moved.columns["hour"].values[0])] == "8"
    numbers = read_log(TIMED.with_columns(time=pl.Series([1, 0, 9, 4])), time_fields=["gap"])
    np.testing.assert_allclose(numbers.columns["gap"].values, np.log1p([0, 3, 5, 0]), rtol=1e-6)
    # further choices from one display come at once
    every = TIMED.with_columns(chosen=pl.col("items"))
    each = read_log(every, time_fields=["gap"], clicks="each")
    assert each.columns["gap"].values.tolist()[:4] == [0, 0, log.columns["gap"].values[1], 0]


@pytest.mark.parametrize(
    ("frame", "names", "says"),
    [
        (TIMED.drop("time"), ["gap"], "--time-field gap needs events with times"),
        (TIMED.with_columns(time=pl.int_range(4)), ["hour"], "are ordered by Int64: name a time"),
        (TIMED.with_columns(time=pl.lit("x")), ["gap"], "are ordered by String"),
        (TIMED.with_columns(pl.col("time").dt.time()), ["gap"], "are ordered by Time: name a"),
        (TIMED.with_columns(pl.col("time") - pl.col("time")), ["hour"], "ordered by Duration"),
    ],
)
def test_what_has_no_times_is_refused(frame: pl.DataFrame, names: list[str], says: str) -> None:
    with pytest.raises(LogFormatError, match=says):
        read_log(frame, time_fields=names)


@pytest.mark.parametrize("options", [{"time_fields": ["gap"]}, {"split": "time"}])
def test_a_counter_beside_times_is_no_time(options: dict[str, Any]) -> None:
    frame = TIMED.with_columns(event=pl.Series([4, 0, 2, 1]))
    with pytest.raises(LogFormatError, match=r"'event' orders them by Int64 .* --column event=tim"):
        read_log(frame, **options)
    for named in ("event", "time"):
        assert read_log(frame, columns={"event": named}, **options).n_events == 4
    assert read_log(frame.rename({"time": "step"}), **options).n_events == 4


def test_whole_numbers_of_128_bits_are_times() -> None:
    frame = TIMED.with_columns(time=pl.Series([2**70, 3, 5, 9], dtype=pl.Int128))
    log = read_log(frame, time_fields=["gap"], split="time")
    assert log.columns["gap"].values.argmax() == 2


def test_a_field_of_time_is_named_once() -> None:
    with pytest.raises(LogFormatError, match="the log has a field 'gap', which --time-field gap"):
        read_log(TIMED.with_columns(gap=pl.lit(0.5)), context_fields=["gap"], time_fields=["gap"])


OFFSETS = ["2024-10-26T08:00:00+02:00", "2024-10-27T23:30:00+01:00", "2024-10-28T00:30:00+01:00"]
"""a clock of Berlin, over the end of summer time"""


def test_hours_are_those_of_the_clock_as_written_whatever_the_way_in(tmp_path: Path) -> None:
    text = pl.DataFrame(
        {"session": ["a"] * 3, "time": OFFSETS, "item": ["x", "y", "x"], "chosen": [1] * 3}
    )
    times = pl.col("time").str.to_datetime(time_zone="UTC").dt.convert_time_zone("Europe/Berlin")
    typed = text.with_columns(times)
    pandas = typed.to_pandas()
    text.write_csv(tmp_path / "log.csv")
    text.write_csv(tmp_path / "log.tsv", separator="\t")
    text.write_ndjson(tmp_path / "log.ndjson")
    text.write_parquet(tmp_path / "text.parquet")
    typed.write_parquet(tmp_path / "typed.parquet")
    typed.write_ipc(tmp_path / "typed.arrow")
    pandas.to_parquet(tmp_path / "pandas.parquet")
    names = ["gap", "hour", "day"]
    logs = [
        read_log(source, time_fields=names, name="log")
        for source in (text, typed, pandas, *sorted(tmp_path.iterdir()))
    ]
    assert len(logs) == 10
    for log in logs:
        for name, said in (("hour", ["8", "23", "0"]), ("day", ["Sat", "Sun", "Mon"])):
            assert log.columns[name].categories.gather(log.columns[name].values).to_list() == said
        assert log.fingerprint == logs[0].fingerprint

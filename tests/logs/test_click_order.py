"""The order of several clicks on a display: by rank, by time, or as they are listed."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from fastgaum.logs.read import read_frame
from tests.logs.bad_logs import refused


def two_clicks(**changes: Any) -> pl.DataFrame:
    columns = {"session": ["s"], "items": [["a", "b", "c"]], "chosen": [["b", "a"]], **changes}
    return pl.DataFrame(columns, strict=False)


@pytest.mark.parametrize(
    ("changes", "chosen"),
    [
        ({}, [1, 0]),
        ({"click_rank": [[2, 1]]}, [0, 1]),
        ({"click_time": [["2020-01-01T00:00:09", "2020-01-01T00:00:01"]]}, [0, 1]),
        ({"chosen": [["b", "a", "b"]], "click_order": [[3.0, 2.0, 1.0]]}, [1, 0]),
        ({"chosen": [["b", None, "a"]]}, [1, 0]),
        ({"chosen_index": [[2, 0, -1, 2]], "chosen": None}, [2, 0]),
    ],
)
def test_the_order_of_clicks(changes: dict[str, Any], chosen: list[int]) -> None:
    """By rank or time where there is one, else as they are listed."""
    frame = two_clicks(**changes)
    frame = frame.drop("chosen") if changes.get("chosen", 0) is None else frame
    log = read_frame(frame, clicks="each")
    first = int(log.choices[0])
    second = int(log.choices[1])
    assert [first, second + (second >= first)] == chosen
    assert log.n_events == 2
    assert read_frame(frame, clicks="first").choices.tolist() == chosen[:1]


ROWS = {"session": ["s"] * 3, "event": [1] * 3, "item": ["a", "b", "c"], "chosen": [1, 1, 0]}


@pytest.mark.parametrize(
    ("frame", "options", "says"),
    [
        (two_clicks(), {}, "event 0 of session 's' has 2 clicks, one is required: pass --clicks"),
        (two_clicks(click_rank=[[1]]), {}, "has 1 values in 'click_rank' for 2 clicks"),
        (two_clicks(click_rank=[1]), {}, "a list of one rank or time for each click"),
        (two_clicks(click_rank=[[1, None]]), {}, "one of them has no value in 'click_rank'"),
        (two_clicks(click_rank=[["x", "y"]]), {}, "ranks or times are required"),
        (two_clicks(), {"candidate_fields": ["chosen"]}, "is the choice itself"),
        (
            pl.DataFrame({**ROWS, "click_time": [1, 2, None]}),
            {"candidate_fields": ["click_time"]},
            "is the choice itself",
        ),
        (pl.DataFrame({**ROWS, "click_time": [1, None, None]}), {}, "one of them has no value in"),
        (pl.DataFrame({**ROWS, "click_time": ["x", "y", None]}), {}, "ranks or times are required"),
    ],
)
def test_what_is_no_order_of_clicks_is_refused(
    frame: pl.DataFrame, options: dict[str, Any], says: str
) -> None:
    refused(frame, says, clicks="error" if "pass --clicks" in says else "each", **options)


def test_a_click_time_is_read_only_where_clicks_are_several() -> None:
    frame = pl.DataFrame({**ROWS, "chosen": [1, 0, 0], "click_time": ["x", "y", None]})
    assert read_frame(frame).choices.tolist() == [0]


@pytest.mark.parametrize("dtype", [pl.Null, pl.String, pl.Float64])
def test_an_order_of_clicks_without_a_value(dtype: pl.DataType) -> None:
    """Nothing is to be sorted where no display has several clicks."""
    empty = pl.lit(None, dtype=dtype).alias("click_time")
    nested = two_clicks(chosen=[["b"]], click_time=[[None]])
    gap = nested.with_columns(click_time=pl.lit(None, dtype=pl.List(dtype)))
    filled = nested.with_columns(session=pl.lit("t"), click_time=pl.lit([2.5]))
    both = pl.concat([gap, filled], how="vertical_relaxed")
    for frame in (nested.cast({"click_time": pl.List(dtype)}), nested.with_columns(empty), both):
        assert set(read_frame(frame, clicks="first").choices.tolist()) == {1}
    long = pl.DataFrame(ROWS).with_columns(empty)
    one = long.with_columns(chosen=pl.Series([1, 0, 0]))
    assert read_frame(one, clicks="each").choices.tolist() == [0]
    several = two_clicks().with_columns(click_time=pl.lit(None, dtype=pl.List(dtype)))
    for frame in (long, several):
        refused(frame, "one of them has no value in", clicks="each")

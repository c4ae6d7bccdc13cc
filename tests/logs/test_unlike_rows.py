"""Rows of one item in one event are one candidate, whose fields have one value."""

import polars as pl
import pytest

import fastgaum as fg
from fastgaum.errors import LogFormatError

ROWS = {
    "session": [1, 1, 1, 2, 2],
    "event": [1, 1, 1, 1, 1],
    "user": ["a", "a", "a", "b", "b"],
    "item": [3, 3, 4, 3, 4],
    "price": [1.0, 2.0, 3.0, 1.0, 2.0],
    "kind": ["x", "x", "y", None, None],
    "chosen": [0, 1, 0, 1, 0],
}


def test_rows_of_one_item_with_two_prices_are_refused() -> None:
    frame = pl.DataFrame(ROWS)
    with pytest.raises(LogFormatError, match=r"item '3' .* 'price' = 1.0 and 2.0, one value"):
        fg.read_log(frame, candidate_fields=["price"])
    # what is not read may differ, and what is alike folds, a missing value among it
    log = fg.read_log(frame, candidate_fields=["kind"])
    assert log.n_candidates == 4
    assert log.views is not None
    assert log.views.tolist() == [1, 1, 1, 1]
    alike = frame.with_columns(price=pl.Series([2.0, 2.0, 3.0, 1.0, 2.0]))
    assert fg.read_log(alike, candidate_fields=["price"]).columns["price"].values.tolist() == [
        2,
        3,
        1,
        2,
    ]


def test_nested_rows_are_held_to_the_same() -> None:
    nested = (
        pl.DataFrame(ROWS)
        .group_by("session", "event", "user", maintain_order=True)
        .agg(pl.col("item").alias("items"), "price", chosen=pl.col("item").sort_by("chosen").last())
    )
    with pytest.raises(LogFormatError, match="one value is required"):
        fg.read_log(nested, candidate_fields=["price"])

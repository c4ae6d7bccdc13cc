"""Vectors of items: a column of lists of the item table, stored once per item."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fastgaum.errors import LogFormatError
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.fold import to_frame
from fastgaum.logs.read import read_log
from fastgaum.logs.store import load_log, save_log
from tests.builders import random_log

LOG = to_frame(random_log(1, n_sessions=12, n_items=4))
"""of the items i0 to i3"""
VECTORS = [[1.0, 2.0, 4.0], [0.5, -2.0, 0.0], None, [3.0, 3.0, -1.0]]


def table(path: Path, **columns: Any) -> Path:
    """An item table, with one item more than the log, in another order."""
    ids = sorted(LOG["item"].unique().to_list())
    frame = pl.DataFrame(
        {"item": [*ids, "other"], "text": [*VECTORS, [9.0, 9.0, 9.0]], **columns}, strict=False
    )
    frame[::-1].write_parquet(path / "items.parquet")
    return path / "items.parquet"


def test_a_vector_per_item(tmp_path: Path) -> None:
    """An item without a vector has the mean of the log's others; the table's other items do not
    count, and lists and arrays are alike."""
    file = table(tmp_path, price=[1.0, 2.0, 3.0, 4.0, 5.0])
    log = read_log(LOG, item_table=file, item_vectors=["text"])
    expected = np.array([[1, 2, 4], [0.5, -2, 0], [1.5, 1, 1], [3, 3, -1]], np.float32)
    found = log.columns["text"].values
    assert (found.dtype, found.shape) == (np.float32, (4, 3))
    np.testing.assert_array_equal(found, expected)
    assert list(log.columns_of("item")) == ["price"]
    assert "item vectors text" in repr(log)
    arrays = pl.read_parquet(file).with_columns(pl.col("text").cast(pl.Array(pl.Float64, 3)))
    arrays.write_parquet(file)
    again = read_log(LOG, item_table=file, item_vectors=["text"])
    np.testing.assert_array_equal(again.columns["text"].values, expected)
    assert again.fingerprint == log.fingerprint


def test_a_saved_log_keeps_them(tmp_path: Path) -> None:
    """Other vectors are another log."""
    file = table(tmp_path)
    LOG.write_parquet(tmp_path / "log.parquet")
    options: Any = {"item_table": file, "item_vectors": ["text"]}
    log = read_log(tmp_path / "log.parquet", **options)
    save_log(log, tmp_path / "saved")
    saved = load_log(tmp_path / "saved")
    np.testing.assert_array_equal(saved.columns["text"].values, log.columns["text"].values)
    assert saved.fingerprint == log.fingerprint != read_log(LOG).fingerprint
    assert slice_sessions(log, [0]).columns["text"] is log.columns["text"]
    # a run names its option again, and the saved log has the column already
    assert read_log(tmp_path / "saved", item_vectors=["text"]).fingerprint == log.fingerprint
    with pytest.raises(
        LogFormatError, match=r"'image' .*no table is given \(the saved log has tex"
    ):
        read_log(tmp_path / "saved", item_vectors=["image"])


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "lengths": (
        {"text": [*VECTORS[:3], [1.0], None]},
        r"item 'i3' has length 1, item 'i1' 3",
    ),
    "not finite": (
        {"text": [[1.0, float("nan"), 0.0], *VECTORS[1:], None]},
        r"item 'i0' in column 'text' has nan at place 2 of 3, a finite number",
    ),
    "a gap": ({"text": [[1.0, 2.0, None], *VECTORS[1:], None]}, "has None at place 3 of 3"),
    "too large": ({"text": [[1e300, 1.0, 1.0], *VECTORS[1:], None]}, "has 1e[+]300 at place 1"),
    "no lists": ({"text": [1.0, 2.0, 3.0, 4.0, 5.0]}, "holds Float64, vectors are lists of num"),
    "words": ({"text": [["a"]] * 5}, "holds List.String., vectors are lists of numbers"),
    "nothing": ({"text": [[]] * 4 + [None]}, "'text' holds no vector|vectors are lists of numbers"),
    "others alone": ({"text": [None] * 4 + [[1.0]]}, "none of the items has a vector"),
    "not named": ({"image": [[1.0]] * 5}, r"'image' holds lists, .*--item-vectors image"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_errors_name_the_item_and_the_cure(wrong: str, tmp_path: Path) -> None:
    columns, match = WRONG[wrong]
    with pytest.raises(LogFormatError, match=match):
        read_log(LOG, item_table=table(tmp_path, **columns), item_vectors=["text"])


def test_a_column_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(LogFormatError, match=r"no column 'txt' .*did you mean 'text'"):
        read_log(LOG, item_table=table(tmp_path), item_vectors=["txt"])
    with pytest.raises(
        LogFormatError, match=r"'text' are a column of the item table, and no table"
    ):
        read_log(LOG, item_vectors=["text"])

"""Whatever the layout and the file, a log that is written and read is the log."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.logs.fold import to_frame
from fastgaum.logs.log import SessionLog
from fastgaum.logs.read import read_log
from tests.builders import values_of
from tests.logs.test_fold import CONTEXT, FIELDS, SESSIONS, as_sets, rows_of

OPTIONS: dict[str, Any] = {"candidate_fields": FIELDS, "context_fields": CONTEXT}
WRITERS = {
    ".csv": pl.DataFrame.write_csv,
    ".tsv": lambda frame, path: frame.write_csv(path, separator="\t"),
    ".parquet": pl.DataFrame.write_parquet,
    ".arrow": pl.DataFrame.write_ipc,
    ".ndjson": pl.DataFrame.write_ndjson,
    ".txt.zst": lambda frame, path: frame.write_csv(path, separator="\t", compression="zstd"),
    ".jsonl.gz": lambda frame, path: frame.write_ndjson(path, compression="gzip"),
}


def nested(log: SessionLog, by_index: bool) -> pl.DataFrame:
    """The nested layout: a row per event, the choice as an item or as its position, null where
    there was no click."""
    frame = to_frame(log).with_columns(
        position=pl.int_range(pl.len()).over("session", "event"), picked=pl.col("chosen") == 1
    )
    if by_index:
        choice = pl.col("position").filter("picked").first().alias("chosen_index")
    else:
        choice = pl.col("item").filter("picked").first().alias("chosen")
    of_event = pl.col("split", *CONTEXT).first()
    columns = [pl.col("item").alias("items"), choice, of_event, *map(pl.col, FIELDS)]
    return frame.group_by("session", "event", maintain_order=True).agg(columns)


@pytest.mark.parametrize("suffix", WRITERS)
@settings(max_examples=5)
@given(SESSIONS, st.booleans())
def test_a_long_file_is_its_log(suffix: str, sessions: Any, ordered: bool) -> None:
    log = read_log(rows_of(sessions), **OPTIONS, ordered=ordered)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"log{suffix}"
        WRITERS[suffix](to_frame(log), path)
        again = read_log(path, **OPTIONS, ordered=ordered, name=log.name)
    assert as_sets(again) == as_sets(log)
    assert again.ordered == ordered
    for name, values in values_of(log, "event").items():
        np.testing.assert_array_equal(again.columns[name].values, values)
    for part in ("session_offsets", "display_offsets", "items", "choices", "split"):
        np.testing.assert_array_equal(getattr(again, part), getattr(log, part))


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@settings(max_examples=10)
@given(SESSIONS, st.booleans(), st.booleans())
def test_a_nested_file_is_its_log(
    suffix: str, sessions: Any, by_index: bool, ordered: bool
) -> None:
    log = read_log(rows_of(sessions), **OPTIONS, ordered=ordered)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"log{suffix}"
        WRITERS[suffix](nested(log, by_index), path)
        again = read_log(path, **OPTIONS, ordered=ordered, split="file")
    assert again.views is None, "a nested row displays an item once"
    assert as_sets(dataclasses.replace(again, views=log.views)) == as_sets(log)
    for name, values in values_of(log, "event").items():
        np.testing.assert_array_equal(again.columns[name].values, values)
    np.testing.assert_array_equal(again.items, log.items)
    np.testing.assert_array_equal(again.choices, log.choices)

"""Availability: a candidate that could not be chosen is left out of its display."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.errors import LogFormatError
from fastgaum.logs.fold import to_frame
from fastgaum.logs.read import read_log
from fastgaum.logs.store import save_log
from tests.builders import random_log, with_fields
from tests.logs.bad_logs import GOOD, NESTED, long, nested, refused

OPTIONS: dict[str, Any] = {"candidate_fields": ["price", "shelf"]}


def listed(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows of a long log in the nested layout."""
    events = rows.group_by("session", "event", "split", maintain_order=True)
    return events.agg(
        "price",
        "shelf",
        "could",
        pl.col("item").alias("items"),
        pl.col("item").filter(pl.col("chosen") == 1).first().alias("chosen"),
    )


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**20), st.sampled_from([(0, 1), ("false", "True"), (False, True)]))
def test_the_log_is_the_one_without_what_could_not_be_chosen(
    seed: int, words: tuple[Any, Any]
) -> None:
    log = with_fields(random_log(seed), seed)
    rows = to_frame(log).drop("user", "views", "event_label", strict=False)
    rows = rows.sort("session", "event", maintain_order=True)
    no, yes = (pl.lit(word) for word in words)
    drawn = rows.sample(fraction=0.5, seed=seed).with_columns(
        item=pl.col("item") + "-gone", chosen=pl.lit(0, pl.Int8), could=no
    )
    both = pl.concat([drawn, rows.with_columns(could=yes)]).sort(
        "session", "event", maintain_order=True
    )
    kept = read_log(rows, **OPTIONS).fingerprint
    assert read_log(both, available="could", **OPTIONS).fingerprint == kept
    whole, less = listed(both), listed(rows.with_columns(could=yes))
    kept = read_log(less, **OPTIONS).fingerprint
    assert read_log(whole, available="could", **OPTIONS).fingerprint == kept


@pytest.mark.parametrize(
    ("frame", "says", "options"),
    [
        (long(could=[0, 1, 1, 1]), "event 17 of .*'u3' chose item 'a', whose 'could' is 0", {}),
        (long(could=[1, 1, 0, 1]), "event 18 of .*'u3' has 'could' = 0 for item 'a' and all", {}),
        (long(could=[1, 2, 1, 1]), "row 2 has 'could' = 2, 0 .it could not be chosen. or 1", {}),
        (long(could=[1, None, 1, 1]), "row 2 has 'could' = None, 0", {}),
        (long(), "no column 'could'", {}),
        (long(), "'chosen' says what was chosen", {"available": "chosen"}),
        (nested(could=[[1, 1], [2]]), "event 18 of session 'u3' has 'could' = 2, 0", {}),
        (nested(could=[[1], [1]]), "event 17 of .* has 1 values in 'could' for 2 candidates", {}),
        (nested(could=[[0, 1], [1]]), "event 17 of .* chose item 'a', whose 'could' is 0", {}),
        (
            nested(could=[[0, 1], [1]], chosen=["b", None]),
            "displays item 'a', whose 'could' is 0, before others.*places would move",
            {"ordered": True},
        ),
    ],
)
def test_refusals(frame: pl.DataFrame, says: str, options: dict[str, Any]) -> None:
    refused(frame, says, **{"available": "could"} | options)


def test_places_stay_where_the_last_items_could_not_be_chosen() -> None:
    frame = nested(items=[["b", "a"], ["c", "a"]], chosen=["b", None])
    log = read_log(
        frame.with_columns(could=pl.Series([[1, 0], [1, 0]])), ordered=True, available="could"
    )
    assert log.item_ids.gather(log.items).to_list() == ["b", "c"]


def test_an_item_that_is_appended_could_be_chosen() -> None:
    frame = nested(chosen=["z", None], could=[[0, 1], [1]])
    log = read_log(frame, available="could", outside="append")
    assert log.item_ids.gather(log.items).to_list() == ["b", "z", "c"]
    assert log.choices.tolist() == [1, -1]


def test_a_saved_log_holds_what_could_be_chosen(tmp_path: Any) -> None:
    save_log(read_log(pl.DataFrame(GOOD)), tmp_path / "log")
    with pytest.raises(LogFormatError, match="holds only items that could be chosen"):
        read_log(tmp_path / "log", available="could")
    assert read_log(pl.DataFrame(NESTED), available="").n_candidates == 3

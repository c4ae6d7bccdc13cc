"""Weights of events: read, checked, kept by every change of a log, saved and fingerprinted."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.errors import LogFormatError
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.fold import to_frame
from fastgaum.logs.read import raw_rows, read_log
from fastgaum.logs.store import save_log
from tests.builders import random_log, with_fields
from tests.logs.bad_logs import GOOD, long, nested, refused

WEIGHTS = [0.5, 0.5, 2.0, 1.0]


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 2**20))
def test_weights_come_back(seed: int) -> None:
    """Of a frame, a csv's text, a nested log and a saved one; and of some sessions of a log."""
    log = with_fields(random_log(seed, 20), seed)
    drawn = np.random.default_rng(seed).uniform(0.1, 9, log.n_events).astype(np.float32)
    log = dataclasses.replace(log, weights=drawn)
    options: Any = {"candidate_fields": ["price", "shelf"], "ordered": True}
    again = read_log(to_frame(log), weight="weight", **options)
    assert again.weights is not None
    np.testing.assert_array_equal(again.weights, drawn)
    text = to_frame(log).with_columns(pl.col("weight").cast(pl.String))
    assert read_log(text, weight="weight", **options).fingerprint == again.fingerprint
    plain = read_log(to_frame(log), **options)
    assert plain.weights is None
    assert plain.fingerprint != again.fingerprint
    rows = np.random.default_rng(seed).permutation(log.n_sessions)[:7]
    part = slice_sessions(log, rows)
    np.testing.assert_array_equal(
        part.weight_of_event,
        np.concatenate([drawn[slice(*log.session_offsets[i : i + 2])] for i in rows]),
    )


def test_a_saved_log_keeps_them(tmp_path: Path) -> None:
    weighted = read_log(long(share=WEIGHTS), weight="share", name="log")
    assert weighted.weights is not None
    assert weighted.weights.tolist() == [0.5, 2.0, 1.0]
    save_log(weighted, tmp_path / "weighted")
    save_log(read_log(long(), name="log"), tmp_path / "plain")
    assert read_log(tmp_path / "weighted").fingerprint == weighted.fingerprint
    assert read_log(tmp_path / "weighted", weight="share").weights is not None
    assert read_log(tmp_path / "weighted", weight="").weights is None
    refused(tmp_path / "weighted", "it has --weight share: read", weight="any")
    # a log of an earlier version does not say which
    about = tmp_path / "weighted" / "log.json"
    about.write_text(about.read_text().replace('"weighted_by": "share",', ""))
    assert read_log(tmp_path / "weighted", weight="any").weights is not None
    with pytest.raises(LogFormatError, match="saved without weights: read the original"):
        read_log(tmp_path / "plain", weight="share")


def test_nested_and_successive_events_have_their_display_s() -> None:
    frame = nested(w=["2", "3"], chosen=[["b", "a"], None])
    log = read_log(frame, weight="w", clicks="each")
    assert log.weight_of_event.tolist() == [2, 2, 3]
    assert raw_rows(frame, weight="w", clicks="each") is not None
    assert read_log(nested(w=[2, 3]), weight="").weights is None


def test_a_column_called_weight_is_read_as_before() -> None:
    frame = long(weight=[60.0, 70.0, 80.0, 90.0], share=WEIGHTS)
    log = read_log(frame, candidate_fields=["weight"], weight="share")
    assert log.columns["weight"].values.tolist() == [60, 70, 80, 90]
    assert to_frame(log)["event_weight"].to_list() == WEIGHTS
    assert read_log(frame).weights is None


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (long(w=[1.0, 2.0, 1.0, 1.0]), "event 17 .*'u3' has 1.0 and 2.0 in column 'w', a weight "),
        (long(w=[1.0, 1.0, 0.0, 1.0]), "row 3 has 'w' = 0.0, a finite weight above 0 is required"),
        (long(w=[1, 1, -2, 1]), "row 3 has 'w' = -2, a finite weight above 0"),
        (long(w=[1.0, 1.0, np.inf, 1.0]), "row 3 has 'w' = inf, a finite weight"),
        (long(w=[1.0, 1.0, np.nan, 1.0]), "row 3 has 'w' = nan, a finite weight"),
        (long(w=[1.0, 1.0, 1e-60, 1.0]), "row 3 has 'w' = 1e-60, a finite weight"),
        (long(w=[1.0, None, 1.0, 1.0]), "row 2 has 'w' = None, a finite weight"),
        (long(w=["1", "1", "many", "1"]), "row 3 has 'w' = 'many', a finite weight"),
        (long(w=[True] * 4), "column 'w' holds Boolean, weights are numbers"),
        (nested(w=[[1, 1], [1]]), "column 'w' holds List.*, weights are numbers"),
        (long(), "no column 'w' .named for the weight."),
        (nested(w=[1.0, 0.0]), "row 2 has 'w' = 0.0"),
    ],
)
def test_refusals(frame: pl.DataFrame, says: str) -> None:
    refused(frame, says, weight="w")


def test_a_weight_is_no_field_and_no_choice() -> None:
    refused(long(), "'chosen' says what was chosen, it cannot be the weight", weight="chosen")
    for field in ("candidate_fields", "context_fields"):
        says = "'price' is named as a .* field and as the weight"
        refused(long(), says, weight="price", **{field: ["price"]})


def test_arrays_are_checked() -> None:
    log = read_log(pl.DataFrame(GOOD))
    for wrong, says in (
        (np.ones(2, np.float32), "weights has 2 entries, the log has 3 events"),
        (np.ones(3), "weights is float64"),
        (np.array([1, 0, 1], np.float32), "weights holds 0.0 at 1, a finite number above 0"),
    ):
        with pytest.raises(LogFormatError, match=says):
            dataclasses.replace(log, weights=wrong)

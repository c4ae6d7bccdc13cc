"""Sessions read from the log's own arrays give the batches that encoded ones give, whatever the log
and the order."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.features.batches import assemble
from fastgaum.features.sessions import EncodedSessions, SharedSessions
from fastgaum.features.space import FeatureSpace
from fastgaum.logs.log import SessionLog, resplit
from tests.builders import random_log


def both(
    log: SessionLog, read: SessionLog, rows: np.ndarray
) -> tuple[EncodedSessions, SharedSessions]:
    encoder = FeatureSpace.fit(log, "identity", set_context=False).encoder(read)
    shared = encoder.for_training(rows)
    assert isinstance(shared, SharedSessions)
    return encoder.encode(rows), shared


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 30), foreign=st.booleans(), keep_last=st.booleans(), data=st.data())
def test_batches_are_those_of_encoded_sessions(
    seed: int, foreign: bool, keep_last: bool, data: st.DataObject
) -> None:
    log = random_log(seed, n_sessions=20, no_click=0.2)
    # under another split some items were never displayed in training: their id is the unknown one
    read = resplit(log, seed + 1) if foreign else log
    rows = np.random.default_rng(seed).permutation(read.n_sessions)[:12].astype(np.int32)
    encoded, shared = both(log, read, rows)
    assert (shared.n_sessions, shared.n_events) == (encoded.n_sessions, encoded.n_events)
    sessions = np.array(data.draw(st.lists(st.integers(0, 11), max_size=15)), np.int32)
    ours, theirs = (assemble(part, sessions, keep_last) for part in (shared, encoded))
    for field in dataclasses.fields(theirs):
        value, expected = getattr(ours, field.name), getattr(theirs, field.name)
        np.testing.assert_array_equal(value, expected, err_msg=field.name)
        if isinstance(expected, np.ndarray):
            assert (value.dtype, value.shape) == (expected.dtype, expected.shape)


@pytest.mark.parametrize("wrong", [-1, 5])
def test_a_session_that_does_not_exist_is_refused(wrong: int) -> None:
    log = random_log(0)
    _, shared = both(log, log, np.arange(5, dtype=np.int32))
    with pytest.raises(IndexError, match="outside 0 … 4"):
        assemble(shared, np.array([0, wrong], np.int32))
    encoder = FeatureSpace.fit(log, "identity", set_context=False).encoder(log)
    with pytest.raises(IndexError, match=f"outside 0 … {log.n_sessions - 1}"):
        encoder.for_training(np.array([log.n_sessions], np.int32))


def test_bags_of_more_than_items_are_encoded() -> None:
    log = random_log(0)
    brands = dataclasses.replace(
        log,
        item_fields={"brand": (np.arange(log.n_items) % 3).astype(np.int32)},
        categories={"brand": pl.Series(list("xyz"))},
    )
    for read, protocol in (
        (log, "bags"),
        (brands, "identity"),
        (dataclasses.replace(log, ordered=True), "identity"),
    ):
        encoder = FeatureSpace.fit(read, protocol, set_context=False).encoder(read)
        assert isinstance(encoder.for_training(read.sessions_in("train")), EncodedSessions)

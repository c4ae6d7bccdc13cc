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
from fastgaum.features.in_memory import CompactSessions, SharedSessions
from fastgaum.features.ordered import training_order
from fastgaum.features.sessions import EncodedSessions
from fastgaum.features.space import FeatureSpace
from fastgaum.logs.log import SessionLog, resplit
from tests.builders import put, random_log
from tests.logs.test_context import navigation


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


@settings(max_examples=15, deadline=None)
@given(fixed=st.booleans(), set_context=st.booleans(), keep_last=st.booleans(), data=st.data())
def test_batches_of_compact_sessions_are_those_of_encoded_ones(
    fixed: bool, set_context: bool, keep_last: bool, data: st.DataObject
) -> None:
    # flags of several kinds; walks where a page fixes its display
    log = navigation(30, n_items=25, fixed=fixed)
    space, train = FeatureSpace.fit_training(log, set_context=set_context, relations=True)
    assert isinstance(train, CompactSessions)
    stored = train.waiting[:3]
    assert sum(part.shape[1] for part in stored) == len(space.number_names)
    assert stored[1].shape[1] > 2
    assert stored[2].shape[1] == 2
    theirs, encoded = FeatureSpace.fit_encoded(
        log, training_order(log), set_context=set_context, relations=True
    )
    np.testing.assert_allclose(space.mean, theirs.mean, rtol=1e-6, atol=1e-9)
    last = encoded.n_sessions - 1
    sessions = np.array(data.draw(st.lists(st.integers(0, last), max_size=9)), np.int32)
    validation = space.encoder(log).for_training(log.sessions_in("validation"))
    everyone = np.arange(validation.n_sessions, dtype=np.int32)
    whole = space.encode(log, log.sessions_in("validation"))
    for compact, plain, picked in (
        (train, encoded, sessions),
        (validation, whole, everyone),
    ):
        ours, expected = (assemble(part, picked, keep_last) for part in (compact, plain))
        for field in dataclasses.fields(expected):
            mine, theirs_of_it = getattr(ours, field.name), getattr(expected, field.name)
            assert (mine is None) == (theirs_of_it is None)
            if mine is not None:
                np.testing.assert_allclose(
                    mine, theirs_of_it, rtol=1e-6, atol=1e-6, err_msg=field.name
                )


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
    brands = put(
        log,
        item={"brand": (np.arange(log.n_items) % 3).astype(np.int32)},
        categories={"brand": pl.Series(list("xyz"))},
    )
    for read, protocol in (
        (log, "bags"),
        (brands, "identity"),
        (dataclasses.replace(log, ordered=True), "identity"),
    ):
        encoder = FeatureSpace.fit(read, protocol, set_context=False).encoder(read)
        assert isinstance(encoder.for_training(read.sessions_in("train")), EncodedSessions)

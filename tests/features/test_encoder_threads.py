"""Chunks of sessions are encoded on all threads: nothing may depend on how many there are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.errors import LogFormatError
from fastgaum.features import sessions as sessions_module
from fastgaum.features.in_memory import CompactSessions
from fastgaum.features.numbers import Moments
from fastgaum.features.sessions import EncodedSessions
from fastgaum.features.space import FeatureSpace
from fastgaum.logs.log import SessionLog
from tests.builders import put, random_log
from tests.logs.test_context import navigation


@contextmanager
def threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def small_chunks(most: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sessions_module, "BATCH_CANDIDATES", most)
        yield


def fields_of(sessions: EncodedSessions) -> dict[str, np.ndarray]:
    fields = {one.name: getattr(sessions, one.name) for one in dataclasses.fields(sessions)}
    return {name: value for name, value in fields.items() if isinstance(value, np.ndarray)}


@settings(max_examples=10, deadline=None)
@given(most=st.integers(20, 400), n_threads=st.integers(2, 5))
def test_sessions_are_the_same_with_any_number_of_threads(most: int, n_threads: int) -> None:
    log = navigation(30, n_items=25)
    outcomes = []
    for n in (1, n_threads):
        with small_chunks(most), threads(n):
            space, train = FeatureSpace.fit_training(log, relations=True)
            whole = space.encode(log, np.arange(log.n_sessions, dtype=np.int32))
        assert isinstance(train, CompactSessions)
        outcomes.append((fields_of(train), fields_of(whole)))
    for ours, expected in zip(*outcomes, strict=True):
        assert ours.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(ours[name], value, err_msg=name)


def with_numbers_too_large(log: SessionLog, events: list[int]) -> SessionLog:
    price = np.ones(log.n_candidates, np.float32)
    price[np.asarray(log.display_offsets)[events]] = 1e31
    return put(log, candidate={"price": price})


def test_the_first_session_at_fault_is_named() -> None:
    good = with_numbers_too_large(random_log(3, n_sessions=60), [])
    space = FeatureSpace.fit(good)
    bad = with_numbers_too_large(good, [good.n_events // 3, good.n_events - 1])
    rows = np.arange(bad.n_sessions, dtype=np.int32)
    messages = set()
    for n in (1, 2, 4):
        with small_chunks(25), threads(n), pytest.raises(LogFormatError) as error:
            space.encode(bad, rows)
        messages.add(str(error.value))
    first = int(np.searchsorted(bad.session_offsets, bad.n_events // 3, "right")) - 1
    assert len(messages) == 1
    assert f"session '{bad.session_ids[first]}'" in messages.pop()


@given(st.lists(st.integers(0, 5), max_size=6), st.integers(0, 2**16))
def test_moments_of_blocks_combine_to_those_of_all(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    blocks = [rng.normal(3, 2, (size, 4)).astype(np.float32) for size in sizes]
    moments, everything = Moments(), np.concatenate([np.empty((0, 4), np.float32), *blocks])
    for block in blocks:
        one = Moments()
        if len(block):
            one.add(block)
        moments.combine(one)
    assert moments.count == len(everything)
    if moments.count:
        np.testing.assert_allclose(moments.mean, everything.mean(0), rtol=1e-5)
        np.testing.assert_allclose(
            moments.squares, everything.var(0) * len(everything), rtol=1e-3, atol=1e-4
        )
        np.testing.assert_array_equal(moments.least, everything.min(0))
        np.testing.assert_array_equal(moments.most, everything.max(0))

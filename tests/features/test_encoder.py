"""Encoding a chunk at a time gives what encoding at once gives, to the bit; counting kernels equal
plain walks."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.features import encoder, sessions
from fastgaum.features.sessions import EncodedSessions, chunks
from fastgaum.features.space import FeatureSpace
from fastgaum.kernels.candidate_counts import TrainingTotals, count_items
from fastgaum.logs.log import SessionLog
from fastgaum.logs.splits import resplit
from tests.builders import put, random_log

ARRAYS = [field.name for field in dataclasses.fields(EncodedSessions)]


def rich_log(seed: int = 0) -> SessionLog:
    """Users with sessions in every split, no clicks, fields of every kind, a real order."""
    log = random_log(seed, n_sessions=60, no_click=0.2)
    rng = np.random.default_rng(seed)
    n = log.n_candidates
    return put(
        log,
        users=rng.integers(0, 9, log.n_sessions).astype(np.int32),
        views=rng.integers(1, 5, n).astype(np.uint16),
        ordered=True,
        candidate={
            "price": rng.random(n).astype(np.float32),
            "shelf": rng.integers(-1, 4, n).astype(np.int32),
        },
        item={"brand": rng.integers(-1, 3, log.n_items).astype(np.int32)},
        categories={"shelf": pl.Series(list("abcd")), "brand": pl.Series(list("xyz"))},
    )


def assert_same(ours: EncodedSessions, theirs: EncodedSessions) -> None:
    for name in ARRAYS:
        one, other = getattr(ours, name), getattr(theirs, name)
        np.testing.assert_array_equal(one, other, err_msg=name)
        # a log of one choice a display has no array of its displays
        assert one is other is None or one.dtype == other.dtype, name


@pytest.mark.parametrize("protocol", ["identity", "bags", "views"])
@pytest.mark.parametrize("split", ["train", "test", "all"])
@pytest.mark.parametrize("foreign", [False, True])
def test_chunks_equal_the_whole(protocol: str, split: str, foreign: bool) -> None:
    log = rich_log()
    space = FeatureSpace.fit(log, protocol, set_context=True, relations=True)
    read = resplit(log, 3) if foreign else log
    rows = read.sessions_in(split)  # type: ignore[arg-type]
    whole = space.encode(read, rows)
    one = space.encoder(read)
    parts = [one.encode(rows[at : at + 7]) for at in range(0, len(rows), 7)]
    assert_same(EncodedSessions.joined(parts), whole)
    # in any order, too: an encoder keeps nothing of what it encoded before
    assert_same(one.encode(rows[::-1].copy()), space.encode(read, rows[::-1].copy()))


def test_the_encoder_s_own_chunks_equal_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    log = rich_log(1)
    whole = FeatureSpace.fit(log, relations=True)
    rows = log.sessions_in("all")
    expected = whole.encode(log, rows)
    monkeypatch.setattr(sessions, "CHUNK_EVENTS", 6)
    monkeypatch.setattr(encoder, "chunks", lambda log, rows: chunks(log, rows, 3))
    assert_same(whole.encode(log, rows), expected)


def test_moments_by_chunks_equal_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastgaum.features import vocabulary

    log = rich_log(2)
    whole = FeatureSpace.fit(log, relations=True)
    monkeypatch.setattr(sessions, "CHUNK_EVENTS", 6)
    monkeypatch.setattr(vocabulary, "chunks", lambda log, rows: chunks(log, rows, 3))
    parts = FeatureSpace.fit(log, relations=True)
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(parts.scale, whole.scale, rtol=1e-6)
    for ours, theirs in zip(parts.categorical, whole.categorical, strict=True):
        assert (ours.name, ours.start, ours.values.to_list()) == (
            theirs.name,
            theirs.start,
            theirs.values.to_list(),
        )


def test_chunks_hold_whole_blocks_and_every_session_once(monkeypatch: pytest.MonkeyPatch) -> None:
    log = random_log(3, n_sessions=50)
    rows = log.sessions_in("all")[::-1].copy()
    monkeypatch.setattr(sessions, "CHUNK_EVENTS", 20)
    parts = list(chunks(log, rows, 4))
    np.testing.assert_array_equal(np.concatenate(parts), rows)
    assert len(parts) > 3
    assert all(len(part) % 4 == 0 for part in parts[:-1])
    assert list(chunks(log, rows[:0], 4)) == []


def test_rows_that_do_not_exist_are_refused() -> None:
    log = random_log(3)
    space = FeatureSpace.fit(log)
    for wrong in (-1, log.n_sessions):
        with pytest.raises(IndexError, match="outside 0"):
            space.encode(log, np.array([0, wrong], np.int32))


RATES = np.array([1.0, 0.5, 0.25])
"""of choices by place"""


def _walk(log: SessionLog, rows: list[int], n_rates: int = 1) -> tuple[Counter, Counter, Counter]:
    shown, chosen, expected = Counter(), Counter(), Counter()
    for row in rows:
        for event in range(log.session_offsets[row], log.session_offsets[row + 1]):
            items = log.items[log.display_offsets[event] : log.display_offsets[event + 1]].tolist()
            rates = RATES[np.minimum(np.arange(len(items)), n_rates - 1)]
            for item, rate in zip(items, rates, strict=True):
                shown[item] += 1
                expected[item] += rate / rates.sum()
            if log.choices[event] >= 0:
                chosen[items[log.choices[event]]] += 1
    return shown, chosen, expected


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 1000),
    n_sessions=st.integers(1, 20),
    no_click=st.sampled_from([0.0, 0.5]),
    n_rates=st.integers(1, 3),
)
def test_item_counts_equal_a_walk(
    seed: int, n_sessions: int, no_click: float, n_rates: int
) -> None:
    log = random_log(seed, n_sessions=n_sessions, no_click=no_click)
    rows = (
        np.random.default_rng(seed).permutation(n_sessions)[: 1 + n_sessions // 2].astype(np.int32)
    )
    totals = TrainingTotals(
        np.zeros(log.n_items, np.int64), np.zeros(log.n_items, np.int64), np.zeros(log.n_items)
    )
    counted = count_items(rows, log.packed_sessions(), RATES[:n_rates], totals)
    walked = _walk(log, rows.tolist(), n_rates)
    for ours, theirs in zip(totals, walked, strict=True):
        np.testing.assert_allclose(ours, [theirs[item] for item in range(log.n_items)], rtol=1e-12)
    assert counted == (int(np.diff(log.session_offsets)[rows].sum()), walked[1].total())

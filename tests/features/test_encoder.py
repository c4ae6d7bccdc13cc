"""Encoding by chunks on several threads gives what encoding at once gives, to the bit; counting
kernels equal plain walks."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.errors import LogFormatError
from fastgaum.features import sessions
from fastgaum.features.encoder import Encoder
from fastgaum.features.fitting import fit_space, fit_training
from fastgaum.features.sessions import EncodedSessions
from fastgaum.features.standardise import Moments
from fastgaum.kernels.candidate_counts import TrainingTotals, count_items
from fastgaum.logs.log import SessionLog, SplitName
from fastgaum.logs.splits import resplit
from tests.builders import put, random_log, with_fields

ARRAYS = [field.name for field in dataclasses.fields(EncodedSessions)]


def rich_log(seed: int = 0) -> SessionLog:
    """Users with sessions in every split, no clicks, fields of every kind, a real order."""
    log = with_fields(random_log(seed, n_sessions=60, no_click=0.2), seed)
    users = np.random.default_rng(seed).integers(0, 9, log.n_sessions)
    return dataclasses.replace(log, users=users.astype(np.int32))


def assert_same(ours: EncodedSessions, theirs: EncodedSessions) -> None:
    for name in ARRAYS:
        one, other = getattr(ours, name), getattr(theirs, name)
        if name == "code":
            for field, values in vars(one).items():
                np.testing.assert_array_equal(values, getattr(other, field))
            continue
        np.testing.assert_array_equal(one, other, err_msg=name)
        # a log of one choice a display has no array of its displays
        assert one is other is None or one.dtype == other.dtype, name


@contextmanager
def small_chunks(most: int, n_threads: int = 1) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sessions, "BATCH_CANDIDATES", most)
            yield
    finally:
        torch.set_num_threads(before)


@settings(max_examples=4, deadline=None)
@given(
    protocol=st.sampled_from(["identity", "bags", "views"]),
    split=st.sampled_from(["train", "test", "all"]),
    foreign=st.booleans(),
    most=st.integers(20, 400),
    n_threads=st.integers(1, 5),
)
def test_chunks_and_threads_change_nothing(
    protocol: str, split: SplitName, foreign: bool, most: int, n_threads: int
) -> None:
    log = rich_log()
    space = fit_space(log, protocol, relations=True)
    read = resplit(log, 3) if foreign else log
    rows = read.sessions_in(split)
    whole = Encoder(space, read).encode(rows)
    with small_chunks(most, n_threads):
        assert_same(Encoder(space, read).encode(rows), whole)
        together = fit_training(log, protocol, relations=True)[1]
    with small_chunks(most):
        assert_same(together, fit_training(log, protocol, relations=True)[1])
    one = Encoder(space, read)
    parts = [one.encode(rows[at : at + 7]) for at in range(0, len(rows), 7)]
    for name in ("ids", "base", "context_ids", "context_numbers"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, name))
    items = one.encode_items(rows)
    np.testing.assert_array_equal(items.ids, whole.ids[:, :1])
    # in any order, too: an encoder keeps nothing of what it encoded before
    assert_same(one.encode(rows[::-1].copy()), Encoder(space, read).encode(rows[::-1].copy()))


def with_numbers_too_large(log: SessionLog, events: list[int]) -> SessionLog:
    price = np.ones(log.n_candidates, np.float32)
    price[np.asarray(log.display_offsets)[events]] = 1e31
    return put(log, candidate={"price": price})


def test_the_first_session_at_fault_is_named() -> None:
    good = with_numbers_too_large(random_log(3, n_sessions=60), [])
    space = fit_space(good)
    bad = with_numbers_too_large(good, [good.n_events // 3, good.n_events - 1])
    first = int(np.searchsorted(bad.session_offsets, bad.n_events // 3, "right")) - 1
    for n in (1, 2, 4):
        named = f"session '{bad.session_ids[first]}'"
        with small_chunks(25, n), pytest.raises(LogFormatError, match=named):
            Encoder(space, bad).encode(bad.sessions_in("all"))


@given(st.lists(st.integers(0, 5), max_size=6), st.integers(0, 2**16))
def test_moments_of_blocks_combine_to_those_of_all(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    blocks = [rng.normal(3, 2, (size, 4)).astype(np.float32) for size in sizes]
    moments, everything = Moments(), np.concatenate([np.empty((0, 4), np.float32), *blocks])
    for block in blocks:
        moments.add(block)
    assert moments.count == len(everything)
    if moments.count:
        np.testing.assert_allclose(moments.mean, everything.mean(0), rtol=1e-5)
        np.testing.assert_allclose(
            moments.squares, everything.var(0) * len(everything), rtol=1e-3, atol=1e-4
        )
        np.testing.assert_array_equal(moments.least, everything.min(0))
        np.testing.assert_array_equal(moments.most, everything.max(0))


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

"""What every figure keeps to, whatever a model says: drawn events, probabilities and users."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgaum.metrics.calibration import (
    brier_score,
    candidate_outcomes,
    choice_nll,
    expected_calibration_error,
    no_click_calibration,
)
from fastgaum.metrics.intervals import bootstrap_mean, paired_difference
from fastgaum.metrics.precision import micro_mean, precision_at_k, random_floor

SLACK = 1e-12


class Drawn:
    """Events with choices, two distributions over each display set and no click, users."""

    def __init__(self, draw: Any) -> None:
        sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=12))
        self.offsets = np.cumsum([0, *sizes]).astype(np.int32)
        self.choices = np.array([draw(st.integers(-1, size - 1)) for size in sizes], np.int32)
        self.users = np.array([draw(st.integers(0, 4)) for _ in sizes])
        rng = np.random.default_rng(draw(st.integers(0, 999)))
        concentration = draw(st.sampled_from([0.02, 1.0, 50.0]))
        parts = [rng.dirichlet(np.full(size + 1, concentration), 2) for size in sizes]
        self.probs = [np.concatenate([part[i, :-1] for part in parts]) for i in range(2)]
        self.none = [np.array([part[i, -1] for part in parts]) for i in range(2)]
        # ties, as a model makes them that knows little
        self.scores = np.round(self.probs[0], draw(st.integers(0, 3)))
        self.longest = max(sizes)


@st.composite
def events(draw: Any) -> Drawn:
    return Drawn(draw)


@given(events())
def test_precision_rises_with_k_from_0_to_1_and_chance_is_what_ties_score(drawn: Drawn) -> None:
    clicked = drawn.choices >= 0
    before = np.zeros(clicked.sum())
    for k in range(1, drawn.longest + 1):
        at_k = precision_at_k(drawn.scores, drawn.offsets, drawn.choices, k)
        assert np.isnan(at_k[~clicked]).all()
        assert (at_k[clicked] >= before - SLACK).all()
        assert (at_k[clicked] <= 1).all()
        before = at_k[clicked]
        floor = random_floor(drawn.offsets, drawn.choices, k)
        expected = np.minimum(k / np.diff(drawn.offsets)[clicked], 1)
        assert floor == (
            pytest.approx(expected.mean()) if clicked.any() else pytest.approx(np.nan, nan_ok=True)
        )
        ties = micro_mean(precision_at_k(0 * drawn.scores, drawn.offsets, drawn.choices, k))
        assert ties == pytest.approx(floor, nan_ok=True)
    assert (before == 1).all(), "everything is among as many as the longest display set holds"


@given(events(), st.integers(0, 9))
def test_an_interval_holds_its_mean_and_lies_among_the_users(drawn: Drawn, seed: int) -> None:
    values = precision_at_k(drawn.scores, drawn.offsets, drawn.choices, 1)
    interval = bootstrap_mean(values, drawn.users, draws=200, seed=seed)
    assert interval.n_events == (drawn.choices >= 0).sum()
    if interval.n_events == 0:
        assert np.isnan([interval.mean, interval.low, interval.high]).all()
        return
    by_user = [
        np.nanmean(part)
        for part in (values[drawn.users == u] for u in range(5))
        if not np.isnan(part).all()
    ]
    assert min(by_user) - SLACK <= interval.low <= interval.high <= max(by_user) + SLACK
    assert interval.mean == pytest.approx(np.nanmean(values))
    nothing = paired_difference(values, values, drawn.users, draws=200, seed=seed)
    assert (nothing.low, nothing.mean, nothing.high) == (0, 0, 0)


@given(events(), st.integers(1, 20))
def test_calibration_errors_are_shares(drawn: Drawn, bins: int) -> None:
    outcomes = candidate_outcomes(drawn.offsets, drawn.choices)
    assert outcomes.sum() == (drawn.choices >= 0).sum()
    assert 0 <= expected_calibration_error(drawn.probs[0], outcomes, bins) <= 1
    assert expected_calibration_error(outcomes, outcomes, bins) == 0
    judged = no_click_calibration(drawn.none[0], drawn.choices)
    for share in (judged.observed, judged.error, judged.worst_decile, *judged.decile_errors):
        assert np.isnan(share) or 0 <= share <= 1
    assert judged.error <= judged.worst_decile + SLACK, (
        "the whole is no further off than its worst part"
    )


@given(events(), st.sampled_from([0.0, 1e-6, 0.1]))
def test_likelihoods_are_those_of_probabilities(drawn: Drawn, floor: float) -> None:
    with np.errstate(divide="ignore"):
        log_probs, log_none = np.log(drawn.probs[0]), np.log(drawn.none[0])
    nll = choice_nll(log_probs, log_none, drawn.offsets, drawn.choices, min_prob=floor)
    assert (nll >= 0).all()
    assert (nll <= (-np.log(floor) + SLACK if floor else np.inf)).all()
    brier = brier_score(drawn.probs[0], drawn.none[0], drawn.offsets, drawn.choices)
    assert (brier >= 0).all()
    assert (brier <= 2 + SLACK).all()
    # what happened has probability p: the outcome alone misses by (1 − p)², the others by no more
    # in sum
    happened = np.exp(-choice_nll(log_probs, log_none, drawn.offsets, drawn.choices, min_prob=0))
    assert (brier >= (1 - happened) ** 2 - SLACK).all()
    assert (brier <= 2 * (1 - happened) ** 2 + SLACK).all()

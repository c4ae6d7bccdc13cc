"""What every figure keeps to, whatever a model says: drawn events and probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fastgaum.metrics.calibration import (
    MIN_PROB,
    brier_score,
    choice_nll,
)
from fastgaum.metrics.precision import precision_at_k

SLACK = 1e-12


class Drawn:
    """Events with choices, two distributions over each display set and no click, users."""

    def __init__(self, draw: Any) -> None:
        sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=12))
        self.offsets = np.cumsum([0, *sizes]).astype(np.int32)
        self.choices = np.array([draw(st.integers(-1, size - 1)) for size in sizes], np.int32)
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
        ties = precision_at_k(0 * drawn.scores, drawn.offsets, drawn.choices, k)
        chance = np.minimum(k / np.diff(drawn.offsets), 1)
        np.testing.assert_allclose(ties[clicked], chance[clicked])
    assert (before == 1).all(), "everything is among as many as the longest display set holds"


@given(events())
def test_likelihoods_are_those_of_probabilities(drawn: Drawn) -> None:
    with np.errstate(divide="ignore"):
        log_probs, log_none = np.log(drawn.probs[0]), np.log(drawn.none[0])
    nll = choice_nll(log_probs, log_none, drawn.offsets, drawn.choices)
    assert (nll >= 0).all()
    assert (nll <= -np.log(MIN_PROB) + SLACK).all()
    brier = brier_score(drawn.probs[0], drawn.none[0], drawn.offsets, drawn.choices)
    assert (brier >= 0).all()
    assert (brier <= 2 + SLACK).all()
    # what happened has probability p: the outcome alone misses by (1 − p)², the others by no more
    # in sum
    happened = np.exp(-nll)
    assert (brier >= (1 - happened) ** 2 - SLACK).all()
    assert (brier <= 2 * (1 - happened) ** 2 + 4 * MIN_PROB).all()

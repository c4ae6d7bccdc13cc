from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgaum.errors import NumericsError
from fastgaum.metrics.calibration import MIN_PROB, brier_score, choice_nll

OFFSETS = np.array([0, 2, 5], dtype=np.int32)
PROBS = np.array([0.2, 0.3, 0.1, 0.6, 0.1])
NO_CLICK = np.array([0.5, 0.2])


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=8),
    st.sampled_from([0.02, 1.0, 50.0]),
    st.integers(0, 999),
)
def test_nll_reads_the_outcome_and_brier_its_squared_distance(
    sizes: list[int], concentration: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    # the last entry of a display is no click
    parts = [rng.dirichlet(np.full(size + 1, concentration)) for size in sizes]
    choices = np.array([rng.integers(-1, size) for size in sizes])
    offsets = np.cumsum([0, *sizes]).astype(np.int32)
    probs, none = np.concatenate([p[:-1] for p in parts]), np.array([p[-1] for p in parts])
    likely = [p[choice] for p, choice in zip(parts, choices, strict=True)]
    distances = [
        ((p - np.eye(len(p))[choice]) ** 2).sum() for p, choice in zip(parts, choices, strict=True)
    ]
    with np.errstate(divide="ignore"):
        nll = choice_nll(np.log(probs), np.log(none), offsets, choices)
    np.testing.assert_allclose(nll, -np.log(np.maximum(likely, MIN_PROB)), atol=1e-12)
    found = brier_score(probs, none, offsets, choices)
    np.testing.assert_allclose(found, distances, atol=1e-12)


@pytest.mark.parametrize(("log_prob", "nll"), [(1e-7, 0.0), (-np.inf, np.log(1e6))])
def test_nll_is_never_negative_from_rounding_and_has_a_largest_value(
    log_prob: float, nll: float
) -> None:
    found = choice_nll(np.array([log_prob], np.float32), None, np.array([0, 1]), np.array([0]))
    assert found[0] == pytest.approx(nll)
    assert not np.signbit(found[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.5])
def test_nll_refuses_what_is_no_log_probability(bad: float) -> None:
    with pytest.raises(NumericsError, match="event 1 has the log-probability"):
        choice_nll(np.array([-1.0, bad]), None, np.array([0, 1, 2]), np.array([0, 0]))


def test_no_click_needs_a_probability() -> None:
    with pytest.raises(NumericsError, match="event 1 ends without a click"):
        choice_nll(np.log(PROBS), None, OFFSETS, np.array([0, -1]))


@pytest.mark.parametrize("where", ["candidate", "no click"])
def test_probabilities_that_are_not_finite_are_errors(where: str) -> None:
    probs, none = PROBS.copy(), NO_CLICK.copy()
    (probs if where == "candidate" else none)[1] = np.nan
    event = 0 if where == "candidate" else 1
    with pytest.raises(NumericsError, match=f"event {event} "):
        brier_score(probs, none, OFFSETS, np.array([0, 0]))

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.errors import NumericsError
from fastgaum.metrics.calibration import expected_calibration_error, no_click_calibration


def test_calibrated_probabilities_have_almost_no_error_and_shifted_ones_their_shift() -> None:
    rng = np.random.default_rng(0)
    probs = rng.uniform(0.2, 0.8, 60_000)
    outcomes = (rng.random(60_000) < probs).astype(float)
    assert expected_calibration_error(probs, outcomes) < 0.012
    assert np.isnan(expected_calibration_error(np.zeros(0), np.zeros(0)))
    assert expected_calibration_error(probs - 0.15, outcomes) == pytest.approx(0.15, abs=0.012)


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.2])
def test_what_is_no_probability_is_an_error(bad: float) -> None:
    with pytest.raises(NumericsError, match="case 1 has the probability"):
        expected_calibration_error(np.array([0.5, bad]), np.array([0.0, 1.0]))
    with pytest.raises(NumericsError, match="case 1 has the probability"):
        no_click_calibration(np.array([0.5, bad]), np.array([0, -1]))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40),
    st.integers(1, 50),
)
def test_cases_of_one_probability_share_their_outcomes(
    cases: list[tuple[int, bool]], bins: int
) -> None:
    """Against cases that are sorted one by one, each with the mean outcome of its probability."""
    probs, outcomes = (np.array(part, float) for part in zip(*cases, strict=True))
    probs /= 6
    shared = [outcomes[probs == prob].mean() for prob in np.sort(probs)]
    gaps = np.sort(probs) - shared
    n = min(bins, len(cases))
    edges = [len(cases) * i // n for i in range(n + 1)]
    errors = [abs(gaps[i:j].mean()) for i, j in pairwise(edges)]
    expected = np.average(errors, weights=np.diff(edges))
    assert expected_calibration_error(probs, outcomes, bins) == pytest.approx(expected, abs=1e-12)
    judged = no_click_calibration(probs, np.where(outcomes > 0, -1, 0), bins)
    assert judged.worst_decile == pytest.approx(max(errors), abs=1e-12)
    assert judged.observed == pytest.approx(outcomes.mean())
    assert judged.error == pytest.approx(abs(probs.mean() - outcomes.mean()), abs=1e-12)

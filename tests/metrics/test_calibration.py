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
    assert expected_calibration_error(probs - 0.15, outcomes) == pytest.approx(0.15, abs=0.012)


def test_bins_hold_equally_many_cases() -> None:
    # 4 cases in 2 bins: |0.1 - 0.5|, twice, and |0.8 - 1|, twice.
    probs, outcomes = np.array([0.9, 0.1, 0.7, 0.1]), np.array([1.0, 1.0, 1.0, 0.0])
    assert expected_calibration_error(probs, outcomes, bins=2) == pytest.approx((0.4 + 0.2) / 2)


def test_errors_in_opposite_directions_do_not_cancel_across_bins() -> None:
    probs, outcomes = np.repeat([0.3, 0.7], 100), np.repeat([0.0, 1.0], 100)
    assert expected_calibration_error(probs, outcomes, bins=1) == pytest.approx(0.0)
    assert expected_calibration_error(probs, outcomes, bins=2) == pytest.approx(0.3)


def test_order_never_matters_even_among_ties() -> None:
    rng = np.random.default_rng(2)
    probs, outcomes = rng.integers(0, 4, 50) / 4, rng.integers(0, 2, 50).astype(float)
    order = rng.permutation(50)
    assert expected_calibration_error(probs[order], outcomes[order]) == pytest.approx(
        expected_calibration_error(probs, outcomes), abs=1e-14
    )


def test_more_bins_than_cases_and_no_cases() -> None:
    assert expected_calibration_error(np.array([0.25]), np.array([1.0]), bins=15) == 0.75
    assert np.isnan(expected_calibration_error(np.zeros(0), np.zeros(0)))


def test_no_click_calibration_overall_and_by_decile() -> None:
    # Tenths of ten events each, predicted 0, 0.1, … and observed so, but for the last: 0.9 against
    # 0.5.
    probs = np.repeat(np.arange(10) / 10, 10)
    clicks = np.concatenate([np.where(np.arange(10) < d, -1, 0) for d in [*range(9), 5]])
    result = no_click_calibration(probs, clicks)
    np.testing.assert_allclose(result.decile_errors, [0.0] * 9 + [0.4], atol=1e-12)
    assert result.worst_decile == pytest.approx(0.4)
    assert result.observed == pytest.approx(0.41)
    assert result.error == pytest.approx(0.04)


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.2])
def test_what_is_no_probability_is_an_error(bad: float) -> None:
    with pytest.raises(NumericsError, match="case 1 has the probability"):
        expected_calibration_error(np.array([0.5, bad]), np.array([0.0, 1.0]))
    with pytest.raises(NumericsError, match="case 1 has the probability"):
        no_click_calibration(np.array([0.5, bad]), np.array([0, -1]))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40),
    st.integers(1, 20),
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
    np.testing.assert_allclose(judged.decile_errors, errors, atol=1e-12)

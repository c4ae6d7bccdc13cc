from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.metrics.intervals import (
    Interval,
    bootstrap_mean,
    bootstrap_means,
    paired_difference,
)
from fastgaum.metrics.precision import sums_by_user


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    covered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        sizes = rng.integers(1, 6, 80)
        rates = rng.beta(2, 2, 80)
        users = np.repeat(np.arange(80), sizes)
        hits = (rng.random(len(users)) < np.repeat(rates, sizes)).astype(float)
        found = bootstrap_mean(hits, users, draws=400, seed=seed)
        covered += found.low <= 0.5 <= found.high
    assert 180 <= covered <= 198


def test_a_paired_difference_is_narrower_than_two_single_intervals() -> None:
    rng = np.random.default_rng(6)
    hard = rng.random(400)
    users = rng.integers(0, 150, 400)
    first, second = hard + 0.01 * rng.random(400) + 0.02, hard + 0.01 * rng.random(400)
    difference = paired_difference(first, second, users)
    assert difference.low > 0
    assert difference.mean == pytest.approx((first - second).mean())
    single = bootstrap_mean(first, users)
    assert difference.high - difference.low < (single.high - single.low) / 10


def test_no_events_and_unequal_lengths() -> None:
    nothing = bootstrap_mean(np.array([np.nan]), np.array([0]))
    assert np.isnan(nothing.mean)
    assert (nothing.n_events, nothing.n_users) == (0, 0)
    assert bootstrap_mean(np.array([0.0, 1.0]), np.array([3, 3])) == Interval(0.5, 0.5, 0.5, 2, 1)
    with pytest.raises(ValueError, match="2 and 3 events"):
        paired_difference(np.zeros(2), np.zeros(3), np.zeros(2, dtype=int))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 99))
def test_draws_are_those_of_users_with_all_their_events(
    n_events: int, n_labels: int, seed: int
) -> None:
    """Against every draw written out. Columns that count other users are drawn on their own."""
    rng = np.random.default_rng(seed)
    users = rng.integers(0, n_labels, n_events)
    columns = [
        np.where(rng.random(n_events) < missing, np.nan, rng.normal(size=n_events))
        for missing in (0, 0, 0.5, 1)
    ]
    found = bootstrap_means(columns, users, draws=40, seed=seed)
    assert repr(found) == repr(
        [bootstrap_mean(values, users, draws=40, seed=seed) for values in columns]
    )
    for values, interval in zip(columns, found, strict=True):
        sums, counts = sums_by_user(values, users)
        assert (interval.n_users, interval.n_events) == (len(sums), counts.sum())
        if not len(sums):
            assert np.isnan([interval.mean, interval.low, interval.high]).all()
            continue
        draws = np.random.default_rng(seed).integers(
            len(sums), size=(40, len(sums)), dtype=np.int32
        )
        means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
        np.testing.assert_allclose(
            [interval.mean, interval.low, interval.high],
            [np.nanmean(values), *np.quantile(means, [0.025, 0.975])],
            atol=1e-12,
        )

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.metrics.intervals import (
    Interval,
    bootstrap_mean,
    bootstrap_means,
    cut,
    jackknife_error,
    paired_difference,
)


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


def test_no_events_and_unequal_lengths() -> None:
    nothing = bootstrap_mean(np.array([np.nan]), np.array([0]))
    assert np.isnan(nothing.mean)
    assert (nothing.n_events, nothing.n_users) == (0, 0)
    assert bootstrap_mean(np.array([0.0, 1.0]), np.array([3, 3])) == Interval(0.5, 0.5, 0.5, 2, 1)
    with pytest.raises(ValueError, match="2 and 3 events"):
        paired_difference(np.zeros(2), np.zeros(3), np.zeros(2, dtype=int))


def drawn_means(
    rows: np.ndarray, users: np.ndarray, draws: int, seed: int, part: int = 1
) -> list[float]:
    """The mean of each draw of users and seeds, (n_seeds, n_events), every draw written out."""
    counted = ~np.isnan(rows).any(axis=0)
    distinct, n = np.unique(users[counted]), max(1, len(rows) - 1)
    rng = np.random.default_rng(seed)
    drawn_users = rng.integers(len(distinct), size=(draws, len(distinct)), dtype=np.int32)
    even = np.full(len(rows), 1 / len(rows))
    times = np.random.default_rng([seed, part]).multinomial(n, even, draws)
    means = []
    for some, often in zip(drawn_users, times, strict=True):
        drawn_seeds = np.repeat(rows, often, axis=0)
        values = [drawn_seeds[:, counted & (users == distinct[user])] for user in some]
        means.append(float(np.concatenate(values, axis=1).mean()))
    return means


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 4), st.integers(0, 99))
def test_draws_are_those_of_users_with_all_their_events_and_of_seeds(
    n_events: int, n_labels: int, n_seeds: int, seed: int
) -> None:
    """Columns that count other users are drawn on their own; two models' seeds too."""
    rng = np.random.default_rng(seed)
    users = rng.integers(0, n_labels, n_events)
    columns = [
        np.where(rng.random(n_events) < missing, np.nan, rng.normal(size=(n, n_events)))
        for missing, n in ((0, n_seeds), (0, 1), (0.5, n_seeds), (1, 2))
    ]
    given = [rows[0] if len(rows) == 1 else rows for rows in columns]
    found = bootstrap_means(given, users, draws=40, seed=seed)
    assert repr(found) == repr(
        [bootstrap_mean(values, users, draws=40, seed=seed) for values in given]
    )
    for rows, interval in zip(columns, found, strict=True):
        counted = ~np.isnan(rows).any(axis=0)
        expected = (len(np.unique(users[counted])), counted.sum())
        assert (interval.n_users, interval.n_events) == expected
        if not counted.any():
            assert np.isnan([interval.mean, interval.low, interval.high]).all()
            continue
        means = drawn_means(rows, users, 40, seed)
        np.testing.assert_allclose(
            [interval.mean, interval.low, interval.high],
            [rows[:, counted].mean(), *np.quantile(means, [0.025, 0.975])],
            atol=1e-12,
        )
    ours, theirs = rng.normal(size=(2, n_seeds, n_events))
    paired = paired_difference(ours, theirs, users, draws=40, seed=seed)
    sides = [drawn_means(one, users, 40, seed, part) for part, one in ((1, ours), (2, theirs))]
    ends = np.quantile(np.subtract(*sides), [0.025, 0.975])
    np.testing.assert_allclose([paired.low, paired.high], ends, atol=1e-12)


def test_seeds_that_differ_widen_an_interval_as_much_as_they_differ() -> None:
    """Users alike: the interval is that of a mean of four seeds, and of their difference to
    another model's, whose seeds are others."""
    rng = np.random.default_rng(0)
    users, seeds = np.repeat(np.arange(100), 3), np.array([[0.0], [1.0], [2.0], [5.0]])
    rows = 0.01 * rng.random(300) + seeds
    over_users, both = (bootstrap_mean(one, users, draws=4000) for one in (rows.mean(axis=0), rows))
    assert over_users.mean == pytest.approx(both.mean)
    assert over_users.high - over_users.low < 0.01
    spread = np.std(seeds, ddof=1) / 2
    assert both.high - both.low == pytest.approx(2 * 1.96 * spread, rel=0.2)
    apart = paired_difference(rows, rows, users, draws=4000)
    assert apart.mean == 0
    assert apart.high - apart.low == pytest.approx(2 * 1.96 * spread * np.sqrt(2), rel=0.2)
    alike = np.repeat(rows[:1], 4, axis=0)
    single = bootstrap_mean(rows[0], users)
    assert bootstrap_mean(alike, users).low == pytest.approx(single.low)


@pytest.mark.parametrize("folds", [3, 5, 10])
def test_intervals_by_the_jackknife_cover_the_truth_in_95_of_100_samples(folds: int) -> None:
    """Of the mean of 100 users, by means that leave out a fold of them each; an interval about their
    mean as of means of other users does not."""
    n, rng = 4000, np.random.default_rng(0)
    users = rng.normal(1.0, 3.0, (n, 100))
    of_fits = np.stack(
        [users[:, np.arange(100) % folds != fold].mean(axis=1) for fold in range(folds)]
    )
    away = np.abs(of_fits.mean(axis=0) - 1.0)
    # a printed table of Student's t
    t = {3: 4.303, 5: 2.776, 10: 2.262}[folds]
    covered = (away <= t * jackknife_error(of_fits, folds)).mean()
    # four standard errors
    assert covered == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / n))
    unwidened = of_fits.std(axis=0, ddof=1) / np.sqrt(folds)
    assert (away <= t * unwidened).mean() < 0.85
    # the error of a mean of independent users, and of fewer fits than there are folds
    true = 3.0 / np.sqrt(100)
    for some in (of_fits, of_fits[1:]):
        assert np.sqrt((jackknife_error(some, folds) ** 2).mean()) == pytest.approx(true, rel=0.05)


def test_the_jackknife_s_error_on_known_numbers() -> None:
    """√((n − 1) / n · Σ (θ_g − θ)²), each column on its own: here the sums are 5 and 20."""
    values = np.array([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0], [4.0, 8.0]])
    np.testing.assert_allclose(jackknife_error(values, 4), np.sqrt(0.75 * np.array([5.0, 20.0])))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.integers(1, 8))
def test_cuts_keep_equals_together_and_leave_no_group_empty(levels: list[int], n: int) -> None:
    values = np.array(levels)
    edges, labels = cut(values, n)
    groups = np.searchsorted(edges, values)
    assert set(groups.tolist()) == set(range(len(labels)))
    assert len(labels) <= n
    for group, label in enumerate(labels):
        low, _, high = label.partition("–")
        assert values[groups == group].min() == int(low)
        assert values[groups == group].max() == int(high or low)

"""Intervals and tests against naive twins, and p-values that are uniform where nothing differs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fastgaum.logs.audit_rules import holm
from fastgaum.metrics.intervals import Statistic, cut
from fastgaum.reports.permutation_test import (
    compare_sides,
    distance,
    percentile_interval,
    permutation_test,
    permute_sides,
)


def drawn(
    seed: int, n_versions: int = 4, n_users: int = 5, n_groups: int = 3, test: str = "chi2"
) -> Statistic:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 5, (n_versions, n_users, n_groups)).astype(float)
    return Statistic(
        "s",
        "what",
        test,
        ("",) * n_groups,
        rng.binomial(counts.astype(int), 0.4).astype(float),
        counts,
    )  # type: ignore[arg-type]


def naive_distance(statistic: Statistic, picks: tuple[int, ...]) -> float:
    """The same, user by user and group by group."""
    n_versions, n_users, n_groups = statistic.sums.shape
    one, other = np.zeros((2, n_groups)), np.zeros((2, n_groups))
    for version, user in itertools.product(range(n_versions), range(n_users)):
        side = one if picks[user] == version else other
        side[0] += statistic.sums[version, user]
        side[1] += statistic.counts[version, user]
    a, b = one[0] / one[1], other[0] / other[1]
    if statistic.test == "mean":
        return float(abs(a[0] - b[0]))
    if statistic.test == "ks":
        return max(abs(a[: i + 1].sum() - b[: i + 1].sum()) for i in range(n_groups))
    return sum(
        n * (x - y) ** 2 / ((s + t) / (n + m))
        for x, y, s, t, n, m in zip(a, b, one[0], other[0], one[1], other[1], strict=True)
        if s + t > 0
    )


@pytest.mark.parametrize("test", ["mean", "chi2", "ks"])
@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_the_test_is_the_share_of_permutations_that_differ_as_much(test: str, seed: int) -> None:
    statistic = drawn(seed, n_versions=2, n_users=4, test=test)
    every = [naive_distance(statistic, picks) for picks in itertools.product(range(2), repeat=4)]
    found, p = permutation_test(statistic, 4000, seed)
    assert found == pytest.approx(naive_distance(statistic, (0,) * 4))
    exact = float(np.mean([value >= found - 1e-9 for value in every]))
    assert p == pytest.approx(exact, abs=0.04)
    first, rest = next(permute_sides(statistic, 3, seed))
    assert first[0][0] == pytest.approx(statistic.sums[0].sum(axis=0))
    assert rest[1][0] == pytest.approx(statistic.counts[1:].sum(axis=(0, 1)))


def test_p_is_uniform_where_the_log_is_one_more_draw_and_small_where_it_is_not() -> None:
    alike = [
        permutation_test(drawn(seed, n_users=30, n_versions=6, test="mean"), 199, seed)[1]
        for seed in range(200)
    ]
    # p takes steps of 1 / 200: it is at most as uniform
    assert stats.kstest(alike, "uniform").pvalue > 0.01
    assert np.mean(np.array(alike) <= 0.05) < 0.09
    other = drawn(0, n_users=30, n_versions=6, test="mean")
    other.sums[0] = other.counts[0] * 0.8
    assert permutation_test(other, 199, 0)[1] == 1 / 200


def test_intervals_are_those_of_drawn_users() -> None:
    statistic = drawn(1, n_users=12, n_groups=2)
    groups = compare_sides(statistic, draws=4000, seed=3)["groups"]
    found = {name: np.array([one[name] for one in groups]) for name in groups[0] if name != "label"}
    assert found["logged"] == pytest.approx(
        statistic.sums[0].sum(axis=0) / statistic.counts[0].sum(axis=0)
    )
    more = statistic.sums[1:].sum(axis=(0, 1)) / statistic.counts[1:].sum(axis=(0, 1))
    assert found["simulated"] == pytest.approx(more)
    assert found["difference"] == pytest.approx(found["simulated"] - found["logged"])
    rng = np.random.default_rng(9)
    naive = []
    for _ in range(4000):
        users = rng.integers(12, size=12)
        logged = statistic.sums[0, users].sum(axis=0) / statistic.counts[0, users].sum(axis=0)
        simulated = statistic.sums[1:, users].sum(axis=(0, 1)) / statistic.counts[1:, users].sum(
            axis=(0, 1)
        )
        naive.append((logged, simulated, simulated - logged))
    for i, name in enumerate(("logged_ci", "simulated_ci", "difference_ci")):
        assert (
            pytest.approx(np.quantile([one[i] for one in naive], [0.025, 0.975], axis=0), abs=0.02)
            == found[name].T
        )


def test_what_is_not_counted_is_no_evidence() -> None:
    statistic = drawn(0, test="mean", n_groups=1)
    statistic.sums[0], statistic.counts[0] = 0.0, 0.0
    found = compare_sides(statistic, draws=50)
    assert np.isnan([found["distance"], found["p"], found["groups"][0]["logged"]]).all()
    assert not np.isnan(found["groups"][0]["simulated"])
    assert np.isnan(percentile_interval(np.full((3, 1), np.nan))).all()
    both = np.array([[1.0, 0.0]]), np.array([[2.0, 0.0]])
    assert distance(both, both, "chi2").tolist() == [0.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_against_its_definition(values: list[float]) -> None:
    adjusted = holm(values)
    order = sorted(range(len(values)), key=lambda i: values[i])
    for rank, i in enumerate(order):
        steps = [min(1.0, (len(values) - j) * values[order[j]]) for j in range(rank + 1)]
        assert adjusted[i] == pytest.approx(max(steps))


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

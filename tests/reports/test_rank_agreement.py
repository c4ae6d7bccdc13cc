"""Rank correlations against scipy's, and what policies recommend."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fastgaum.reports.rank_agreement import (
    agreement,
    greedy_policy,
    kendall,
    softmax_policy,
    spearman,
)
from tests.reports.test_permutation_test import drawn


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 9), st.integers(2, 6))
def test_rank_correlations_are_scipy_s(seed: int, n: int, levels: int) -> None:
    one, other = np.random.default_rng(seed).integers(levels, size=(2, 3, n)).astype(float)
    rho, tau = spearman(one, other), kendall(one, other)
    for i in range(3):
        if len(set(one[i])) == 1 or len(set(other[i])) == 1:
            assert np.isnan([rho[i], tau[i]]).all()
            continue
        assert rho[i] == pytest.approx(stats.spearmanr(one[i], other[i]).statistic)
        assert tau[i] == pytest.approx(stats.kendalltau(one[i], other[i]).statistic)


def test_agreement_knows_what_noise_alone_would_give() -> None:
    alike = agreement(drawn(0, n_versions=9, n_users=400, n_groups=6), draws=300)["spearman"]
    # policies of one value: the order is chance
    assert alike["ci"][0] < alike["value"] < 1.0
    assert alike["expected"] == pytest.approx(0.0, abs=0.3)
    assert alike["p"] > 0.05
    apart = drawn(0, n_versions=9, n_users=400, n_groups=6)
    chances = np.linspace(0.1, 0.9, 6)
    apart.sums[:] = np.random.default_rng(1).binomial(apart.counts.astype(int), chances)
    assert agreement(apart, draws=300)["kendall"]["value"] == 1.0
    apart.sums[0] = apart.sums[0, :, ::-1] / apart.counts[0, :, ::-1] * apart.counts[0]
    turned = agreement(apart, draws=300)["kendall"]
    assert turned["value"] == -1.0
    assert turned["expected"] > 0.9
    assert turned["p"] == 1 / 301


def test_policies_that_are_all_worth_the_same_have_no_order() -> None:
    some = drawn(0, n_versions=9, n_users=40, n_groups=6)
    some.sums[:], some.counts[:] = 0.0, 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nothing = agreement(some, draws=9)["spearman"]
    assert np.isnan([nothing[one] for one in ("value", "expected", "p")]).all()
    # most permutations have a side without a click
    some.sums[:2, 0] = np.arange(6), np.arange(6)[::-1]
    found = agreement(some, draws=99)["kendall"]
    assert (found["value"], found["p"]) == (-1.0, 1.0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_policies_recommend_one_item_of_each_display(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, 6)
    offsets = np.append(0, np.cumsum(sizes)).astype(np.int32)
    scores = rng.integers(3, size=offsets[-1]).astype(float)
    for a, b in itertools.pairwise(offsets):
        best = scores[a:b] == scores[a:b].max()
        assert greedy_policy(scores, offsets)[a:b] == pytest.approx(best / best.sum())
        weights = np.exp(scores[a:b])
        assert softmax_policy(scores, offsets)[a:b] == pytest.approx(weights / weights.sum())
    impossible = np.full(len(scores), -np.inf)
    assert softmax_policy(impossible, offsets) == pytest.approx(1 / np.repeat(sizes, sizes))

"""Weights of slates, where every slate can be written out: of clicks, of sums over places, of
residuals."""

from __future__ import annotations

import dataclasses
from itertools import combinations, permutations

import numpy as np
import pytest

from fastgaum.logs.log import SessionLog
from fastgaum.ope.estimators import WeightedEvents
from fastgaum.ope.importance_weights import weigh_events
from fastgaum.ope.replay import Target, replay_policy
from fastgaum.policies.heuristics import Popular, RandomPolicy
from tests.builders import log_of

ITEMS = 6
POOL = np.arange(ITEMS, dtype=np.int32)
BEST = Popular(np.arange(ITEMS, 0, -1).astype(np.float32))
"""shows items 0, 1, 2, … always"""


def every_slate(k: int, ordered: bool = False, times: int = 1) -> SessionLog:
    """A log that shows every slate of k items so often, each to a user of its own."""
    slates = list((permutations if ordered else combinations)(range(ITEMS), k))
    return log_of([[(list(slate), -1)] for slate in slates * times], ordered=ordered)


def weighed(
    log: SessionLog, target: Target, propensities: np.ndarray | None = None
) -> WeightedEvents:
    shown = replay_policy(log, target, None, POOL, np.ones(ITEMS))
    return weigh_events(log, target, shown, POOL, np.zeros(log.n_events), propensities=propensities)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("k", [1, 2, 3, 6])
@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_weighted_slates_are_those_of_the_target(k: int, epsilon: float, ordered: bool) -> None:
    """Over all slates, Σ μ w f = Σ π f for any worth f of slates, Σ μ v f = Σ π f for a sum of
    items' worths, and E[w²] and v are those of the law and of its pseudo-inverse."""
    log, target = every_slate(k, ordered), Target(BEST, epsilon)
    found = weighed(log, target)
    slates = log.items.reshape(-1, k)
    n = len(slates)
    pi = np.full(n, epsilon / n)
    pi[(slates == np.arange(k)).all(axis=1)] += 1.0 - epsilon
    worth = np.random.default_rng(0).random(n)
    assert found.weights.values @ worth / n == pytest.approx(pi @ worth, rel=1e-12)
    v = found.slate_weights.values
    sums = np.random.default_rng(1).random(ITEMS)[slates].sum(axis=1)
    assert v @ sums / n == pytest.approx(pi @ sums, rel=1e-12)
    for side in (found.weights, found.slate_weights):
        assert side.effective == pytest.approx(n**2 / (side.values**2).sum(), rel=1e-9)
    marks = np.zeros((n, ITEMS))
    np.put_along_axis(marks, slates, 1.0, axis=1)
    inverse = np.linalg.pinv(marks.T @ marks / n)
    np.testing.assert_allclose(v, (pi @ marks) @ inverse @ marks.T, atol=1e-9)
    if k == 1:
        np.testing.assert_allclose(v, found.weights.values, atol=1e-12)
    told = weighed(log, target, np.full(n, 1 / n))
    np.testing.assert_allclose(told.weights.values, found.weights.values, rtol=1e-12)
    assert told.slate_weights is told.residual_weights is None


def test_logged_propensities_weigh_any_law() -> None:
    """Also one that never shows an item, whose share is told."""
    log, target = every_slate(2), Target(BEST, 0.5)
    slates = log.items.reshape(-1, 2)
    mu = np.array([3.0, 0.5, 1.0, 2.0, 0.2, 1.5])[slates].prod(axis=1)
    mu /= mu.sum()
    worth = np.random.default_rng(0).random(15)
    found = weighed(log, target, mu)
    pi = np.full(15, 0.5 / 15)
    pi[0] += 0.5
    assert mu @ (found.weights.values * worth) == pytest.approx(pi @ worth, rel=1e-12)
    assert (found.unseen == 0.0).all()
    lacking = log_of([[([1, 2], -1)], [([3, 4], -1)], [([0, 5], -1)]])
    part = dataclasses.replace(lacking, items=np.array([1, 2, 3, 4, 1, 5], np.int32))
    # item 0 is in every slate of the policy, and in a third of the random ones
    assert weighed(part, target, np.ones(3)).unseen == pytest.approx(0.5 + 0.5 / 3, abs=0.02)


def test_long_displays_in_order_have_weights() -> None:
    """Of 21 items there are more orders than 64 bits hold."""
    log, target = log_of([[(list(range(21)), -1)]], ordered=True), Target(RandomPolicy())
    pool = np.arange(21, dtype=np.int32)
    shown = replay_policy(log, target, None, pool, np.ones(21))
    one = np.ones(1)
    found = weigh_events(log, target, shown, pool, one, propensities=one).weights.values
    assert found == pytest.approx(1 / np.prod(np.arange(1.0, 22.0)))


def test_matches_are_counted_unless_hardly_any_slate_is_the_policy_s() -> None:
    log = every_slate(2, times=3)
    assert weighed(log, Target(BEST, 0.5)).matches == 3
    assert weighed(log, Target(BEST, 0.99)).matches == np.inf
    assert weighed(log, Target(RandomPolicy())).matches == np.inf


def with_chances(log: SessionLog, own: np.ndarray, logged: np.ndarray) -> WeightedEvents:
    target = Target(BEST)
    shown = replay_policy(log, target, None, POOL, np.ones(ITEMS))
    shown = dataclasses.replace(shown, own=own, logged=logged)
    return weigh_events(log, target, shown, POOL, np.zeros(log.n_events), clicks=True)


def test_slate_weights_of_residuals_ask_for_sums_of_odds() -> None:
    """Where users choose by softmax and the world is nearly right, `dr-pi` has no error of first
    order: the world's utilities are off by 1 %, the value by less than 1 % of that."""
    log = every_slate(2)
    slates = log.items.reshape(-1, 2)
    odds = np.array([1.5, 0.4, 0.8, 0.3, 0.6, 0.2])
    errors = np.random.default_rng(0).normal(size=ITEMS)

    def clicks(power: float, items: np.ndarray) -> np.ndarray:
        total = (odds * np.exp(power * errors))[items].sum(axis=-1)
        return np.asarray(total / (1 + total))

    off = []
    for power in (0.02, 0.01):
        own, logged = clicks(power, np.arange(2)), clicks(power, slates)
        weights = with_chances(log, np.full(15, own), logged).residual_weights.values
        robust = own + (weights * (clicks(0.0, slates) - logged)).mean()
        off.append(abs(robust - clicks(0.0, np.arange(2))))
        assert off[-1] < 0.02 * abs(own - clicks(0.0, np.arange(2)))
    # of second order: half the error of the world, a quarter of that of the value
    assert off[1] == pytest.approx(off[0] / 4, rel=0.1)


def test_residuals_have_support_of_their_own() -> None:
    """Where each slate is logged once, the log is worth n E[v′]² / E[v′²] events; where all slopes
    are equal, what it is worth under v."""
    log, rng = every_slate(2), np.random.default_rng(0)
    found = with_chances(log, np.full(15, 0.4), rng.uniform(0.0, 0.9, 15)).residual_weights
    expected = 15 * found.values.mean() ** 2 / (found.values**2).mean()
    assert found.effective == pytest.approx(expected)
    equal = with_chances(log, np.full(15, 0.4), np.full(15, 0.4))
    assert equal.residual_weights.effective == pytest.approx(equal.slate_weights.effective)
    np.testing.assert_allclose(equal.residual_weights.values, equal.slate_weights.values)

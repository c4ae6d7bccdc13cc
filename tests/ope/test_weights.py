"""Weights of slates, where every slate can be written out: of clicks, of sums over places, of residuals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fastgaum.ope.display_law import DisplayLaw
from fastgaum.ope.shown import replay_policy
from fastgaum.ope.targets import Target
from fastgaum.ope.weights import LoggedDisplays, LoggedEvents, weigh_events
from tests.builders import log_of
from tests.ope.slates import BEST, ITEMS, WEIGHTS, chances, every_slate, weighed


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_weighted_slates_are_those_of_the_target(k: int, epsilon: float, ordered: bool) -> None:
    """Over all slates, Σ μ w f = Σ π f for any worth f of slates, Σ μ v f = Σ π f for a sum of
    items' worths, and E[w²] is what the law says."""
    log, target = every_slate(k, ordered), Target(BEST, epsilon)
    found = weighed(log, target, LoggedDisplays("uniform"))
    mu, slates = chances(log, k), log.items.reshape(-1, k)
    pi = np.full(len(mu), epsilon / len(mu))
    pi[(slates == np.arange(k)).all(axis=1)] += 1.0 - epsilon
    worth = np.random.default_rng(0).random(len(mu))
    assert mu @ (found.weights.values * worth) == pytest.approx(pi @ worth, rel=1e-12)
    sums = np.random.default_rng(1).random(ITEMS)[slates].sum(axis=1)
    assert mu @ (found.slate_weights.values * sums) == pytest.approx(pi @ sums, rel=1e-12)
    for side in (found.weights, found.slate_weights):
        assert side.effective == pytest.approx(len(mu) / (mu @ side.values**2), rel=1e-9)
    residual = worth - 0.3
    robust = 0.3 + mu @ (found.weights.values * residual)
    assert robust == pytest.approx(pi @ worth, rel=1e-12)


@pytest.mark.parametrize("epsilon", [0.0, 0.4])
def test_slate_weights_of_one_place_are_weights(epsilon: float) -> None:
    found = weighed(every_slate(1), Target(BEST, epsilon), LoggedDisplays("uniform"))
    np.testing.assert_allclose(found.slate_weights.values, found.weights.values, atol=1e-12)


def test_logged_propensities_give_the_weights_of_their_law() -> None:
    log, target = every_slate(2), Target(BEST, 0.5)
    by_law = weighed(log, target, LoggedDisplays("uniform"))
    by_column = weighed(log, target, LoggedDisplays(propensities=chances(log, 2)))
    np.testing.assert_allclose(by_column.weights.values, by_law.weights.values, rtol=1e-12)
    assert "needs a law of displays" in by_column.slate_weights.why


def test_long_displays_in_order_have_weights() -> None:
    """Of 21 items there are more orders than 64 bits hold."""
    log = log_of([[(list(range(21)), -1), ([21], -1)]], ordered=True)
    events = LoggedEvents(log, LoggedDisplays("uniform"))
    assert events.log_orders(21) == pytest.approx(np.log(np.arange(1.0, 22.0)).sum())


def test_slate_weights_of_residuals_ask_for_sums_of_odds() -> None:
    """Where users choose by softmax and the world is nearly right, `dr-pi` has no error of first
    order: the world's utilities are off by 1 %, the value by less than 1 % of that."""
    k, log = 2, every_slate(2)
    slates, mu = log.items.reshape(-1, k), chances(log, k)
    odds = np.array([1.5, 0.4, 0.8, 0.3, 0.6, 0.2])
    errors = np.random.default_rng(0).normal(size=ITEMS)

    def clicks(power: float, items: np.ndarray) -> np.ndarray:
        total = (odds * np.exp(power * errors))[items].sum(axis=-1)
        return np.asarray(total / (1 + total))

    off = []
    for power in (0.02, 0.01):
        own = clicks(power, np.arange(k))
        logged = clicks(power, slates)
        slopes = np.stack([np.full(len(mu), (1 - own) ** 2), np.ones(len(mu)), (1 - logged) ** 2])
        target = Target(BEST)
        events = LoggedEvents(log, LoggedDisplays("uniform"))
        events.law = DisplayLaw(WEIGHTS)
        played = replay_policy(log, target, None, events.pool)
        shown = dataclasses.replace(
            played, promised=np.full(len(mu), own), logged=logged, slopes=slopes
        )
        found = weigh_events(events, target, shown, np.ones(log.n_candidates))
        robust = own + mu @ (found.residual_weights.values * (clicks(0.0, slates) - logged))
        off.append(abs(robust - clicks(0.0, np.arange(k))))
        assert off[-1] < 0.02 * abs(own - clicks(0.0, np.arange(k)))
    # of second order: half the error of the world, a quarter of that of the value
    assert off[1] == pytest.approx(off[0] / 4, rel=0.1)


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_residuals_have_support_of_their_own(epsilon: float) -> None:
    """Where each slate is (nearly) as likely and logged once, the log is worth n E[v′]² / E[v′²]
    events; where all slopes are 1, what it is worth under v."""
    log, target, rng = every_slate(2), Target(BEST, epsilon), np.random.default_rng(0)
    events = LoggedEvents(log, LoggedDisplays("uniform"))
    assert events.even
    events.law = DisplayLaw(1.0 + 1e-9 * np.arange(ITEMS))
    assert not events.even
    played = replay_policy(log, target, None, events.pool)
    slopes = np.stack([np.full(15, 0.3), np.full(15, 0.7), rng.uniform(0.01, 1.0, 15)])
    found = weigh_events(
        events, target, dataclasses.replace(played, slopes=slopes), np.ones(log.n_candidates)
    ).residual_weights
    expected = 15 * found.values.mean() ** 2 / (found.values**2).mean()
    assert found.effective == pytest.approx(expected)
    assert found.effective < 14
    # a law that the log at hand is no exact picture of: v knows its expected squares, and so v′
    events.law = DisplayLaw(WEIGHTS)
    even = weigh_events(events, target, played, np.ones(log.n_candidates))
    assert even.residual_weights.effective == pytest.approx(even.slate_weights.effective)
    np.testing.assert_allclose(even.residual_weights.values, even.slate_weights.values)

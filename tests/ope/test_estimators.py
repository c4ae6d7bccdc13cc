"""Estimators on events whose weights are given: formulas, intervals, and what has no value."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fastgaum.ope.estimators import (
    ImportanceWeights,
    ValueEstimate,
    WeightedEvents,
    ratio_interval,
    value_estimates,
)


def events_of(n: int, *, seed: int = 0, users: int = 40) -> WeightedEvents:
    """Events with weights of mean 1."""
    rng = np.random.default_rng(seed)
    w = rng.exponential(size=n)
    w /= w.mean()
    return WeightedEvents(
        rng.integers(users, size=n),
        (rng.random(n) < 0.4).astype(np.float64),
        np.zeros(n),
        ImportanceWeights(w, n / 2),
        ImportanceWeights(w, n / 2),
        ImportanceWeights(w, n / 2),
        own=rng.random(n),
        at_random=np.zeros(n),
        logged=rng.random(n),
    )


def by_name(events: WeightedEvents) -> dict[str, ValueEstimate]:
    return {one.estimator: one for one in value_estimates(events)}


def test_doubly_robust_is_the_world_where_the_world_is_right() -> None:
    events = events_of(500)
    found = by_name(dataclasses.replace(events, logged=events.rewards))
    for name in ("dr", "dr-pi"):
        assert found[name].value == found["dm"].value
        assert found[name].ci == found["dm"].ci
    worldless = by_name(dataclasses.replace(events, own=np.full(500, np.nan)))
    assert [name for name, one in worldless.items() if one.value is None] == ["dr-pi", "dr", "dm"]
    assert worldless["snips"].value == pytest.approx(
        (events.weights.values * events.rewards).sum() / events.weights.values.sum()
    )


def test_a_world_is_corrected_in_its_mean_odds() -> None:
    """(D + t) / (1 + t), and its interval is that of a bootstrap over users."""
    events = events_of(3000, seed=1, users=300)
    v = np.random.default_rng(2).exponential(0.5, 3000)
    events = dataclasses.replace(
        events, residual_weights=ImportanceWeights(v, 1500.0), own=0.3 + 0.2 * events.own
    )
    corrections = v * (events.rewards - events.logged)

    def value(rows: np.ndarray) -> float:
        d, c = events.own[rows].mean(), corrections[rows].mean()
        return float((d + c / (1 - d)) / (1 + c / (1 - d)))

    found = by_name(events)["dr-pi"]
    assert found.value == pytest.approx(value(np.arange(3000)), rel=1e-12)
    rng, by_user = np.random.default_rng(3), np.argsort(events.users, kind="stable")
    rows_of = np.split(by_user, np.cumsum(np.bincount(events.users))[:-1])
    drawn = [
        value(np.concatenate([rows_of[user] for user in rng.integers(300, size=300)]))
        for _ in range(400)
    ]
    np.testing.assert_allclose(found.ci, np.quantile(drawn, [0.025, 0.975]), atol=0.01)
    worth = by_name(dataclasses.replace(events, clicks=False))["dr-pi"]
    assert worth.value == pytest.approx(events.own.mean() + corrections.mean())


@pytest.mark.parametrize("promised", [0.1, 0.45])
def test_a_large_correction_makes_no_jump(promised: float) -> None:
    """The more is taken back, the lower the value, by steps as small; its spread has no jump too,
    and follows from its slopes in D and C."""
    n = 100
    tilt = np.tile([-0.05, 0.05], n // 2)
    edge = -promised * (1.0 - promised) / 2.0

    def corrected(d: float, c: float) -> ValueEstimate:
        # D and C of these events are d and c
        events = events_of(n, users=n)
        return by_name(
            dataclasses.replace(
                events,
                users=np.arange(n),
                own=d + tilt,
                logged=events.rewards - c,
                residual_weights=ImportanceWeights(np.ones(n), float(n)),
                # below 0 too, where a value of clicks would be refused
                rewards_within=(-1.0, 1.0),
            )
        )["dr-pi"]

    found = [corrected(promised, edge + 0.001 * step) for step in range(-400, 100)]
    steps = np.diff([one.value for one in found])
    assert (steps > 0).all()
    assert np.abs(np.diff(steps)).max() < 1e-5
    assert np.abs(np.diff([one.ci[1] - one.ci[0] for one in found])).max() < 1e-3
    for c in (edge - 0.1, edge + 0.01):
        by_d = (corrected(promised + 1e-5, c).value - corrected(promised - 1e-5, c).value) / 2e-5
        _, low, high = ratio_interval(tilt, None, np.arange(n))
        one = corrected(promised, c)
        assert one.ci[1] - one.ci[0] == pytest.approx(abs(by_d) * (high - low), rel=1e-3)


def test_what_the_log_cannot_say_has_no_value() -> None:
    few = events_of(60)
    assert "the log is worth 30.0 events of this policy" in by_name(few)["ips"].why
    assert by_name(few)["dm"].value is not None
    unseen = dataclasses.replace(events_of(500), unseen=np.full(500, 0.06))
    assert "6 % of its displays hold items that are never shown" in by_name(unseen)["pi"].why


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_weights_of_another_mean_than_1_give_no_value(factor: float) -> None:
    """The interval of the mean excludes 1: nothing that is made of these weights has a value."""
    events = events_of(2000)
    w, n = events.weights.values * factor, 2000.0
    wrong = ImportanceWeights(w, n)
    found = by_name(dataclasses.replace(events, weights=wrong))
    for name in ("ips", "snips", "dr"):
        assert (found[name].value, found[name].ci[0], found[name].effective_events) == (None,) * 3
        assert f"the mean weight is {factor:.3f} (" in found[name].why
        assert "1 is expected" in found[name].why
    assert None not in (found["pi"].value, found["dr-pi"].value, found["dm"].value)
    found = by_name(dataclasses.replace(events, slate_weights=wrong))
    for name in ("pi", "dr-pi"):
        assert (found[name].value, found[name].ci[0], found[name].effective_events) == (None,) * 3
        assert f"the mean weight is {factor:.3f} (" in found[name].why


def test_a_single_user_has_values_without_intervals_unless_weights_are_wrong() -> None:
    """A scale of the weights is doubted as that of several users is."""
    events = dataclasses.replace(events_of(2000), users=np.zeros(2000, np.int64))
    found = by_name(events)["ips"]
    assert found.value is not None
    assert np.isnan(found.ci).all()
    wrong = ImportanceWeights(events.weights.values * 2, 1000.0)
    assert "mean weight is 2.0" in by_name(dataclasses.replace(events, weights=wrong))["ips"].why


def test_what_the_log_never_shows_may_lack_in_the_mean_weight() -> None:
    events = events_of(2000)
    less = ImportanceWeights(0.96 * events.weights.values, 1000.0)
    lacking = dataclasses.replace(events, users=np.arange(2000) % 900, weights=less)
    even = dataclasses.replace(lacking, weights=ImportanceWeights(np.full(2000, 0.96), 2000.0))
    assert "0.960 (0.960 to 0.960) and 1 is expected" in by_name(even)["ips"].why
    never = dataclasses.replace(even, unseen=np.full(2000, 0.045))
    assert by_name(never)["ips"].why == ""


def test_slates_that_the_log_hardly_shows_have_no_weights() -> None:
    """However many events the weights are worth: the policy's own part hangs on a few."""
    few = by_name(dataclasses.replace(events_of(2000), matches=4))
    for name in ("ips", "snips", "dr"):
        assert few[name].value is None
        assert "the log shows the policy's own slate in 4 events, 50 are required" in few[name].why
    assert few["dr-pi"].value is not None


def test_random_displays_are_no_matter_of_odds() -> None:
    """The value is that of the policy's own displays and that of the log, by their shares."""
    events, share = events_of(3000), 0.6
    own = dataclasses.replace(events, own=0.3 + 0.2 * events.own)
    at_random = 0.4 + 0.1 * own.logged
    of_log = float((at_random + own.rewards - own.logged).mean())
    for s in (share, 1.0):
        values = (1 - s) * own.residual_weights.values + s
        mixed = dataclasses.replace(
            own,
            own=(1 - s) * own.own,
            residual_weights=ImportanceWeights(values, 3000.0),
            share=s,
            at_random=s * at_random,
        )
        expected = (1 - s) * by_name(own)["dr-pi"].value + s * of_log
        assert by_name(mixed)["dr-pi"].value == pytest.approx(expected, rel=1e-12)


def test_what_no_display_can_earn_is_no_value() -> None:
    """A value above the largest reward is refused; an interval that ends above is cut."""
    always = dataclasses.replace(events_of(2000), rewards=np.ones(2000))

    def weighted(mean: float) -> dict[str, ValueEstimate]:
        w = ImportanceWeights(mean * always.weights.values, 1000.0)
        return by_name(dataclasses.replace(always, weights=w, slate_weights=w))

    for name in ("ips", "pi"):
        above = weighted(1.01)[name]
        assert (above.value, above.ci) == (None, (None, None))
        assert "impossible: 1.01 a display, which earns from 0 to 1" in above.why
        below = weighted(0.99)[name]
        assert below.value == pytest.approx(0.99)
        assert below.ci[0] < 0.99
        assert below.ci[1] == 1.0
    assert weighted(1.01)["snips"].value == pytest.approx(1.0)
    dear = dataclasses.replace(always, rewards=np.full(2000, 5.0), rewards_within=(0.0, 8.0))
    assert by_name(dear)["ips"].value == pytest.approx(5.0)
    assert by_name(dear)["ips"].why == ""


def test_frequent_clicks_warn_of_pi() -> None:
    events = events_of(2000)
    assert "too high for a good policy: 39 % of displays are clicked" in by_name(events)["pi"].why
    assert "read dr-pi" in by_name(events)["pi"].why
    rare = dataclasses.replace(events, rewards=events.rewards * (np.arange(2000) % 2))
    assert by_name(rare)["pi"].why == ""
    assert next(iter(by_name(events))) == "dr-pi"

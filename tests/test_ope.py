"""Off-policy values: weights of slates that can all be written out, corrections, what the log cannot
say, and learned users who follow the logged ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import combinations, permutations
from typing import Any

import numpy as np
import polars as pl
import pytest

from fastgaum.arrays import IntArray
from fastgaum.errors import ConfigError
from fastgaum.logs.clicks import CLICKS_SO_FAR
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.log import SessionLog
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.user_model import UserModel
from fastgaum.ope import (
    Target,
    corrected,
    not_random,
    off_policy_values,
    ratio_interval,
    replay_policy,
    weigh_events,
)
from fastgaum.policies.base import Observation, Policy, Transition
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.heuristics import Greedy, Popular, RandomPolicy
from fastgaum.policies.registry import untrained
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.pools import Pool
from fastgaum.worlds.replay import world_of
from fastgaum.worlds.world_set import WorldSet
from tests.builders import log_of, put
from tests.policies.small_world import TiringPopulation, TiringWorld

ITEMS = 6


class FollowedWorld(TiringWorld):
    """Tiring users, who can be told what to choose, and who know their items in another order."""

    def __init__(self, n_items: int = ITEMS) -> None:
        super().__init__(n_items)
        self.item_ids = self.item_ids.reverse()

    def population(self, n: int) -> Followed:
        return Followed(self, n)


class Followed(TiringPopulation):
    def reset(self, keys: np.ndarray, rows: IntArray | None = None) -> None:
        self._states[slice(None) if rows is None else rows] = 0

    def follow(
        self,
        slates: IntArray,
        places: IntArray,
        active: np.ndarray | None = None,
        *,
        outcomes: np.ndarray | None = None,
    ) -> None:
        active = np.ones(self.n, np.bool_) if active is None else active
        self._move(places >= 0, slates[np.arange(self.n), places], active)


WORLD = FollowedWorld()
BEST = Popular(np.arange(ITEMS).astype(np.float32))
"""shows the log's items 0, 1, 2, … always, which are the world's last"""


def of_world(sessions: Sequence[Any], **options: Any) -> SessionLog:
    log = log_of(sessions, **options)
    assert log.n_items == ITEMS
    return dataclasses.replace(log, item_ids=TiringWorld(ITEMS).item_ids.rename("item"))


def every_slate(k: int, ordered: bool = False, times: int = 1) -> SessionLog:
    """A log that shows every slate of k items so often, each to a user of its own."""
    slates = list((permutations if ordered else combinations)(range(ITEMS), k))
    return of_world([[(list(slate), -1)] for slate in slates * times], ordered=ordered)


def weighed(log: SessionLog, target: Target, mu: np.ndarray | None = None) -> Any:
    shown = replay_policy(log, target, WORLD)
    # as if all slates had the same chance: then v′ = v
    shown[2], shown[4] = 0.4, 0.4
    return weigh_events(log, target, np.arange(log.n_events), shown, mu)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("k", [1, 2, 3, 6])
@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_weighted_slates_are_those_of_the_target(k: int, epsilon: float, ordered: bool) -> None:
    """Over all slates, Σ μ w f = Σ π f for any worth f of slates, Σ μ v f = Σ π f for a sum of
    items' worths, and v is that of the law's pseudo-inverse."""
    log, target = every_slate(k, ordered), Target(BEST, epsilon)
    slates = log.items.reshape(-1, k)
    n = len(slates)
    pi = np.full(n, epsilon / n)
    pi[(slates == np.arange(k)).all(axis=1)] += 1.0 - epsilon
    v, plain, effective = weighed(log, target)
    np.testing.assert_allclose(v, plain, atol=1e-12)
    sums = np.random.default_rng(1).random(ITEMS)[slates].sum(axis=1)
    assert v @ sums / n == pytest.approx(pi @ sums, rel=1e-12)
    assert effective == pytest.approx(n**2 / (v**2).sum(), rel=1e-9)
    marks = np.zeros((n, ITEMS))
    np.put_along_axis(marks, slates, 1.0, axis=1)
    inverse = np.linalg.pinv(marks.T @ marks / n)
    np.testing.assert_allclose(v, (pi @ marks) @ inverse @ marks.T, atol=1e-9)
    w, _, _ = weighed(log, target, np.full(n, 1 / n))
    worth = np.random.default_rng(0).random(n)
    assert w @ worth / n == pytest.approx(pi @ worth, rel=1e-12)


def test_logged_propensities_weigh_any_law() -> None:
    log, target = every_slate(2), Target(BEST, 0.5)
    mu = np.array([3.0, 0.5, 1.0, 2.0, 0.2, 1.5])[log.items.reshape(-1, 2)].prod(axis=1)
    mu /= mu.sum()
    worth = np.random.default_rng(0).random(15)
    w, plain, effective = weighed(log, target, mu)
    pi = np.full(15, 0.5 / 15)
    pi[0] += 0.5
    assert mu @ (w * worth) == pytest.approx(pi @ worth, rel=1e-12)
    assert (w == plain).all()
    # the policy's own slate is there once; it matters unless nearly all slates are random
    assert effective == 1.0
    w, _, effective = weighed(log, Target(BEST, 0.99), mu)
    assert effective == pytest.approx(w.sum() ** 2 / (w**2).sum())


def test_slate_weights_of_residuals_ask_for_sums_of_odds() -> None:
    """Where users choose by softmax and the world is nearly right, `dr-pi` has no error of first
    order: the world's utilities are off by 1 %, the value by less than 1 % of that."""
    log, target = every_slate(2), Target(BEST)
    slates = log.items.reshape(-1, 2)
    odds = np.array([1.5, 0.4, 0.8, 0.3, 0.6, 0.2])
    errors = np.random.default_rng(0).normal(size=ITEMS)

    def clicks(power: float, items: np.ndarray) -> np.ndarray:
        total = (odds * np.exp(power * errors))[items].sum(axis=-1)
        return np.asarray(total / (1 + total))

    off = []
    for power in (0.02, 0.01):
        own, logged = clicks(power, np.arange(2)), clicks(power, slates)
        shown = replay_policy(log, target, WORLD)
        shown[2], shown[4] = own, logged
        weights, _, effective = weigh_events(log, target, np.arange(15), shown, None)
        # each slate is logged once
        assert effective == pytest.approx(15 * weights.mean() ** 2 / (weights**2).mean())
        robust = own + (weights * (clicks(0.0, slates) - logged)).mean()
        off.append(abs(robust - clicks(0.0, np.arange(2))))
        assert off[-1] < 0.02 * abs(own - clicks(0.0, np.arange(2)))
    # of second order: half the error of the world, a quarter of that of the value
    assert off[1] == pytest.approx(off[0] / 4, rel=0.1)


def test_a_world_is_corrected_in_its_mean_odds() -> None:
    """(D + t) / (1 + t), and its interval is that of a bootstrap over users."""
    rng = np.random.default_rng(1)
    users, own = rng.integers(300, size=3000), 0.3 + 0.2 * rng.random(3000)
    corrections = rng.exponential(0.5, 3000) * ((rng.random(3000) < 0.4) - rng.random(3000))

    def value(rows: np.ndarray) -> float:
        d, c = own[rows].mean(), corrections[rows].mean()
        return float((d + c / (1 - d)) / (1 + c / (1 - d)))

    found, *ends = ratio_interval(users, corrected(own, np.zeros(3000), corrections, 1.0))
    assert found == pytest.approx(value(np.arange(3000)), rel=1e-12)
    by_user = np.argsort(users, kind="stable")
    rows_of = np.split(by_user, np.cumsum(np.bincount(users))[:-1])
    drawn = [
        value(np.concatenate([rows_of[user] for user in rng.integers(300, size=300)]))
        for _ in range(400)
    ]
    np.testing.assert_allclose(ends, np.quantile(drawn, [0.025, 0.975]), atol=0.01)
    # random displays are no matter of odds: their share is added
    even = 0.4 + 0.1 * rng.random(3000)
    mixed = corrected(0.4 * own, 0.6 * even, 0.4 * corrections, 0.4).mean()
    assert mixed == pytest.approx(0.4 * found + 0.6 * even.mean(), rel=1e-12)


@pytest.mark.parametrize("promised", [0.1, 0.45])
def test_a_large_correction_makes_no_jump(promised: float) -> None:
    """The more is taken back, the lower the value, by steps as small; its spread has no jump too,
    and follows from its slopes in D and C."""
    users = np.arange(100)
    tilt = np.tile([-0.05, 0.05], 50)
    edge = -promised * (1.0 - promised) / 2.0

    def at(d: float, c: float) -> tuple[float, float, float]:
        return ratio_interval(users, corrected(d + tilt, np.zeros(100), np.full(100, c), 1.0))

    found = np.array([at(promised, edge + 0.001 * step) for step in range(-400, 100)])
    steps = np.diff(found[:, 0])
    assert (steps > 0).all()
    assert np.abs(np.diff(steps)).max() < 1e-5
    assert np.abs(np.diff(found[:, 2] - found[:, 1])).max() < 1e-3
    for c in (edge - 0.1, edge + 0.01):
        by_d = (at(promised + 1e-5, c)[0] - at(promised - 1e-5, c)[0]) / 2e-5
        _, low, high = ratio_interval(users, tilt)
        _, own_low, own_high = at(promised, c)
        assert own_high - own_low == pytest.approx(abs(by_d) * (high - low), rel=1e-3)


def drawn(
    weights: Sequence[float], n: int, seed: int = 0, users: int = 0, clicks: float = 0.3
) -> SessionLog:
    """Displays of two or three items, one by one with such weights, clicked in a share of events."""
    rng, shares = np.random.default_rng(seed), np.array(weights) / np.sum(weights)
    sets = [
        (
            rng.choice(ITEMS, size, replace=False, p=shares).tolist(),
            0 if rng.random() < clicks else -1,
        )
        for size in rng.choice([2, 3], n)
    ]
    return of_world([[one] for one in sets], users=[row % (users or n) for row in range(n)])


def test_displays_that_are_no_random_sets_are_told() -> None:
    """Random displays of two sizes pass in all but one of a thousand logs."""
    assert [not_random(drawn([1] * ITEMS, 500, seed)) for seed in range(50)] == [""] * 50
    assert not_random(every_slate(ITEMS, times=90)) == ""
    popular = drawn([2, 1.5, 1, 1, 1, 1], 900)
    assert "some items more often than others" in not_random(popular)
    found = off_policy_values(popular, Target(RandomPolicy()), WORLD)
    assert found["estimator"].to_list() == ["dr-pi", "dm", "logged"]
    assert found["value"].is_null().to_list() == [True, False, False]
    assert "give logged propensities" in found["why"][0]
    assert "each item is displayed 11 times, 50" in not_random(drawn([1] * ITEMS, 25))


def test_displays_that_answer_to_clicks_are_told() -> None:
    """A log that shows the clicked item again: only logged propensities give values then."""
    rng = np.random.default_rng(0)
    sessions = []
    for _ in range(400):
        first, second = (rng.choice(ITEMS, 2, replace=False).tolist() for _ in range(2))
        again = first if rng.random() < 0.5 else second
        sessions.append([(first, 0), (again, int(rng.integers(-1, 2)))])
    log = of_world(sessions)
    assert "displays depend on clicks (z = " in not_random(log)
    target = Target(RandomPolicy())
    assert off_policy_values(log, target, WORLD)["value"][0] is None
    told = off_policy_values(log, target, WORLD, np.full(log.n_events, 1 / 15))
    assert told["estimator"].to_list() == ["snips", "dm", "logged"]
    assert told["value"][0] is not None


@pytest.mark.parametrize("factor", [0.5, 2.0])
@pytest.mark.parametrize("users", [1, 0])
def test_weights_of_another_mean_than_1_give_no_value(factor: float, users: int) -> None:
    """Also of a single user, whose values have no interval."""
    log, target = drawn([1] * ITEMS, 900, users=users), Target(RandomPolicy())
    sizes = np.diff(log.display_offsets)
    right = np.where(sizes == 2, 1 / 15, 1 / 20)
    found = off_policy_values(log, target, WORLD, right).row(0, named=True)
    assert found["value"] == pytest.approx((log.choices >= 0).mean())
    assert np.isnan(found["low"]) == (users == 1)
    assert found["effective_events"] == pytest.approx(900)
    wrong = off_policy_values(log, target, WORLD, right * factor).row(0, named=True)
    assert (wrong["value"], wrong["low"], wrong["effective_events"]) == (None,) * 3
    assert f"the mean weight is {1 / factor:.3f} (" in wrong["why"]


def test_what_the_log_cannot_say_has_no_value() -> None:
    log = drawn([1] * ITEMS, 300)
    mu = np.where(np.diff(log.display_offsets) == 2, 1 / 15, 1 / 20)
    few = off_policy_values(log, Target(BEST), WORLD, mu)
    own = replay_policy(log, Target(BEST), WORLD)[1].sum()
    assert 10 < own < 50
    assert few["why"][0] == f"no support: the log is worth {own:.1f} events, 50 are required"
    assert few["value"].is_null().to_list() == [True, False, False]
    # the world's users click in 3 of 4 events
    more = off_policy_values(drawn([1] * ITEMS, 3000, clicks=0.75), Target(BEST, 0.5), WORLD)
    assert 0.5 < more["low"][0] < more["value"][0] < more["high"][0] < 1.0
    assert more["value"][2] == pytest.approx(0.75, abs=0.03)
    never = off_policy_values(drawn([1] * ITEMS, 3000), Target(BEST, 0.5), WORLD)
    assert "impossible: -0.0" in never["why"][0]
    assert never["value"][0] is None


class Watcher(Policy):
    """Shows the last items of the pool, and keeps what it reads."""

    name = "watcher"

    def __init__(self) -> None:
        self.read: list[np.ndarray] = []

    def act(self, observation: Observation, k: int) -> IntArray:
        self.read.append(observation.states.copy())
        return np.tile(observation.pools[-k:], (observation.users.n, 1))


def test_a_policy_meets_the_users_as_the_log_left_them() -> None:
    """It makes its slate before each event; items keep their ids, and chances are those of the
    world's users."""
    log, policy = of_world([[([0, 1], 1), ([2, 3, 4], -1)], [([3, 5], 0)]]), Watcher()
    shown = replay_policy(log, Target(policy), WORLD)
    # the last items of the log: 4 and 5; 3, 4 and 5; 4 and 5
    assert shown[0].tolist() == [0, 2, 1]
    assert shown[1].tolist() == [0, 0, 0]
    # item 1 is the world's number 4, of effect -1; the other session is over after one event
    np.testing.assert_allclose(policy.read[-1][0, 0], -0.2)
    users = WORLD.population(1)
    users._states[:] = -0.2
    own = users.probabilities(np.array([[2, 1, 0]]))[0].sum()
    assert shown[2, 1] == pytest.approx(own)
    assert shown[4, 1] == pytest.approx(users.probabilities(np.array([[3, 2, 1]]))[0].sum())


def test_a_policy_chooses_from_its_own_pool() -> None:
    log, ids = every_slate(2), TiringWorld(ITEMS).item_ids
    shown = replay_policy(log, Target(BEST, pool=ids[[2, 4, 5]]), WORLD)
    best = log.items.reshape(-1, 2)[shown[1] == 1]
    assert best.tolist() == [[2, 4]]
    with pytest.raises(ConfigError, match=r"makes slates of 2, .* too few of its items \(1\)"):
        replay_policy(log, Target(BEST, pool=pl.Series(["i02", "cup"])), WORLD)


class Twice(Greedy):
    def act(self, observation: Observation, k: int) -> IntArray:
        return np.repeat(super().act(observation, 1), k, axis=1)


class Remembers(Greedy):
    def observe(self, transition: Transition) -> None:
        raise AssertionError


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"propensities": np.ones(2)}, "a probability above 0 of each event's display"),
        ({"propensities": np.zeros(1)}, "a probability above 0 of each event's display"),
        # codes of categories
        ({"propensities": np.ones(1, np.int32)}, "a probability above 0 of each event's display"),
        ({"target": Target(BEST, k=5)}, "no display of 5 items"),
        ({"target": Target(Twice())}, "greedy shows an item twice in a slate"),
        ({"target": Target(Remembers())}, "greedy follows its users itself"),
        ({"world": TiringWorld(4)}, "items that the world does not have"),
    ],
)
def test_what_does_not_fit_is_said(change: dict[str, Any], says: str) -> None:
    log = of_world([[([0, 1, 2, 3, 4, 5], -1)]])
    with pytest.raises(ConfigError, match=says):
        off_policy_values(
            **{"log": log, "target": Target(RandomPolicy()), "world": WORLD, **change}
        )


def test_logs_that_do_not_fit_are_said() -> None:
    log, target = every_slate(2), Target(BEST)
    fields = {CLICKS_SO_FAR: np.zeros(log.n_events, np.float32)}
    with pytest.raises(ConfigError, match="off-policy values are of one choice of each display"):
        off_policy_values(put(log, event=fields), target, WORLD)
    clicked = dataclasses.replace(log, choices=np.zeros(log.n_events, np.int32))
    with pytest.raises(ConfigError, match="no display without a click: all values are the same"):
        off_policy_values(clicked, target, WORLD)


@pytest.fixture(scope="module")
def log() -> SessionLog:
    """Events have an hour."""
    log, _ = synthesise(200, preset="sample", n_items=12, no_click=0.5, max_length=4, seed=1)
    hours = np.random.default_rng(0).integers(0, 24, log.n_events) + 0.5
    return put(log, event={"hour": hours.astype(np.float32)})


@pytest.fixture(scope="module")
def model(log: SessionLog) -> UserModel:
    model = UserModel.from_preset(
        "fastgaum", folds=2, epochs=1, warm_start=1, catch_up=1, search=[]
    )
    model.fit(log)
    return model


@pytest.fixture(scope="module")
def world(log: SessionLog, model: UserModel) -> LearnedWorld | WorldSet:
    return world_of(model, log)


def test_followed_users_are_those_of_the_model(
    log: SessionLog, model: UserModel, world: LearnedWorld | WorldSet
) -> None:
    """After each logged event, in its context: probabilities of a click on held-out events are the
    model's own. Events beyond the training's range are not: a world keeps its numbers within it."""
    shown = replay_policy(log, Target(Greedy()), world)
    frame = model.predict(log, "all")
    chances = np.add.reduceat(frame["generator_probability"].to_numpy(), log.display_offsets[:-1])
    held_out = np.isin(log.session_of_event, log.sessions_in("test"))
    near = np.abs(chances - shown[4])[held_out] < 1e-5
    assert near.mean() > 0.95
    assert held_out.sum() > 30


def test_a_set_is_valued_by_the_mean_over_its_members(log: SessionLog, model: UserModel) -> None:
    """Of slates that no member chooses; greedy slates are those of the first member, whose states
    policies read."""
    many = WorldSet.of(model, log=log)
    for target in (Target(Popular.of_log(many, log), 0.5), Target(Greedy())):
        found = replay_policy(log, target, many)
        each = np.array([replay_policy(log, target, one) for one in many.worlds])
        np.testing.assert_array_equal(found[:2], each[0, :2])
        for row in (2, 3, 4) if target.epsilon else (3, 4):
            assert np.ptp(each[:, row], axis=0).max() > 1e-3 or not each[:, row].any()
            np.testing.assert_allclose(found[row], each[:, row].mean(axis=0), atol=1e-6)


def test_logged_users_have_their_own_past_alone(log: SessionLog, model: UserModel) -> None:
    """Whatever the world's users start with."""
    test = slice_sessions(log, log.sessions_in("test"))
    for kind in (LearnedWorld, WorldSet.of):
        empty, logged = (
            off_policy_values(test, Target(Greedy(), 0.5), kind(model, log=log, starts=starts))
            for starts in ("empty", "logged")
        )
        assert empty.equals(logged)


def test_a_policy_that_reads_states_needs_its_own_world(
    log: SessionLog, model: UserModel, world: LearnedWorld | WorldSet
) -> None:
    """Further items do not make another one."""
    more = WorldSet.of(model, log=log, further=pl.Series(["new"]))
    other = LearnedWorld(model.members[0], log=log)
    policy = untrained("slateq", world, 3, Pool(items=tuple(range(6))), PolicyConfig())
    target = Target(policy, k=3, pool=world.item_ids[:6])
    found = [replay_policy(log, target, one)[2] for one in (world, more)]
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    with pytest.raises(ConfigError, match="reads the states of the world that it was made in"):
        replay_policy(log, target, other)


def test_policies_read_users_in_the_logged_contexts(log: SessionLog, world: LearnedWorld) -> None:
    """Before an event its own; not those that a world draws itself."""
    policy = Watcher()
    size = int(np.diff(log.display_offsets).max())
    replay_policy(log, Target(policy, k=size), world)
    assert world.context is not None
    hours = log.columns["hour"].values
    encoded = world.context.space.encode_context(hours[:, None])[:, -1]
    lengths = np.diff(log.session_offsets)
    sessions = np.argsort(-lengths, kind="stable")
    first = log.session_offsets[sessions]
    steps = [encoded[first + np.minimum(t, lengths[sessions] - 1)] for t in range(lengths.max())]
    assert policy.read
    for read in policy.read:
        assert any(np.allclose(read[:, -1], hours_then, atol=1e-6) for hours_then in steps)

"""The loop, its keys and pools."""

from __future__ import annotations

import dataclasses
import itertools
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.arrays import IntArray
from fastgaum.policies.base import Observation, Policy
from fastgaum.policies.evaluation import measure_displays
from fastgaum.policies.heuristics import RandomPolicy
from fastgaum.policies.rollout import Setting, play, rollout
from fastgaum.worlds.pools import CHOICE, LEAVE, POOL, START, Keys, Pool, draw_uniform
from tests.policies.small_world import TiringWorld, keys_at


@settings(deadline=None)
@given(st.sampled_from(["fixed", "per_user", "per_step"]), st.integers(1, 12), st.integers(0, 99))
def test_pools_are_distinct_items_and_their_key_says_all(rule: str, size: int, seed: int) -> None:
    pool = Pool(rule, size, items=tuple(range(3, 15)))  # type: ignore[arg-type]
    keys = keys_at(seed, 6, 2, first=10).of(POOL)
    drawn = np.atleast_2d(pool.draw(keys, 20))
    assert all(len(set(row)) == size for row in drawn.tolist())
    assert set(drawn.ravel().tolist()) <= set(range(3, 15))
    if rule != "fixed" and size < 12:
        np.testing.assert_array_equal(pool.draw(keys[2:3], 20)[0], drawn[2])


def test_a_rollout_tells_what_happened() -> None:
    world, setting = TiringWorld(), Setting(2, 4, reward="click")
    steps = list(rollout(world, RandomPolicy(), setting, 30, seed=1))
    assert [step.left for step in steps] == [1.0, 0.75, 0.5, 0.25]
    assert steps[-1].next_left == 0
    for step, following in itertools.pairwise(steps):
        np.testing.assert_array_equal(step.next_states, following.states)
        assert (step.states != step.next_states).any()
    for step in steps:
        clicked = step.response.places >= 0
        np.testing.assert_array_equal(step.rewards, clicked.astype(np.float32))
        chosen = step.slates[np.arange(30), step.response.places][clicked]
        np.testing.assert_array_equal(step.response.items[clicked], chosen)


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(["fixed", "per_user", "per_step"]), st.integers(1, 4), st.floats(0, 0.6))
def test_what_was_shown_is_described_as_its_definitions_say(
    rule: str, k: int, leaving: float
) -> None:
    world = TiringWorld()
    world.item_features[3] = 0
    pool = Pool(rule, 6, items=tuple(range(1, 11)))  # type: ignore[arg-type]
    setting = Setting(k, 3, pool, leaving=leaving)
    distances, counts, offered, low = [], np.zeros(world.n_items), set(), []
    for step in rollout(world, FirstItems(), setting, 8, seed=2):
        pools = np.broadcast_to(step.pools, (8, step.pools.shape[-1]))
        offered |= set(pools[step.active].ravel().tolist())
        for slate, one_pool in zip(
            step.slates[step.active].tolist(), pools[step.active], strict=True
        ):
            counts[slate] += 1
            # a mood is the same for all items
            low += (world.appeal[slate] < statistics.median(world.appeal[one_pool])).tolist()
            of_slate = []
            for one, other in itertools.combinations(world.item_features[slate], 2):
                lengths = np.linalg.norm(one) * np.linalg.norm(other)
                of_slate.append(1 - (one @ other / lengths if lengths else 0))
            distances.append(np.mean(of_slate) if of_slate else np.nan)
    found = measure_displays(play(world, FirstItems(), setting, 8, seed=2), world)
    shown = counts[sorted(offered)]
    n = len(shown)
    # half the mean difference of two items' counts, over their mean
    apart = np.abs(np.subtract.outer(shown, shown)).sum() / (n * (n - 1)) / 2 / shown.mean()
    assert found == pytest.approx(
        {
            "diversity": np.mean(distances),
            "coverage": np.mean(shown > 0),
            "gini": apart,
            "decoys": np.mean(low),
        },
        abs=1e-6,
        nan_ok=True,
    )


def test_what_is_shown_twice_or_to_nobody_is_not_displayed() -> None:
    """An item's second place in a slate is none; a pool of users who have left is offered to
    none."""

    class Twice(FirstItems):
        def act(self, observation: Observation, k: int) -> IntArray:
            return super().act(observation, k - 1)[:, [0, *range(k - 1)]]

    world, setting = TiringWorld(100), Setting(2, 5, Pool("per_step", 3), leaving=0.5)
    once = play(world, FirstItems(), setting, 4, 3)
    twice = play(world, Twice(), dataclasses.replace(setting, k=3), 4, 3)
    assert measure_displays(twice, world) == measure_displays(once, world)
    pools = np.zeros(100, bool)
    for step in rollout(world, FirstItems(), setting, 4, 3):
        pools[step.pools[step.active]] = True
    assert (once.offered == pools).all()


class FirstItems(Policy):
    """The first k items of each pool."""

    name = "first"

    def act(self, observation: Observation, k: int) -> IntArray:
        pools = np.broadcast_to(
            observation.pools, (observation.users.n, observation.pools.shape[-1])
        )
        return pools[:, :k].copy()


@pytest.mark.parametrize("rule", ["fixed", "per_user", "per_step"])
@pytest.mark.parametrize("leaving", [0.3, [0.0, 0.6, 0.1]])
@pytest.mark.parametrize("reward", ["utility", "contrast", "surplus"])
def test_leaving_against_users_played_one_by_one(rule: str, leaving: object, reward: str) -> None:
    """A slow twin: each user alone, from its own stream, until it leaves; who left earns nothing
    and is shown nothing."""
    world, horizon = TiringWorld(), 6
    setting = Setting(2, horizon, Pool(rule, 5), reward, leaving)  # type: ignore[arg-type]
    outcome = play(world, FirstItems(), setting, 12, seed=3, first_user=5)
    hazards = np.atleast_1d(leaving)  # type: ignore[call-overload]
    rewards, clicks, shown = (
        np.zeros((12, horizon)),
        np.zeros((12, horizon)),
        np.zeros((12, horizon), bool),
    )
    for i in range(12):
        keys, user = Keys(1), world.population(1)
        keys.seed(3, keys.everyone, 5 + i)
        keys.start(keys.everyone)
        user.reset(keys.of(START))
        pool = np.atleast_2d(setting.pool.draw(keys.of(POOL), 12))[0]
        for t in range(horizon):
            if rule == "per_step":
                pool = setting.pool.draw(keys.of(POOL), 12)[0]
            level = user.utilities(pool).mean() if reward == "contrast" else 0.0
            of_slate = np.log(np.exp(user.utilities(pool[None, :2])[0]).sum() + world.no_click)
            response = user.step(pool[None, :2], keys.of(CHOICE))
            shown[i, t], clicks[i, t] = True, response.places[0] >= 0
            paid = of_slate if reward == "surplus" else response.utilities[0]
            rewards[i, t] = paid - level
            keys.steps += 1
            if draw_uniform(keys.of(LEAVE))[0] < hazards[min(t, len(hazards) - 1)]:
                break
    np.testing.assert_array_equal(outcome.shown, shown)
    np.testing.assert_array_equal(outcome.clicks, clicks)
    np.testing.assert_allclose(outcome.rewards, rewards, atol=1e-6)
    np.testing.assert_allclose(outcome.returns, rewards.sum(axis=1), atol=1e-5)
    assert outcome.click_rate == pytest.approx(clicks.sum() / shown.sum())
    assert not shown.all()


def test_numpy_s_numbers_and_an_environment_s_pools_are_taken() -> None:
    world, same = TiringWorld(), Setting(2, 3, Pool(items=(0, 1, 2)))
    assert Setting(2, 3, np.arange(3)) == Setting(2, 3, [0, 1, 2]) == same  # type: ignore[arg-type]
    assert Setting(2, 3, "per_step").pool == Pool("per_step")  # type: ignore[arg-type]
    plays = [play(world, RandomPolicy(), same, 4, seed).rewards for seed in (3, np.int64(3))]  # type: ignore[arg-type]
    np.testing.assert_array_equal(*plays)

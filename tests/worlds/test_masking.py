"""Masks: which users an info entry speaks of, which users a step moves, and which items a cascade
may still pick."""

from __future__ import annotations

import numpy as np
import pytest

from fastgaum.errors import ActionError, ConfigError
from fastgaum.worlds.item_by_item import VectorCascadeWrapper
from fastgaum.worlds.single_env import UserEnv
from fastgaum.worlds.vector_env import UserVectorEnv
from tests.worlds.small_world import SmallWorld

WORLD = SmallWorld()


def test_an_action_names_places_of_the_pool_that_is_observed() -> None:
    env = UserVectorEnv(
        40, world=WORLD, slate_size=2, pool="per_step", pool_size=4, observation="dict"
    )
    observation, info = env.reset(seed=0)
    for _ in range(5):
        pool = observation["pool"]  # type: ignore[index]
        np.testing.assert_array_equal(pool, info["pool"])
        np.testing.assert_array_equal(observation["features"], WORLD.item_features[pool])  # type: ignore[index]
        assert all(len(set(row)) == 4 for row in pool.tolist())
        actions = np.tile([3, 1], (40, 1))
        observation, _, _, _, info = env.step(actions)
        chosen = info["item"] >= 0
        places = actions[np.arange(40), info["place"]]
        np.testing.assert_array_equal(info["item"][chosen], pool[np.arange(40), places][chosen])


def test_only_users_of_the_mask_move() -> None:
    """`step_where` in two halves is `step`."""
    whole, halves = (UserVectorEnv(6, world=WORLD, slate_size=2, leaving=0.3) for _ in range(2))
    whole.reset(seed=0)
    halves.reset(seed=0)
    half = np.arange(6) < 3
    rng = np.random.default_rng(0)
    for _ in range(12):
        actions = rng.integers(12, size=(6, 2))
        observation, rewards, terminated, truncated, _ = whole.step(actions)
        before = halves.observe().copy()  # type: ignore[union-attr]
        middle, first_rewards, first_terminated, first_truncated, info = halves.step_where(
            actions, half
        )
        np.testing.assert_array_equal(middle[~half], before[~half])
        assert not info.get("_item", ~half)[~half].any() or "item" not in info
        assert not first_rewards[~half].any()
        last, second_rewards, second_terminated, second_truncated, _ = halves.step_where(
            actions, ~half
        )
        np.testing.assert_array_equal(last, observation)
        np.testing.assert_array_equal(first_rewards + second_rewards, rewards)
        np.testing.assert_array_equal(first_terminated | second_terminated, terminated)
        np.testing.assert_array_equal(first_truncated | second_truncated, truncated)


def test_a_cascade_s_mask_is_what_its_slate_lacks() -> None:
    env = VectorCascadeWrapper(
        UserVectorEnv(2, world=WORLD, slate_size=3, pool_size=5, strict=True)
    )
    observation, info = env.reset(seed=0)
    assert info["action_mask"].all()
    assert info["action_mask"].shape == (2, 5)
    for picks in ([0, 4], [1, 0]):
        observation, rewards, terminated, truncated, info = env.step(np.array(picks))
        assert not rewards.any()
        assert not (terminated | truncated).any()
        assert "item" not in info
    np.testing.assert_array_equal(info["action_mask"], [[0, 0, 1, 1, 1], [0, 1, 1, 1, 0]])
    np.testing.assert_array_equal(info["action_mask"], env.action_masks())
    np.testing.assert_array_equal(
        observation[:, WORLD.state_dim :], [[0, 0, 1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0, 1]]
    )
    with pytest.raises(
        ActionError, match="the action of user 1 is 4, which its slate holds already"
    ):
        env.step(np.array([2, 4]))
    _, _, _, _, info = env.step(np.array([2, 3]))
    assert info["_item"].all()
    assert info["action_mask"].all()


def test_a_cascade_shows_the_slate_that_was_picked() -> None:
    cascade, plain = (UserVectorEnv(50, world=WORLD, slate_size=3) for _ in range(2))
    env = VectorCascadeWrapper(cascade, observe_taken=False)
    env.reset(seed=0)
    plain.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(8):
        slates = rng.permuted(np.tile(np.arange(12), (50, 1)), axis=1)[:, :3]
        for place in range(3):
            observation, rewards, _, _, info = env.step(slates[:, place])
        states, expected, _, _, other = plain.step(slates)
        np.testing.assert_array_equal(rewards, expected)
        np.testing.assert_array_equal(observation[:, : WORLD.state_dim], states)
        np.testing.assert_array_equal(info["item"], other["item"])


def test_a_cascade_of_dicts() -> None:
    users = UserVectorEnv(1, world=WORLD, slate_size=2, observation="dict", horizon=1)
    env = VectorCascadeWrapper(users)
    with pytest.raises(ActionError, match="call reset"):
        env.step(np.array([0]))
    observation, info = env.reset(seed=0)
    of_user = {"state", "pool", "shown", "chosen", "events", "latest", "left"}
    assert set(observation) == {*of_user, "place", "taken"}
    observation, reward, terminated, truncated, info = env.step(np.array([3]))
    assert (reward, terminated, truncated, "item" in info) == (0.0, False, False, False)
    np.testing.assert_array_equal(np.flatnonzero(~info["action_mask"][0]), [3])
    np.testing.assert_array_equal(observation["place"], [[0, 1]])  # type: ignore[call-overload]
    # an item that is picked twice is displayed once
    observation, reward, terminated, truncated, info = env.step(np.array([3]))
    assert truncated
    assert info["item"] in (-1, 3)
    env.reset()
    with pytest.raises(ActionError, match="place of the pool from 0 to 11"):
        env.step(np.array([12]))


def test_what_is_no_mask_or_has_no_cascade_is_refused() -> None:
    env = UserVectorEnv(3, world=WORLD, slate_size=1)
    env.reset()
    for mask in (np.ones(2, bool), np.ones(3, int)):
        with pytest.raises(ActionError, match=r"bool of \(3,\) is required"):
            env.step_where(np.zeros((3, 1), int), mask)  # type: ignore[arg-type]
    for other in (object(), UserEnv(world=WORLD)):
        with pytest.raises(ConfigError, match="a cascade wraps"):
            VectorCascadeWrapper(other)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a pool of 2 items cannot fill a slate of 3"):
        VectorCascadeWrapper(UserVectorEnv(2, world=WORLD, slate_size=3, pool_size=2))

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


def test_what_is_no_mask_or_has_no_cascade_is_refused() -> None:
    env = UserVectorEnv(3, world=WORLD, slate_size=1)
    env.reset()
    for mask in (np.ones(2, bool), np.ones(3, int)):
        with pytest.raises(ActionError, match=r"bool of \(3,\) is required"):
            env.step_where(np.zeros((3, 1), int), mask)  # type: ignore[arg-type]
    for other in (object(), UserEnv(world=WORLD)):
        with pytest.raises(ConfigError, match="a cascade wraps"):
            VectorCascadeWrapper(other)  # type: ignore[arg-type]
    cascade = VectorCascadeWrapper(UserVectorEnv(2, world=WORLD, slate_size=3, strict=True))
    cascade.reset(seed=0)
    cascade.step(np.array([0, 4]))
    with pytest.raises(ActionError, match="user 1 is 4, which its slate holds already"):
        cascade.step(np.array([1, 4]))
    with pytest.raises(ConfigError, match="a pool of 2 items cannot fill a slate of 3"):
        VectorCascadeWrapper(UserVectorEnv(2, world=WORLD, slate_size=3, pool_size=2))

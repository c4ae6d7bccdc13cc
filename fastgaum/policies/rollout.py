"""Rollout: the one loop in which users and a policy meet, for training and for evaluation.

Users are numbered; what a user meets depends on seed and number alone (`keys`), so the same seed gives two policies the same
users, the same pools and the same luck.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fastgaum.envs.world import FloatArray, IntArray, Population, Response, World
from fastgaum.errors import ConfigError
from fastgaum.policies.base import Observation, Policy, Transition
from fastgaum.policies.keys import POLICY, RESET, STEP, keys_of
from fastgaum.policies.pool import Pool

Reward = Literal["utility", "contrast", "click"] | Callable[[Response], FloatArray]


@dataclass(frozen=True)
class Setting:
    """What all policies of a comparison meet. Raises ConfigError for an impossible value."""

    k: int = 3
    """items of a slate"""
    horizon: int = 20
    """steps of an episode; then it is cut off"""
    pool: Pool = field(default_factory=Pool)
    reward: Reward = "utility"
    """utility: the user's utility of the choice, 0 for none; contrast: the same less the mean utility of the pool's items in the
    same state, which choices identify even where the log never offers no click and so leaves the zero open; click: 1 for a
    choice; or a function of the response"""

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise ConfigError(f"horizon must be at least 1 step, got {self.horizon}")
        if not callable(self.reward) and self.reward not in ("utility", "contrast", "click"):
            raise ConfigError(f"reward must be utility, contrast, click or a function, got '{self.reward}'")

    def zero(self, users: Population, pools: IntArray) -> FloatArray | float:
        """What a contrast is taken to: the mean utility of each user's pool before the choice, (n,); else 0."""
        if self.reward != "contrast":
            return 0.0
        return np.asarray(users.utilities(pools).mean(axis=1, dtype=np.float64), np.float32)

    def rewards(self, response: Response, zero: FloatArray | float = 0.0) -> FloatArray:
        """Each user's reward, shape (n,); `zero` as the method of that name gave it before the step."""
        if callable(self.reward):
            return np.asarray(self.reward(response), np.float32)
        if self.reward == "click":
            return (response.places >= 0).astype(np.float32)
        return np.asarray(response.utilities - zero, np.float32)


def rollout(
    world: World, policy: Policy, setting: Setting, n_users: int, seed: int, first_user: int = 0
) -> Iterator[Transition]:
    """Play one episode of so many users and yield each step; the policy has observed it by then.

    Raises:
        ConfigError: a slate of k cannot be made of the pool, or there is no user.
    """
    setting.pool.check(world.n_items, setting.k)
    if n_users < 1:
        raise ConfigError(f"a rollout has at least one user, got {n_users}")
    numbers = np.arange(first_user, first_user + n_users, dtype=np.int32)
    users = world.population(n_users)
    users.reset(keys_of(seed, RESET, numbers))
    policy.start(n_users)
    pool_keys = setting.pool.keys(seed, numbers, 0)
    pools = setting.pool.draw(pool_keys, world.n_items)
    for step in range(setting.horizon):
        left, next_left = 1 - step / setting.horizon, 1 - (step + 1) / setting.horizon
        states = users.states.copy()
        zero = setting.zero(users, pools)
        slates = policy.act(Observation(users, pools, keys_of(seed, POLICY, numbers, step), left), setting.k)
        response = users.step(slates, keys_of(seed, STEP, numbers, step))
        pool_keys = setting.pool.keys(seed, numbers, step + 1)
        transition = Transition(
            states, left, slates, response, setting.rewards(response, zero), users.states.copy(), next_left, pool_keys
        )
        policy.observe(transition)
        yield transition
        if setting.pool.rule == "per_step":
            pools = setting.pool.draw(pool_keys, world.n_items)


@dataclass(frozen=True)
class Outcome:
    """What one episode gave each user."""

    rewards: FloatArray
    """reward of each step, shape (n_users, horizon)"""
    clicks: IntArray
    """1 where something was chosen, shape (n_users, horizon)"""

    @property
    def returns(self) -> FloatArray:
        """Cumulative reward, shape (n_users,)."""
        return np.asarray(self.rewards.sum(axis=1, dtype=np.float64), np.float32)


def play(world: World, policy: Policy, setting: Setting, n_users: int, seed: int, first_user: int = 0) -> Outcome:
    """Play one episode to its end. Raises ConfigError as `rollout`."""
    steps = list(rollout(world, policy, setting, n_users, seed, first_user))
    rewards = np.stack([step.rewards for step in steps], axis=1)
    clicks = np.stack([step.response.places >= 0 for step in steps], axis=1)
    return Outcome(rewards, clicks.astype(np.int32))

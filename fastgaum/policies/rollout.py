"""Rollout: the one loop in which users and a policy meet.

Seed and number alone decide what a user meets (`worlds.pools.Keys`), as in an environment with that
seed: two policies with one seed meet the same users, pools and draws."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from fastgaum.arrays import BoolArray, Float64Array, FloatArray, IntArray
from fastgaum.errors import ConfigError
from fastgaum.policies.base import Observation, Policy, Transition
from fastgaum.worlds.pools import CHOICE, LEAVE, POOL, SLATE, START, Keys, Pool, draw_uniform
from fastgaum.worlds.rules import Leaving, Reward, StepReward, check_pessimism, leaving_rule
from fastgaum.worlds.world import Population, World
from fastgaum.worlds.world_set import require_set


@dataclass(frozen=True)
class Setting:
    """Terms that all policies of a comparison meet. Raises ConfigError for an impossible value."""

    k: int = 3
    """items of a slate"""
    horizon: int = 20
    """steps of an episode; then it is cut off"""
    pool: Pool = field(default_factory=Pool)
    reward: Reward = "utility"
    """utility, contrast, click, or a function, as `worlds.rules.EnvOptions`"""
    leaving: Leaving | None = None
    """probability of leaving after a step; None: all stay"""
    pessimism: float = 0.0
    """a step earns less by so much times the disagreement of a set of worlds about its slate"""

    def __post_init__(self) -> None:
        if self.k < 1 or self.horizon < 1:
            raise ConfigError(
                f"a slate has at least 1 item and an episode 1 step, got k = {self.k} and horizon "
                f"{self.horizon}"
            )
        StepReward(self.reward)
        if self.leaving is not None:
            leaving_rule(self.leaving)
        check_pessimism(self.pessimism)

    @cached_property
    def pays(self) -> StepReward:
        """The reward rule of a step."""
        return StepReward(self.reward)


def rollout(
    world: World, policy: Policy, setting: Setting, n_users: int, seed: int, first_user: int = 0
) -> Iterator[Transition]:
    """Play one episode and yield each step, which the policy has observed.

    Raises:
        ConfigError: a slate of k cannot be made of the pool, there is no user, pessimism is asked
            of one world, or the policy reads the states of another world.
    """
    setting.pool.check(world.n_items, setting.k)
    policy.require_world(world)
    if n_users < 1:
        raise ConfigError(f"a rollout has at least one user, got {n_users}")
    keys = first_keys(n_users, seed, first_user)
    of_set = require_set(world) if setting.pessimism else None
    followed = None if of_set is None else of_set.population(n_users, follow_all=True)
    users: Population = followed or world.population(n_users)
    there = np.ones(n_users, np.bool_)
    users.reset(keys.of(START))
    policy.start(n_users, world.past(keys.of(START).copy()))
    leave = leaving_rule(0.0 if setting.leaving is None else setting.leaving)
    pool_keys = keys.of(POOL).copy()
    pools = setting.pool.draw(pool_keys, world.n_items)
    for step in range(setting.horizon):
        left, next_left = 1 - step / setting.horizon, 1 - (step + 1) / setting.horizon
        states = users.states.copy()
        zero = setting.pays.zero(users, pools, setting.k)
        slates = policy.act(Observation(users.seen, pools, keys.of(SLATE).copy(), left), setting.k)
        apart = None if followed is None else followed.disagreement(slates)
        response = users.step(slates, keys.of(CHOICE), None if there.all() else there)
        keys.steps += 1
        rewards = setting.pays.of(response, slates, users.states, zero)
        if apart is not None:
            rewards = rewards - np.float32(setting.pessimism) * apart
        rewards = np.where(there, rewards, np.float32(0))
        ended = there & (draw_uniform(keys.of(LEAVE)) < leave(response, keys.steps, users.states))
        offered = pools
        if setting.pool.rule == "per_step":
            pool_keys = keys.of(POOL).copy()
            pools = setting.pool.draw(pool_keys, world.n_items)
        transition = Transition(
            states,
            left,
            slates,
            response,
            rewards,
            users.states.copy(),
            next_left,
            pool_keys,
            there,
            ended,
            offered,
        )
        policy.observe(transition)
        yield transition
        there = there & ~ended
        if not there.any():
            return


def first_keys(n_users: int, seed: int, first_user: int = 0) -> Keys:
    """Where the users of a rollout stand at their start."""
    keys = Keys(n_users)
    keys.seed(seed, keys.everyone, first_user)
    keys.start(keys.everyone)
    return keys


@dataclass(frozen=True)
class EpisodeResult:
    """Rewards, clicks and displays of one episode."""

    rewards: FloatArray
    """0 of a user who has left, shape (n_users, horizon)"""
    clicks: IntArray
    """1 where something was chosen, shape (n_users, horizon)"""
    shown: BoolArray
    """where a slate was shown, shape (n_users, horizon)"""
    diversity: FloatArray
    """`slate_diversity` of each slate, shape (n_users, horizon)"""
    displays: Float64Array
    """how often each item was shown, shape (n_items,)"""
    offered: BoolArray
    """which items the pools held, shape (n_items,)"""

    @property
    def returns(self) -> FloatArray:
        """Cumulative reward, shape (n_users,)."""
        return np.asarray(self.rewards.sum(axis=1, dtype=np.float64), np.float32)

    @property
    def click_rate(self) -> float:
        """Share of the slates shown of which something was chosen."""
        return float(self.clicks.sum() / self.shown.sum())

    @property
    def display_figures(self) -> dict[str, float]:
        """What was shown: diversity, the mean of the slates' (NaN where all hold one item);
        coverage, the share of the pools' items that were shown at all (Ge, Delgado-Battenfeld &
        Jannach, RecSys 2010); gini, Σ_j (2j − n − 1) p_j / (n − 1) of these n items' shares p of
        the displays in ascending order, from 0 (each as often) to 1 (a single one) (Shani &
        Gunawardana, "Evaluating Recommendation Systems", 2011)."""
        known = self.diversity[self.shown & ~np.isnan(self.diversity)]
        shares = np.sort(self.displays[self.offered]) / self.displays.sum()
        n = len(shares)
        return {
            "diversity": float(known.mean(dtype=np.float64)) if len(known) else float("nan"),
            "coverage": float((shares > 0).mean()),
            "gini": float((2 * np.arange(n) + 1 - n) @ shares / max(n - 1, 1)),
        }


def slate_diversity(vectors: FloatArray, slates: IntArray) -> FloatArray:
    """Intra-list diversity of slates (n, k) of items with vectors (n_items, d), each of length 1:
    the mean cosine distance of two items of a slate, from 0 to 2, NaN with fewer than two, shape
    (n,) (Smyth & McClave, "Similarity vs. Diversity", ICCBR 2001)."""
    held = slates >= 0
    own, counts = vectors[slates] * held[:, :, None], held.sum(axis=1)
    similar = (own.sum(axis=1) ** 2).sum(axis=1) - (own**2).sum(axis=(1, 2))
    pairs = np.where(counts > 1, counts * (counts - 1.0), np.nan)
    return np.asarray(1 - similar / pairs, np.float32)


def play(
    world: World, policy: Policy, setting: Setting, n_users: int, seed: int, first_user: int = 0
) -> EpisodeResult:
    """Play one episode to its end. Raises ConfigError as `rollout`."""
    steps = rollout(world, policy, setting, n_users, seed, first_user)
    shape, n_items = (n_users, setting.horizon), world.n_items
    outcome = EpisodeResult(
        np.zeros(shape, np.float32),
        np.zeros(shape, np.int32),
        np.zeros(shape, np.bool_),
        np.zeros(shape, np.float32),
        np.zeros(n_items),
        np.zeros(n_items, np.bool_),
    )
    lengths = np.linalg.norm(world.item_features, axis=1, keepdims=True)
    vectors = world.item_features / np.where(lengths > 0, lengths, 1)
    for t, step in enumerate(steps):
        outcome.rewards[:, t] = step.rewards
        outcome.clicks[:, t] = step.active & (step.response.places >= 0)
        outcome.shown[:, t] = step.active
        outcome.diversity[:, t] = slate_diversity(vectors, step.slates)
        items = step.slates[step.active]
        outcome.displays[:] += np.bincount(items[items >= 0], minlength=n_items)
        outcome.offered[step.pools] = True
    return outcome

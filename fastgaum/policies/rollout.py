"""Rollout: the one loop in which users and a policy meet.

Seed and number alone decide what a user meets (`worlds.pools.Keys`), as in an environment with that
seed: two policies with one seed meet the same users, pools and draws."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from fastgaum.arrays import BoolArray, FloatArray, IntArray
from fastgaum.errors import ConfigError, require_whole
from fastgaum.policies.base import Observation, Policy, Transition, decoys_of
from fastgaum.worlds.env_options import Leaving, Reward, StepReward, check_pessimism, leaving_rule
from fastgaum.worlds.pools import CHOICE, LEAVE, MEAN, POOL, SLATE, START, Keys, Pool, draw_uniform
from fastgaum.worlds.world import Population, World, displayed
from fastgaum.worlds.world_set import require_set

MOST_SCORED = 1 << 22
"""utilities of pools' items that an episode asks for to count decoys: a second or two"""


@dataclass(frozen=True)
class Setting:
    """Terms that all policies of a comparison meet. Raises ConfigError for an impossible value."""

    k: int = 3
    """items of a slate"""
    horizon: int = 20
    """steps of an episode; then it is cut off"""
    pool: Pool = field(default_factory=Pool)
    reward: Reward = "utility"
    """utility, contrast, surplus, click, or a function, as `worlds.env_options.EnvOptions`"""
    leaving: Leaving | None = None
    """probability of leaving after a step; None: all stay"""
    pessimism: float = 0.0
    """a step earns less by so much times the disagreement of a set of worlds about its slate"""

    def __post_init__(self) -> None:
        require_whole("k, the items of a slate,", self.k, 1)
        require_whole("horizon", self.horizon, 1)
        # as an environment takes it: also a rule's name, or the items
        object.__setattr__(self, "pool", Pool.of(self.pool, 0))
        StepReward(self.reward)
        if self.leaving is not None:
            leaving_rule(self.leaving)
        check_pessimism(self.pessimism)

    @cached_property
    def pays(self) -> StepReward:
        """The reward rule of a step."""
        return StepReward(self.reward)


def rollout(
    world: World,
    policy: Policy,
    setting: Setting,
    n_users: int,
    seed: int,
    first_user: int = 0,
    count_decoys: int = 0,
) -> Iterator[Transition]:
    """Play one episode and yield each step, which the policy has observed. Decoys are counted in
    the first of every `count_decoys` steps; 0: in none.

    Raises:
        ConfigError: a slate of k cannot be made of the pool, there is no user, the seed is no whole
            number from 0, pessimism is asked of one world, the policy reads the states of another
            world, users start within logged sessions and `leaving` is a row, or a surplus is asked
            of users who do not choose by the softmax of their utilities.
    """
    setting.pool.check(world.n_items, setting.k)
    policy.require_world(world)
    setting.pays.require_world(world)
    if n_users < 1:
        raise ConfigError(f"a rollout has at least one user, got {n_users}")
    keys = first_keys(n_users, seed, first_user)
    of_set = require_set(world) if setting.pessimism else None
    followed = None if of_set is None else of_set.population(n_users, follow_all=True)
    users: Population = followed or world.population(n_users)
    there = np.ones(n_users, np.bool_)
    users.reset(keys.of(START))
    policy.start(n_users, world.past(keys.of(START).copy()))
    leave = leaving_rule(0.0 if setting.leaving is None else setting.leaving, world)
    pool_keys = keys.of(POOL).copy()
    pools = setting.pool.draw(pool_keys, world.n_items)
    for step in range(setting.horizon):
        left, next_left = 1 - step / setting.horizon, 1 - (step + 1) / setting.horizon
        states = users.states.copy()
        counted = count_decoys > 0 and step % count_decoys == 0
        known = users.utilities(pools, setting.k) if counted else None
        seen = Observation(users.seen, pools, keys.of(SLATE).copy(), left, users)
        slates = policy.act(seen, setting.k)
        decoys = None if known is None else decoys_of(slates, pools, known)
        of_slates = slates, pools, world.no_click, keys.of(MEAN), known
        before = setting.pays.before(users, *of_slates)
        apart = None if followed is None else followed.disagreement(slates)
        response = users.step(slates, keys.of(CHOICE), None if there.all() else there)
        keys.steps += 1
        rewards = setting.pays.of(response, slates, users.states, before)
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
            decoys,
        )
        policy.observe(transition)
        yield transition
        there = there & ~ended
        if not there.any():
            return


def first_keys(n_users: int, seed: int, first_user: int = 0) -> Keys:
    """Where the users of a rollout stand at their start."""
    require_whole("seed", seed)
    keys = Keys(n_users)
    keys.seed(int(seed), keys.everyone, first_user)
    keys.start(keys.everyone)
    return keys


@dataclass(frozen=True)
class EpisodeResult:
    """Rewards, clicks and slates of one episode."""

    rewards: FloatArray
    """0 of a user who has left, shape (n_users, horizon)"""
    clicks: IntArray
    """1 where something was chosen, shape (n_users, horizon)"""
    shown: BoolArray
    """where a slate was shown, shape (n_users, horizon)"""
    slates: list[IntArray]
    """items of the slates of each step that had users, each of shape (n_users, k)"""
    offered: BoolArray
    """which items the pools of users who were there held, shape (n_items,)"""
    decoys: list[BoolArray | None]
    """`decoys_of` the slates of each of these steps, of the users who choose, each of shape
    (n_users, k); None where they were not counted"""

    @property
    def decoy_share(self) -> float:
        """Share of the displayed items whose utility to their user lay below the median of the
        pool's; an item that stands in a slate twice is displayed once."""
        n_decoys = n_shown = 0
        for slates, decoys, there in zip(self.slates, self.decoys, self.shown.T, strict=False):
            if decoys is not None:
                n_decoys += int(decoys[there].sum())
                n_shown += int((displayed(slates[there]) >= 0).sum())
        return n_decoys / n_shown

    @property
    def returns(self) -> FloatArray:
        """Cumulative reward, shape (n_users,)."""
        return np.asarray(self.rewards.sum(axis=1, dtype=np.float64), np.float32)

    @property
    def click_rate(self) -> float:
        """Share of the slates shown of which something was chosen."""
        return float(self.clicks.sum() / self.shown.sum())


def play(
    world: World, policy: Policy, setting: Setting, n_users: int, seed: int, first_user: int = 0
) -> EpisodeResult:
    """Play one episode to its end. Raises ConfigError as `rollout`.

    Decoys are counted in every step, or in the first of every few, so that their users score at
    most `MOST_SCORED` items of their pools, or the pools of one step."""
    scored = n_users * (setting.pool.size or len(setting.pool.items) or world.n_items)
    every = -(-setting.horizon * scored // MOST_SCORED)
    steps = rollout(world, policy, setting, n_users, seed, first_user, max(every, 1))
    shape = (n_users, setting.horizon)
    outcome = EpisodeResult(
        np.zeros(shape, np.float32),
        np.zeros(shape, np.int32),
        np.zeros(shape, np.bool_),
        [],
        np.zeros(world.n_items, np.bool_),
        [],
    )
    for t, step in enumerate(steps):
        outcome.rewards[:, t] = step.rewards
        outcome.clicks[:, t] = step.active & (step.response.places >= 0)
        outcome.shown[:, t] = step.active
        outcome.slates.append(step.slates.copy())
        outcome.decoys.append(step.decoys)
        outcome.offered[step.pools if step.pools.ndim == 1 else step.pools[step.active]] = True
    return outcome

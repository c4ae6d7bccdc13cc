"""QLearner: the base of cascade-dqn and slateq."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fastgaum.arrays import BoolArray, Float64Array, FloatArray, IntArray, KeyArray
from fastgaum.errors import ConfigError, NumericsError
from fastgaum.nets.tensors import float32_on
from fastgaum.policies.base import (
    MOST_DECOYS,
    Observation,
    Policy,
    Transition,
    decoys_text,
    items_at,
)
from fastgaum.policies.config import PolicyConfig
from fastgaum.state_file import check_weights
from fastgaum.threads import seeded
from fastgaum.worlds.pools import Pool, draw_distinct, draw_uniforms
from fastgaum.worlds.world import World


@dataclass(frozen=True)
class Steps:
    """Remembered steps, a row each."""

    states: FloatArray
    """with the time, where Q reads it, shape (n, n_read)"""
    slates: IntArray
    """items shown, shape (n, k)"""
    places: IntArray
    """place of the choice, -1 for none, shape (n,)"""
    rewards: FloatArray
    next_states: FloatArray
    ended: FloatArray
    """1 where nothing came after, shape (n,)"""
    pools: KeyArray
    """keys of the next step's pools, shape (n,)"""


class ReplayBuffer:
    """A ring of steps. A pool is kept as its key, so that memory does not grow with it."""

    def __init__(self, capacity: int, like: Steps) -> None:
        self.capacity, self.size, self.at = capacity, 0, 0
        self.held = type(like)(
            *(np.empty((capacity, *rows.shape[1:]), rows.dtype) for rows in vars(like).values())
        )

    def add(self, steps: Steps, active: BoolArray) -> None:
        """Remember the steps of the active users, the oldest ones forgotten."""
        # of more users than there is room for, the last ones stay
        there = np.flatnonzero(active)[-self.capacity :]
        n = len(there)
        rows = (self.at + np.arange(n)) % self.capacity
        for name, held in vars(self.held).items():
            held[rows] = getattr(steps, name)[there]
        self.at = (self.at + n) % self.capacity
        self.size = min(self.size + n, self.capacity)

    def draw(self, n: int, rng: np.random.Generator) -> Steps:
        """Remembered steps, each as likely, with replacement."""
        rows = rng.integers(self.size, size=n)
        return type(self.held)(*(values[rows] for values in vars(self.held).values()))


class QLearner(Policy):
    """Base of the policies that learn, in `observe`, so that a rollout trains them.

    Attributes:
        target: the networks' running average. It gives the targets, and acts when nothing is
            learned.
        learning: whether `observe` learns and `act` explores.
        progress: share of the training that is done, which sets epsilon and learning rate.
        loss: mean loss of the last step's updates, NaN before the first.
        decoys: share of decoys in the last evaluation of its training; None before.
    """

    deterministic = True
    undiscounted = False
    """whether the default discount is none where Q reads the time"""
    per_place = False
    """whether it has a network for each place of a slate"""
    pays_surplus = False
    """whether its slates are paid their surplus (`worlds.env_options`), which training says"""

    def __init__(
        self,
        world: World,
        k: int,
        pool: Pool,
        config: PolicyConfig,
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Make networks for a world's items and states: untrained ones, or those of a file, which
        no longer learn. Raises ValueError for `weights` that the configuration does not ask for."""
        self.k, self.pool, self.config = k, pool, config
        self.gamma = config.gamma or (1.0 if self.undiscounted and config.time else 0.97)
        self.no_click, self.n_items, self.made_in = world.no_click, world.n_items, world.fingerprint
        self.item_features = np.ascontiguousarray(world.item_features, np.float32)
        self.n_read = world.state_dim + config.time
        if weights is not None:
            if (1 + len(config.towers)) * (k if self.per_place else 1) > len(weights):
                raise ValueError(
                    f"the configuration asks for more layers than the {len(weights)} weights of "
                    "the file"
                )
            with float32_on("meta"):
                check_weights(self.make_networks(world), weights)
        with seeded(config.seed), float32_on():
            self.networks = self.make_networks(world)
        if weights is not None:
            self.networks.load_state_dict(weights)
        self.target = copy.deepcopy(self.networks)
        self.optimiser = torch.optim.Adam(self.networks.parameters(), lr=config.lr, fused=True)
        self.rng = np.random.default_rng([config.seed, 1])
        self.replay: ReplayBuffer | None = None
        self.learning, self.progress = False, float(weights is not None)
        self.loss, self.n_updates = float("nan"), 0
        self.decoys: float | None = None

    @abstractmethod
    def make_networks(self, world: World) -> nn.ModuleList:
        """Networks with fresh weights."""

    @abstractmethod
    def best_for(self, observation: Observation) -> IntArray:
        """Places of the best slates in the pools by the networks that act, shape (n, k)."""

    @abstractmethod
    def update_loss(self, steps: Steps) -> Tensor:
        """The loss of remembered steps."""

    def require_pool(self, pool: Pool) -> None:
        """Raise ConfigError for another pool than its own, by which it learns."""
        n = self.n_items
        if not (pool.draws_as(self.pool) or pool.pinned(n).draws_as(self.pool.pinned(n))):
            raise ConfigError(
                f"{self.name} was made for pool {self.pool} and cannot learn from {pool}: make it "
                "for the setting's pool (untrained(name, world, k, setting.pool, config))"
            )

    def act(self, observation: Observation, k: int) -> IntArray:
        """As the base says; while it learns, each place is filled at random with probability
        epsilon. Raises ConfigError for slates of another size."""
        if k != self.k:
            raise ConfigError(
                f"{self.name} was made for slates of {self.k} items and is asked for {k}: train it "
                f"for {k}"
            )
        return items_at(observation.pools, self.choose_places(observation))

    def propensities(
        self, observation: Observation, own: IntArray, slates: IntArray
    ) -> Float64Array:
        """As the base says; not known while it learns, for then it explores."""
        if self.learning:
            return np.full(len(own), np.nan)
        return super().propensities(observation, own, slates)

    def choose_places(self, observation: Observation) -> IntArray:
        """Places of the slates that are shown."""
        places = self.best_for(observation)
        if not self.learning:
            return places
        keys, n_pool = observation.keys, observation.pools.shape[-1]
        drawn = draw_distinct(keys, n_pool, min(2 * self.k, n_pool))
        return explore(places, drawn, keys, self.epsilon)

    @property
    def acting(self) -> nn.ModuleList:
        """The networks that choose slates: their average is steadier than the last one."""
        return self.networks if self.learning else self.target

    @property
    def not_recommended(self) -> str | None:
        """Why it is not recommended whatever it is promised, where its last evaluation says so."""
        if self.no_click or self.decoys is None or self.decoys <= MOST_DECOYS:
            return None
        return decoys_text(self.decoys)

    @property
    def epsilon(self) -> float:
        """Share of places filled at random now."""
        return self.config.epsilon_at(self.progress)

    def observe(self, transition: Transition) -> None:
        """Remember the step and take a few gradient steps. Raises NumericsError for a loss that is
        not finite."""
        if not self.learning:
            return
        steps = self.steps_of(transition)
        if self.replay is None:
            self.replay = ReplayBuffer(self.config.replay, steps)
        self.replay.add(steps, transition.active)
        if self.replay.size >= self.config.warm_up:
            self.loss = float(np.mean([self.update() for _ in range(self.config.updates)]))

    def steps_of(self, transition: Transition) -> Steps:
        """The step as it is remembered, a row for each user."""
        return Steps(
            self.read_states(transition.states, transition.left),
            transition.slates,
            transition.response.places,
            transition.rewards,
            self.read_states(transition.next_states, transition.next_left),
            # a user who left has no future; one who is cut off has, unless Q reads the time
            np.asarray(
                transition.ended | (self.config.time and transition.next_left < 1e-9), np.float32
            ),
            transition.next_pools,
        )

    def update(self) -> float:
        """Take one gradient step on remembered steps, and return its loss."""
        assert self.replay is not None
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.lr * (1 - 0.98 * self.progress)
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.update_loss(self.replay.draw(self.config.batch, self.rng))
        if not torch.isfinite(loss):
            raise NumericsError(
                f"{self.name}: the loss of update {self.n_updates} is not finite: lower lr (--set "
                "lr=…)"
            )
        loss.backward()
        nn.utils.clip_grad_norm_(self.networks.parameters(), self.config.clip)
        self.optimiser.step()
        self.n_updates += 1
        with torch.no_grad():
            for own, new in zip(self.target.parameters(), self.networks.parameters(), strict=True):
                own.lerp_(new, self.config.target_rate)
        return float(loss.detach())

    def read_states(self, states: FloatArray, left: float) -> FloatArray:
        """States as Q reads them: with the share of the episode that is left, where `time` says
        so."""
        if not self.config.time:
            return np.array(states, np.float32)
        return np.concatenate([states, np.full((len(states), 1), left, np.float32)], axis=1)

    def discounted(self, steps: Steps, next_values: FloatArray) -> Tensor:
        """y = r + gamma · next value, 0 after the end; shape (n,)."""
        return torch.from_numpy(steps.rewards + self.gamma * (1 - steps.ended) * next_values)


def explore(slates: IntArray, drawn: IntArray, keys: KeyArray, epsilon: float) -> IntArray:
    """Slates whose places are each replaced with probability epsilon, by the first of the `drawn`
    ones, (n, 2k) or the whole pool in random order, that the rest of the slate does not hold."""
    chance = draw_uniforms(keys ^ np.uint64(1), slates.shape[1]) < epsilon
    rest = np.where(chance, -1, slates)
    held = (drawn[:, :, None] == rest[:, None, :]).any(axis=2)
    free = np.take_along_axis(drawn, np.argsort(held, axis=1, kind="stable"), axis=1)
    which = np.maximum(chance.cumsum(axis=1) - 1, 0)
    return np.where(chance, np.take_along_axis(free, which, axis=1), slates)

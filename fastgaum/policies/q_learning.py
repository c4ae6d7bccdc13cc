"""Q-learning: what cascade-dqn, dqn and slateq share: a replay buffer, exploration, target networks
and updates."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fastgaum.checkpoint import State, check_weights
from fastgaum.errors import ConfigError, NumericsError
from fastgaum.policies.base import (
    BoolArray,
    LearningPolicy,
    Observation,
    Transition,
    items_at,
)
from fastgaum.policies.config import PolicyConfig
from fastgaum.threads import seeded
from fastgaum.worlds.pools import Pool, draw_distinct, draw_uniforms
from fastgaum.worlds.world import FloatArray, IntArray, KeyArray, World


@dataclass(frozen=True)
class Steps:
    """Remembered steps, a row each."""

    states: FloatArray
    """state and what else Q reads of the time, shape (n, n_read)"""
    slates: IntArray
    """items shown, shape (n, k)"""
    places: IntArray
    """place of the choice, -1 for none, shape (n,)"""
    rewards: FloatArray
    """shape (n,)"""
    next_states: FloatArray
    """shape (n, n_read)"""
    ended: FloatArray
    """1 where nothing came after, shape (n,)"""
    pools: KeyArray
    """keys of the next step's pools, shape (n,)"""

    @classmethod
    def empty(cls, n: int, n_read: int, k: int) -> Steps:
        """Room for n steps."""
        return Steps(
            np.empty((n, n_read), np.float32),
            np.empty((n, k), np.int32),
            np.empty(n, np.int32),
            np.empty(n, np.float32),
            np.empty((n, n_read), np.float32),
            np.empty(n, np.float32),
            np.empty(n, np.uint64),
        )


class ReplayBuffer:
    """A ring of steps. A pool is kept as its key, so that memory does not grow with it."""

    def __init__(self, held: Steps) -> None:
        """Take room for steps."""
        self.held, self.capacity, self.size, self.at = held, len(held.rewards), 0, 0

    def add(self, steps: Steps, active: BoolArray) -> None:
        """Remember the steps of the users who were there, the oldest ones forgotten."""
        # of more users than there is room for, the last ones stay
        there = np.flatnonzero(active)[-self.capacity :]
        n = len(there)
        rows = (self.at + np.arange(n)) % self.capacity
        for name, held in vars(self.held).items():
            held[rows] = getattr(steps, name)[there]
        self.at = (self.at + n) % self.capacity
        self.size = min(self.size + n, self.capacity)

    def state(self) -> State:
        """The steps held, and the place of the next one in the ring."""
        held = {name: values[: self.size] for name, values in vars(self.held).items()}
        return {"at": self.at, "steps": held}

    def load_state(self, state: State) -> None:
        """Hold such steps. Raises ValueError for more than there is room for."""
        self.at, self.size = state["at"], len(state["steps"]["rewards"])
        for name, values in state["steps"].items():
            getattr(self.held, name)[: self.size] = values

    def draw(self, n: int, rng: np.random.Generator) -> Steps:
        """n remembered steps, each as likely, with replacement."""
        rows: npt.NDArray[np.generic] = rng.integers(self.size, size=n)
        return type(self.held)(*(values[rows] for values in vars(self.held).values()))


class QLearner(LearningPolicy):
    """Base of the Q-learning policies, which define networks, the best slate and the loss.

    Attributes:
        config: sizes and training, with the width that was chosen for the pool.
        gamma: discount of a step.
        k: items of a slate, for which its networks are made.
        networks: what is trained.
        target: their running average. It gives the targets, and it acts when nothing is learned.
        progress: share of the training that is done, which sets epsilon and learning rate.
        fixed_epsilon: an epsilon that replaces the schedule's, for a policy that goes on learning
            after its training; None: the schedule's.
        loss: mean loss of the last step's updates, NaN before the first.
    """

    def __init__(
        self,
        world: World,
        k: int,
        pool: Pool,
        config: PolicyConfig,
        outside: bool | None = None,
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Make untrained networks for a world's items and states.

        Raises:
            ValueError: `weights`, those of a file, are not what the configuration asks for; nothing
                was made then.
        """
        self.k, self.pool, self.config = k, pool, config.for_pools(pool.count(world.n_items))
        self.gamma = config.gamma or self.own_gamma()
        self.outside = world.outside if outside is None else outside
        self.n_items, self.made_in = world.n_items, world.fingerprint
        self.item_features = np.ascontiguousarray(world.item_features, np.float32)
        self.n_read = world.state_dim + config.time
        if weights is not None:
            if self.n_layers() > len(weights):
                raise ValueError(
                    f"the configuration asks for more layers than the {len(weights)} weights of "
                    "the file"
                )
            with torch.device("meta"):
                check_weights(self.made_networks(world), weights)
        with seeded(config.seed):
            self.networks = self.made_networks(world)
        self.target = copy.deepcopy(self.networks)
        self.optimiser = torch.optim.Adam(self.networks.parameters(), lr=config.lr, fused=True)
        self.rng = np.random.default_rng([config.seed, 1])
        self.replay: ReplayBuffer | None = None
        self.fixed_epsilon: float | None = None
        self.n_updates = 0

    @abstractmethod
    def made_networks(self, world: World) -> nn.ModuleList:
        """Networks with fresh weights."""

    def own_gamma(self) -> float:
        """The discount where none is given."""
        return 0.97

    def n_layers(self) -> int:
        """How many layers its networks have, at least."""
        return 1 + len(self.config.towers)

    @abstractmethod
    def best_for(self, observation: Observation) -> IntArray:
        """Places of the best slates in the pools by the networks that act, shape (n, k)."""

    @abstractmethod
    def update_loss(self, steps: Steps) -> Tensor:
        """The loss of remembered steps, of which a gradient step is taken."""

    def act(self, observation: Observation, k: int) -> IntArray:
        """The best slate; while learning, each place is filled at random with probability epsilon.

        Raises:
            ConfigError: it was made for slates of another size.
        """
        if k != self.k:
            raise ConfigError(
                f"{self.name} was made for slates of {self.k} items and is asked for {k}: train it "
                f"for {k}"
            )
        return items_at(observation.pools, self.shown(observation, self.best_for(observation)))

    @property
    def acting(self) -> nn.ModuleList:
        """The networks that choose slates: the average over the last updates acts more steadily
        than the last one."""
        return self.networks if self.learning else self.target

    def shown(self, observation: Observation, places: IntArray) -> IntArray:
        """What is shown instead of the best places: while learning some random ones, see
        `explore`."""
        if not self.learning:
            return places
        return explore(places, observation.keys, observation.pools.shape[-1], self.epsilon)

    @property
    def epsilon(self) -> float:
        """Share of places filled at random now."""
        return (
            self.config.epsilon_at(self.progress)
            if self.fixed_epsilon is None
            else self.fixed_epsilon
        )

    def observe(self, transition: Transition) -> None:
        """Remember the step and take a few gradient steps.

        Raises:
            NumericsError: a loss is not finite.
        """
        if not self.learning:
            return
        if self.replay is None:
            self.replay = self.empty_replay()
        self.replay.add(self.steps_of(transition), transition.active)
        if self.replay.size >= self.config.warm_up:
            self.loss = float(np.mean([self.update() for _ in range(self.config.updates)]))

    def empty_replay(self) -> ReplayBuffer:
        """A replay buffer for such steps as `steps_of` gives."""
        return ReplayBuffer(Steps.empty(self.config.replay, self.n_read, self.k))

    def steps_of(self, transition: Transition) -> Steps:
        """What is remembered of a step, a row for each user."""
        return Steps(
            self.reading(transition.states, transition.left),
            transition.slates,
            transition.response.places,
            transition.rewards,
            self.reading(transition.next_states, transition.next_left),
            # a user who left has no future; one who is cut off has, unless Q reads the time
            np.asarray(
                transition.ended | (self.config.time and transition.next_left < 1e-9), np.float32
            ),
            transition.next_pools,
        )

    def update(self) -> float:
        """One gradient step on remembered steps; returns its loss.

        Raises:
            NumericsError: the loss is not finite.
        """
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

    def weights(self) -> dict[str, Tensor]:
        """Those of the running average: it is what acts."""
        return dict(self.target.state_dict())

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Act by such weights, at the end of the schedule."""
        self.networks.load_state_dict(weights)
        self.target.load_state_dict(weights)
        self.progress = 1.0
        self.weights_changed()

    def state(self) -> State:
        """Networks and their average, moments, replay buffer, random stream and schedule."""
        moments = self.optimiser.state_dict()["state"]
        return {
            "networks": self.networks.state_dict(),
            "target": self.target.state_dict(),
            "moments": {str(number): values for number, values in moments.items()},
            "replay": None if self.replay is None else self.replay.state(),
            "rng": self.rng.bit_generator.state,
            "progress": self.progress,
            "loss": self.loss,
            "n_updates": self.n_updates,
        }

    def load_state(self, state: State) -> None:
        """Go on from such a state."""
        self.networks.load_state_dict(state["networks"])
        self.target.load_state_dict(state["target"])
        moments = {int(number): values for number, values in state["moments"].items()}
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": moments})
        if state["replay"] is not None:
            self.replay = self.empty_replay()
            self.replay.load_state(state["replay"])
        self.rng.bit_generator.state = state["rng"]
        self.progress, self.loss = state["progress"], state["loss"]
        self.n_updates = state["n_updates"]
        self.weights_changed()

    def weights_changed(self) -> None:
        """Weights came from a file: forget what was computed of the former ones."""

    def reading(self, states: FloatArray, left: float) -> FloatArray:
        """States as Q reads them: with the share of the episode that is left, where `time` says
        so."""
        if not self.config.time:
            return np.array(states, np.float32)
        return np.concatenate([states, np.full((len(states), 1), left, np.float32)], axis=1)

    def next_pools(self, keys: KeyArray) -> IntArray:
        """The pools that remembered keys stand for."""
        return self.pool.draw(keys, self.n_items)

    def discounted(self, steps: Steps, next_values: FloatArray) -> Tensor:
        """y = r + gamma · next value, 0 after the end; shape (n,)."""
        return torch.from_numpy(steps.rewards + self.gamma * (1 - steps.ended) * next_values)


def explore(places: IntArray, keys: KeyArray, n_pool: int, epsilon: float) -> IntArray:
    """Slates whose places are each replaced with probability epsilon, by random ones that are not
    in the slate.

    Random places come in a drawn order; a replaced place takes the next one that the slate does not
    hold."""
    n, k = places.shape
    chance = draw_uniforms(keys ^ np.uint64(1), k) < epsilon
    drawn = draw_distinct(keys, n_pool, min(2 * k, n_pool))
    result = places.copy()
    next_draw = np.zeros(n, np.int64)
    for j in range(k):
        rows = np.flatnonzero(chance[:, j])
        waiting = rows
        while len(waiting):
            within = next_draw[waiting] < drawn.shape[1]
            waiting = waiting[within]
            candidate = drawn[waiting, next_draw[waiting]]
            next_draw[waiting] += 1
            others = np.delete(result[waiting], j, axis=1)
            free = (others != candidate[:, None]).all(axis=1)
            result[waiting[free], j] = candidate[free]
            waiting = waiting[~free]
    return result

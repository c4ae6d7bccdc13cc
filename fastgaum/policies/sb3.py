"""Sb3Policy: an agent of Stable-Baselines3 as a policy, which `judge` and TransferPolicy play.

agent = PPO("MlpPolicy", SB3VecEnv(UserVectorEnv(64, world=own, …)))
agent.learn(100_000)
judge_seeds([Sb3Policy(agent)], other, Setting(k=3, pool=pool), own=own)
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable
from typing import cast

import numpy as np
import numpy.typing as npt

from fastgaum.arrays import IntArray
from fastgaum.errors import ConfigError
from fastgaum.policies.base import Observation, Policy, Transition, items_at
from fastgaum.worlds.item_by_item import Picks, VectorCascadeWrapper
from fastgaum.worlds.observations import Observations, Observed
from fastgaum.worlds.pools import UserPools
from fastgaum.worlds.sb3 import SB3VecEnv
from fastgaum.worlds.vector_env import UserVectorEnv
from fastgaum.worlds.world import Past

try:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.vec_env import (
        VecCheckNan,
        VecEnv,
        VecEnvWrapper,
        VecMonitor,
        VecNormalize,
    )
except ImportError as error:
    raise ImportError(
        "fastgaum.policies.sb3 needs Stable-Baselines3: pip install '.[rl]' in the clone"
    ) from error

Predict = Callable[..., tuple[npt.NDArray[np.generic], object]]


class Sb3Policy(Policy):
    """An agent of Stable-Baselines3, or of sb3-contrib, that was trained on an `SB3VecEnv`, whose
    observations it sees. It shows whole slates, or picks them item by item on a cascade. One that
    sees no item features plays from the fixed pool of its training alone."""

    def __init__(
        self, agent: BaseAlgorithm, envs: VecEnv | None = None, *, deterministic: bool = True
    ) -> None:
        """Take a trained agent, which is not changed.

        Args:
            agent: the agent.
            envs: the environment of its training, or one made alike, in VecMonitor, VecCheckNan or
                VecNormalize; None = the one that the agent holds.
            deterministic: the agent's best action; False: drawn by torch's global random state.

        Raises:
            ConfigError: there is no environment, it is not an `SB3VecEnv`, something else is around
                it, or the agent was trained on other observations or in another world.
        """
        envs = agent.get_env() if envs is None else envs
        self.users, cascade, self._normalisers = _unwrapped(envs)
        if envs is not None and agent.observation_space != envs.observation_space:
            raise ConfigError(
                f"the agent was trained on {agent.observation_space}, and the environment has "
                f"{envs.observation_space}: pass one made as in the training, and judge it "
                "elsewhere with own=…"
            )
        self.name, self.made_in = type(agent).__name__.lower(), self.users.world.fingerprint
        self.agent, self.deterministic = agent, deterministic
        self._predict = cast(Predict, agent.predict)
        self._is_masked = "action_masks" in inspect.signature(agent.predict).parameters
        self._observe_taken = None if cascade is None else cascade.picks.observe_taken
        self._observations: Observations | None = None

    def start(self, n: int, past: Iterable[Past] = ()) -> None:
        """As the base says."""
        self._everyone = np.arange(n, dtype=np.int32)
        self._pools: UserPools = copy.copy(self.users.pools)
        self._pools.items = np.zeros((n, self._pools.size), np.int32)
        options, taken = self.users.options, self._observe_taken
        self._observations = Observations(self.users.world, self._pools, n, options)
        self._picks = None if taken is None else Picks(self.users, taken, n)
        self._memory: object = None
        self._begins = np.ones(n, np.bool_)
        if self._observations.sessions is not None:
            self._observations.sessions.reset(self._everyone, past)

    def observe(self, transition: Transition) -> None:
        """As the base says, where the agent's observations hold sessions."""
        if self._observations is not None and self._observations.sessions is not None:
            self._observations.sessions.see(
                transition.slates, transition.response.items, transition.active
            )

    def act(self, observation: Observation, k: int) -> IntArray:
        """As the base says. Raises ConfigError for slates of another size, or a pool that the agent
        cannot tell from that of its training."""
        if self._observations is None:
            raise ConfigError("a policy meets its users in start: call start(n) before act")
        self._check(observation.pools, k)
        self._pools.items = np.atleast_2d(observation.pools)
        self._observations.pools_changed(self._everyone)
        # as in its environment, where without a horizon all is left at all times
        share = observation.left if self.users.options.horizon else 1.0
        left = np.full(len(self._everyone), share, np.float32)
        base = self._observations.of(observation.states, left)
        if self._picks is None:
            return items_at(observation.pools, self._places(base))
        self._picks.clear()
        for _ in range(k):
            picking = np.ones(len(self._everyone), np.bool_)
            self._picks.add(self._places(self._picks.observe(base)), picking)
        return items_at(observation.pools, self._picks.slates.astype(np.int32))

    def _places(self, seen: Observed) -> IntArray:
        """The agent's actions: places of the pools, (n, k), or a pick each, (n,)."""
        for normaliser in self._normalisers:
            seen = cast(Observed, normaliser.normalize_obs(seen))
        masks = {}
        if self._is_masked and self._picks is not None:
            masks = {"action_masks": ~self._picks.taken}
        actions, self._memory = self._predict(
            seen,
            state=self._memory,
            episode_start=self._begins,
            deterministic=self.deterministic,
            **masks,
        )
        self._begins = np.zeros(len(self._begins), np.bool_)
        return np.asarray(actions, np.int32)

    def _check(self, pools: IntArray, k: int) -> None:
        """Raise ConfigError unless slates and pools are those that the agent can play."""
        size, own = self.users.slate_size, self.users.pools
        if k != size:
            raise ConfigError(
                f"{self.name} was trained with slates of {size}, not {k}: judge it with k = {size}"
            )
        if pools.shape[-1] != own.size:
            raise ConfigError(
                f"{self.name} was trained with pools of {own.size} items, not {pools.shape[-1]}: "
                "train and judge it with one pool (shared_pool(pool, own, other))"
            )
        blind = own.kind == "fixed" and not self.users.options.features
        if blind and self.users.options.observation == "flat" and (pools != own.items[0]).any():
            raise ConfigError(
                f"{self.name} sees no features, so it knows an item by its place in the pool, and "
                "this pool has other items than that of its training: train and judge it with one "
                "pool (shared_pool(pool, own, other)), or train it with features=True"
            )


def _unwrapped(
    envs: VecEnv | None,
) -> tuple[UserVectorEnv, VectorCascadeWrapper | None, list[VecNormalize]]:
    """The users of an environment, their cascade, and what normalises observations, innermost
    first."""
    if envs is None:
        raise ConfigError(
            "the agent holds no environment: pass envs=, the one of its training or one made alike"
        )
    normalisers: list[VecNormalize] = []
    while isinstance(envs, VecEnvWrapper):
        if isinstance(envs, VecNormalize):
            normalisers.insert(0, envs)
        elif not isinstance(envs, VecMonitor | VecCheckNan):
            raise ConfigError(
                f"what {type(envs).__name__} does to an observation is not known here: train on "
                "SB3VecEnv, with VecMonitor, VecCheckNan or VecNormalize around it at most"
            )
        envs = envs.venv
    if not isinstance(envs, SB3VecEnv):
        raise ConfigError(
            f"the agent was trained on a {type(envs).__name__}: an agent that this can play was "
            "trained on fastgaum.worlds.sb3.SB3VecEnv"
        )
    inner = envs.envs
    if isinstance(inner, VectorCascadeWrapper):
        return inner.users, inner, normalisers
    return inner, None, normalisers

"""A slate chosen place by place, so that an agent of one discrete action (DQN, masked PPO) can
learn slates. An agent that discounts by γ per step of the user discounts by γ^(1/k) here.

    envs = VectorCascadeWrapper(
        gymnasium.make_vec("fastgaum.worlds:fastgaum/User-v0", num_envs=64, run="RUN")
    )
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorWrapper
from gymnasium.vector.utils import batch_space

from fastgaum.arrays import BoolArray
from fastgaum.errors import ActionError, ConfigError
from fastgaum.worlds.observations import Info, Observed, row_of
from fastgaum.worlds.vector_env import Step, UserVectorEnv

if TYPE_CHECKING:
    _VectorWrapper = VectorWrapper[Any, Any, Any, Any, Any]
else:
    # before gymnasium 1.4 it takes no type parameters
    _VectorWrapper = VectorWrapper


class Picks:
    """The unfinished slates of n users."""

    def __init__(self, env: UserVectorEnv, observe_taken: bool, n: int | None = None) -> None:
        """Begin slates for an environment's users, or for n others. Raises ConfigError for a pool
        smaller than a slate."""
        self.n = env.num_envs if n is None else n
        self.slate_size, self.pool_size = env.slate_size, env.pools.size
        if self.pool_size < self.slate_size:
            raise ConfigError(
                f"a pool of {self.pool_size} items cannot fill a slate of {self.slate_size} places "
                "one by one: enlarge pool_size or shrink slate_size"
            )
        self.strict, self.observe_taken = env.options.strict, observe_taken
        self.slates = np.zeros((self.n, self.slate_size), np.int64)
        self.places = np.zeros(self.n, np.int64)
        self.taken = np.zeros((self.n, self.pool_size), np.bool_)
        self._everyone = np.arange(self.n)

    def space(self, base: spaces.Space[Any]) -> spaces.Space[Any]:
        """One user's observation: the environment's, then what is taken and the place to fill."""
        if isinstance(base, spaces.Dict):
            more: dict[str, spaces.Space[Any]] = {
                "place": spaces.Box(0, 1, (self.slate_size,), np.float32)
            }
            if self.observe_taken:
                more["taken"] = spaces.Box(0, 1, (self.pool_size,), np.float32)
            return spaces.Dict({**base.spaces, **more})
        assert isinstance(base, spaces.Box)
        width = self.slate_size + self.pool_size * self.observe_taken
        low, high = np.zeros(width, np.float32), np.ones(width, np.float32)
        return spaces.Box(
            np.concatenate([base.low, low]), np.concatenate([base.high, high]), dtype=np.float32
        )

    def observe(self, base: Observed) -> Observed:
        """Observations of all users; new arrays."""
        place = np.zeros((self.n, self.slate_size), np.float32)
        place[self._everyone, self.places] = 1
        taken = {"taken": self.taken.astype(np.float32)} if self.observe_taken else {}
        if isinstance(base, dict):
            return {**base, "place": place, **taken}
        return np.concatenate([base, place, *taken.values()], axis=1)

    def observe_one(self, base: Any) -> Any:
        """The observation of a single user; new arrays."""
        is_dict = isinstance(base, dict)
        many = {name: part[None].copy() for name, part in base.items()} if is_dict else base[None]
        return row_of(self.observe(many), 0)

    def add(self, actions: npt.NDArray[Any], picking: BoolArray) -> BoolArray:
        """Put each user's pick into its slate; return whose slate is full."""
        if actions.shape != (self.n,) or actions.dtype.kind not in "iu":
            raise ActionError(
                f"actions are {actions.dtype} of shape {actions.shape}, whole numbers of shape "
                f"({self.n},) are required"
            )
        wrong = picking & ((actions < 0) | (actions >= self.pool_size))
        if wrong.any():
            user = int(wrong.argmax())
            raise ActionError(
                f"the action of user {user} is {actions[user]}, a place of the pool from 0 to "
                f"{self.pool_size - 1} is required"
            )
        users = self._everyone[picking]
        picks, places = actions[picking], self.places[picking]
        if self.strict and self.taken[users, picks].any():
            user = int(users[self.taken[users, picks].argmax()])
            raise ActionError(
                f"the action of user {user} is {actions[user]}, which its slate holds already:"
                " read info['action_mask'], or pass strict=False to display it once"
            )
        self.slates[users, places] = picks
        self.taken[users, picks] = True
        self.places[users] += 1
        return np.asarray(self.places == self.slate_size)

    def clear(self, users: BoolArray | None = None) -> None:
        """Begin new slates for some users, or for all."""
        where = slice(None) if users is None else users
        self.places[where] = 0
        self.taken[where] = False


class VectorCascadeWrapper(_VectorWrapper):
    """n users, one item per user and step.

    Observed: the environment's, then the place to fill, one-hot (n, slate_size), then, with
    `observe_taken`, 1 for each place of the pool that the slate holds already (n, pool_size);
    float32, flat or as keys `place` and `taken` of a dict. Action: Discrete(pool_size) for each.

    Reward and ends: 0 and False until the slate is full, then the environment's. Info: its keys
    then, and `action_mask` bool (n, pool_size), True for what may be picked. An item picked twice
    is displayed once; in a strict environment it is an error. Under NEXT_STEP a user starts its
    next episode in one step, while others go on with their slates."""

    def __init__(self, env: UserVectorEnv, observe_taken: bool = True) -> None:
        """Wrap a `UserVectorEnv` itself. Raises ConfigError for another one, or for a pool smaller
        than a slate."""
        if not isinstance(env, UserVectorEnv):
            raise ConfigError(
                f"a cascade wraps fastgaum's UserVectorEnv and nothing in between, got {env}"
            )
        super().__init__(env)
        self.users = env
        self.picks, self._empty = Picks(env, observe_taken), Picks(env, observe_taken, 1)
        self.single_observation_space = self.picks.space(env.single_observation_space)
        self.single_action_space = spaces.Discrete(self.picks.pool_size)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        self.action_space = batch_space(self.single_action_space, env.num_envs)
        self._ended = np.zeros(env.num_envs, np.bool_)

    def reset(self, *, seed: Any = None, options: Info | None = None) -> tuple[Observed, Info]:
        """Start episodes with empty slates, of all users or of those of `options["reset_mask"]`."""
        base, info = self.users.reset(seed=seed, options=options)
        mask = None if options is None else options.get("reset_mask")
        self.picks.clear(mask)
        self._ended[slice(None) if mask is None else mask] = False
        return self.picks.observe(base), info | self._masks(mask)

    def step(self, actions: npt.NDArray[Any]) -> Step:
        """Pick one item per user, shape (n,). Raises ActionError for one outside the pool, or
        taken in a strict environment."""
        # refused before a pick is kept
        self.users.require_going(self._ended)
        picking = ~self._ended
        acting = self.picks.add(np.asarray(actions), picking) | self._ended
        base, rewards, terminated, truncated, info = self.users.step_where(
            self.picks.slates, acting
        )
        self.picks.clear(acting)
        if self.users.autoreset_mode is not AutoresetMode.SAME_STEP:
            self._ended = terminated | truncated
        elif "final_obs" in info:
            for user in np.flatnonzero(info["_final_obs"]):
                info["final_obs"][user] = self._empty.observe_one(info["final_obs"][user])
            info["final_info"] |= self._masks(info["_final_obs"])
        return self.picks.observe(base), rewards, terminated, truncated, info | self._masks(None)

    def action_masks(self) -> BoolArray:
        """What each user may pick now, shape (n, pool_size); sb3-contrib's MaskablePPO asks by this
        name."""
        return ~self.picks.taken

    def _masks(self, users: BoolArray | None) -> Info:
        there = np.ones(self.num_envs, np.bool_) if users is None else users.copy()
        return {"action_mask": self.action_masks(), "_action_mask": there}

"""The native vector environment as a Stable-Baselines3 VecEnv."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from fastgaum.errors import ConfigError
from fastgaum.worlds.item_by_item import VectorCascadeWrapper
from fastgaum.worlds.observations import Info, row_of
from fastgaum.worlds.vector_env import UserVectorEnv

try:
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise ImportError(
        "fastgaum.worlds.sb3 needs Stable-Baselines3: pip install '.[rl]' in the clone"
    ) from error

Indices = None | int | Iterable[int]


class SB3VecEnv(VecEnv):
    """`PPO("MlpPolicy", SB3VecEnv(envs))`, where `envs` resets in the same step.

    Observations and actions are those of `envs`, rewards float32 (n,), dones bool (n,). The info of
    a user whose episode ended holds `terminal_observation`, `TimeLimit.truncated` and the entries
    of `final_info`; the others' are empty."""

    def __init__(self, envs: UserVectorEnv | VectorCascadeWrapper) -> None:
        """Adapt users, or their cascade. Raises ConfigError unless they reset in the same step."""
        if envs.metadata["autoreset_mode"] is not AutoresetMode.SAME_STEP:
            raise ConfigError(
                "SB3 expects environments that reset in the same step, these have "
                f"{envs.metadata['autoreset_mode']}: make them with autoreset_mode='SAME_STEP'"
            )
        self.envs = envs
        users = envs.users if isinstance(envs, VectorCascadeWrapper) else envs
        space = _of_world(envs.single_observation_space, users.world.fingerprint)
        super().__init__(envs.num_envs, space, envs.single_action_space)
        self._seed: int | None = None
        self._actions: npt.NDArray[np.generic] | None = None

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed the next reset: user i takes the stream (seed, i)."""
        self._seed = seed
        return [seed] * self.num_envs

    def reset(self) -> Any:
        """Start an episode of every user."""
        observations, info = self.envs.reset(seed=self._seed)
        self._seed = None
        self.reset_infos = [_info_of(info, user) for user in range(self.num_envs)]
        return observations

    def step_async(self, actions: npt.NDArray[np.generic]) -> None:
        """Take the actions of the next step."""
        self._actions = actions

    def step_wait(self) -> Any:
        """Step; observations of ended users are those of their next episodes."""
        assert self._actions is not None, "step_async comes before step_wait"
        observations, rewards, terminated, truncated, info = self.envs.step(self._actions)
        infos: list[Info] = [{} for _ in range(self.num_envs)]
        for user in np.flatnonzero(terminated | truncated):
            infos[user] = _info_of(info["final_info"], int(user)) | {
                "terminal_observation": info["final_obs"][user],
                "TimeLimit.truncated": bool(truncated[user]),
            }
        return observations, rewards, terminated | truncated, infos

    def close(self) -> None:
        """Close the users."""
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """The vector's own attribute, for each user asked for. Raises AttributeError."""
        return [getattr(self.envs, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: object, indices: Indices = None) -> None:
        """Set the vector's own attribute: it is every user's."""
        setattr(self.envs, attr_name, value)

    def env_method(
        self, method_name: str, *args: object, indices: Indices = None, **kwargs: object
    ) -> list[Any]:
        """Call a method of the vector and give each user asked for its row, as MaskablePPO
        needs."""
        rows = getattr(self.envs, method_name)(*args, **kwargs)
        return [row_of(rows, user) for user in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[object], indices: Indices = None) -> list[bool]:
        """No user has a wrapper of its own."""
        return [False for _ in self._get_indices(indices)]


class WorldBox(spaces.Box):
    """A Box whose vectors hold states of one world, equal to a plain Box and to that of its own
    world: SB3 compares spaces when an agent is given another environment."""

    def __init__(self, box: spaces.Box, world: str) -> None:
        super().__init__(box.low, box.high, box.shape, np.float32)
        self.world = world

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) and (
            not isinstance(other, WorldBox) or self.world == other.world
        )

    def __repr__(self) -> str:
        return (
            f"{super().__repr__()} of the states of world {self.world[:8]} (an agent reads those of"
            " its own world: judge it in another as Sb3Policy)"
        )


def _of_world(space: spaces.Space[object], world: str) -> spaces.Space[object]:
    if isinstance(space, spaces.Dict):
        parts = {**space.spaces, "state": _of_world(space["state"], world)}
        return cast(spaces.Space[object], spaces.Dict(parts))
    assert isinstance(space, spaces.Box)
    return cast(spaces.Space[object], WorldBox(space, world))


def _info_of(info: Info, user: int) -> Info:
    return {
        name: value[user]
        for name, value in info.items()
        if not name.startswith("_") and info[f"_{name}"][user]
    }

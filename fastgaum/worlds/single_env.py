"""One learned user as a Gymnasium environment."""

from __future__ import annotations

import os
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from gymnasium import Env
from gymnasium.vector import AutoresetMode

from fastgaum.errors import ConfigError
from fastgaum.worlds.observations import Info, row_of
from fastgaum.worlds.vector_env import UserVectorEnv
from fastgaum.worlds.world import World


class UserEnv(Env[Any, npt.NDArray[np.int64]]):
    """One user that is shown slates:
    `gymnasium.make("fastgaum.worlds:fastgaum/User-v0", run="RUN")`.

    The contract is `UserVectorEnv`'s without the first axis, and without masks; with seed s, the
    user is user 0 of a vector with seed s."""

    metadata: dict[str, object] = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012

    def __init__(
        self,
        *,
        run: str | os.PathLike[str] | None = None,
        world: World | None = None,
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        """Make one user; options and errors as `UserVectorEnv`, without num_envs and
        autoreset_mode."""
        for name in ("num_envs", "autoreset_mode"):
            if name in options:
                raise ConfigError(
                    f"one user has no {name}: leave it out, or use gymnasium.make_vec"
                )
        self.vector = UserVectorEnv(
            1,
            run=run,
            world=world,
            autoreset_mode=AutoresetMode.DISABLED,
            render_mode=render_mode,
            **options,
        )
        self.render_mode = render_mode
        self.world, self.slate_size = self.vector.world, self.vector.slate_size
        self.observation_space = self.vector.single_observation_space
        self.action_space = self.vector.single_action_space

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Any, Info]:
        """Start an episode. Raises ActionError as `UserVectorEnv.reset`."""
        observations, info = self.vector.reset(seed=seed, options=options)
        super().reset(seed=None if seed is None else int(seed))
        return row_of(observations, 0), _of_one(info)

    def step(self, action: npt.NDArray[np.int64]) -> tuple[Any, float, bool, bool, Info]:
        """Show the user a slate of places in the pool. Raises ActionError as
        `UserVectorEnv.step`."""
        observations, rewards, terminated, truncated, info = self.vector.step(
            np.asarray(action)[None]
        )
        return (
            row_of(observations, 0),
            float(rewards[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            _of_one(info),
        )

    @property
    def np_random_seed(self) -> int:
        """The seed of the user's draws."""
        return cast(int, self.vector.np_random_seed)

    def render(self) -> str | None:
        """`UserVectorEnv.render` of the user: a text, or None."""
        texts = self.vector.render()
        return None if texts is None else texts[0]

    @property
    def pool(self) -> npt.NDArray[np.int32]:
        """Item numbers of the pool now, shape (pool_size,); read, do not write."""
        return np.asarray(self.vector.pools.items[0])


def _of_one(info: Info) -> Info:
    return {
        name: value[0].copy() if value.ndim > 1 else value[0].item()
        for name, value in info.items()
        if not name.startswith("_")
    }

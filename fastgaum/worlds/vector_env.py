"""Many learned users as one natively vectorised Gymnasium environment."""

from __future__ import annotations

import numbers
import os
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from fastgaum.arrays import BoolArray, FloatArray, IntArray
from fastgaum.errors import (
    ActionError,
    RenderModeError,
    as_given,
    require_whole,
)
from fastgaum.kernels.shown_slates import slates_of
from fastgaum.worlds.env_options import (
    EnvOptions,
    StepReward,
    leaving_rule,
    mode_of,
    world_of_options,
)
from fastgaum.worlds.observations import Info, Observations, Observed, rows_apart, text_of
from fastgaum.worlds.pools import (
    CHOICE,
    LEAVE,
    MEAN,
    START,
    CandidatePools,
    Keys,
    Pool,
    UserPools,
    draw_uniform,
)
from fastgaum.worlds.world import NO_ITEM, Population, World
from fastgaum.worlds.world_set import require_set

Step = tuple[Observed, npt.NDArray[np.float32], BoolArray, BoolArray, Info]


class UserVectorEnv(VectorEnv[Any, Any, Any]):
    """Users that are shown slates, many at once:
    `gymnasium.make_vec("fastgaum.worlds:fastgaum/User-v0", num_envs=4096, run="RUN")`.

    Observed, of n = num_envs users:
        "flat", float32: the states, (n, state_dim); with end = "termination" the share of the
        horizon left; with features the pool's item features place by place, (n, pool_size ·
        n_features). "dict": `state` float32 (n, state_dim); `pool` item numbers, `shown` and
        `chosen`, how often the session displayed and chose each of them, int32 (n, pool_size);
        `events` of the session, int32 (n, 1); `latest`, the items of its last choices, the last one
        first, −1 where there were fewer, n_items for an unknown one, int32 (n, 20); `left`, the
        share of the horizon, 1 without one, float32 (n, 1); with features, `features` float32 (n,
        pool_size, n_features). A dict is all that utilities depend on, beside the member of a set
        of worlds; a flat observation is not.
    Action:
        a slate of places in the pool, whole numbers, shape (n, slate_size), each in 0 … pool_size −
        1. A place that is named twice is displayed once, where it stands first; with `strict` it is
        an error.
    Reward:
        float32, shape (n,), by `EnvOptions.reward`.
    Termination:
        bool, shape (n,): the user left, by `EnvOptions.leaving`; with end = "termination" also that
        the episode took `horizon` steps.
    Truncation:
        bool, shape (n,): the episode took `horizon` steps, without end = "termination", and the
        user did not leave.
    Info, of a step:
        `item` int32 (n,), number of the item chosen, −1 for none; `place` int32 (n,), its place in
        the slate, −1; `utility` float32 (n,); where it is asked for, `disagreement` float32 (n,).
        `pool` int32 (n, pool_size) whenever a user's pool is new, also at reset. Every key has a
        mask `_key`, bool (n,): where it is False the entry means nothing. SAME_STEP adds
        `final_obs`, objects (n,), each a copy of one user's last observation or None, and
        `final_info`, the keys above.

    Autoreset: NEXT_STEP (default): the step after an end ignores that user's action, starts an
    episode and pays 0. SAME_STEP: the ending step returns the new episode's first observation.
    DISABLED: `reset(options={"reset_mask": mask})`, which works in the other modes too; stepping a
    user whose episode is over is an error.

    Seeding: `reset(seed=s)` gives user i the stream (s, i); a sequence of seeds the stream
    (seeds[i], 0), that of a single environment with that seed. A draw depends on stream, episode,
    step and use alone. Without a seed, episodes go on; without any ever, one is taken from the
    system."""

    metadata: dict[str, object] = {  # noqa: RUF012
        "render_modes": ["ansi"],
        "render_fps": 1,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        *,
        run: str | os.PathLike[str] | None = None,
        world: World | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        """Make users of a trained run, or of a world.

        Args:
            num_envs: number of users.
            run: a run folder or model file.
            world: the world itself, instead of a run.
            autoreset_mode: NEXT_STEP, SAME_STEP or DISABLED.
            render_mode: "ansi": `render` returns a text for each user; None: it returns None.
            options: the fields of `fastgaum.worlds.env_options.EnvOptions` by name, and with a run
                the options of `LearnedWorld`.

        Raises:
            ConfigError: an option is unknown or impossible.
            CheckpointError: the run is damaged.
        """
        require_whole("num_envs", num_envs, 1)
        if render_mode not in (None, "ansi"):
            raise RenderModeError(
                f"render_mode is {as_given(render_mode)}, None or 'ansi' is required: users have a "
                "text and no picture"
            )
        self.render_mode = render_mode
        self.autoreset_mode = mode_of(autoreset_mode)
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        names = [field.name for field in fields(EnvOptions)]
        given = dict(options)
        own: dict[str, Any] = {name: given.pop(name) for name in names if name in given}
        self.options = EnvOptions(**own)
        self.world = world_of_options(run, world, given, names)
        self.num_envs, self.slate_size = num_envs, self.options.slate_size
        self._reward = StepReward(self.options.reward)
        self._reward.require_world(self.world)
        leaving = self.options.leaving
        self._leaving = None if leaving is None else leaving_rule(leaving, self.world)

        pool, size, n_items = self.options.pool, self.options.pool_size, self.world.n_items
        self.pools = (
            CandidatePools(pool, size, n_items, num_envs)
            if callable(pool)
            else UserPools(Pool.of(pool, size or 0), n_items, num_envs)
        )
        self._followed = None
        if self.options.follow_all:
            self._followed = require_set(self.world).population(num_envs, follow_all=True)
        self.users: Population = self._followed or self.world.population(num_envs)
        self._observations = Observations(self.world, self.pools, num_envs, self.options)
        self.single_observation_space = self._observations.single_space
        self.single_action_space = spaces.MultiDiscrete([self.pools.size] * self.slate_size)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

        self._keys = Keys(num_envs)
        self._slates = np.full((num_envs, self.slate_size), NO_ITEM, np.int32)
        self._places = np.full(num_envs, -1, np.int32)
        self._thought: FloatArray = np.zeros(self._slates.shape, np.float32)
        self._everyone = np.ones(num_envs, np.bool_)
        self._none = np.zeros(num_envs, np.bool_)
        self._ended = self._none.copy()
        self._started = False

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: Info | None = None
    ) -> tuple[Observed, Info]:
        """Start an episode of every user, or of those of `options["reset_mask"]` (bool, shape
        (n,)). Raises ActionError for other types, shapes or options, or a first reset that leaves
        users out."""
        mask = self._reset_mask(options)
        rows = self._keys.everyone if mask is None else _rows(mask)
        if seed is None and not self._started:
            seed = self.np_random_seed
        if seed is not None:
            self._seed(seed, rows)
        self._started = True
        info: Info = {}
        self._begin(rows, info)
        return self.observe(), info

    def step(self, actions: npt.NDArray[np.generic]) -> Step:
        """Show every user a slate of places in the pool, shape (n, slate_size). Raises ActionError
        for another shape, type or range, before a reset, or after a user's end (DISABLED)."""
        return self.step_where(actions, None)

    def step_where(self, actions: npt.NDArray[np.generic], active: BoolArray | None) -> Step:
        """`step` for the users of a mask, (n,); the others stay, with reward 0 and no end (None:
        everyone)."""
        stepping, waiting = self._who(active)
        rewards, terminated, truncated, info = self._advance(self._checked(actions), stepping)
        done = terminated | truncated
        if waiting is not None:
            self._begin(_rows(waiting), info)
        if self.autoreset_mode is not AutoresetMode.SAME_STEP:
            self._ended |= done
        elif done.any():
            self._finish(done, info)
        return self.observe(), rewards, terminated, truncated, info

    def observe(self) -> Observed:
        """The observations now; no state moves."""
        left = 1 - self._keys.steps / (self.options.horizon or np.inf)
        return self._observations.of(self.users.states, left.astype(np.float32))

    def render(self) -> tuple[str, ...] | None:
        """What each user was last shown, its utilities of it before the choice, and its choice, a
        text each."""
        if self.render_mode is None:
            return None
        names = [*self.world.item_ids.cast(pl.String), None]
        slates = [[names[item] for item in slate] for slate in self._slates]
        return tuple(map(text_of, slates, self._thought, self._places.tolist()))

    def require_going(self, users: BoolArray) -> None:
        """Raise ActionError before a reset, and where one of these users ended (DISABLED)."""
        if not self._started:
            raise ActionError("no episode has begun: call reset() before step()")
        ended = self._ended & users
        if self.autoreset_mode is AutoresetMode.DISABLED and ended.any():
            raise ActionError(
                f"the episode of user {ended.argmax()} is over and autoreset is disabled:"
                " call reset(options={'reset_mask': terminated | truncated}) before the next step"
            )

    def _who(self, active: BoolArray | None) -> tuple[BoolArray, BoolArray | None]:
        """Who takes a step, and who starts an episode instead (None: no user)."""
        if active is not None and (active.shape != self._ended.shape or active.dtype != np.bool_):
            raise ActionError(
                f"the mask is {active.dtype} of shape {active.shape}, bool of ({self.num_envs},) "
                "is required"
            )
        acting = self._everyone if active is None else active
        self.require_going(acting)
        ended = self._ended & acting
        return (acting & ~ended, ended) if ended.any() else (acting, None)

    def _checked(self, actions: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
        actions = np.asarray(actions)
        shape = (self.num_envs, self.slate_size)
        if actions.shape != shape or actions.dtype.kind not in "iu":
            raise ActionError(
                f"actions are {actions.dtype} of shape {actions.shape}, whole numbers of shape "
                f"{shape} are required: a row of places in the pool per user"
            )
        return actions.astype(np.int64, order="C", copy=False)

    def _advance(
        self, actions: npt.NDArray[np.int64], stepping: BoolArray
    ) -> tuple[npt.NDArray[np.float32], BoolArray, BoolArray, Info]:
        """Reward, termination, truncation and info of one step of some users."""
        if stepping is not self._everyone and not stepping.any():
            return np.zeros(self.num_envs, np.float32), self._none.copy(), self._none.copy(), {}
        refused = slates_of(actions, self.pools.items, stepping, self.options.strict, self._slates)
        if refused >= 0:
            raise self._refusal(actions, *divmod(refused, self.slate_size))
        active = None if stepping is self._everyone else stepping
        apart = None if self._followed is None else self._followed.disagreement(self._slates)
        pools = self.pools.items[0] if len(self.pools.items) == 1 else self.pools.items
        of_slates = self._slates, pools, self.world.no_click, self._keys.of(MEAN)
        before = self._reward.before(self.users, *of_slates)
        if self.render_mode is not None:
            self._thought[stepping] = self.users.utilities(self._slates)[stepping]
        response = self.users.step(self._slates, self._keys.of(CHOICE), active)
        if self._observations.sessions is not None:
            self._observations.sessions.see(self._slates, response.items, stepping)
        self._places[stepping] = response.places[stepping]
        self._keys.steps += stepping
        states, steps = self.users.states, self._keys.steps
        rewards = self._reward.of(response, self._slates, states, before)
        terminated, truncated = self._none.copy(), self._none.copy()
        if self._leaving is not None:
            probabilities = self._leaving(response, steps, states)
            np.less(draw_uniform(self._keys.of(LEAVE)), probabilities, out=terminated)
        if self.options.horizon is not None:
            over = terminated if self.options.end == "termination" else truncated
            over |= steps >= self.options.horizon
        if apart is not None:
            rewards -= np.float32(self.options.pessimism) * apart
        if active is not None:
            rewards[~stepping] = 0.0
            terminated &= stepping
            truncated &= stepping
        truncated &= ~terminated
        info: Info = {
            "item": response.items.copy(),
            "place": response.places.copy(),
            "utility": response.utilities.copy(),
        }
        if apart is not None:
            info["disagreement"] = np.where(stepping, apart, np.float32(0))
        info |= {f"_{name}": stepping.copy() for name in info}
        if self.pools.kind == "per_step":
            self._draw_pools(_rows(stepping), info)
        return rewards, terminated, truncated, info

    def _finish(self, done: BoolArray, info: Info) -> None:
        """SAME_STEP: put away what ended, with copies, and start the next episode."""
        rows = _rows(done)
        final = {
            name: value & done if name.startswith("_") else value.copy()
            for name, value in info.items()
        }
        for name in [name for name in info if name.startswith("_")]:
            info[name] &= ~done
        info["final_obs"] = rows_apart(self.observe(), rows, self.num_envs)
        info["_final_obs"] = done.copy()
        info["final_info"], info["_final_info"] = final, done.copy()
        self._begin(rows, info)

    def _begin(self, rows: IntArray, info: Info) -> None:
        self._keys.start(rows)
        everyone = len(rows) == self.num_envs
        keys = self._keys.of(START, rows)
        self.users.reset(keys, None if everyone else rows)
        if self._observations.sessions is not None:
            self._observations.sessions.reset(rows, self.world.past(keys.copy()))
        self._ended[rows] = False
        if self.pools.kind != "fixed":
            self._draw_pools(rows, info)

    def _draw_pools(self, rows: IntArray, info: Info) -> None:
        self.pools.renew(self._keys, rows, self.users.states)
        self._observations.pools_changed(rows)
        info["pool"] = self.pools.items.copy()
        info.setdefault("_pool", np.zeros(self.num_envs, np.bool_))[rows] = True

    def _seed(self, seed: int | Sequence[int], rows: IntArray) -> None:
        is_one = np.ndim(seed) == 0
        seeds: list[Any] = [seed] if is_one else list(cast(Sequence[int], seed))
        if not all(isinstance(one, numbers.Integral) and int(one) >= 0 for one in seeds):
            raise ActionError(f"seed is {seed!r}, whole numbers from 0 are required")
        if not is_one and len(seeds) != self.num_envs:
            raise ActionError(
                f"{len(seeds)} seeds for {self.num_envs} users: pass one number, or one for each "
                "user"
            )
        seeds = [int(one) for one in seeds]
        super().reset(seed=seeds[0])
        self._keys.seed(seeds[0] if is_one else seeds, rows)

    def _reset_mask(self, options: Info | None) -> BoolArray | None:
        if options is not None and not isinstance(options, dict):
            raise ActionError(f"options are {as_given(options)}, a dict is required")
        if wrong := [name for name in options or () if name != "reset_mask"]:
            raise ActionError(f"a reset has no option {wrong[0]!r}: it takes reset_mask alone")
        mask = None if options is None else options.get("reset_mask")
        if mask is None:
            return None
        if (
            not isinstance(mask, np.ndarray)
            or mask.dtype != np.bool_
            or mask.shape != (self.num_envs,)
        ):
            raise ActionError(
                f"reset_mask is {mask!r}, a bool array of shape ({self.num_envs},) is required"
            )
        if not mask.any():
            raise ActionError("reset_mask holds no True: leave it out to reset everyone")
        if not self._started and not mask.all():
            raise ActionError("a first reset starts everyone: leave reset_mask out")
        return mask

    def _refusal(self, actions: npt.NDArray[np.int64], user: int, place: int) -> ActionError:
        value = actions[user, place]
        where = f"the action of user {user} has {value} in place {place}"
        if 0 <= value < self.pools.size:
            earlier = int(np.flatnonzero(actions[user] == value)[0])
            return ActionError(
                f"{where}, which stands in place {earlier} already: pass strict=False to display "
                "it once"
            )
        return ActionError(
            f"{where}, a place of the pool from 0 to {self.pools.size - 1} is required"
        )


def _rows(mask: BoolArray) -> IntArray:
    return np.flatnonzero(mask).astype(np.int32)

"""What a policy sees of a user: the state, and what is known of the items of the pool; and what a
person sees of a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from fastgaum.errors import ConfigError, did_you_mean
from fastgaum.worlds.pools import UserPools
from fastgaum.worlds.world import FloatArray, IntArray, World

ObservationKind = Literal["flat", "dict"]
Info = dict[str, Any]
"""what Gymnasium passes beside an observation, and the options of a reset"""
Observation = FloatArray | dict[str, npt.NDArray[np.generic]]


class Observations:
    """Builds the observations of n users in buffers made once.

    Attributes:
        single_space: the space of one user's observation.
    """

    def __init__(
        self, world: World, pools: UserPools, n: int, kind: ObservationKind, features: bool | None
    ) -> None:
        """Lay out observations; features None: only where pools differ. Raises ConfigError for an
        unknown kind."""
        if kind not in ("flat", "dict"):
            raise ConfigError(
                f"observation is '{kind}', flat or dict is "
                f"required{did_you_mean(kind, ('flat', 'dict'))}"
            )
        self._kind, self._pools = kind, pools
        self._with_features = pools.kind != "fixed" if features is None else features
        table = np.ascontiguousarray(world.item_features, np.float32)
        if self._with_features and table.shape[1] == 0:
            raise ConfigError(
                "features are asked for, but this world's items have none: pass features=False"
            )
        self._table = table
        state = spaces.Box(-np.inf, np.inf, (world.state_dim,), np.float32)
        # 0 and 1 are always in: a world whose features are all alike still has a space of some
        # width
        low, high = float(min(table.min(initial=0), 0)), float(max(table.max(initial=0), 1))
        shape = (pools.size, table.shape[1])
        wide = world.state_dim + (pools.size * table.shape[1] if self._with_features else 0)
        self._flat: FloatArray | None = None
        if kind == "dict":
            parts: dict[str, spaces.Space[object]] = {
                "state": state,
                "pool": spaces.Box(0, max(world.n_items - 1, 1), (pools.size,), np.int32),
            }
            self._arrays: dict[str, npt.NDArray[np.generic]] = {
                "pool": np.zeros((n, pools.size), np.int32)
            }
            if self._with_features:
                parts["features"] = spaces.Box(low, high, shape, np.float32)
                self._arrays["features"] = np.zeros((n, *shape), np.float32)
            self.single_space: spaces.Space[object] = spaces.Dict(parts)
        elif self._with_features:
            lows, highs = np.full(wide, low, np.float32), np.full(wide, high, np.float32)
            lows[: world.state_dim], highs[: world.state_dim] = -np.inf, np.inf
            self.single_space = spaces.Box(lows, highs, dtype=np.float32)
            self._flat = np.zeros((n, wide), np.float32)
        else:
            self.single_space = state
        self.pools_changed(np.arange(n, dtype=np.int32))

    def pools_changed(self, rows: IntArray) -> None:
        """Take over the new pools of some users."""
        if self._kind == "flat" and not self._with_features:
            return
        items = self._pools.of(rows)
        if self._kind == "dict":
            self._arrays["pool"][rows] = items
        if self._with_features:
            features = self._table[items]
            if self._flat is not None:
                self._flat[rows, -features[0].size :] = features.reshape(len(rows), -1)
            else:
                self._arrays["features"][rows] = features

    def of(self, states: FloatArray, copy: bool) -> Observation:
        """Observations of all users in these states: new arrays, or views that the next step
        overwrites."""
        if self._kind == "dict":
            parts = {"state": states, **self._arrays}
            return {name: part.copy() for name, part in parts.items()} if copy else parts
        if self._flat is None:
            return states.copy() if copy else states
        self._flat[:, : states.shape[1]] = states
        return self._flat.copy() if copy else self._flat


def row_of(observation: Observation, user: int) -> object:
    """One user's part of the observations of many; a view."""
    if isinstance(observation, dict):
        return {name: part[user] for name, part in observation.items()}
    return observation[user]


def text_of(slate: Sequence[str | None], utilities: FloatArray, place: int) -> str:
    """A slate as text, a line per item with its utility before the choice; > marks what was chosen,
    and None is an empty place. An item that stands there twice is displayed once.

    >>> print(text_of(["tea", None, "milk"], np.array([0.25, 0, -1]), 2))
      tea    0.250
    > milk  -1.000
    """
    width = max((len(name) for name in slate if name is not None), default=0)
    lines = [
        f"{'>' if at == place else ' '} {name:<{width}}  {utilities[at]:6.3f}"
        for at, name in enumerate(slate)
        if name is not None and at == slate.index(name)
    ]
    return "\n".join([*lines, *(["> nothing"] if place < 0 else [])])


def rows_apart(observation: Observation, rows: IntArray, n: int) -> npt.NDArray[np.object_]:
    """Copies of some users' observations as Gymnasium's `final_obs` has them: objects, None for the
    others, shape (n,)."""
    apart: npt.NDArray[np.object_] = np.full(n, None, dtype=object)
    if isinstance(observation, dict):
        copies = {name: part[rows] for name, part in observation.items()}
        for i, row in enumerate(rows):
            apart[row] = {name: part[i] for name, part in copies.items()}
    else:
        copy = observation[rows]
        for i, row in enumerate(rows):
            apart[row] = copy[i]
    return apart

"""Observations, and the text of a step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from fastgaum.arrays import FloatArray, IntArray
from fastgaum.errors import ConfigError
from fastgaum.features.relations import WINDOW
from fastgaum.features.session_counts import SessionTables
from fastgaum.kernels.candidate_counts import (
    CHOSEN,
    DISPLAYED,
    N_COUNTS,
    UserDisplays,
    find_counts,
)
from fastgaum.kernels.shown_slates import find_displayed
from fastgaum.worlds.env_options import EnvOptions
from fastgaum.worlds.pools import UserPools
from fastgaum.worlds.world import NO_ITEM, Past, World

Info = dict[str, Any]
"""what Gymnasium passes beside an observation, and the options of a reset"""
Observed = FloatArray | dict[str, npt.NDArray[np.generic]]


class UserSessions:
    """Counts of what n users were shown and chose in their sessions, on which utilities depend
    too."""

    def __init__(self, n_items: int, n: int) -> None:
        self.n_items, self.n, self.tables = n_items, n, SessionTables(n)

    def reset(self, rows: IntArray, past: Iterable[Past] = ()) -> None:
        """Begin the sessions of some users anew, with what these have behind them."""
        self.tables.reset(rows)
        for event in past:
            slates = np.full((self.n, event.slates.shape[1]), NO_ITEM, np.int32)
            items, active = np.full(self.n, NO_ITEM, np.int32), np.zeros(self.n, np.bool_)
            clicked = np.flatnonzero(event.places >= 0)
            shown = event.slates.copy()
            chosen = shown[clicked, event.places[clicked]]
            # what a world does not know was chosen all the same
            chosen[chosen < 0] = self.n_items
            shown[clicked, event.places[clicked]] = chosen
            slates[rows], active[rows], items[rows[clicked]] = shown, event.active, chosen
            self.see(slates, items, active)

    def see(self, slates: IntArray, items: IntArray, active: npt.NDArray[np.bool_]) -> None:
        """Count an event of the active users: slates (n, k), items chosen (n,), `NO_ITEM` for
        none."""
        who = np.flatnonzero(active).astype(np.int32)
        offsets = np.empty(len(who) + 1, np.int32)
        shown, places = np.empty((2, len(who) * slates.shape[1]), np.int32)
        n = find_displayed(slates, who, self.n_items + 1, offsets, shown, places)
        chosen, events = np.full(len(who), -1, np.int32), np.repeat(who, np.diff(offsets))
        at = np.flatnonzero(shown[:n] == items[events])
        chosen[np.searchsorted(who, events[at])] = at
        self.tables.make_room(int(np.diff(offsets).max(initial=0)))
        self.tables.count(UserDisplays(who, offsets, shown), chosen)

    def of(self, pools: IntArray) -> dict[str, IntArray]:
        """`shown`, `chosen`, `events` and `latest` of an observation, of users whose pools are (n,
        m)."""
        counts, users = np.empty((*pools.shape, N_COUNTS), np.int32), self.tables.users
        offsets = np.arange(self.n + 1, dtype=np.int32) * np.int32(pools.shape[1])
        everyone = np.arange(self.n, dtype=np.int32)
        shown = UserDisplays(everyone, offsets, np.ascontiguousarray(pools).ravel())
        find_counts(shown, users, counts.reshape(-1, N_COUNTS))
        ago = np.arange(WINDOW)
        at = (users.n_chosen[:, None] - 1 - ago) % WINDOW
        latest = np.take_along_axis(users.latest, at, axis=1)
        return {
            "shown": counts[:, :, DISPLAYED].copy(),
            "chosen": counts[:, :, CHOSEN].copy(),
            "events": users.events[:, None].copy(),
            "latest": np.where(ago < users.n_chosen[:, None], latest, NO_ITEM).astype(np.int32),
        }


class Observations:
    """The observations of n users, in buffers made once.

    Attributes:
        single_space: the space of one user's observation.
        sessions: the users' sessions, for a dict.
    """

    def __init__(self, world: World, pools: UserPools, n: int, options: EnvOptions) -> None:
        """Lay out observations. Raises ConfigError for features of items that have none."""
        self._kind, self._pools = options.observation, pools
        given = options.features
        self._with_features = pools.kind != "fixed" if given is None else given
        table = np.ascontiguousarray(world.item_features, np.float32)
        if self._with_features and table.shape[1] == 0:
            raise ConfigError(
                "features are asked for, but this world's items have none: pass features=False"
            )
        self._table, self.sessions = table, None
        state = spaces.Box(-np.inf, np.inf, (world.state_dim,), np.float32)
        # 0 and 1 are always in: a world whose features are all alike still has a space of some
        # width
        low, high = float(min(table.min(initial=0), 0)), float(max(table.max(initial=0), 1))
        shape = (pools.size, table.shape[1])
        timed = options.end == "termination"
        self._flat: FloatArray | None = None
        if self._kind == "dict":
            most = np.iinfo(np.int32).max
            parts: dict[str, spaces.Space[object]] = {
                "state": state,
                "pool": spaces.Box(0, max(world.n_items - 1, 1), (pools.size,), np.int32),
                "shown": spaces.Box(0, most, (pools.size,), np.int32),
                "chosen": spaces.Box(0, most, (pools.size,), np.int32),
                "events": spaces.Box(0, most, (1,), np.int32),
                "latest": spaces.Box(NO_ITEM, world.n_items, (WINDOW,), np.int32),
                "left": spaces.Box(0, 1, (1,), np.float32),
            }
            self.sessions = UserSessions(world.n_items, n)
            self._arrays: dict[str, npt.NDArray[np.generic]] = {
                "pool": np.zeros((n, pools.size), np.int32)
            }
            if self._with_features:
                parts["features"] = spaces.Box(low, high, shape, np.float32)
                self._arrays["features"] = np.zeros((n, *shape), np.float32)
            self.single_space: spaces.Space[object] = spaces.Dict(parts)
        else:
            widths = [world.state_dim, timed, self._with_features * shape[0] * shape[1]]
            lows = np.repeat([-np.inf, 0, low], widths).astype(np.float32)
            highs = np.repeat([np.inf, 1, high], widths).astype(np.float32)
            self.single_space = spaces.Box(lows, highs, dtype=np.float32)
            if self._with_features or timed:
                self._flat = np.zeros((n, len(lows)), np.float32)
        self._timed = timed
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

    def of(self, states: FloatArray, left: FloatArray) -> Observed:
        """Observations of all users in these states, with so much of the episode left, (n,); new
        arrays."""
        if self.sessions is not None:
            parts = {name: part.copy() for name, part in {"state": states, **self._arrays}.items()}
            of_sessions = self.sessions.of(cast(IntArray, self._arrays["pool"]))
            return {**parts, **of_sessions, "left": left[:, None].copy()}
        if self._flat is None:
            return states.copy()
        width = states.shape[1]
        self._flat[:, :width] = states
        if self._timed:
            self._flat[:, width] = left
        return self._flat.copy()


def row_of(observation: Observed, user: int) -> object:
    """One user's part of the observations of many; a view."""
    if isinstance(observation, dict):
        return {name: part[user] for name, part in observation.items()}
    return observation[user]


def text_of(slate: Sequence[str | None], utilities: FloatArray, place: int) -> str:
    """A slate as text, a line per item with its utility before the choice; > marks the choice. None
    is an empty place, and an item that stands there twice is displayed once.

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
    if not lines:
        return "nothing was shown yet"
    return "\n".join([*lines, *(["> nothing"] if place < 0 else [])])


def rows_apart(observation: Observed, rows: IntArray, n: int) -> npt.NDArray[np.object_]:
    """Some users' observations as Gymnasium's `final_obs`: objects, None for others, (n,)."""
    apart: npt.NDArray[np.object_] = np.full(n, None, dtype=object)
    for row in rows:
        apart[row] = row_of(observation, row)
    return apart

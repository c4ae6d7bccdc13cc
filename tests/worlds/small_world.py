"""A world small enough to be read: taste drifts towards what is chosen, and choice is a softmax
with no click at 0."""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl

from fastgaum.arrays import FloatArray, IntArray, KeyArray
from fastgaum.logs.synthetic import SyntheticWorld
from fastgaum.worlds.pools import draw_uniform
from fastgaum.worlds.true_world import TrueWorld
from fastgaum.worlds.world import NO_ITEM, Population, Response, World


@cache
def true_world() -> TrueWorld:
    """Made once: the share of events without a click is found by simulation."""
    return TrueWorld(SyntheticWorld(n_items=20, no_click=0.3))


class SmallWorld(World):
    """Items with a popularity and a direction each; a user's state is the mean direction of its
    choices, of late first."""

    def __init__(
        self, n_items: int = 12, state_dim: int = 3, spread: float = 1.5, seed: int = 5
    ) -> None:
        rng = np.random.default_rng(seed)
        self.base = rng.normal(0, spread, n_items).astype(np.float32)
        self.directions = rng.normal(size=(n_items, state_dim)).astype(np.float32)
        self.directions /= np.linalg.norm(self.directions, axis=1, keepdims=True)
        self.item_ids = pl.Series([f"i{i}" for i in range(n_items)])
        self.item_features = np.column_stack([self.base, self.directions])
        self.state_dim, self.no_click = state_dim, True

    def population(self, n: int) -> Population:
        return SmallPopulation(self, n)


class SmallPopulation(Population):
    def __init__(self, world: SmallWorld, n: int) -> None:
        self.world, self.n = world, n
        self._states = np.zeros((n, world.state_dim), np.float32)

    @property
    def states(self) -> FloatArray:
        view = self._states[:]
        view.flags.writeable = False
        return view

    def reset(self, keys: KeyArray, rows: IntArray | None = None) -> None:
        """Users begin with a taste of their own, which only the key decides."""
        rows = np.arange(self.n, dtype=np.int32) if rows is None else rows
        assert len(keys) == len(rows)
        angles = 2 * np.pi * draw_uniform(keys)
        self._states[rows] = 0
        self._states[rows, 0], self._states[rows, 1] = np.cos(angles), np.sin(angles)

    def step(self, slates: IntArray, keys: KeyArray, active: np.ndarray | None = None) -> Response:
        active = np.ones(self.n, np.bool_) if active is None else active
        probs, _ = self.probabilities(slates)
        drawn = (draw_uniform(keys)[:, None] < np.cumsum(probs, axis=1)).argmax(axis=1)
        clicked = active & (draw_uniform(keys) < probs.sum(axis=1))
        places = np.where(clicked, drawn, NO_ITEM).astype(np.int32)
        items = np.where(clicked, slates[np.arange(self.n), drawn], NO_ITEM).astype(np.int32)
        utilities = np.where(clicked, self.utilities(slates)[np.arange(self.n), drawn], 0).astype(
            np.float32
        )
        self._move(clicked, items, active)
        return Response(places, items, utilities)

    def _move(self, clicked: np.ndarray, items: IntArray, active: np.ndarray) -> None:
        self._states[clicked] += 0.3 * (
            self.world.directions[items[clicked]] - self._states[clicked]
        )

    def utilities(self, pools: IntArray, k: int | None = None) -> FloatArray:
        directions = self.world.directions[pools]
        return (self.world.base[pools] + (directions * self._states[:, None]).sum(axis=-1)).astype(
            np.float32
        )

    def probabilities(self, slates: IntArray) -> tuple[FloatArray, FloatArray]:
        same = slates[:, :, None] == slates[:, None, :]
        first = same.argmax(axis=2) == np.arange(slates.shape[1])
        weights = np.exp(self.utilities(slates)) * (first & (slates >= 0))
        total = self.world.no_click + weights.sum(axis=1)
        none = self.world.no_click / total
        return (weights / total[:, None]).astype(np.float32), none.astype(np.float32)

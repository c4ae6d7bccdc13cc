"""A small world whose truth is written here: what tempts now tires later."""

from __future__ import annotations

import numpy as np
import polars as pl

from fastgaum.arrays import FloatArray, IntArray, KeyArray
from fastgaum.worlds.pools import SLATE, Keys, draw_uniforms
from fastgaum.worlds.world import World
from tests.worlds.small_world import SmallPopulation


class TiringWorld(World):
    """Items tempt (`appeal`) and move a mood (`effect`): u(s, a) = appeal[a] + weight · mood, and
    after choosing a the mood is decay · mood + (1 − decay) · effect[a], after no click decay ·
    mood. Half of the items tempt by 1 and tire."""

    def __init__(
        self, n_items: int = 12, *, no_click: bool = True, weight: float = 2.0, decay: float = 0.8
    ) -> None:
        self.item_ids = pl.Series([f"i{i:02d}" for i in range(n_items)], dtype=pl.String)
        self.effect = np.where(np.arange(n_items) % 2 == 0, -1.0, 1.0).astype(np.float32)
        spread = np.linspace(-0.5, 0.5, n_items)
        self.appeal = (spread - 0.5 * self.effect).astype(np.float32)
        self.item_features: FloatArray = np.stack([self.appeal, self.effect], axis=1)
        self.state_dim, self.no_click, self.weight, self.decay = 1, no_click, weight, decay

    def population(self, n: int) -> TiringPopulation:
        return TiringPopulation(self, n)


class TiringPopulation(SmallPopulation):
    def reset(self, keys: KeyArray, rows: IntArray | None = None) -> None:
        who = slice(None) if rows is None else rows
        self._states[who, 0] = (draw_uniforms(keys, 1)[:, 0] - 0.5).astype(np.float32)

    def utilities(self, pools: IntArray, k: int | None = None) -> FloatArray:
        pools = np.broadcast_to(pools, (self.n, pools.shape[-1]))
        return self.world.appeal[pools] + self.world.weight * self._states

    def _move(self, clicked: np.ndarray, items: IntArray, active: np.ndarray) -> None:
        effect = np.where(clicked, self.world.effect[items], 0)
        moved = self.world.decay * self._states[:, 0] + (1 - self.world.decay) * effect
        self._states[:, 0] = np.where(active, moved, self._states[:, 0])


def keys_at(seed: int, users: int, step: int = 0, first: int = 0) -> Keys:
    """Where users first, first + 1, … of a rollout stand at a step."""
    keys = Keys(users)
    keys.seed(seed, keys.everyone, first)
    keys.start(keys.everyone)
    keys.steps += step
    return keys


def keys_of(seed: int, users: int, use: np.uint64 = SLATE) -> KeyArray:
    """The keys of users 0, 1, … for one use at their first step."""
    return keys_at(seed, users).of(use).copy()

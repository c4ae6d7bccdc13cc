"""A small world whose truth is written here: what tempts now tires later."""

from __future__ import annotations

import numpy as np
import polars as pl

from fastgaum.arrays import FloatArray, IntArray, KeyArray
from fastgaum.worlds.pools import SLATE, Keys, draw_uniforms
from fastgaum.worlds.world import Population, Response, World


class TiringWorld(World):
    """Items tempt (`appeal`) and move a mood (`effect`): u(s, a) = appeal[a] + weight · mood, and
    after choosing a the mood is decay · mood + (1 − decay) · effect[a], after no click decay ·
    mood. Half of the items tempt by 1 and tire."""

    def __init__(
        self, n_items: int = 12, *, outside: bool = True, weight: float = 2.0, decay: float = 0.8
    ) -> None:
        self.item_ids = pl.Series([f"i{i:02d}" for i in range(n_items)], dtype=pl.String)
        self.effect = np.where(np.arange(n_items) % 2 == 0, -1.0, 1.0).astype(np.float32)
        spread = np.linspace(-0.5, 0.5, n_items)
        self.appeal = (spread - 0.5 * self.effect).astype(np.float32)
        self.item_features: FloatArray = np.stack([self.appeal, self.effect], axis=1)
        self.state_dim, self.outside, self.weight, self.decay = 1, outside, weight, decay

    def population(self, n: int) -> TiringPopulation:
        return TiringPopulation(self, n)


class TiringPopulation(Population):
    def __init__(self, world: TiringWorld, n: int) -> None:
        self.world, self.n = world, n
        self.mood = np.zeros((n, 1), np.float32)

    @property
    def states(self) -> FloatArray:
        return self.mood

    def reset(self, keys: KeyArray, rows: IntArray | None = None) -> None:
        who = slice(None) if rows is None else rows
        self.mood[who, 0] = (draw_uniforms(keys, 1)[:, 0] - 0.5).astype(np.float32)

    def utilities(self, pools: IntArray, k: int | None = None) -> FloatArray:
        pools = np.broadcast_to(pools, (self.n, pools.shape[-1]))
        return self.world.appeal[pools] + self.world.weight * self.mood

    def probabilities(self, slates: IntArray) -> tuple[FloatArray, FloatArray]:
        utilities = np.where(slates >= 0, self.utilities(np.maximum(slates, 0)), -np.inf)
        weights = np.exp(utilities)
        total = weights.sum(axis=1) + self.world.outside
        return weights / total[:, None], self.world.outside / total

    def step(self, slates: IntArray, keys: KeyArray, active: np.ndarray | None = None) -> Response:
        there = np.ones(self.n, np.bool_) if active is None else active
        probs, _ = self.probabilities(slates)
        reached = np.cumsum(probs, axis=1, dtype=np.float64)
        draws = draw_uniforms(keys, 1) * (1.0 if self.world.outside else reached[:, -1:])
        places = (draws >= reached).sum(axis=1)
        places = np.where(there & (places < slates.shape[1]), places, -1).astype(np.int32)
        items = np.where(places >= 0, slates[np.arange(self.n), places], -1).astype(np.int32)
        clicked = places >= 0
        utilities = np.where(
            clicked, self.world.appeal[items] + self.world.weight * self.mood[:, 0], 0
        ).astype(np.float32)
        effect = np.where(clicked, self.world.effect[items], 0)
        moved = self.world.decay * self.mood[:, 0] + (1 - self.world.decay) * effect
        self.mood[:, 0] = np.where(there, moved, self.mood[:, 0])
        return Response(places, items, utilities)


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

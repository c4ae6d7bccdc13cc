"""Worlds for tests: one whose choices are seen by eye, and true users whose utilities were dealt
anew."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl

from fastgaum.logs.synthetic import SyntheticWorld
from fastgaum.worlds.true_world import TrueWorld
from fastgaum.worlds.world import Population, Response, World


class FirstNew(World):
    """Users who take the first displayed item that they have not chosen before, or none."""

    def __init__(self, item_ids: pl.Series) -> None:
        self.item_ids, self.state_dim, self.outside = item_ids, 1, True
        self.item_features = np.zeros((len(item_ids), 1), np.float32)

    def population(self, n: int) -> Population:
        return FirstNewUsers(n)


class FirstNewUsers(Population):
    def __init__(self, n: int) -> None:
        self.n = n
        self.chosen: list[set[int]] = [set() for _ in range(n)]

    @property
    def states(self) -> np.ndarray:
        return np.zeros((self.n, 1), np.float32)

    def reset(self, keys: np.ndarray, rows: np.ndarray | None = None) -> None:
        raise NotImplementedError

    def utilities(self, pools: np.ndarray, k: int | None = None) -> np.ndarray:
        raise NotImplementedError

    def probabilities(self, slates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError

    def step(
        self, slates: np.ndarray, keys: np.ndarray, active: np.ndarray | None = None
    ) -> Response:
        assert len(keys) == len(np.unique(keys)) == self.n
        places = np.full(self.n, -1, np.int32)
        items = np.full(self.n, -1, np.int32)
        for user, slate in enumerate(slates.tolist()):
            assert active is None or active[user] == (slate[0] >= 0)
            new = [
                place
                for place, item in enumerate(slate)
                if item >= 0 and item not in self.chosen[user]
            ]
            if new:
                places[user], items[user] = new[0], slate[new[0]]
                self.chosen[user].add(slate[new[0]])
        return Response(places, items, np.zeros(self.n, np.float32))


def dealt_anew(world: SyntheticWorld) -> TrueWorld:
    """True users whose items have each other's popularity."""
    wrong = TrueWorld(world)
    wrong.base = np.random.default_rng(0).permutation(wrong.base)
    wrong.law = wrong.law._replace(utility=wrong.law.utility._replace(base=wrong.base))
    return wrong


def undecided(world: SyntheticWorld) -> TrueWorld:
    """True users who choose uniformly."""
    return TrueWorld(dataclasses.replace(world, eta=1e-6))

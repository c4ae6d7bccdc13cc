"""Worlds that show what becomes of them in worker processes: a module of its own, which those
import."""

from __future__ import annotations

import numpy as np

from fastgaum import threads
from fastgaum.worlds.world import FloatArray, IntArray, KeyArray, Population, Response
from tests.worlds.small_world import SmallPopulation, SmallWorld


class FailingWorld(SmallWorld):
    """Its users' first state is the number of threads; showing the last item to anybody is an
    error."""

    def population(self, n: int) -> Population:
        return FailingPopulation(self, n)


class FailingPopulation(SmallPopulation):
    def reset(self, keys: KeyArray, rows: IntArray | None = None) -> None:
        super().reset(keys, rows)
        self._states[:, 0] = threads.get_threads()

    def step(self, slates: IntArray, keys: KeyArray, active: np.ndarray | None = None) -> Response:
        if (slates == self.world.n_items - 1).any():
            raise ValueError("the last item is poison")
        return super().step(slates, keys, active)

    def utilities(self, pools: IntArray, k: int | None = None) -> FloatArray:
        return super().utilities(pools, k)


class BarrenWorld(SmallWorld):
    """It has no users."""

    def population(self, n: int) -> Population:
        raise ValueError("nobody lives here")


class LockedWorld(SmallWorld):
    """What it holds cannot be pickled."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = (i for i in range(3))

"""Replay: the last so many steps of users, in arrays made once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from fastgaum.policies.base import BoolArray, Transition
from fastgaum.worlds.world import FloatArray, IntArray, KeyArray


@dataclass(frozen=True)
class Steps:
    """Remembered steps, a row each."""

    states: FloatArray
    """state and what else Q reads of the time, shape (n, n_read)"""
    slates: IntArray
    """items shown, shape (n, k)"""
    places: IntArray
    """place of the choice, -1 for none, shape (n,)"""
    rewards: FloatArray
    """shape (n,)"""
    next_states: FloatArray
    """shape (n, n_read)"""
    ended: FloatArray
    """1 where nothing came after, shape (n,)"""
    pools: KeyArray
    """keys of the next step's pools, shape (n,)"""


class Replay:
    """A ring of steps. A pool is kept as its key, so that memory does not grow with it."""

    def __init__(self, capacity: int, n_read: int, k: int) -> None:
        self.capacity, self.size, self.at = capacity, 0, 0
        self.held = Steps(
            np.empty((capacity, n_read), np.float32),
            np.empty((capacity, k), np.int32),
            np.empty(capacity, np.int32),
            np.empty(capacity, np.float32),
            np.empty((capacity, n_read), np.float32),
            np.empty(capacity, np.float32),
            np.empty(capacity, np.uint64),
        )

    def add(
        self, states: FloatArray, next_states: FloatArray, ended: BoolArray, step: Transition
    ) -> None:
        """Remember a step of the users who were there, the oldest ones forgotten; states are as Q
        reads them."""
        # of more users than there is room for, the last ones stay
        there = np.flatnonzero(step.active)[-self.capacity :]
        n = len(there)
        rows = (self.at + np.arange(n)) % self.capacity
        new: tuple[npt.NDArray[Any], ...] = (
            states,
            step.slates,
            step.response.places,
            step.rewards,
            next_states,
            ended,
            step.next_pools,
        )
        for field, values in zip(fields(Steps), new, strict=True):
            getattr(self.held, field.name)[rows] = values[there]
        self.at = (self.at + n) % self.capacity
        self.size = min(self.size + n, self.capacity)

    def draw(self, n: int, rng: np.random.Generator) -> Steps:
        """n remembered steps, each as likely, with replacement."""
        rows: npt.NDArray[Any] = rng.integers(self.size, size=n)
        return Steps(*(getattr(self.held, field.name)[rows] for field in fields(Steps)))

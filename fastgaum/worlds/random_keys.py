"""The random streams of a vector of users: keys counted by (seed, user, episode, step, use)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fastgaum.kernels.draws import (
    counted_keys,
    draw_without_replacement,
    uniforms,
    user_streams,
)
from fastgaum.worlds.world import IntArray, KeyArray

START, CHOICE, POOL, LEAVE, SLATE = (np.uint64(use) for use in range(5))
"""what a draw is for; a new use takes a new number, so that nothing drawn before it changes"""


class Keys:
    """Where each of n users stands in its own stream.

    Attributes:
        episodes: episode of each user, -1 before the first, shape (n,).
        steps: steps that this episode has taken, shape (n,).
    """

    def __init__(self, n: int) -> None:
        self.everyone = np.arange(n, dtype=np.int32)
        self.streams = np.zeros(n, np.uint64)
        self.episodes = np.full(n, -1, np.int64)
        self.steps = np.zeros(n, np.int32)
        self._keys = np.empty(n, np.uint64)

    def seed(self, seed: int | Sequence[int], rows: IntArray, first: int = 0) -> None:
        """Give the users of `rows` new streams: those of users first + row of one seed, or of user
        0 under each of many."""
        streams = np.empty_like(self.streams)
        if isinstance(seed, int):
            user_streams(_entropy(seed), first, streams)
        else:
            for i in rows:
                user_streams(_entropy(seed[i]), 0, streams[i : i + 1])
        self.streams[rows] = streams[rows]
        self.episodes[rows] = -1

    def start(self, rows: IntArray) -> None:
        """Begin the next episode of the users of `rows`."""
        self.episodes[rows] += 1
        self.steps[rows] = 0

    def of(self, use: np.uint64, rows: IntArray | None = None) -> KeyArray:
        """One key for each user of `rows`, or for all, for one use at this step; overwritten by the
        next call."""
        rows = self.everyone if rows is None else rows
        keys = self._keys[: len(rows)]
        counted_keys(self.streams, self.episodes, self.steps, use, rows, keys)
        return keys


def draw_uniform(keys: KeyArray) -> npt.NDArray[np.float64]:
    """Numbers in [0, 1) with 53 random bits, one per key."""
    return np.asarray((keys >> np.uint64(11)) * 2.0**-53, np.float64)


def draw_uniforms(keys: KeyArray, width: int) -> npt.NDArray[np.float64]:
    """So many independent numbers in [0, 1) of each key, shape (n, width)."""
    numbers = np.empty((width, len(keys)))
    for stream in range(width):
        uniforms(keys, np.uint64(stream), numbers[stream])
    return numbers.T


def draw_distinct(keys: KeyArray, n_of: int, k: int) -> IntArray:
    """k different numbers below n_of for each key, each ordered draw as likely, shape (n, k); k
    must not exceed n_of."""
    drawn, swaps = np.empty((len(keys), k), np.int32), np.empty(k, np.int64)
    rows, numbers = np.arange(len(keys), dtype=np.int32), np.arange(n_of, dtype=np.int32)
    draw_without_replacement(keys, rows, numbers, swaps, drawn)
    return drawn


def _entropy(seed: int) -> np.uint64:
    return np.uint64(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])

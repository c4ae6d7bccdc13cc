"""Random numbers by counting: a key is a hash of (stream of a user, episode, step, use), so draws
need no order.

The hash is SplitMix64 (Steele, Lea, Flood 2014), once per counter: a user's draws do not depend on
who stands beside it or on which thread computes them."""

from __future__ import annotations

import numpy as np

from ._jit import Array, jit
from .keyed import mixed

_STEP = np.uint64(0x9E3779B97F4A7C15)


@jit
def user_streams(seed: np.uint64, first: int, streams: Array) -> None:
    """Write the stream of users first, first + 1, … under one seed."""
    for i in range(len(streams)):
        streams[i] = mixed(mixed(seed) + np.uint64(first + i) * _STEP)


@jit
def counted_keys(
    streams: Array, episodes: Array, steps: Array, use: np.uint64, rows: Array, keys: Array
) -> None:
    """Write key i of user rows[i]: the hash of its stream, episode and step, and of what the draw
    is for."""
    for i in range(len(rows)):
        row = rows[i]
        key = mixed(streams[row] + np.uint64(episodes[row]) * _STEP)
        key = mixed(key + np.uint64(steps[row]) * _STEP)
        keys[i] = mixed(key + use * _STEP)


@jit
def draw_without_replacement(
    keys: Array, rows: Array, items: Array, at: Array, drawn: Array
) -> None:
    """Write to drawn[rows[i]] as many different entries of `items` as it is wide, in the order of
    chance, by keys[i].

    The first places of a Fisher-Yates shuffle, swapped back in the end: `items` is as before, and a
    user costs as many steps as are drawn, however many items there are. `at` holds the swaps, as
    long as `drawn` is wide."""
    width, n = drawn.shape[1], len(items)
    for i in range(len(rows)):
        row = rows[i]
        for j in range(width):
            # 32 bits scaled to a range of at most 2^31: no division, and a bias below 2^-32 per
            # entry
            draw = mixed(keys[i] + np.uint64(j) * _STEP) >> np.uint64(32)
            other = j + np.int64((draw * np.uint64(n - j)) >> np.uint64(32))
            at[j] = other
            items[j], items[other] = items[other], items[j]
            drawn[row, j] = items[j]
        for j in range(width - 1, -1, -1):
            other = at[j]
            items[j], items[other] = items[other], items[j]

"""Draws by a key, a hash of (stream of a user, episode, step, use) by SplitMix64 (Steele, Lea,
Flood 2014): no neighbour and no thread changes a number. Dropout hashes a key and an entry's
position, the same in both passes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ._jit import Array, jit, jit_leaf
from .activations import ZERO

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_TO_UNIT = 2.0**-53


class DropoutRule(NamedTuple):
    """Dropout of one pass."""

    key: np.uint32  # of the random bits, uint32
    threshold: np.uint32  # an entry whose 32 bits lie below is dropped; 0: none
    scale: np.float32  # of kept entries, in the activations' dtype


@jit_leaf
def mixed(key: np.uint64) -> Any:
    """Return the output of SplitMix64 in the state `key`, 64 bits (Steele et al. 2014)."""
    x = np.uint64(np.uint64(key) + _STEP)
    x = np.uint64(np.uint64(x ^ np.uint64(x >> np.uint64(30))) * _FIRST)
    x = np.uint64(np.uint64(x ^ np.uint64(x >> np.uint64(27))) * _SECOND)
    return np.uint64(x ^ np.uint64(x >> np.uint64(31)))


@jit_leaf
def uniform(key: np.uint64) -> Any:
    """Return a float64 in [0, 1), a multiple of 2^-53, of a key."""
    return np.float64(np.uint64(mixed(key) >> np.uint64(11))) * _TO_UNIT


@jit_leaf
def choose(key: np.uint64, items: Array, probs: Array, none: float) -> int:
    """Return the place that a key chooses, −1 for no click, of probability `none`.

    One draw of the key says whether there is a click. Then the smallest E / p wins, E ~ Exp(1) of
    the key and the item alone: place i with probability p_i / Σ p. −log E is the Gumbel term of
    softmax's utilities (Yellott 1977; Maddison, Tarlow, Minka, "A* Sampling", 2014). What is shown
    beside an item, and where, changes its p alone. No click has no E of its own: two slates
    would then disagree about a click far more often than their probabilities do."""
    least, chosen = np.inf, -1
    if uniform(key) < none:
        return chosen
    for place in range(len(probs)):
        share = np.float64(probs[place])
        if share > 0.0:
            # −log(1 − u) ≥ u: most items lose without a logarithm
            draw = uniform(key + np.uint64(np.int64(items[place]) + 1) * _STEP)
            if draw < least * share:
                time = -np.log(1.0 - draw) / share
                if time < least:
                    least, chosen = time, place
    return chosen


@jit
def uniforms(keys: Array, stream: np.uint64, out: Array) -> None:
    """Write a number in [0, 1) for each key; another `stream`, uint64, gives independent ones."""
    for i in range(len(keys)):
        out[i] = uniform(np.uint64(mixed(keys[i]) ^ np.uint64(stream)))


@jit
def user_streams(seed: np.uint64, first: int, streams: Array) -> None:
    """Write the stream of users first, first + 1, … under one seed."""
    for i in range(len(streams)):
        streams[i] = mixed(mixed(seed) + np.uint64(first + i) * _STEP)


@jit
def counted_keys(
    streams: Array, episodes: Array, steps: Array, use: np.uint64, rows: Array, keys: Array
) -> None:
    """Write key i of user rows[i]: a hash of its stream, episode and step, and of `use`."""
    for i in range(len(rows)):
        row = rows[i]
        key = mixed(streams[row] + np.uint64(episodes[row]) * _STEP)
        key = mixed(key + np.uint64(steps[row]) * _STEP)
        keys[i] = mixed(key + use * _STEP)


@jit
def draw_without_replacement(
    keys: Array, rows: Array, items: Array, at: Array, drawn: Array
) -> None:
    """Write to drawn[rows[i]] as many different entries of `items` as it is wide, by keys[i]: the
    first of a Fisher-Yates shuffle, swapped back in the end. `at` is as wide."""
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


@jit_leaf
def hashed(key: np.uint32, index: np.uint32) -> Any:
    """Return 32 bits of a key and a counter (the finaliser of MurmurHash3)."""
    x = np.uint32(np.uint32(index) * np.uint32(0x9E3779B9)) ^ np.uint32(key)
    x = np.uint32(np.uint32(x ^ np.uint32(x >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    x = np.uint32(np.uint32(x ^ np.uint32(x >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    return np.uint32(x ^ np.uint32(x >> np.uint32(16)))


@jit_leaf
def drop(
    row: Array, first: np.uint32, key: np.uint32, threshold: np.uint32, scale: np.float32
) -> None:
    """Zero the entries whose bits lie below the threshold, scale the others; `first` counts
    row[0]."""
    for j in range(len(row)):
        kept = hashed(key, np.uint32(first + j)) >= threshold
        row[j] = row[j] * scale if kept else ZERO


@jit
def drop_ids(
    ids: Array, replacement: Array, key: np.uint32, threshold: np.uint32, result: Array
) -> None:
    """Copy ids, each replaced by replacement[id] where its bits lie below the threshold."""
    for i in range(len(ids)):
        dropped = hashed(key, np.uint32(i)) < threshold
        result[i] = replacement[ids[i]] if dropped else ids[i]


@jit
def sum_drawn(first: int, last: int, drawn: Array, values: Array, sums: Array) -> None:
    """Write the sum of the drawn rows, (n_draws, n), of values (n_rows, k), to sums (n_draws, k),
    draws first to last − 1."""
    for draw in range(first, last):
        total = sums[draw]
        for j in range(len(total)):
            total[j] = 0
        for i in range(drawn.shape[1]):
            row = values[np.uint64(drawn[draw, i])]
            for j in range(len(total)):
                total[j] += row[j]

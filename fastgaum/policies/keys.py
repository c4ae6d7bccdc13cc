"""Keys by counting: the draw of a user at a step is a function of seed, purpose, user and step, and of nothing else.

So a rollout gives a user the same trajectory whatever other users stand beside it and however many threads compute it, and
two policies in the same world with the same seed meet the same luck: their difference is a paired one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastgaum.envs.world import IntArray, KeyArray

RESET, STEP, POLICY, POOL = range(4)
"""purposes: the first argument after the seed"""

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def keys_of(seed: int, purpose: int, *counters: Any) -> KeyArray:
    """Keys of counters, whole numbers or arrays of them, which broadcast: user and step, say.

    >>> int(keys_of(0, STEP, np.arange(3), 1)[2]) == int(keys_of(0, STEP, 2, 1)[0])
    True
    """
    with np.errstate(over="ignore"):
        key = _mixed(np.atleast_1d(np.uint64(seed)))
        for counter in (purpose, *counters):
            key = _mixed(key ^ np.asarray(counter).astype(np.uint64))
    return key


def uniforms(keys: KeyArray, width: int) -> npt.NDArray[np.float64]:
    """So many numbers in [0, 1) of each key, shape (n, width)."""
    with np.errstate(over="ignore"):
        bits = _mixed(_mixed(keys)[:, None] ^ np.arange(width, dtype=np.uint64))
    return np.asarray((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def distinct(keys: KeyArray, n_of: int, k: int) -> IntArray:
    """k distinct numbers below n_of for each key, each ordered draw as likely, shape (n, k); k must not exceed n_of."""
    draws = uniforms(keys, k)
    picked = np.empty((len(keys), k), np.int32)
    for j in range(k):
        # one of the n_of - j that are left, counted past those that are gone
        number = (draws[:, j] * (n_of - j)).astype(np.int32)
        gone = np.sort(picked[:, :j], axis=1)
        for i in range(j):
            number += number >= gone[:, i]
        picked[:, j] = number
    return picked


def _mixed(key: KeyArray) -> KeyArray:
    """SplitMix64's output in the state `key` (Steele, Lea, Flood 2014)."""
    key = key + _STEP
    key = (key ^ (key >> np.uint64(30))) * _FIRST
    key = (key ^ (key >> np.uint64(27))) * _SECOND
    return np.asarray(key ^ (key >> np.uint64(31)))

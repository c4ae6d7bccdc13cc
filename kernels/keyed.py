"""Draws by a key: a number is a function of its key alone, so neither neighbours nor threads can
change it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._jit import Array, jit, jit_part

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_TO_UNIT = 2.0**-53


@jit_part
def mixed(key: np.uint64) -> Any:
    """Return 64 bits that look random, of a 64-bit key: the output of SplitMix64 in the state `key`
    (Steele et al. 2014)."""
    x = np.uint64(np.uint64(key) + _STEP)
    x = np.uint64(np.uint64(x ^ np.uint64(x >> np.uint64(30))) * _FIRST)
    x = np.uint64(np.uint64(x ^ np.uint64(x >> np.uint64(27))) * _SECOND)
    return np.uint64(x ^ np.uint64(x >> np.uint64(31)))


@jit_part
def uniform(key: np.uint64) -> Any:
    """Return a float64 in [0, 1), a multiple of 2^-53, of a key."""
    return np.float64(np.uint64(mixed(key) >> np.uint64(11))) * _TO_UNIT


@jit
def uniforms(keys: Array, stream: np.uint64, out: Array) -> None:
    """Write a number in [0, 1) for each key; another `stream`, uint64, gives independent numbers of
    the same keys."""
    for i in range(len(keys)):
        out[i] = uniform(np.uint64(mixed(keys[i]) ^ np.uint64(stream)))

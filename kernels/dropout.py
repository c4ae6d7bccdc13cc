"""Dropout by a counter: whether an entry is kept is a function of a key and its position, so
nothing is stored.

The pass back asks again and gets the same answer; one key per pass and step makes a run repeat
exactly, on any number of threads."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ._jit import Array, jit, jit_part
from .cells import ZERO


class DropoutRule(NamedTuple):
    """What is dropped in one pass."""

    key: np.uint32
    """of the random bits, uint32"""
    threshold: np.uint32
    """an entry whose 32 bits lie below is dropped, uint32; 0 for no dropout"""
    scale: np.float32
    """of what is kept, in the dtype of the activations"""


@jit_part
def hashed(key: np.uint32, index: np.uint32) -> Any:
    """Return 32 bits that look random, of a key and a counter (the finaliser of MurmurHash3)."""
    x = np.uint32(np.uint32(index) * np.uint32(0x9E3779B9)) ^ np.uint32(key)
    x = np.uint32(np.uint32(x ^ np.uint32(x >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    x = np.uint32(np.uint32(x ^ np.uint32(x >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    return np.uint32(x ^ np.uint32(x >> np.uint32(16)))


@jit_part
def drop(
    row: Array, first: np.uint32, key: np.uint32, threshold: np.uint32, scale: np.float32
) -> None:
    """Zero the entries whose bits lie below the threshold, scale the others; `first` is the counter
    of row[0]."""
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

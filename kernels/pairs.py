"""Training counts of ordered pairs of items, in rows by their left item. Each row has two parts:

marks     16 bits for each pair, of which its right item's hash sets two; some 2 % of pairs that
          are not there have them too
entries   an open hash of the row's right items, half of it free: the place of a pair's counts
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ._jit import Array, jit, jit_leaf, jit_part, prefetch_entry


class PairCounts(NamedTuple):
    """Training counts of ordered pairs of items, by left item."""

    n_items: int
    limit: int  # ranks from this one on are in no pair
    starts: Array  # start of each left item in keys, (n_items + 1,)
    keys: Array  # left · n_items + right, ascending, (n_pairs,)
    counts: Array  # (n_pairs, 3) or (n_pairs, 2)
    marks: Array  # uint16, (n_pairs,)
    entries: Array  # right item, -1 in a free entry, and place in keys, int32, (2 · n_pairs, 2)


class Hashed(NamedTuple):
    """A display set, and room for what finds its pairs."""

    rows: Array  # training row of each candidate, (k,); outside 0 … n_items − 1: unknown
    hashes: Array  # `hash_of` and `mark_of` each, int64, (k, 2)
    all_places: Array  # 0 … k − 1
    places: Array  # room for places, (k,)
    marked: Array  # likewise


@jit_leaf
def hash_of(item: int) -> Any:
    """32 bits of an item, whose upper ones are spread evenly."""
    return (np.int64(item) * 0x9E3779B1) & 0xFFFFFFFF


@jit_leaf
def mark_of(hashed: int) -> Any:
    """The two bits of an item with this hash."""
    return np.int64(1 << (hashed & 15)) | np.int64(1 << (hashed >> 6 & 15))


@jit_part
def hashed_rows(rows: Array) -> Hashed:
    """A display set, hashed."""
    k = len(rows)
    hashes = np.empty((k, 2), np.int64)
    for place in range(k):
        hashes[place, 0] = hash_of(rows[place])
        hashes[place, 1] = mark_of(hashes[place, 0])
    return Hashed(rows, hashes, np.arange(k), np.empty(k, np.int64), np.empty(k, np.int64))


@jit
def enter_pairs(table: PairCounts) -> None:
    """Fill marks, which are 0, and entries, which are -1, from the pairs."""
    n_items, _, starts, keys, _, marks, entries = table
    for left in range(n_items):
        start, size = starts[left], starts[left + 1] - starts[left]
        for pair in range(start, start + size):
            right = keys[pair] % n_items
            hashed = hash_of(right)
            marks[start + (hashed * size >> 32)] |= np.uint16(mark_of(hashed))
            at = hashed * (2 * size) >> 32
            while entries[2 * start + at, 0] >= 0:
                at = at + 1 if at + 1 < 2 * size else 0
            entries[2 * start + at, 0] = right
            entries[2 * start + at, 1] = pair


@jit_leaf
def ask_for_marks(starts: Array, marks: Array, left: int, hashes: Array) -> None:
    """Ask for what `find_marked` will read of a left item."""
    if left < 0 or left >= len(starts) - 1:
        return
    start = starts[left]
    size = starts[left + 1] - start
    for place in range(len(hashes) if size > 0 else 0):
        prefetch_entry(marks, start + (hashes[place, 0] * size >> 32))


@jit_leaf
def find_marked(
    start: int, size: int, marks: Array, hashes: Array, places: Array, marked: Array
) -> int:
    """Write to `marked` the places that a row's marks do not rule out; return how many."""
    n = 0
    for i in range(len(places) if size > 0 else 0):
        place = places[i]
        mark = hashes[place, 1]
        marked[n] = place
        n += np.int64(marks[start + (hashes[place, 0] * size >> 32)]) & mark == mark
    return n


@jit_leaf
def find_pair(start: int, size: int, entries: Array, right: int, hashed: int) -> int:
    """The place in the keys of a pair, or −1; its left item's row has pairs."""
    at = hashed * (2 * size) >> 32
    found = entries[2 * start + at, 0]
    while found >= 0 and found != right:
        at = at + 1 if at + 1 < 2 * size else 0
        found = entries[2 * start + at, 0]
    return int(entries[2 * start + at, 1]) if found >= 0 else -1

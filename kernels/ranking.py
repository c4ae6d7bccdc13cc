"""Ranks: how many candidates score above the chosen one, and which item of a pool scores highest.

Ties of the chosen candidate are counted and never broken: an exact expectation of prec@k needs
them. The best item of a pool is found for each user where a score is the inner product of a user's
part and an item's part. Items are stored in columns: a block of items stays in the first cache
while all users pass it. The best so far is kept as an integer key: a maximum of integers
vectorises. Ties go to the item that comes first in the pool; a score that is NaN beats every
number, so that a diverged network is seen."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ._jit import Array, jit, jit_fast, jit_leaf

BLOCK = 256
"""items of a block: with 16 hidden units 16 KiB, half of a first cache"""
LOWEST = np.int32(-(2**31))
_TAKEN = np.float32(-np.inf)
_SIGN = np.int32(31)
_NOT_SIGN = np.int32(0x7FFFFFFF)


class Best(NamedTuple):
    """The best item of each user so far."""

    places: Array
    """in the pool, shape (n_users,) int32"""
    keys: Array
    """its score as an integer that sorts alike, shape (n_users,) int32"""


@jit
def best_of_sets(
    scores: Array, offsets: Array, choices: Array, n_best: Array, is_best: Array
) -> None:
    """Write how many candidates of each display set share its best score, and whether the chosen
    one does; where none is chosen, the first stands for it.

    Args:
        scores: none is NaN, shape (n_candidates,).
        offsets: start of each display set, none empty, shape (n_events + 1,).
        choices: place of the choice in its display set, -1 for none, shape (n_events,).
        n_best, is_best: written, shape (n_events,).
    """
    for event in range(len(offsets) - 1):
        first, last = offsets[event], offsets[event + 1]
        best, n = scores[first], 1
        for candidate in range(first + 1, last):
            score = scores[candidate]
            if score > best:
                best, n = score, 1
            elif score == best:
                n += 1
        n_best[event] = n
        is_best[event] = scores[first + max(choices[event], 0)] == best


@jit
def _count(scores: Array, offsets: Array, choices: Array, n_better: Array, n_tied: Array) -> None:
    for event in range(len(offsets) - 1):
        if choices[event] < 0:
            n_better[event] = n_tied[event] = -1
            continue
        chosen = offsets[event] + choices[event]
        better, tied = 0, -1  # the loop meets the chosen candidate itself, which ties with itself
        for i in range(offsets[event], offsets[event + 1]):
            if scores[i] == scores[chosen] or i == chosen:
                tied += 1
            elif not scores[i] < scores[chosen]:
                better += 1
        n_better[event] = better
        n_tied[event] = tied


def rank_counts(scores: Array, offsets: Array, choices: Array) -> tuple[Array, Array]:
    """Count the other candidates that score above the chosen one, and those that tie with it.

    scores (n_candidates,) float; offsets (n_events + 1,) int32; choices (n_events,) int32, position
    or −1 for no click. Returns (n_better, n_tied), int32, shape (n_events,); events without a
    choice give (−1, −1). A comparison with NaN counts as better, so that a diverged model can never
    look good; +inf and −inf compare as usual.

    Raises ValueError when the shapes do not fit, or a choice lies outside its display set.

    >>> utility = np.array([1.0, 3.0, 1.0, 5.0])
    >>> offsets, choices = np.array([0, 3, 4], np.int32), np.array([0, -1], np.int32)
    >>> rank_counts(utility, offsets, choices)
    (array([ 1, -1], dtype=int32), array([ 1, -1], dtype=int32))
    """
    n_events = len(offsets) - 1
    if len(choices) != n_events or offsets[-1] != len(scores):
        raise ValueError(
            f"offsets name {n_events} events and {offsets[-1]} candidates, but there are "
            f"{len(choices)} choices "
            f"and {len(scores)} scores: pass the offsets that belong to them"
        )
    invalid = (choices < -1) | (choices >= np.diff(offsets))
    if invalid.any():
        event = int(np.argmax(invalid))
        size = offsets[event + 1] - offsets[event]
        raise ValueError(
            f"event {event} chooses position {choices[event]} of {size} candidates: use -1 for no "
            "click"
        )
    n_better = np.empty(n_events, np.int32)
    n_tied = np.empty(n_events, np.int32)
    _count(scores, offsets, choices, n_better, n_tied)
    return n_better, n_tied


@jit_leaf
def _key(x: Any) -> Any:
    """An int32 of the same order as a float32; a NaN's is larger than those of all numbers."""
    bits = np.float32(x).view(np.int32)
    # numba lifts int32 to int64 in every operation
    return np.int32(bits ^ ((bits >> _SIGN) & _NOT_SIGN))


@jit_leaf
def _keep_best(user: int, start: int, sums: Array, taken: Array, best: Best) -> None:
    """Replace the user's best place where a score of the block, (n_block,), lies above it."""
    for t in range(taken.shape[1]):
        place = taken[user, t] - start
        if 0 <= place < len(sums):
            sums[place] = _TAKEN
    top = LOWEST
    for i in range(len(sums)):
        top = max(top, _key(sums[i]))
    if top > best.keys[user]:
        best.keys[user] = top
        for i in range(len(sums)):
            if _key(sums[i]) == top:
                best.places[user] = start + i
                break


@jit_fast
def best_items(
    first: int,
    last: int,
    users: Array,
    blocks: Array,
    n: int,
    taken: Array,
    best: Best,
) -> None:
    """Write the place in the pool of the best item of users first to last − 1, one small product a
    block.

    users (n_users, d) float32; blocks (n_blocks, d, BLOCK), the n items in columns, the rest of the
    last block is not read; taken (n_users, j) places that are not to be chosen again, -1 for
    none."""
    scores = np.empty((last - first, BLOCK), np.float32)
    for user in range(first, last):
        best.keys[user], best.places[user] = LOWEST, 0
    for b in range(len(blocks)):
        start = b * BLOCK
        np.dot(users[first:last], blocks[b], scores)
        for user in range(first, last):
            _keep_best(user, start, scores[user - first, : min(BLOCK, n - start)], taken, best)

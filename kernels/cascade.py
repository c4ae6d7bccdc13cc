"""The best item of a pool for each user, where a score is the inner product of a user's part and an
item's part.

Items lie in columns: a block of items stays in the first cache while all users pass it. The best so
far is kept as an integer key: a maximum of integers vectorises. Ties go to the item that comes
first in the pool; a score that is NaN beats every number, so that a diverged network is seen."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ._jit import Array, jit_fast, jit_part

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


@jit_part
def _key(x: Any) -> Any:
    """An int32 of the same order as a float32; a NaN's is larger than those of all numbers."""
    bits = np.float32(x).view(np.int32)
    # numba lifts int32 to int64 in every operation
    return np.int32(bits ^ ((bits >> _SIGN) & _NOT_SIGN))


@jit_part
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

"""The best item of a pool for each user, where a score is a sum over hidden units of a user's part
and an item's part.

    joint:  score(u, a) = Σ_{h < d/2} max(user[u, h] + item[h, a], 0) − Σ_{h ≥ d/2} the same
    inner:  score(u, a) = Σ_h user[u, h] · item[h, a]

Joint is a network with one hidden layer: the size of an output weight goes into its unit, its sign
is the half. As max(x + y, 0) = max(y, −x) + x and x is the same for all items of a user, two
operations per pair and unit remain.

Items lie in columns: a vector of them is scored for two users with eight units in registers, and a
block of items stays in the first cache while all users pass it. The best so far is kept as an
integer key: a maximum of integers vectorises. Ties go to the item that comes first in the pool; a
score that is NaN beats every number, so that a diverged network is seen."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ._jit import Array, jit_fast, jit_part
from .cells import ONE, ZERO
from .own_batch import to_key

BLOCK = 256
"""items of a block: with 16 hidden units 16 KiB, half of a first cache"""
UNITS = 8
"""hidden units that a pass holds in registers"""
LOWEST: Any = np.int32(-(2**31))
_TAKEN: Any = np.float32(-np.inf)


class Best(NamedTuple):
    """The best item of each user so far."""

    places: Array
    """in the pool, shape (n_users,) int32"""
    keys: Array
    """its score as an integer that sorts alike, shape (n_users,) int32"""


@jit_part
def _joint(
    h: int, sign: Any, left: Array, right: Array, block: Array, one: Array, two: Array
) -> None:
    """Add sign · (units h to h + 7 of the joint layer, less what is the same for all items) to the
    sums of two users, (n,), whose parts are `left` and `right`."""
    a0, a1, a2, a3 = -left[h], -left[h + 1], -left[h + 2], -left[h + 3]
    a4, a5, a6, a7 = (
        -left[h + 4],
        -left[h + 5],
        -left[h + 6],
        -left[h + 7],
    )
    b0, b1, b2, b3 = (
        -right[h],
        -right[h + 1],
        -right[h + 2],
        -right[h + 3],
    )
    b4, b5, b6, b7 = (
        -right[h + 4],
        -right[h + 5],
        -right[h + 6],
        -right[h + 7],
    )
    for i in range(len(one)):
        v0, v1, v2, v3 = block[h, i], block[h + 1, i], block[h + 2, i], block[h + 3, i]
        v4, v5, v6, v7 = block[h + 4, i], block[h + 5, i], block[h + 6, i], block[h + 7, i]
        one[i] += sign * (
            (_larger(v0, a0) + _larger(v1, a1))
            + (_larger(v2, a2) + _larger(v3, a3))
            + ((_larger(v4, a4) + _larger(v5, a5)) + (_larger(v6, a6) + _larger(v7, a7)))
        )
        two[i] += sign * (
            (_larger(v0, b0) + _larger(v1, b1))
            + (_larger(v2, b2) + _larger(v3, b3))
            + ((_larger(v4, b4) + _larger(v5, b5)) + (_larger(v6, b6) + _larger(v7, b7)))
        )


@jit_part
def _larger(x: Any, y: Any) -> Any:
    return y if y > x else x  # x where it is NaN


@jit_part
def _keep_best(user: int, start: int, sums: Array, taken: Array, best: Best) -> None:
    """Replace the user's best place where a score of the block, (n_block,), lies above it."""
    for t in range(taken.shape[1]):
        place = taken[user, t] - start
        if 0 <= place < len(sums):
            sums[place] = _TAKEN
    top = LOWEST
    for i in range(len(sums)):
        top = max(top, np.int32(to_key(sums[i])))
    if top > best.keys[user]:
        best.keys[user] = top
        for i in range(len(sums)):
            if np.int32(to_key(sums[i])) == top:
                best.places[user] = start + i
                break


@jit_fast
def best_joint(
    first: int,
    last: int,
    users: Array,
    blocks: Array,
    n: int,
    taken: Array,
    best: Best,
) -> None:
    """Write the place in the pool of the best item of users first to last − 1, by the joint layer.

    users (n_users, d) float32, d/2 a multiple of UNITS; blocks (n_blocks, d, BLOCK), the n items in
    columns, the rest of the last block is not read; taken (n_users, j) places that are not to be
    chosen again, -1 for none."""
    left_scores, right_scores = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    d = users.shape[1]
    for user in range(first, last):
        best.keys[user], best.places[user] = LOWEST, 0
    for b in range(len(blocks)):
        start = b * BLOCK
        size = min(BLOCK, n - start)
        one, two = left_scores[:size], right_scores[:size]
        for left in range(first, last, 2):
            right = min(left + 1, last - 1)
            one[:] = ZERO
            two[:] = ZERO
            for h in range(0, d, UNITS):
                sign = ONE if 2 * h < d else -ONE
                _joint(h, sign, users[left], users[right], blocks[b], one, two)
            _keep_best(left, start, one, taken, best)
            if right > left:
                _keep_best(right, start, two, taken, best)


@jit_fast
def best_inner(
    first: int,
    last: int,
    users: Array,
    blocks: Array,
    n: int,
    taken: Array,
    best: Best,
) -> None:
    """Write the same by the inner product; arguments as in `best_joint`. One small BLAS product per
    block and users' part."""
    scores = np.empty((last - first, BLOCK), np.float32)
    for user in range(first, last):
        best.keys[user], best.places[user] = LOWEST, 0
    for b in range(len(blocks)):
        start = b * BLOCK
        np.dot(users[first:last], blocks[b], scores)
        for user in range(first, last):
            _keep_best(user, start, scores[user - first, : min(BLOCK, n - start)], taken, best)

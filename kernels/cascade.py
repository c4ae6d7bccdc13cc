"""The best item of a pool for each user, where a score is a sum over d hidden units of a user's part and an item's part.

    joint:  score(u, a) = Σ_h weight[h] · max(user[u, h] + item[h, a], 0)      a network with one hidden layer, split
    inner:  score(u, a) = Σ_h user[u, h] · item[h, a]                         an inner product of two towers

Items lie in columns, a vector of items at a time is scored for two users, eight hidden units in registers, and a block of
items stays in the first cache while all users pass it. The best so far is kept as an integer key: a maximum of integers
vectorises. Ties go to the item that comes first in the pool; a score that is NaN beats every number, so that a diverged
network is seen.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._jit import Array, jit_fast, jit_part
from .cells import ZERO
from .own_batch import to_key

BLOCK = 256
"""items of a block: with 16 hidden units 16 KiB, half of a first cache"""
UNITS = 8
"""hidden units that a pass holds in registers; d is a multiple of it"""
LOWEST: Any = np.int32(-(2**31))
_TAKEN: Any = np.float32(-np.inf)


@jit_part
def _joint(h: int, left: int, right: int, users: Array, weight: Array, block: Array, sums: Array) -> None:
    """Add units h to h + 7 of the joint layer to the sums of users `left` and `right`, (2, n_block)."""
    w0, w1, w2, w3 = weight[h], weight[h + 1], weight[h + 2], weight[h + 3]
    w4, w5, w6, w7 = weight[h + 4], weight[h + 5], weight[h + 6], weight[h + 7]
    a0, a1, a2, a3 = users[left, h], users[left, h + 1], users[left, h + 2], users[left, h + 3]
    a4, a5, a6, a7 = users[left, h + 4], users[left, h + 5], users[left, h + 6], users[left, h + 7]
    b0, b1, b2, b3 = users[right, h], users[right, h + 1], users[right, h + 2], users[right, h + 3]
    b4, b5, b6, b7 = users[right, h + 4], users[right, h + 5], users[right, h + 6], users[right, h + 7]
    for i in range(sums.shape[1]):
        v0, v1, v2, v3 = block[h, i], block[h + 1, i], block[h + 2, i], block[h + 3, i]
        v4, v5, v6, v7 = block[h + 4, i], block[h + 5, i], block[h + 6, i], block[h + 7, i]
        sums[0, i] += (
            w0 * _relu(a0 + v0) + w1 * _relu(a1 + v1) + w2 * _relu(a2 + v2) + w3 * _relu(a3 + v3)
            + w4 * _relu(a4 + v4) + w5 * _relu(a5 + v5) + w6 * _relu(a6 + v6) + w7 * _relu(a7 + v7)
        )  # fmt: skip
        sums[1, i] += (
            w0 * _relu(b0 + v0) + w1 * _relu(b1 + v1) + w2 * _relu(b2 + v2) + w3 * _relu(b3 + v3)
            + w4 * _relu(b4 + v4) + w5 * _relu(b5 + v5) + w6 * _relu(b6 + v6) + w7 * _relu(b7 + v7)
        )  # fmt: skip


@jit_part
def _relu(x: Any) -> Any:
    return x if x > ZERO else ZERO


@jit_part
def _keep_best(user: int, start: int, sums: Array, taken: Array, best: Array, keys: Array) -> None:
    """Replace the user's best place where a score of the block, (n_block,), lies above it."""
    for t in range(taken.shape[1]):
        place = taken[user, t] - start
        if 0 <= place < len(sums):
            sums[place] = _TAKEN
    top = LOWEST
    for i in range(len(sums)):
        top = max(top, np.int32(to_key(sums[i])))
    if top > keys[user]:
        keys[user] = top
        for i in range(len(sums)):
            if np.int32(to_key(sums[i])) == top:
                best[user] = start + i
                break


@jit_fast
def best_joint(
    first: int, last: int, users: Array, weight: Array, blocks: Array, n: int, taken: Array, best: Array, keys: Array
) -> None:
    """Write the place in the pool of the best item of users first to last − 1, by the joint layer.

    users (n_users, d) float32; weight (d,); blocks (n_blocks, d, BLOCK), the n items in columns, the rest of the last block
    is not read; taken (n_users, j) places that are not to be chosen again, -1 for none; best (n_users,) int32 out; keys
    (n_users,) int32 out, the best score's key.
    """
    scores = np.empty((2, BLOCK), np.float32)
    for user in range(first, last):
        keys[user], best[user] = LOWEST, 0
    for b in range(len(blocks)):
        start = b * BLOCK
        sums = scores[:, : min(BLOCK, n - start)]
        for left in range(first, last, 2):
            right = min(left + 1, last - 1)
            sums[:] = ZERO
            for h in range(0, users.shape[1], UNITS):
                _joint(h, left, right, users, weight, blocks[b], sums)
            _keep_best(left, start, sums[0], taken, best, keys)
            if right > left:
                _keep_best(right, start, sums[1], taken, best, keys)


@jit_fast
def best_inner(
    first: int, last: int, users: Array, blocks: Array, n: int, taken: Array, best: Array, keys: Array
) -> None:
    """Write the same by the inner product; arguments as in `best_joint`. One small BLAS product per block and users' part."""
    scores = np.empty((last - first, BLOCK), np.float32)
    for user in range(first, last):
        keys[user], best[user] = LOWEST, 0
    for b in range(len(blocks)):
        start = b * BLOCK
        np.dot(users[first:last], blocks[b], scores)
        for user in range(first, last):
            _keep_best(user, start, scores[user - first, : min(BLOCK, n - start)], taken, best, keys)

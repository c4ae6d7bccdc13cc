"""Search: the best item of each user's pool by a `Scorer`, whose parts are computed once per user and once per item.

A shared pool is scanned by kernels that keep a block of items in the first cache while all users pass it; a pool of each
user's own is gathered.
"""

from __future__ import annotations

import numpy as np

from fastgaum.envs.world import FloatArray, IntArray
from fastgaum.kernels import cascade as kernels
from fastgaum.ops import threads
from fastgaum.policies.scorer import Scorer

USERS = 128
"""users of a part that one thread scans a pool for"""
GATHERED = 1 << 22
"""units gathered at once for pools of users' own"""


class ItemParts:
    """V of a pool by one scorer, laid out for the kernels; made once as long as weights and pool stay."""

    def __init__(self, parts: FloatArray) -> None:
        """Take V, shape (m, width)."""
        m, width = parts.shape
        self.n, self.width = m, -(-width // kernels.UNITS) * kernels.UNITS
        n_blocks = -(-m // kernels.BLOCK)
        padded = np.zeros((n_blocks * kernels.BLOCK, self.width), np.float32)
        padded[:m, :width] = parts
        blocks = padded.reshape(n_blocks, kernels.BLOCK, self.width).transpose(0, 2, 1)
        self.blocks = np.ascontiguousarray(blocks)


def best_places(users: FloatArray, weight: FloatArray, items: ItemParts, joint: bool, taken: IntArray) -> IntArray:
    """The place in a shared pool of each user's best item that is not taken; ties to the first place.

    users (n, width); weight (width,), read by the joint form alone; taken (n, j) places, -1 for none. Returns (n,) int32.
    Threads share the users; the result does not depend on how many there are.
    """
    users, weight = _padded(users, items.width), _padded(weight[None], items.width)[0]
    n = len(users)
    best, keys = np.empty(n, np.int32), np.empty(n, np.int32)
    taken = np.ascontiguousarray(taken, np.int32)
    cuts = [(first, min(first + USERS, n)) for first in range(0, n, USERS)]
    if joint:
        threads.run(
            kernels.best_joint,
            [(*cut, users, weight, items.blocks, items.n, taken, best, keys) for cut in cuts],
        )
    else:
        threads.run(kernels.best_inner, [(*cut, users, items.blocks, items.n, taken, best, keys) for cut in cuts])
    return best


def best_own_places(
    users: FloatArray, weight: FloatArray, items: FloatArray, pools: IntArray, joint: bool, taken: IntArray
) -> IntArray:
    """The same for a pool of each user's own, pools (n, m) rows of items (n_items, width)."""
    n, m = pools.shape
    best = np.empty(n, np.int32)
    at_once = max(1, GATHERED // (m * items.shape[1]))
    for first in range(0, n, at_once):
        some = slice(first, min(first + at_once, n))
        scores = own_scores(users[some], weight, items, pools[some], joint)
        rows = np.arange(len(scores))
        for t in range(taken.shape[1]):
            held = taken[some, t]
            scores[rows[held >= 0], held[held >= 0]] = -np.inf
        best[some] = scores.argmax(axis=1)
    return best


def own_scores(users: FloatArray, weight: FloatArray, items: FloatArray, pools: IntArray, joint: bool) -> FloatArray:
    """Scores without base of pools (n, m) of each user's own, shape (n, m)."""
    gathered = items[pools]
    if joint:
        gathered += users[:, None]
        np.maximum(gathered, 0, out=gathered)
        return np.asarray(gathered @ weight)
    return np.asarray(np.einsum("nmd,nd->nm", gathered, users))


def scores_of(scorer: Scorer, states: FloatArray, features: FloatArray, pools: IntArray) -> FloatArray:
    """Q of every item of the pools, (m,) or (n, m), for a scorer of one item; shape (n, m)."""
    none = np.empty((len(states), 0, features.shape[1]), np.float32)
    users, items, weight, base = scorer.parts(states, none, features)
    result = np.empty((len(states), pools.shape[-1]), np.float32)
    at_once = max(1, GATHERED // (pools.shape[-1] * items.shape[1]))
    for first in range(0, len(states), at_once):
        some = slice(first, first + at_once)
        own = np.broadcast_to(pools, result.shape)[some]
        if scorer.joint or pools.ndim == 2:
            result[some] = own_scores(users[some], weight, items, own, scorer.joint)
        else:
            result[some] = users[some] @ items[pools].T
    return result + base[:, None]


def _padded(matrix: FloatArray, width: int) -> FloatArray:
    """With zero columns up to a width that the kernels read."""
    if matrix.shape[1] == width:
        return np.ascontiguousarray(matrix, np.float32)
    return np.pad(matrix, ((0, 0), (0, width - matrix.shape[1])))

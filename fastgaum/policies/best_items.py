"""Search: the best item of each user's pool by a `Scorer`, whose parts are computed once per user
and once per item.

A shared pool is scanned by kernels that keep a block of items in the first cache while all users
pass it; a pool of each user's own is gathered."""

from __future__ import annotations

import numpy as np

from fastgaum import threads
from fastgaum.kernels import cascade as kernels
from fastgaum.policies.q_network import Scorer
from fastgaum.worlds.world import FloatArray, IntArray

USERS = 64
"""users of a part that one thread scans a pool for: the product with 256 items of 32 columns is
then small (ops/_tiles.py)"""
GATHERED = 1 << 22
"""units gathered at once for pools of users' own"""


class ItemParts:
    """V of a pool by one scorer, laid out for the kernels; made once as long as weights and pool
    stay."""

    def __init__(self, parts: FloatArray, joint: bool) -> None:
        """Take V, shape (m, width), and whether it is of the joint form."""
        m = len(parts)
        self.n, self.joint = m, joint
        parts = padded(parts, joint)
        n_blocks = -(-m // kernels.BLOCK)
        rows = np.zeros((n_blocks * kernels.BLOCK, parts.shape[1]), np.float32)
        rows[:m] = parts
        self.blocks = np.ascontiguousarray(
            rows.reshape(n_blocks, kernels.BLOCK, -1).transpose(0, 2, 1)
        )


def best_places(users: FloatArray, items: ItemParts, taken: IntArray) -> IntArray:
    """The place in a shared pool of each user's best item that is not taken; ties to the first
    place.

    users (n, width); taken (n, j) places, -1 for none. Returns (n,) int32. Threads share the users;
    the result does not depend on how many there are."""
    users, n = padded(users, items.joint), len(users)
    best, keys = np.empty(n, np.int32), np.empty(n, np.int32)
    taken = np.ascontiguousarray(taken, np.int32)
    kernel = kernels.best_joint if items.joint else kernels.best_inner
    cuts = [(first, min(first + USERS, n)) for first in range(0, n, USERS)]
    threads.run(kernel, [(*cut, users, items.blocks, items.n, taken, best, keys) for cut in cuts])
    return best


def best_own_places(
    users: FloatArray, items: FloatArray, pools: IntArray, joint: bool, taken: IntArray
) -> IntArray:
    """The same for a pool of each user's own, pools (n, m) rows of items (n_items, width)."""
    n, m = pools.shape
    best = np.empty(n, np.int32)
    at_once = max(1, GATHERED // (m * items.shape[1]))
    for first in range(0, n, at_once):
        some = slice(first, min(first + at_once, n))
        scores = own_scores(users[some], items, pools[some], joint)
        rows = np.arange(len(scores))
        for t in range(taken.shape[1]):
            held = taken[some, t]
            scores[rows[held >= 0], held[held >= 0]] = -np.inf
        best[some] = scores.argmax(axis=1)
    return best


def own_scores(users: FloatArray, items: FloatArray, pools: IntArray, joint: bool) -> FloatArray:
    """What items add to base, times √width for the joint form, of pools (n, m) of each user's own,
    shape (n, m)."""
    gathered = items[pools]
    if joint:
        gathered += users[:, None]
        np.maximum(gathered, 0, out=gathered)
        half = users.shape[1] // 2
        return np.asarray(gathered[..., :half].sum(axis=2) - gathered[..., half:].sum(axis=2))
    return np.asarray(np.einsum("nmd,nd->nm", gathered, users))


def scores_of(
    scorer: Scorer, states: FloatArray, features: FloatArray, pools: IntArray
) -> FloatArray:
    """Q of every item of the pools, (m,) or (n, m), for a scorer of one item; shape (n, m)."""
    none = np.empty((len(states), 0, features.shape[1]), np.float32)
    (users, base), items = scorer.user_parts(states, none), scorer.item_parts(features)
    result = np.empty((len(states), pools.shape[-1]), np.float32)
    at_once = max(1, GATHERED // (pools.shape[-1] * items.shape[1]))
    for first in range(0, len(states), at_once):
        some = slice(first, first + at_once)
        own = np.broadcast_to(pools, result.shape)[some]
        if scorer.joint or pools.ndim == 2:
            result[some] = own_scores(users[some], items, own, scorer.joint)
        else:
            result[some] = users[some] @ items[pools].T
    if scorer.joint:
        result *= items.shape[1] ** -0.5
    return result + base[:, None]


def padded(parts: FloatArray, joint: bool) -> FloatArray:
    """With zero columns that change no score, as the kernels read them: the joint form's halves to
    UNITS each."""
    n, width = parts.shape
    groups = 2 if joint else 1
    held = width // groups
    extra = -held % kernels.UNITS
    if extra == 0:
        return np.ascontiguousarray(parts, np.float32)
    wide = np.zeros((n, groups, held + extra), np.float32)
    wide[:, :, :held] = parts.reshape(n, groups, held)
    return wide.reshape(n, -1)

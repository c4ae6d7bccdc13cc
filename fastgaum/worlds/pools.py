"""The items that a slate may be made of: one pool for all, one per user and episode, or one per
step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from fastgaum.errors import ConfigError, did_you_mean
from fastgaum.kernels.keys import draw_without_replacement
from fastgaum.worlds.random_keys import POOL, Keys
from fastgaum.worlds.world import IntArray, World

PoolKind = Literal["fixed", "per_user", "per_step"]


class Pools:
    """Candidates of n users, drawn without replacement from a world's catalogue.

    Attributes:
        items: the pool of each user, shape (n, size), or (1, size) where all share one; never
            replaced.
        size: how many items a pool holds.
        kind: when pools are drawn: once, at an episode's start, or at every step.
    """

    def __init__(
        self,
        world: World,
        n: int,
        kind: PoolKind | Sequence[int] | IntArray,
        size: int | None,
        seed: int,
    ) -> None:
        """Draw a fixed pool, or make room for the others. Raises ConfigError for an impossible
        kind, size or item."""
        self._catalogue = np.arange(world.n_items, dtype=np.int32)
        if not isinstance(kind, str):
            self.kind: PoolKind = "fixed"
            self.items = _given(kind, size, world.n_items)[None]
            self.size = self.items.shape[1]
            return
        if kind not in get_args(PoolKind):
            raise ConfigError(
                f"pool is '{kind}', one of {', '.join(get_args(PoolKind))} or the items themselves "
                "is required"
                f"{did_you_mean(kind, get_args(PoolKind))}"
            )
        self.size = world.n_items if size is None else size
        if not 1 <= self.size <= world.n_items:
            raise ConfigError(
                f"pool_size is {size}, a number from 1 to the {world.n_items} items is required"
            )
        # the whole catalogue is one pool, whoever asks
        self.kind = "fixed" if self.size == world.n_items else kind
        self._swaps = np.empty(self.size, np.int64)
        self.items = np.zeros((1 if self.kind == "fixed" else n, self.size), np.int32)
        if self.size == world.n_items:
            self.items[0] = self._catalogue
        elif self.kind == "fixed":
            keys = Keys(1)
            keys.seed(seed, keys.everyone)
            self.draw(keys, keys.everyone)

    def draw(self, keys: Keys, rows: IntArray) -> None:
        """Draw the pools of some users anew; not for a fixed pool."""
        draw_without_replacement(
            keys.of(POOL, rows), rows, self._catalogue, self._swaps, self.items
        )

    def of(self, rows: IntArray) -> IntArray:
        """The pools of some users, shape (len(rows), size); a copy."""
        if len(self.items) == 1:
            return np.repeat(self.items, len(rows), axis=0)
        return self.items[rows]


def _given(items: Sequence[int] | IntArray, size: int | None, n_items: int) -> IntArray:
    pool = np.array(items)
    if pool.ndim != 1 or len(pool) == 0 or not np.issubdtype(pool.dtype, np.integer):
        raise ConfigError(
            f"a pool given as items is one row of whole numbers, got {pool.dtype} of shape "
            f"{pool.shape}"
        )
    if pool.min() < 0 or pool.max() >= n_items:
        raise ConfigError(
            f"the pool holds items from {pool.min()} to {pool.max()}, the catalogue has 0 to "
            f"{n_items - 1}"
        )
    values, counts = np.unique(pool, return_counts=True)
    if counts.max() > 1:
        raise ConfigError(
            f"the pool holds item {values[counts.argmax()]} {counts.max()} times: name each item "
            "once"
        )
    if size is not None and size != len(pool):
        raise ConfigError(
            f"pool_size is {size}, the pool given has {len(pool)} items: leave pool_size out"
        )
    return pool.astype(np.int32)

"""The items that a slate may be made of: one pool for all, one per user and episode, or one per
step.

`Pool` is the rule, which policies are trained with; `UserPools` are the pools of an environment's
users."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from fastgaum.errors import ConfigError, did_you_mean
from fastgaum.kernels.keys import draw_without_replacement
from fastgaum.worlds.random_keys import POOL, Keys
from fastgaum.worlds.world import IntArray, KeyArray, World

PoolKind = Literal["fixed", "per_user", "per_step"]


@dataclass(frozen=True)
class Pool:
    """A rule of candidates. Raises ConfigError for an unknown rule or a negative number."""

    rule: PoolKind = "fixed"
    """fixed: one pool for all; per_user: one for each user, the episode long; per_step: one for
    each user and step"""
    size: int = 0
    """items in a pool; 0 = the whole catalogue, and then the same for all"""
    items: tuple[int, ...] = ()
    """the items that pools are drawn from; () = all of the catalogue"""
    seed: int = 0
    """what a fixed pool is drawn by, an environment's `pool_seed`; the others are drawn by their
    users' keys"""

    def __post_init__(self) -> None:
        if self.rule not in get_args(PoolKind):
            raise ConfigError(
                f"pool rule must be one of {', '.join(get_args(PoolKind))}, got '{self.rule}'"
            )
        if self.size < 0:
            raise ConfigError(f"pool size must be at least 0 (the catalogue), got {self.size}")
        if self.seed < 0:
            raise ConfigError(f"pool seed must be at least 0, got {self.seed}")

    def shared(self, n_items: int) -> bool:
        """Whether all users have the same pool at all times."""
        return self.rule == "fixed" or self.size in (0, len(self.items) or n_items)

    def count(self, n_items: int) -> int:
        """Items in a pool of a catalogue of so many."""
        return self.size or len(self.items) or n_items

    def check(self, n_items: int, k: int) -> None:
        """Raise ConfigError unless a slate of k distinct items can be made of a pool from so many
        items."""
        among, size = len(self.items) or n_items, self.count(n_items)
        if self.items and not (
            0 <= min(self.items) <= max(self.items) < n_items and len(set(self.items)) == among
        ):
            raise ConfigError(
                f"the items of a pool must be distinct and 0 to {n_items - 1}: give the world's own"
            )
        if size > among:
            raise ConfigError(
                f"a pool of {size} items is larger than the {among} it is drawn from: use a "
                "smaller pool size"
            )
        if not 1 <= k <= size:
            raise ConfigError(
                f"a slate of {k} items cannot be made of a pool of {size}: use a smaller k or a "
                "larger pool"
            )

    def keys(self, keys: Keys) -> KeyArray:
        """Keys of the users' pools at their present step, for `draw`, shape (n_users,)."""
        return keys.of(POOL).copy()

    def draw(self, keys: KeyArray, n_items: int) -> IntArray:
        """The pools of some keys: item numbers (m,) where all share one, else (n, m)."""
        among = (
            np.asarray(self.items, np.int32) if self.items else np.arange(n_items, dtype=np.int32)
        )
        if self.size in (0, len(among)):
            return among
        if self.rule == "fixed":
            own = Keys(1)
            own.seed(self.seed, own.everyone)
            return np.sort(self._drawn(own.of(POOL), among)[0])
        return self._drawn(keys, among)

    def pinned(self, n_items: int) -> Pool:
        """The same pool with its items named, where it is fixed: what is left out of them later
        changes no other."""
        if self.rule != "fixed" or self.size == 0:
            return self
        return dataclasses.replace(
            self, size=0, items=tuple(self.draw(np.empty(0, np.uint64), n_items).tolist())
        )

    def _drawn(self, keys: KeyArray, among: IntArray) -> IntArray:
        pools, swaps = np.empty((len(keys), self.size), np.int32), np.empty(self.size, np.int64)
        draw_without_replacement(keys, np.arange(len(keys), dtype=np.int32), among, swaps, pools)
        return pools


class UserPools:
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
        # the whole catalogue is one pool for all
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

"""Pool: which items a policy may show, to whom and when."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import get_args

import numpy as np

from fastgaum.errors import ConfigError
from fastgaum.kernels.keys import draw_without_replacement
from fastgaum.worlds.pools import PoolKind
from fastgaum.worlds.random_keys import POOL, Keys
from fastgaum.worlds.world import IntArray, KeyArray


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
        """Which pools users have who stand there, at a step, or per user at the first: keys for
        `draw`, shape (n_users,)."""
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

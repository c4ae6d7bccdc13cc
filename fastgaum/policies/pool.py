"""Pool: which items a policy may show, to whom and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np

from fastgaum.envs.pools import PoolKind
from fastgaum.envs.world import IntArray, KeyArray
from fastgaum.errors import ConfigError
from fastgaum.kernels.keys import draw_without_replacement
from fastgaum.policies.keys import POOL, keys_of


@dataclass(frozen=True)
class Pool:
    """A rule of candidates. Raises ConfigError for an unknown rule or a negative size."""

    rule: PoolKind = "fixed"
    """fixed: one pool for all; per_user: one for each user, the episode long; per_step: one for each user and step"""
    size: int = 0
    """items in a pool; 0 = the whole catalogue, and then the same for all"""
    items: tuple[int, ...] = ()
    """the items that pools are drawn from; () = all of the catalogue"""

    def __post_init__(self) -> None:
        if self.rule not in get_args(PoolKind):
            raise ConfigError(f"pool rule must be one of {', '.join(get_args(PoolKind))}, got '{self.rule}'")
        if self.size < 0:
            raise ConfigError(f"pool size must be at least 0 (the catalogue), got {self.size}")

    def shared(self, n_items: int) -> bool:
        """Whether all users have the same pool at all times."""
        return self.rule == "fixed" or self.size in (0, len(self.items) or n_items)

    def check(self, n_items: int, k: int) -> None:
        """Raise ConfigError unless a slate of k distinct items can be made of a pool from so many items."""
        among = len(self.items) or n_items
        size = self.size or among
        if size > among:
            raise ConfigError(
                f"a pool of {size} items is larger than the {among} it is drawn from: use a smaller pool size"
            )
        if not 1 <= k <= size:
            raise ConfigError(
                f"a slate of {k} items cannot be made of a pool of {size}: use a smaller k or a larger pool"
            )

    def keys(self, seed: int, users: IntArray, step: int) -> KeyArray:
        """Which pool each user has at a step: a key that `draw` turns into it, shape (n_users,)."""
        user = users if self.rule != "fixed" else np.zeros_like(users)
        return keys_of(seed if self.rule != "fixed" else 0, POOL, user, step if self.rule == "per_step" else 0)

    def draw(self, keys: KeyArray, n_items: int) -> IntArray:
        """The pools of some keys: item numbers (m,) where all share one, else (n, m)."""
        among = np.asarray(self.items, np.int32) if self.items else np.arange(n_items, dtype=np.int32)
        if self.size in (0, len(among)):
            return among
        shared = self.rule == "fixed"
        pools = np.empty((1 if shared else len(keys), self.size), np.int32)
        rows, swaps = np.arange(len(pools), dtype=np.int32), np.empty(self.size, np.int64)
        draw_without_replacement(keys[: len(pools)], rows, among, swaps, pools)
        return np.sort(pools[0]) if shared else pools

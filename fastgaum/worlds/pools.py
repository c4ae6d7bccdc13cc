"""Pools, which slates are made of, and the keys of all draws: (seed, user, episode, step, use)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from fastgaum.arrays import FloatArray, IntArray, KeyArray
from fastgaum.errors import ConfigError, did_you_mean, require_whole
from fastgaum.kernels.draws import (
    counted_keys,
    draw_without_replacement,
    uniforms,
    user_streams,
)

START, CHOICE, POOL, LEAVE, SLATE, MEAN = (np.uint64(use) for use in range(6))
"""what a draw is for; a new use takes a new number, so that no earlier draw changes"""


class Keys:
    """Where each of n users stands in its own stream: its episode, -1 before the first, and the
    steps that this episode has taken, shape (n,)."""

    def __init__(self, n: int) -> None:
        self.everyone = np.arange(n, dtype=np.int32)
        self.streams = np.zeros(n, np.uint64)
        self.episodes = np.full(n, -1, np.int64)
        self.steps = np.zeros(n, np.int32)
        self._keys = np.empty(n, np.uint64)

    def seed(self, seed: int | Sequence[int], rows: IntArray, first: int = 0) -> None:
        """Give the users of `rows` new streams: user first + row of one seed, or user 0 of each
        seed."""
        streams = np.empty_like(self.streams)
        parts = (
            [(seed, first, streams)]
            if isinstance(seed, int)
            else [(seed[i], 0, streams[i : i + 1]) for i in rows]
        )
        for one, user, part in parts:
            entropy = np.random.SeedSequence(one).generate_state(1, np.uint64)[0]
            user_streams(np.uint64(entropy), user, part)
        self.streams[rows] = streams[rows]
        self.episodes[rows] = -1

    def start(self, rows: IntArray) -> None:
        """Begin the next episode of the users of `rows`."""
        self.episodes[rows] += 1
        self.steps[rows] = 0

    def of(self, use: np.uint64, rows: IntArray | None = None) -> KeyArray:
        """A key for each user of `rows`, or for all, for one use now; the next call overwrites
        it."""
        rows = self.everyone if rows is None else rows
        keys = self._keys[: len(rows)]
        counted_keys(self.streams, self.episodes, self.steps, use, rows, keys)
        return keys


def draw_uniform(keys: KeyArray) -> npt.NDArray[np.float64]:
    """Numbers in [0, 1) with 53 random bits, one per key."""
    return np.asarray((keys >> np.uint64(11)) * 2.0**-53, np.float64)


def draw_uniforms(keys: KeyArray, width: int) -> npt.NDArray[np.float64]:
    """Independent numbers in [0, 1) of each key, shape (n, width)."""
    numbers = np.empty((width, len(keys)))
    for stream in range(width):
        uniforms(keys, np.uint64(stream), numbers[stream])
    return numbers.T


def draw_distinct(keys: KeyArray, n_of: int, k: int) -> IntArray:
    """k different numbers below n_of ≥ k for each key, each ordered draw as likely, shape (n,
    k)."""
    drawn, swaps = np.empty((len(keys), k), np.int32), np.empty(k, np.int64)
    rows, numbers = np.arange(len(keys), dtype=np.int32), np.arange(n_of, dtype=np.int32)
    draw_without_replacement(keys, rows, numbers, swaps, drawn)
    return drawn


PoolKind = Literal["fixed", "per_user", "per_step"]
CandidateRule = Callable[[FloatArray], IntArray]
"""from states of users, (n, state_dim), to the items of their pools, (n, size)"""


@dataclass(frozen=True)
class Pool:
    """A rule of candidates. Raises ConfigError for an unknown rule, or what is no whole number from
    0."""

    rule: PoolKind = "fixed"
    """fixed: one pool for all; per_user: one for each user and episode; per_step: one for each user
    and step"""
    size: int = 0
    """items in a pool; 0 = the whole catalogue, and then the same for all"""
    items: tuple[int, ...] = ()
    """the items that pools are drawn from; () = the catalogue"""
    seed: int = 0
    """what a fixed pool is drawn by"""

    def __post_init__(self) -> None:
        rules = get_args(PoolKind)
        if self.rule not in rules:
            raise ConfigError(
                f"the rule of a pool is '{self.rule}', one of {', '.join(rules)} is "
                f"required{did_you_mean(str(self.rule), rules)}"
            )
        for name in ("size", "seed"):
            require_whole(f"the {name} of a pool", getattr(self, name))
        items = np.asarray(self.items)
        if items.ndim != 1 or (items.size and items.dtype.kind not in "iu"):
            raise ConfigError(
                f"a pool given as items is one row of whole numbers, got {items.dtype} of shape "
                f"{items.shape}"
            )
        object.__setattr__(self, "items", tuple(items.tolist()))

    def __str__(self) -> str:
        among = f" of {len(self.items)} items ({self.items[0]} …)" if self.items else ""
        seed = f", seed {self.seed}" if self.rule == "fixed" and self.size else ""
        return f"{self.rule} of {self.size or 'all'}{among}{seed}"

    def draws_as(self, other: Pool) -> bool:
        """Whether one key draws the same of both."""
        return (str(self), self.items) == (str(other), other.items)

    @classmethod
    def of(cls, pool: PoolKind | Sequence[int] | IntArray | Pool, size: int) -> Pool:
        """The pool of an environment's options: a rule's name, the items themselves, or a `Pool`.
        Raises ConfigError as `Pool`, for no item, and for a `Pool` and a size."""
        if isinstance(pool, Pool):
            if size:
                raise ConfigError(
                    f"pool is a Pool and pool_size is {size}: give the size to the Pool (size=…)"
                )
            return pool
        if isinstance(pool, str):
            return cls(pool, size)
        made = cls("fixed", size, pool)  # type: ignore[arg-type]
        if not made.items:
            raise ConfigError("a pool given as items has at least 1 item, got none")
        return made

    def among(self, n_items: int) -> IntArray:
        """The items that pools are drawn from, of a catalogue of so many."""
        return np.array(self.items, np.int32) if self.items else np.arange(n_items, dtype=np.int32)

    def check(self, n_items: int, k: int) -> None:
        """Raise ConfigError unless a slate of k distinct items can be made of a pool from so many
        items."""
        among = len(self.items) or n_items
        size = self.size or among
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

    def draw(self, keys: KeyArray, n_items: int) -> IntArray:
        """The pools of some keys: item numbers (m,) where all share one, else (n, m)."""
        among = self.among(n_items)
        if self.size in (0, len(among)):
            return among
        if self.rule != "fixed":
            return among[draw_distinct(keys, len(among), self.size)]
        own = Keys(1)
        own.seed(self.seed, own.everyone)
        return np.sort(among[draw_distinct(own.of(POOL), len(among), self.size)[0]])

    def pinned(self, n_items: int) -> Pool:
        """The same pool with its items named. A fixed pool names the items that it draws: leaving
        one out then changes no other. Raises ConfigError as `check`."""
        size, items = self.size, self.among(n_items)
        if self.rule == "fixed":
            self.check(n_items, 1)
            size, items = 0, self.draw(np.empty(0, np.uint64), n_items)
        return dataclasses.replace(self, size=size, items=tuple(items.tolist()))


class UserPools:
    """The pools of an environment's users.

    Attributes:
        items: shape (n, size), or (1, size) where all share one; never replaced.
        size: how many items a pool holds.
        kind: "fixed" where all share one at all times.
    """

    def __init__(self, pool: Pool, n_items: int, n: int) -> None:
        """Draw a shared pool, or make room for n others. Raises ConfigError as `Pool.check`."""
        pool.check(n_items, 1)
        self._among = pool.among(n_items)
        self.size = pool.size or len(self._among)
        self.kind: PoolKind = "fixed" if self.size == len(self._among) else pool.rule
        self._swaps = np.empty(self.size, np.int64)
        self.items = np.zeros((n, self.size), np.int32)
        if self.kind == "fixed":
            self.items = pool.draw(np.empty(0, np.uint64), n_items)[None]

    def renew(self, keys: Keys, rows: IntArray, states: FloatArray) -> None:
        """Draw the pools of some users anew, of all users' states; not for a shared pool."""
        draw_without_replacement(keys.of(POOL, rows), rows, self._among, self._swaps, self.items)

    def of(self, rows: IntArray) -> IntArray:
        """The pools of some users, shape (len(rows), size); a copy."""
        if len(self.items) == 1:
            return np.repeat(self.items, len(rows), axis=0)
        return self.items[rows]


class CandidatePools(UserPools):
    """Pools that a function makes of the users' states, anew in every step."""

    def __init__(self, rule: CandidateRule, size: int | None, n_items: int, n: int) -> None:
        """Raises ConfigError for no size, or more items than there are."""
        require_whole("pool_size of a pool that is a function", size, 1)
        super().__init__(Pool("per_step", size or 0), n_items, n)
        self.kind, self._rule, self._n_items = "per_step", rule, n_items
        self.items = np.zeros((n, self.size), np.int32)

    def renew(self, keys: Keys, rows: IntArray, states: FloatArray) -> None:
        """As the base says. Raises ConfigError where the function gives anything but distinct
        items."""
        if not len(rows):
            return
        items, shape = np.asarray(self._rule(states[rows])), (len(rows), self.size)
        if items.shape != shape or items.dtype.kind not in "iu":
            raise ConfigError(
                f"the pool's function gave {items.dtype} of shape {items.shape}, whole numbers of "
                f"shape {shape} are required: the items of each user's pool"
            )
        ordered = np.sort(items, axis=1)
        outside = ordered[:, 0].min() < 0 or ordered[:, -1].max() >= self._n_items
        if outside or (ordered[:, 1:] == ordered[:, :-1]).any():
            raise ConfigError(
                f"the pool's function gave items that are not distinct and 0 to {self._n_items - 1}"
            )
        self.items[rows] = items

"""World and Population: users who are shown slates. Nothing here knows Gymnasium.

    users = world.population(4096)
    users.reset(keys=episode_keys)              # no choice yet, or a logged prefix each
    response = users.step(slates, keys=step_keys)  # (4096, 10) items; one choice or none each
    users.states                                # (4096, state_dim), after that choice

Items are numbered 0 … n_items − 1, the rows of `item_ids`. Randomness comes from keys alone, one
per user and call: other users beside it and threads change no draw. What a learned user computes of
it is the same within 1e-5."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.arrays import BoolArray, FloatArray, IntArray, KeyArray
from fastgaum.errors import ConfigError

NO_ITEM = -1
"""an empty place of a slate, and the choice of nothing"""


@dataclass(frozen=True)
class Response:
    """What each user did with one slate."""

    places: IntArray
    """place of the choice in the slate, -1 for no click, shape (n_users,)"""
    items: IntArray
    """item chosen, -1 for none, shape (n_users,)"""
    utilities: FloatArray
    """the user's utility of the choice before it was made, 0 for no click, shape (n_users,)"""
    outcomes: FloatArray | None = None
    """what followed the choice, a column for each of `World.outcome_labels`, NaN without a choice,
    shape (n_users, n_labels); None where the world draws none"""

    @classmethod
    def none(cls, n: int) -> Response:
        """The response of n users who do nothing."""
        return cls(np.full(n, -1, np.int32), np.full(n, NO_ITEM, np.int32), np.zeros(n, np.float32))

    @classmethod
    def joined(cls, parts: Sequence[Response]) -> Response:
        """The response of the users of some parts, one after another."""
        if len(parts) == 1:
            return parts[0]
        outcomes = [one.outcomes for one in parts if one.outcomes is not None]
        return cls(
            np.concatenate([one.places for one in parts]),
            np.concatenate([one.items for one in parts]),
            np.concatenate([one.utilities for one in parts]),
            np.concatenate(outcomes) if outcomes else None,
        )

    def scattered(self, rows: IntArray, n: int) -> Response:
        """The response of n users, of whom those of `rows` gave this one, and all others none."""
        found = Response.none(n)
        found.places[rows], found.items[rows] = self.places, self.items
        found.utilities[rows] = self.utilities
        if self.outcomes is None:
            return found
        outcomes = np.full((n, self.outcomes.shape[1]), np.nan, np.float32)
        outcomes[rows] = self.outcomes
        return replace(found, outcomes=outcomes)


@dataclass(frozen=True)
class Past:
    """One event that users had behind them when they started."""

    slates: IntArray
    """items shown, (n_users, k); `NO_ITEM` at an empty place and for an item unknown to the
    world"""
    places: IntArray
    """place of the choice in the slate, -1 for no click, shape (n_users,)"""
    active: npt.NDArray[np.bool_]
    """whose past holds such an event, shape (n_users,)"""


class World(ABC):
    """Users of one kind over one catalogue.

    Attributes:
        item_ids: the log's own item ids as text, length n_items.
        item_features: what a policy may know of an item alone, shape (n_items, n_features).
        state_dim: size of a user's state.
        no_click: whether a user may choose nothing.
        is_logit: whether users choose by the softmax of their utilities, which `surplus` values.
        outcome_labels: numbers that follow a choice, and categories, each 0 or 1.
        folds: of a set of the fits on folds of the same users, the number of these folds; 0: of one
            world, or of members that do not share their users so.
    """

    item_ids: pl.Series
    item_features: FloatArray
    state_dim: int
    no_click: bool
    is_logit: bool = True
    outcome_labels: tuple[str, ...] = ()
    folds: int = 0

    def __repr__(self) -> str:
        says = "may choose nothing" if self.no_click else "always choose"
        return f"{type(self).__name__}({self.n_items:,} items, users {says})"

    @property
    def n_items(self) -> int:
        """Size of the catalogue."""
        return len(self.item_ids)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the items and states: an agent that reads the states of one world is lost in
        another."""
        return self._hash(self.item_ids)

    def _hash(self, item_ids: pl.Series) -> str:
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{type(self).__name__} {self.state_dim}\n".encode())
        digest.update("\n".join(item_ids.cast(pl.String)).encode())
        for part in self._marks():
            digest.update(part)
        return digest.hexdigest()

    def _marks(self) -> Iterator[bytes]:
        """What else the fingerprint is of."""
        yield np.ascontiguousarray(self.item_features, np.float32).tobytes()

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Itself: a world is never changed, and Gymnasium copies an environment's arguments with
        its `spec`."""
        return self

    @abstractmethod
    def population(self, n: int) -> Population:
        """Make n users without history."""

    def past(self, keys: KeyArray) -> Iterator[Past]:
        """The events before a start of users who are reset with these keys; none where all start
        empty."""
        return iter(())


class Population(ABC):
    """So many users of one world at once; all arrays have a row per user."""

    n: int

    @property
    @abstractmethod
    def states(self) -> FloatArray:
        """The users' states now, shape (n, state_dim); read-only, overwritten by the next `reset`
        or `step`."""

    @property
    def seen(self) -> Population:
        """What a policy may read of the users."""
        return self

    @abstractmethod
    def reset(self, keys: KeyArray, rows: IntArray | None = None) -> None:
        """Start users anew: all, or those of `rows` (then `keys` has as many entries). Raises
        ConfigError unless each user is one of these, with one key."""

    @abstractmethod
    def step(
        self, slates: IntArray, keys: KeyArray, active: npt.NDArray[np.bool_] | None = None
    ) -> Response:
        """Show each user a slate (n, k) and let them choose; their states move on.

        An item that stands in a slate twice is displayed once, at its first place. Users outside
        `active` see nothing; their response is no click."""

    @abstractmethod
    def utilities(self, pools: IntArray, k: int | None = None) -> FloatArray:
        """Each user's utility now of each item of a pool, (n, m) or one for all (m,), without the
        examination of its place; shape (n, m).

        Where utilities depend on what else is displayed, an item stands first in a slate of k, the
        others being the pool's average. Counts of pairs are averaged before their logarithms and
        bounds: with `relations` this is only near the mean over random slates. With None the pool
        is the display set."""

    @abstractmethod
    def probabilities(self, slates: IntArray) -> tuple[FloatArray, FloatArray]:
        """Probability of each place of the slates (n, k), and of no click (n,); no state moves."""

    def outcomes(self, slates: IntArray) -> FloatArray:
        """What would follow the choice of each place of the slates (n, k), 0 at an empty one,
        shape (n, k, n_labels); no state moves. Raises ConfigError for users who cannot say."""
        raise ConfigError(
            f"a {type(self).__name__} does not say what would follow a choice: use one of a "
            "learned world with outcomes"
        )

    def surplus(self, slates: IntArray, no_click: bool) -> FloatArray:
        """The inclusive value of each user's slate (n, k) now: log Σ exp u over what is displayed,
        and no click (of utility 0) where there is one; 0 of an empty slate. What logit users expect
        of the best of it (McFadden, "Modelling the choice of residential location", 1978); shape
        (n,)."""
        shown = displayed(slates) >= 0
        return inclusive_values(np.where(shown, self.utilities(slates), -np.inf), no_click)

    def follow(
        self,
        slates: IntArray,
        places: IntArray,
        active: npt.NDArray[np.bool_] | None = None,
        *,
        outcomes: FloatArray | None = None,
    ) -> None:
        """Let each user see a slate and choose as somebody else did, place (n,) or -1 for nothing.
        `outcomes`: what followed, as of a `Response`; None: nobody knows. Raises ConfigError for
        users who cannot be told what to choose, or a place without an item."""
        raise ConfigError(
            f"a {type(self).__name__} cannot follow other users' choices: use one of a learned "
            "world"
        )

    def acted(self, items: IntArray, action: str) -> None:
        """Let each user do something with an item between two slates, (n,), `NO_ITEM` for nothing.
        Raises ConfigError for an action that the world does not know, or other shapes or items."""
        raise ConfigError(
            "users of this world know no actions: train its model on a log that has some "
            "(--actions FILE)"
        )


def checked_rows(what: str, values: object, n: int, kind: str = "iu") -> npt.NDArray[Any]:
    """A whole number, or bool, of each of n users, for kernels, which do not check bounds. Raises
    ConfigError for another shape or type."""
    found = np.asarray(values)
    if found.shape != (n,) or found.dtype.kind not in kind:
        raise ConfigError(
            f"{what} are {found.dtype} of shape {found.shape}, "
            f"{'bools' if kind == 'b' else 'whole numbers'} of shape ({n},) are required"
        )
    return found


def checked_reset(keys: KeyArray, rows: IntArray | None, n: int) -> tuple[KeyArray, IntArray]:
    """A key of each user to be started anew, and these users, of n: all, or `rows`. Raises
    ConfigError for other shapes or types, as a mask, and for a row that is no user."""
    who = np.arange(n) if rows is None else checked_rows("rows", rows, np.size(rows))
    if who.size and not 0 <= who.min() <= who.max() < n:
        wrong = who[(who < 0) | (who >= n)][0]
        raise ConfigError(f"rows hold user {wrong}, a whole number from 0 to {n - 1} is required")
    keys = np.ascontiguousarray(checked_rows("keys", keys, len(who)), np.uint64)
    return keys, who.astype(np.int32)


def first_places(places: IntArray, slates: IntArray, who: IntArray) -> IntArray:
    """The places of the choices of some users, (len(who),), of places of all, (n,), in checked
    slates (n, k): of an item that stands twice the first. Raises ConfigError for a place that shows
    no item and is not -1."""
    k, places = slates.shape[1], checked_rows("places", places, len(slates))[who]
    shown = np.insert(slates[who], k, NO_ITEM, axis=1)
    chosen = shown[np.arange(len(who)), np.clip(places, -1, k)]
    wrong = (places != -1) & (chosen < 0)
    if wrong.any():
        user = int(wrong.argmax())
        raise ConfigError(
            f"user {who[user]} is told place {places[user]}, which shows no item: a slate's places "
            f"are 0 to {k - 1}, and -1 is no choice"
        )
    first = (shown == chosen[:, None]).argmax(axis=1)
    return np.where(places < 0, -1, first).astype(np.int32)


def checked_slates(slates: IntArray, n: int, n_items: int, any_rows: bool = False) -> IntArray:
    """Slates of n users, (n, k), for kernels, which do not check bounds; with `any_rows` also one
    pool (m,) for all. Raises ConfigError for another shape or type, or an entry that is no item or
    `NO_ITEM`."""
    slates = np.asarray(slates)
    if slates.size and slates.dtype.kind not in "iu":
        raise ConfigError(f"slates are {slates.dtype}, whole numbers are required: items' numbers")
    if not (any_rows and slates.ndim == 1) and (slates.ndim != 2 or len(slates) != n):
        raise ConfigError(f"slates of {n} users have the shape ({n}, k), got {slates.shape}")
    if slates.size and (slates.min() < NO_ITEM or slates.max() >= n_items):
        wrong = slates[(slates < NO_ITEM) | (slates >= n_items)][0]
        raise ConfigError(
            f"a slate holds item {wrong}, the world's are 0 … {n_items - 1} ({NO_ITEM}: an empty "
            "place)"
        )
    return np.ascontiguousarray(slates, np.int32)


def repeats(slates: IntArray) -> BoolArray:
    """Where an item stands again in its slate, shape (n, k).

    >>> repeats(np.array([[4, 2, 4]]))
    array([[False, False,  True]])"""
    again = np.zeros(slates.shape, np.bool_)
    for place in range(1, slates.shape[1]):
        again[:, place] = (slates[:, :place] == slates[:, place, None]).any(axis=1)
    return again & (slates >= 0)


def inclusive_values(utilities: FloatArray, no_click: bool) -> FloatArray:
    """log Σ exp of the utilities of slates, (n, k), -inf where nothing is displayed, and of no
    click (0) where there is one; 0 of an empty slate; shape (n,).

    >>> inclusive_values(np.array([[0.0, 0.0], [-np.inf, -np.inf]]), False)
    array([0.6931472, 0.       ], dtype=float32)"""
    empty = np.isneginf(utilities).all(axis=1)
    none = np.where(no_click | empty, 0.0, -np.inf)
    return np.asarray(np.logaddexp.reduce(np.column_stack([utilities, none]), axis=1), np.float32)


def displayed(slates: IntArray) -> IntArray:
    """What is displayed of slates: `NO_ITEM` where an item stands again; a copy."""
    return np.where(repeats(slates), NO_ITEM, slates).astype(np.int32)

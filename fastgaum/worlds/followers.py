"""Followers: the members of a set who follow every user, but only when they are asked.

What a policy reads of the users is what the first member knows of them. Where nothing is read, all
that following is for nothing. So what the followers have to see waits until they are asked. They
then see the same in the same order, and the same bits come of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgaum.worlds.actions import tell_rows
from fastgaum.worlds.context import BoolArray, EncodedContext
from fastgaum.worlds.learned_population import LearnedPopulation
from fastgaum.worlds.parts import do
from fastgaum.worlds.world import IntArray, KeyArray

if TYPE_CHECKING:
    from fastgaum.worlds.learned_world import LearnedWorld

MOST_WAITING = 2048
"""bytes per user that may wait, those of 45 slates of 10: less than a population has for a user,
and most lives are over by then"""


class Followers:
    """Users of some members, n of each, who see what all users of a set were shown and chose.

    Attributes:
        waiting: bytes of what they have yet to see.

    Beyond `MOST_WAITING` bytes per user the followers see the oldest of what waits. A reset of all
    users leaves nothing that they would have to see before it."""

    def __init__(self, worlds: Sequence[LearnedWorld], own_of: Sequence[IntArray], n: int) -> None:
        """Take the members, and the number that each has for every item of the set, and last for
        `NO_ITEM`."""
        self.n = n
        self._own_of = own_of
        self._members = [world.population(n) for world in worlds]
        self._known: list[BoolArray] = [np.zeros(n, np.bool_) for _ in worlds]
        """whether each user has a context in a member that reads some"""
        self._waiting: deque[tuple[int, Callable[..., None], tuple[Any, ...]]] = deque()
        """bytes of what is to be seen, who sees it, and what it is"""
        self.waiting, self._most = 0, MOST_WAITING * n

    def now(self) -> list[LearnedPopulation]:
        """The users of each member, once they have seen everything."""
        while self._waiting:
            self._see_oldest()
        return self._members

    def always(self) -> list[LearnedPopulation]:
        """As `now`, and nothing waits any more: who keeps the users may read them at any time."""
        self._most = 0
        return self.now()

    def reset(self, keys: KeyArray, rows: IntArray | None) -> None:
        """As `LearnedPopulation.reset`."""
        if rows is None or (len(rows) >= self.n and len(np.unique(rows)) == self.n):
            self._waiting.clear()
            self.waiting = 0
        for users, known in zip(self._members, self._known, strict=True):
            known[slice(None) if rows is None else rows] = users.world.logged_contexts is not None
        keys, rows = np.array(keys, np.uint64), None if rows is None else np.array(rows, np.int32)
        self._wait(keys.nbytes, self._reset, keys, rows)

    def take(self, contexts: Sequence[EncodedContext | None], active: BoolArray | None) -> None:
        """As `LearnedPopulation.take`, of contexts that were checked, one for each member."""
        who = _all_or(active, self.n)
        for known, own in zip(self._known, contexts, strict=True):
            if own is not None:
                known |= who
        users = np.flatnonzero(who).astype(np.int32)
        parts = [None if own is None else own.of(users) for own in contexts]
        size = sum(own.ids.nbytes + own.items.nbytes + own.numbers.nbytes for own in parts if own)
        self._wait(size + users.nbytes, self._take, parts, users)

    def require(self, active: BoolArray | None) -> None:
        """Raise ConfigError unless every active user has a context in each member that reads
        any."""
        for users, known in zip(self._members, self._known, strict=True):
            if users.contexts is not None and not known[_all_or(active, self.n)].all():
                self.now()
                users.take(None, active)

    def see(self, slates: IntArray, places: IntArray, active: BoolArray | None) -> None:
        """As `LearnedPopulation.follow`, of slates in the set's numbers that were checked."""
        slates, places, who = slates.copy(), places.copy(), _all_or(active, self.n).copy()
        self._wait(slates.nbytes + places.nbytes + who.nbytes, self._see, slates, places, who)

    def acted(self, items: IntArray, action: str) -> None:
        """As `LearnedPopulation.acted`, of items in the set's numbers. Raises ConfigError as
        there."""
        rows = [
            users.rows_of_action(own_of[items], action)
            for users, own_of in zip(self._members, self._own_of, strict=True)
        ]
        self._wait(sum(part.nbytes for part in rows), self._act, rows)

    def _wait(self, size: int, see: Callable[..., None], *what: Any) -> None:
        self._waiting.append((size, see, what))
        self.waiting += size
        while self.waiting > self._most:
            self._see_oldest()

    def _see_oldest(self) -> None:
        size, see, what = self._waiting.popleft()
        self.waiting -= size
        see(*what)

    def _reset(self, keys: KeyArray, rows: IntArray | None) -> None:
        for users in self._members:
            users.reset(keys, rows)

    def _take(self, contexts: Sequence[EncodedContext | None], who: IntArray) -> None:
        for users, own in zip(self._members, contexts, strict=True):
            if users.contexts is not None and own is not None:
                users.contexts.put(own, who)

    def _see(self, slates: IntArray, places: IntArray, who: BoolArray) -> None:
        do(
            [
                users.following(own_of[slates], places, who)
                for users, own_of in zip(self._members, self._own_of, strict=True)
            ]
        )

    def _act(self, rows: Sequence[IntArray]) -> None:
        for users, of_member in zip(self._members, rows, strict=True):
            tell_rows(users, of_member)


def _all_or(active: BoolArray | None, n: int) -> BoolArray:
    return np.ones(n, np.bool_) if active is None else active

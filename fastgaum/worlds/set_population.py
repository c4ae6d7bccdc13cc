"""SetPopulation: users of a `WorldSet`, each of whom lives in one member.

Each member is a population of all n users, and computes those who live in it. The first one also
follows the others, for its states are what policies read; with `follow_all` every member does.
Followers see what has happened when they are asked: where states are not read, no user is
followed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastgaum.arrays import BoolArray, FloatArray, IntArray, KeyArray
from fastgaum.errors import ConfigError
from fastgaum.worlds.context import Context, EncodedContext, SetContext
from fastgaum.worlds.learned_population import LearnedPopulation
from fastgaum.worlds.world import NO_ITEM, Population, Response, checked_slates

if TYPE_CHECKING:
    from fastgaum.worlds.world_set import WorldSet

MOST_WAITING = 64
"""events that followers may have yet to see: most lives are over by then"""
Contexts = Sequence[EncodedContext | None]


class SetPopulation(Population):
    """Users of a `WorldSet`.

    Attributes:
        members: the member that each user lives in, shape (n,).
        populations: all n users, as each member takes them to be.
    """

    def __init__(self, world: WorldSet, n: int, follow_all: bool = False) -> None:
        self.world, self.n, self.follow_all = world, n, follow_all
        self.members: IntArray = np.zeros(n, np.int32)
        self.populations = [one.population(n) for one in world.worlds]
        self._following = self.populations[: None if follow_all else 1]
        self._given: BoolArray = np.zeros(n, np.bool_)
        """who was given a context since its reset"""
        self.waiting: deque[tuple[BoolArray, Callable[[LearnedPopulation, int, BoolArray], None]]]
        self.waiting = deque()
        """who of the followers has something to see, and what shows it to those of a member"""
        self._most_waiting = MOST_WAITING

    @property
    def states(self) -> FloatArray:
        """The states of the first member, which follows every user, shape (n, state_dim);
        read-only. Read them anew after a `reset` or `step`: only then are they up to date."""
        return self._up_to_date()[0].states

    @property
    def seen(self) -> Population:
        """The users as the first member takes them to be, now and at any time after: once they
        were asked for, they follow at every step."""
        self._most_waiting = 0
        return self._up_to_date()[0]

    def reset(self, keys: KeyArray, rows: IntArray | None = None) -> None:
        """Start users anew, each in the member that its key draws."""
        who = np.arange(self.n, dtype=np.int32) if rows is None else np.asarray(rows, np.int32)
        self.members[who] = members = self.world.members_of(keys)
        self._given[who] = False
        for active, _ in self.waiting:
            active[who] = False
        for number, users in enumerate(self.populations):
            mine = (members == number) | (number < len(self._following))
            if mine.any():
                users.reset(np.asarray(keys, np.uint64)[mine], who[mine])

    def take(self, context: Context | None, active: BoolArray | None = None) -> None:
        """Have each user, or each active one, take a context of `WorldSet.context_of`, and keep it;
        None: nothing is given.

        Raises:
            ConfigError: it was made by another world, is not one of n users, or is given to a
                member that reads none; or a member reads context, and one of its users has none.
        """
        who = np.ones(self.n, np.bool_) if active is None else active
        contexts: Contexts = [None] * len(self.populations)
        if context is not None:
            contexts = self._of_members(context)
            self._given |= who

            def give(users: LearnedPopulation, number: int, followed: BoolArray) -> None:
                users.take(contexts[number], followed)

            self._show_followers(who, give)
        for number, users in enumerate(self.populations):
            users.take(contexts[number], who & (self.members == number))

    def step(
        self,
        slates: IntArray,
        keys: KeyArray,
        active: BoolArray | None = None,
        context: Context | None = None,
    ) -> Response:
        """Show each user a slate (n, k) and let it choose as its member says. `context`, of
        `WorldSet.context_of`, as in `LearnedPopulation.step`.

        Raises:
            ConfigError: as `LearnedPopulation.step`.
        """
        slates = self._checked(slates)
        self.take(context, active)
        self._require_contexts(active)
        places, utilities = np.full(self.n, -1, np.int32), np.zeros(self.n, np.float32)
        for number, users, mine in self._at_home(active):
            found = users.step(self.world.own_of[number][slates], keys, mine)
            places[mine], utilities[mine] = found.places[mine], found.utilities[mine]
        items = np.full(self.n, NO_ITEM, np.int32)
        clicked = np.flatnonzero(places >= 0)
        items[clicked] = slates[clicked, places[clicked]]
        self._follow(slates, places, active)
        return Response(places, items, utilities)

    def follow(
        self,
        slates: IntArray,
        places: IntArray,
        active: BoolArray | None = None,
        context: Context | None = None,
    ) -> None:
        """Let each user see a slate and choose as somebody else did, place (n,) or -1 for nothing.

        Raises:
            ConfigError: as `step`.
        """
        slates, places = self._checked(slates), np.asarray(places, np.int32)
        self.take(context, active)
        self._require_contexts(active)
        for number, users, mine in self._at_home(active):
            users.follow(self.world.own_of[number][slates], places, mine)
        self._follow(slates, places, active)

    def acted(self, items: IntArray, action: str) -> None:
        """As the base says, of every member. Raises ConfigError as there."""
        items = checked_slates(np.reshape(items, (-1, 1)), self.n, self.world.n_items)[:, 0].copy()
        active = items != NO_ITEM
        # every member knows the action, or none is told
        for users, own_of in zip(self.populations, self.world.own_of, strict=True):
            users.ids_of_action(own_of[items], action)

        def act(users: LearnedPopulation, number: int, who: BoolArray) -> None:
            users.acted(np.where(who, self.world.own_of[number][items], NO_ITEM), action)

        for number, users, mine in self._at_home(active):
            act(users, number, mine)
        self._show_followers(active, act)

    def utilities(
        self, pools: IntArray, k: int | None = None, context: Context | None = None
    ) -> FloatArray:
        """Each user's utility now of each item of a pool, as its member says, shape (n, m)."""
        pools = checked_slates(pools, self.n, self.world.n_items, any_rows=True)
        self.take(context)
        result = np.zeros((self.n, pools.shape[-1]), np.float32)
        for number, users, mine in self._at_home(None):
            found = users.utilities(self.world.own_of[number][pools], k, active=mine)
            result[mine] = found[mine]
        return result

    def probabilities(
        self, slates: IntArray, context: Context | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Probability of each place of the slates (n, k), and of no click (n,), as each user's
        member says; no history moves."""
        slates = self._checked(slates)
        self.take(context)
        places, none = np.zeros(slates.shape, np.float32), np.ones(self.n, np.float32)
        for number, users, mine in self._at_home(None):
            found = users.probabilities(self.world.own_of[number][slates], active=mine)
            places[mine], none[mine] = found[0][mine], found[1][mine]
        return places, none

    def disagreement(self, slates: IntArray, context: Context | None = None) -> FloatArray:
        """How far apart the members are about what each user would choose now, shape (n,):
        `distance_to_mean` of their distributions over the slate's places and no click.

        Raises:
            ConfigError: the population was made without `follow_all`.
        """
        if not self.follow_all:
            raise ConfigError(
                "a disagreement needs every member to follow every user: make the users with "
                "population(n, follow_all=True)"
            )
        slates = self._checked(slates)
        self.take(context)
        return distance_to_mean(
            [
                users.probabilities(own_of[slates])
                for users, own_of in zip(self._up_to_date(), self.world.own_of, strict=True)
            ]
        )

    def _at_home(self, active: BoolArray | None) -> list[tuple[int, LearnedPopulation, BoolArray]]:
        """The members that some active users live in, and these users, (n,)."""
        who = np.ones(self.n, np.bool_) if active is None else active
        found = [
            (number, users, who & (self.members == number))
            for number, users in enumerate(self.populations)
        ]
        return [one for one in found if one[2].any()]

    def _require_contexts(self, active: BoolArray | None) -> None:
        """Raise ConfigError, before anybody has moved, unless those who follow the active users
        have contexts."""
        who = np.ones(self.n, np.bool_) if active is None else active
        for users in self._following:
            logged = users.world.logged_contexts is not None
            if users.contexts is not None and not logged and (who & ~self._given).any():
                self._up_to_date()
                users.take(None, who)

    def _follow(self, slates: IntArray, places: IntArray, active: BoolArray | None) -> None:
        """Have followers see what was chosen."""
        slates, places = slates.copy(), places.copy()

        def follow(users: LearnedPopulation, number: int, who: BoolArray) -> None:
            users.follow(self.world.own_of[number][slates], places, who)

        self._show_followers(np.ones(self.n, np.bool_) if active is None else active, follow)

    def _show_followers(
        self, active: BoolArray, show: Callable[[LearnedPopulation, int, BoolArray], None]
    ) -> None:
        """Have those who follow the active users see something, when they are asked."""
        if len(self.populations) > 1:
            self.waiting.append((active.copy(), show))
        while len(self.waiting) > self._most_waiting:
            self._see_oldest()

    def _up_to_date(self) -> list[LearnedPopulation]:
        """The members that follow every user, once they have seen everything."""
        while self.waiting:
            self._see_oldest()
        return self._following

    def _see_oldest(self) -> None:
        active, show = self.waiting.popleft()
        for number, users in enumerate(self._following):
            # a user who was reset since then has nothing to see: its member is still the same
            followed = active & (self.members != number)
            if followed.any():
                show(users, number, followed)

    def _of_members(self, context: Context) -> Contexts:
        members = self.world.worlds
        if not isinstance(context, SetContext) or len(context.members) != len(members):
            raise ConfigError(
                "users of a set take the context that the set's context_of makes of values, got a "
                f"{type(context).__name__}: pass context=world.context_of(…)"
            )
        for one, own in zip(members, context.members, strict=True):
            if own is not None and one.context is not None:
                one.context.checked(own, self.n)
        everyone = np.arange(self.n)
        return [None if own is None else own.of(everyone) for own in context.members]

    def _checked(self, slates: IntArray) -> IntArray:
        return checked_slates(slates, self.n, self.world.n_items)


def distance_to_mean(members: Sequence[tuple[FloatArray, FloatArray]]) -> FloatArray:
    """How far apart members are about what each of n users would choose now, from 0 to
    1 − 1/members, shape (n,).

    The total variation between a member's distribution and the mean of all members' distributions;
    its mean over the members. What a user does next follows from the choice alone, so this is the
    distance of the members' predictions of the next state (Kidambi et al., "MOReL", 2020), over all
    of which a penalty is taken as in Yu et al., "MOPO", 2020.

    Args:
        members: the distribution of each over the places of the slates (n, k), and no click (n,).
    """
    found = [np.column_stack(one) for one in members]
    mean = np.mean(found, axis=0, dtype=np.float64)
    apart = [0.5 * np.abs(one - mean).sum(axis=1) for one in found]
    return np.asarray(np.mean(apart, axis=0), np.float32)

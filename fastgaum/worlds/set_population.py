"""SetPopulation: users of a `WorldSet`, each of whom lives in one member.

Each member computes its own users alone. The first one also follows all, for its states are what
policies read; with `follow_all` every member does. Followers see what has happened when they are
asked: where states are not read, no user is followed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastgaum.errors import ConfigError
from fastgaum.worlds.actions import tell_rows
from fastgaum.worlds.context import BoolArray, Context, EncodedContext, SetContext
from fastgaum.worlds.followers import Followers
from fastgaum.worlds.parts import Work, do, no_choices
from fastgaum.worlds.world import (
    NO_ITEM,
    FloatArray,
    IntArray,
    KeyArray,
    Population,
    Response,
    checked_slates,
)

if TYPE_CHECKING:
    from fastgaum.worlds.learned_world import LearnedWorld
    from fastgaum.worlds.world_set import WorldSet


class SetPopulation(Population):
    """Users of a `WorldSet`.

    Attributes:
        members: the member that each user lives in, shape (n,).
    """

    def __init__(self, world: WorldSet, n: int, follow_all: bool = False) -> None:
        self.world, self.n = world, n
        self.members: IntArray = np.zeros(n, np.int32)
        self.n_following = len(world.worlds) if follow_all else 1
        self.follow_all = follow_all
        following = slice(self.n_following)
        self.followers = Followers(world.worlds[following], world.own_of[following], n)
        self.residents = [
            _Residents(one, own_of, n)
            for one, own_of in zip(world.worlds, world.own_of, strict=True)
        ]
        self.residents[0].enter(np.arange(n, dtype=np.int32))

    @property
    def states(self) -> FloatArray:
        """The states of the first member, which follows every user, shape (n, state_dim);
        read-only. Read them anew after a `reset` or `step`: only then are they up to date."""
        return self.followers.now()[0].states

    @property
    def seen(self) -> Population:
        """The users as the first member takes them to be, now and at any time after: once they
        were asked for, they follow at every step."""
        return self.followers.always()[0]

    def reset(self, keys: KeyArray, rows: IntArray | None = None) -> None:
        """Start users anew, each in the member that its key draws."""
        who = np.arange(self.n, dtype=np.int32) if rows is None else np.asarray(rows, np.int32)
        self.followers.reset(keys, rows)
        members = self.world.members_of(keys)
        self.members[who] = members
        for residents in self.residents:
            residents.leave(who)
        for member, residents in enumerate(self.residents):
            mine = members == member
            residents.enter(who[mine], keys[mine])

    def take(self, context: Context | None, active: BoolArray | None = None) -> None:
        """Have each user, or each active one, take a context of `WorldSet.context_of`, and keep it;
        None: nothing is given.

        Raises:
            ConfigError: it was made by another world, is not one of n users, or is given to a
                member that reads none.
        """
        if context is None:
            return
        by_member = self._of_members(context)
        for residents, own in zip(self.residents, by_member, strict=True):
            if own is not None:
                residents.take(own, active)
        self.followers.take(by_member[: self.n_following], active)

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
        slates, keys = self._checked(slates), np.ascontiguousarray(keys, np.uint64)
        self.take(context, active)
        acting = self._acting(active)
        response = no_choices(self.n)
        do([residents.stepping(slates, keys, who, response) for residents, who in acting])
        clicked = np.flatnonzero(response.places >= 0)
        response.items[clicked] = slates[clicked, response.places[clicked]]
        self.followers.see(slates, response.places, active)
        return response

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
        acting = self._acting(active)
        do([residents.following(slates, places, who) for residents, who in acting])
        self.followers.see(slates, places, active)

    def acted(self, items: IntArray, action: str) -> None:
        """As the base says, of every member. Raises ConfigError as there."""
        items = checked_slates(np.reshape(items, (-1, 1)), self.n, self.world.n_items)
        told = []
        for residents in self.residents:
            slots, users = residents.of(None)
            if len(slots):
                own = residents.shown(items, slots, users)[:, 0]
                told.append(
                    (residents.population, residents.population.rows_of_action(own, action))
                )
        self.followers.acted(items[:, 0], action)
        # every member knows the action, or none is told
        for population, rows in told:
            tell_rows(population, rows)

    def utilities(
        self, pools: IntArray, k: int | None = None, context: Context | None = None
    ) -> FloatArray:
        """Each user's utility now of each item of a pool, as its member says, shape (n, m)."""
        pools = checked_slates(pools, self.n, self.world.n_items, any_rows=True)
        self.take(context)
        result = np.zeros((self.n, pools.shape[-1]), np.float32)
        for residents in self.residents:
            slots, users = residents.of(None)
            if len(slots):
                shown = residents.shown(pools, slots, users)
                result[users] = residents.population.utilities(shown, k)[slots]
        return result

    def probabilities(
        self, slates: IntArray, context: Context | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Probability of each place of the slates (n, k), and of no click (n,), as each user's
        member says; no history moves."""
        slates = self._checked(slates)
        self.take(context)
        places, none = np.zeros(slates.shape, np.float32), np.ones(self.n, np.float32)
        for residents in self.residents:
            slots, users = residents.of(None)
            if len(slots):
                shown = residents.shown(slates, slots, users)
                of_slots = residents.population.probabilities(shown)
                places[users], none[users] = of_slots[0][slots], of_slots[1][slots]
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
                for users, own_of in zip(self.followers.now(), self.world.own_of, strict=True)
            ]
        )

    def _acting(self, active: BoolArray | None) -> list[tuple[_Residents, BoolArray]]:
        """The members that some active users live in, and these users' slots there, (n,).

        Raises:
            ConfigError: a member reads context, and one of its users has none; so none has moved.
        """
        found = [(residents, residents.here(active)) for residents in self.residents]
        acting = [(residents, who) for residents, who in found if who.any()]
        for residents, who in acting:
            residents.population.take(None, who)
        self.followers.require(active)
        return acting

    def _of_members(self, context: Context) -> tuple[EncodedContext | None, ...]:
        members = self.world.worlds
        if not isinstance(context, SetContext) or len(context.members) != len(members):
            raise ConfigError(
                "users of a set take the context that the set's context_of makes of values, got a "
                f"{type(context).__name__}: pass context=world.context_of(…)"
            )
        for one, own in zip(members, context.members, strict=True):
            if own is not None and one.context is not None:
                one.context.checked(own, self.n)
        return context.members

    def _checked(self, slates: IntArray) -> IntArray:
        return checked_slates(slates, self.n, self.world.n_items)


class _Residents:
    """The users who live in one member, side by side in the first slots of its population: a
    computation takes as long as there are users."""

    def __init__(self, world: LearnedWorld, own_of: IntArray, n: int) -> None:
        self.population, self.own_of, self.n = world.population(n), own_of, n
        self.user_of: IntArray = np.full(n, -1, np.int32)
        """user in each slot, -1 in a free one"""
        self.slot_of: IntArray = np.full(n, -1, np.int32)
        """slot of each user, -1 of one who lives elsewhere"""
        self.population.live(self.user_of >= 0)

    def leave(self, users: IntArray) -> None:
        """Free the slots of those of some users who live here; `enter` must follow."""
        slots = self.slot_of[users]
        self.user_of[slots[slots >= 0]] = -1
        self.slot_of[users] = -1

    def enter(self, users: IntArray, keys: KeyArray | None = None) -> None:
        """Give users the first free slots; with keys they start anew."""
        slots = np.flatnonzero(self.user_of < 0)[: len(users)].astype(np.int32)
        self.user_of[slots], self.slot_of[users] = users, slots
        # a free slot is not computed
        self.population.live(self.user_of >= 0)
        if keys is not None and len(slots):
            self.population.reset(keys, slots)

    def take(self, context: EncodedContext, active: BoolArray | None) -> None:
        """Give those of the active users who live here their contexts; `context` is of all n, and
        was checked."""
        if self.population.contexts is None:
            self.population.take(context)
            return
        slots, users = self.of(active)
        self.population.contexts.put(context.of(users), slots)

    def stepping(
        self, slates: IntArray, keys: KeyArray, who: BoolArray, response: Response
    ) -> Work:
        """What a step of the users in the slots `who`, (n,), has to do; other arrays are of all n
        users of the set."""
        n = self.population.n_live
        own, own_keys = np.empty((n, slates.shape[1]), np.int32), np.empty(n, np.uint64)
        found = no_choices(n)
        work = self.population.stepping(own, own_keys, who, found)

        def part(first: int, last: int) -> None:
            self._gather(first, last, slates, own)
            own_keys[first:last] = keys[self.user_of[first:last]]
            work.part(first, last)

        def finish() -> None:
            work.finish()
            slots = np.flatnonzero(who[:n])
            users = self.user_of[slots]
            response.places[users] = found.places[slots]
            response.utilities[users] = found.utilities[slots]

        return dataclasses.replace(work, part=part, finish=finish)

    def following(self, slates: IntArray, places: IntArray, who: BoolArray) -> Work:
        """What following has to do; as `stepping`."""
        n = self.population.n_live
        own, own_places = np.empty((n, slates.shape[1]), np.int32), np.empty(n, np.int32)
        work = self.population.following(own, own_places, who)

        def part(first: int, last: int) -> None:
            self._gather(first, last, slates, own)
            own_places[first:last] = places[self.user_of[first:last]]
            work.part(first, last)

        return dataclasses.replace(work, part=part)

    def _gather(self, first: int, last: int, slates: IntArray, own: IntArray) -> None:
        """Write what users in slots first to last − 1 are shown, in this member's numbers."""
        shown = slates.take(self.user_of[first:last], axis=0)
        self.own_of.take(shown, out=own[first:last], mode="wrap")

    def here(self, active: BoolArray | None) -> BoolArray:
        """The slots of active users, shape (n,)."""
        n, who = self.population.n_live, np.zeros(self.n, np.bool_)
        users = self.user_of[:n]
        who[:n] = users >= 0
        if active is not None:
            who[:n] &= active[users]
        return who

    def of(self, active: BoolArray | None) -> tuple[IntArray, IntArray]:
        """Slots and users of the active ones who live here."""
        slots = np.flatnonzero(self.user_of >= 0).astype(np.int32)
        users = self.user_of[slots]
        return (slots, users) if active is None else (slots[active[users]], users[active[users]])

    def shown(self, items: IntArray, slots: IntArray, users: IntArray) -> IntArray:
        """What users are shown, (n, k) or one row for all, in this member's numbers by slot;
        `NO_ITEM` elsewhere."""
        if items.ndim == 1:
            return self.own_of[items]
        result = np.full(items.shape, NO_ITEM, np.int32)
        result[slots] = self.own_of[items[users]]
        return result


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

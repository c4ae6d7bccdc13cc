"""SetPopulation: users of a `WorldSet`, each of whom lives in one member.

Each member computes its own users alone. The first one also follows all, for its states are what
policies read; with `follow_all` every member does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastgaum.errors import ConfigError
from fastgaum.worlds.context import BoolArray, Context, EncodedContext, SetContext
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
        following = len(world.worlds) if follow_all else 1
        self.follow_all = follow_all
        self.followers = [one.population(n) for one in world.worlds[:following]]
        self.residents = [
            _Residents(one, own_of, n)
            for one, own_of in zip(world.worlds, world.own_of, strict=True)
        ]
        self.residents[0].enter(np.arange(n, dtype=np.int32))

    @property
    def states(self) -> FloatArray:
        """The states of the first member, which follows every user, shape (n, state_dim);
        read-only, overwritten by the next `reset` or `step`."""
        return self.seen.states

    @property
    def seen(self) -> Population:
        """The users as the first member takes them to be."""
        return self.followers[0]

    def reset(self, keys: KeyArray, rows: IntArray | None = None) -> None:
        """Start users anew, each in the member that its key draws."""
        who = np.arange(self.n, dtype=np.int32) if rows is None else np.asarray(rows, np.int32)
        for users in self.followers:
            users.reset(keys, rows)
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
        for users, own in zip(self.followers, by_member, strict=False):
            if own is not None:
                users.take(own, active)

    def step(
        self,
        slates: IntArray,
        keys: KeyArray,
        active: BoolArray | None = None,
        context: Context | None = None,
    ) -> Response:
        """Show each user a slate (n, k) and let it choose as its member says; all who follow it
        move on. `context`, of `WorldSet.context_of`, as in `LearnedPopulation.step`.

        Raises:
            ConfigError: as `LearnedPopulation.step`.
        """
        slates, keys = self._checked(slates), np.ascontiguousarray(keys, np.uint64)
        self.take(context, active)
        response = Response(
            np.full(self.n, -1, np.int32), np.full(self.n, -1, np.int32), np.zeros(self.n, "f4")
        )
        for residents in self.residents:
            slots, users = residents.of(active)
            if len(slots):
                found = residents.population.step(
                    residents.shown(slates, slots, users),
                    residents.placed(keys, slots, users),
                    residents.placed(np.ones(self.n, np.bool_), slots, users),
                )
                response.places[users] = found.places[slots]
                response.utilities[users] = found.utilities[slots]
        clicked = np.flatnonzero(response.places >= 0)
        response.items[clicked] = slates[clicked, response.places[clicked]]
        self._followed(slates, response.places, active)
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
        for residents in self.residents:
            slots, users = residents.of(active)
            if len(slots):
                residents.population.follow(
                    residents.shown(slates, slots, users),
                    residents.placed(places, slots, users),
                    residents.placed(np.ones(self.n, np.bool_), slots, users),
                )
        self._followed(slates, places, active)

    def acted(self, items: IntArray, action: str) -> None:
        """As the base says, of every member. Raises ConfigError as there."""
        items = checked_slates(np.reshape(items, (-1, 1)), self.n, self.world.n_items)
        for residents in self.residents:
            slots, users = residents.of(None)
            if len(slots):
                residents.population.acted(residents.shown(items, slots, users)[:, 0], action)
        for users_of, own_of in zip(self.followers, self.world.own_of, strict=False):
            users_of.acted(own_of[items[:, 0]], action)

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
                for users, own_of in zip(self.followers, self.world.own_of, strict=True)
            ]
        )

    def _followed(self, slates: IntArray, places: IntArray, active: BoolArray | None) -> None:
        """Let those who follow see what was chosen."""
        for users, own_of in zip(self.followers, self.world.own_of, strict=False):
            users.follow(own_of[slates], places, active)

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
        """Give those of the active users who live here their contexts; `context` is of all n."""
        slots, users = self.of(active)
        of_slots = np.zeros(self.n, np.int32)
        of_slots[slots] = users
        who = self.placed(np.ones(self.n, np.bool_), slots, users)
        self.population.take(context.of(of_slots), who)

    def of(self, active: BoolArray | None) -> tuple[IntArray, IntArray]:
        """Slots and users of the active ones who live here."""
        slots = np.flatnonzero(self.user_of >= 0).astype(np.int32)
        users = self.user_of[slots]
        return (slots, users) if active is None else (slots[active[users]], users[active[users]])

    def placed(
        self, values: npt.NDArray[Any], slots: IntArray, users: IntArray
    ) -> npt.NDArray[Any]:
        """Values of users (n, …) as values of slots; 0 elsewhere."""
        result = np.zeros_like(values)
        result[slots] = values[users]
        return result

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

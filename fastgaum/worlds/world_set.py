"""WorldSet: several learned worlds of one catalogue; each user lives in one of them.

    model = UserModel.from_preset("fastgaum", worlds=5)
    model.fit(log)
    world = WorldSet.of(model)

A model that is fitted on other users errs in other places. A policy that earns in all members has
found no error of one of them (randomisation over ensembles: Rajeswaran et al., "EPOpt", ICLR 2017).
Which member a user lives in is drawn by the key of its reset, and hidden. The states that a policy
reads are those of the first member, which follows every user: states of two members have no common
coordinates, and would tell the member."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fastgaum.errors import ConfigError
from fastgaum.kernels.draws import uniforms
from fastgaum.logs.columns import Vocabulary
from fastgaum.logs.read import load
from fastgaum.models.user_model import UserModel
from fastgaum.worlds.catalogue import Catalogue
from fastgaum.worlds.context import BoolArray, ContextRows
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.world import (
    NO_ITEM,
    FloatArray,
    IntArray,
    KeyArray,
    Past,
    Population,
    Response,
    World,
    checked_slates,
)

_MEMBER = np.uint64(3)
"""the draw of a reset's key that says the member; 1 and 2 are those of logged starts"""


class WorldSet(World):
    """Users of one of several learned worlds each.

    Attributes:
        worlds: the members. Items, item features and states are the first one's.
    """

    def __init__(self, worlds: Sequence[LearnedWorld]) -> None:
        """Take the members.

        Raises:
            ConfigError: there is none; one lacks an item of the first; or they do not agree
                whether no click is a choice.
        """
        if not worlds:
            raise ConfigError("a set of worlds has at least one member, none was given")
        self.worlds = tuple(worlds)
        first = self.first = self.worlds[0]
        self.item_ids, self.item_features = first.item_ids, first.item_features
        self.state_dim, self.outside = first.state_dim, first.outside
        self.own_of: list[IntArray] = []
        """number in each member of each item of the set, then of `NO_ITEM`, shape (n_items + 1,)"""
        for number, world in enumerate(self.worlds):
            own = Vocabulary(world.item_ids).codes(self.item_ids)
            if len(own) and own.min() < 0:
                raise ConfigError(
                    f"member {number} does not know the item '{self.item_ids[int(own.argmin())]}' "
                    "of member 0: make its world with it (further=…)"
                )
            if world.outside != self.outside:
                raise ConfigError(
                    f"members 0 and {number} do not agree whether no click is a choice: fit them "
                    "with one value of no_click"
                )
            self.own_of.append(np.append(own, np.int32(NO_ITEM)).astype(np.int32))

    @classmethod
    def of(cls, model: UserModel, **options: Any) -> Self:
        """The set of a model and its fits on bootstraps; an item that a bootstrap has not seen is a
        new one there.

        Args:
            model: a model that was fitted with `worlds` above 1; `UserModel.load(run)` reads one.
            options: those of `LearnedWorld` by name.

        Raises:
            ConfigError, FeatureMismatchError: as `LearnedWorld`; or the model has no fit on a
                bootstrap.
        """
        if not isinstance(model, UserModel) or not model.bootstraps:
            raise ConfigError(
                "the model has no fits on bootstraps, of which a set of worlds is made: train it "
                "with --set worlds=5"
            )
        first = LearnedWorld(model, **options)
        worlds = [first]
        for one in model.bootstraps:
            assert one.space is not None
            unseen = Vocabulary(one.space.categorical[0].values).codes(first.item_ids) < 0
            own = {**options, "further": first.item_ids.filter(unseen)}
            worlds.append(LearnedWorld(one, **own))
        return cls(worlds)

    @property
    def catalogue(self) -> Catalogue:
        """The first member's."""
        return self.first.catalogue

    @property
    def context(self) -> ContextRows | None:
        """What reads the context of events in the first member; None where models read none."""
        return self.first.context

    @cached_property
    def fingerprint(self) -> str:
        """The first member's, whose states policies read."""
        return self.first.fingerprint

    def require_contexts(self) -> None:
        """As `LearnedWorld`."""
        self.first.require_contexts()

    def population(self, n: int, follow_all: bool = False) -> SetPopulation:
        """Make n users without history, in the first member until they are reset.

        With `follow_all` every member follows every user, which `SetPopulation.disagreement` needs:
        a step then costs as much as one in each member.

        Raises:
            ConfigError: n is not positive.
        """
        return SetPopulation(self, n, follow_all)

    def past(self, keys: KeyArray) -> Iterator[Past]:
        """As `LearnedWorld`."""
        return self.first.past(keys)

    def members_of(self, keys: KeyArray) -> IntArray:
        """The member that each user lives in after a reset with these keys, 0 to n − 1, each as
        likely."""
        keys, draws = np.ascontiguousarray(keys, np.uint64), np.empty(len(keys))
        uniforms(keys, _MEMBER, draws)
        return (draws * len(self.worlds)).astype(np.int32)


class SetPopulation(Population):
    """Users of a `WorldSet`. Each member computes its own users alone; the first one also follows
    all.

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
            if mine.any():
                residents.enter(who[mine], keys[mine])

    def step(self, slates: IntArray, keys: KeyArray, active: BoolArray | None = None) -> Response:
        """Show each user a slate (n, k) and let it choose as its member says; all who follow it
        move on.

        Raises:
            ConfigError: as `LearnedPopulation.step`.
        """
        slates, keys = self._checked(slates), np.ascontiguousarray(keys, np.uint64)
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

    def follow(self, slates: IntArray, places: IntArray, active: BoolArray | None = None) -> None:
        """Let each user see a slate and choose as somebody else did, place (n,) or -1 for nothing.

        Raises:
            ConfigError: as `step`.
        """
        slates, places = self._checked(slates), np.asarray(places, np.int32)
        for residents in self.residents:
            slots, users = residents.of(active)
            if len(slots):
                residents.population.follow(
                    residents.shown(slates, slots, users),
                    residents.placed(places, slots, users),
                    residents.placed(np.ones(self.n, np.bool_), slots, users),
                )
        self._followed(slates, places, active)

    def utilities(self, pools: IntArray, k: int | None = None) -> FloatArray:
        """Each user's utility now of each item of a pool, as its member says, shape (n, m)."""
        pools = checked_slates(pools, self.n, self.world.n_items, any_rows=True)
        result = np.zeros((self.n, pools.shape[-1]), np.float32)
        for residents in self.residents:
            slots, users = residents.of(None)
            if len(slots):
                shown = residents.shown(pools, slots, users)
                result[users] = residents.population.utilities(shown, k)[slots]
        return result

    def probabilities(self, slates: IntArray) -> tuple[FloatArray, FloatArray]:
        """Probability of each place of the slates (n, k), and of no click (n,), as each user's
        member says; no state moves."""
        slates = self._checked(slates)
        places, none = np.zeros(slates.shape, np.float32), np.ones(self.n, np.float32)
        for residents in self.residents:
            slots, users = residents.of(None)
            if len(slots):
                shown = residents.shown(slates, slots, users)
                of_slots = residents.population.probabilities(shown)
                places[users], none[users] = of_slots[0][slots], of_slots[1][slots]
        return places, none

    def disagreement(self, slates: IntArray) -> FloatArray:
        """How far apart the members are about what each user would choose now, shape (n,), from 0
        to 1 − 1/members.

        The total variation between a member's distribution over the slate's places and no click,
        and the mean of all members' distributions; its mean over the members. What a user does next
        follows from the choice alone, so this is the distance of the members' predictions of the
        next state (Kidambi et al., "MOReL", 2020), over all of which a penalty is taken as in Yu et
        al., "MOPO", 2020.

        Raises:
            ConfigError: the population was made without `follow_all`.
        """
        if not self.follow_all:
            raise ConfigError(
                "a disagreement needs every member to follow every user: make the users with "
                "population(n, follow_all=True)"
            )
        slates = self._checked(slates)
        found = [
            np.column_stack(users.probabilities(own_of[slates]))
            for users, own_of in zip(self.followers, self.world.own_of, strict=True)
        ]
        mean = np.mean(found, axis=0, dtype=np.float64)
        apart = [0.5 * np.abs(one - mean).sum(axis=1) for one in found]
        return np.asarray(np.mean(apart, axis=0), np.float32)

    def _followed(self, slates: IntArray, places: IntArray, active: BoolArray | None) -> None:
        """Let those who follow see what was chosen."""
        for users, own_of in zip(self.followers, self.world.own_of, strict=False):
            users.follow(own_of[slates], places, active)

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
        self.population.live(0)

    def leave(self, users: IntArray) -> None:
        """Free the slots of those of some users who live here."""
        slots = self.slot_of[users]
        self.user_of[slots[slots >= 0]] = -1
        self.slot_of[users] = -1

    def enter(self, users: IntArray, keys: KeyArray | None = None) -> None:
        """Give users the first free slots; with keys they start anew."""
        slots = np.flatnonzero(self.user_of < 0)[: len(users)].astype(np.int32)
        self.user_of[slots], self.slot_of[users] = users, slots
        self.population.live(int(np.flatnonzero(self.user_of >= 0).max(initial=-1)) + 1)
        if keys is not None:
            self.population.reset(keys, slots)

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


def followed_population(world: World, n: int) -> SetPopulation:
    """Users whom every member of a set follows.

    Raises:
        ConfigError: the world is no set.
    """
    return require_set(world).population(n, follow_all=True)


def require_set(world: World) -> WorldSet:
    """The world, where it is a set. Raises ConfigError for one world, which cannot disagree."""
    if not isinstance(world, WorldSet):
        raise ConfigError(
            "disagreement is that of a set of worlds, and this is one world: train a run with "
            "--set worlds=5, or leave out disagreement, pessimism and truncate_above"
        )
    return world


def world_of_model(model: UserModel, **options: Any) -> LearnedWorld | WorldSet:
    """The set of a model with fits on bootstraps, the world of any other; options as
    `LearnedWorld`. Raises as `LearnedWorld`."""
    many = isinstance(model, UserModel) and model.bootstraps
    return WorldSet.of(model, **options) if many else LearnedWorld(model, **options)


def world_of_run(run: str | os.PathLike[str], **options: Any) -> LearnedWorld | WorldSet:
    """The world, or set of worlds, of a run folder or model file.

    Args:
        run: the run.
        options: those of `LearnedWorld` by name; `log` may also be what `fastgaum.load` takes.

    Raises:
        CheckpointError: the run is damaged.
        ConfigError, FeatureMismatchError: as `LearnedWorld`.
    """
    if isinstance(options.get("log"), str | os.PathLike):
        options["log"] = load(str(options["log"]))
    return world_of_model(UserModel.load(os.fspath(run)), **options)

"""WorldSet: several learned worlds of one catalogue; each user lives in one of them.

    model = UserModel.from_preset("fastgaum", folds=5)
    model.fit(log)
    world = WorldSet.of(model)

A policy that earns in all members has found no error of one of them (Rajeswaran et al., "EPOpt",
ICLR 2017). The member that a user lives in is hidden: policies read the states of the first one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np

from fastgaum.arrays import BoolArray, FloatArray, IntArray, KeyArray
from fastgaum.errors import ConfigError, as_given
from fastgaum.kernels.draws import uniforms
from fastgaum.logs.read import load
from fastgaum.logs.vocabulary import Vocabulary
from fastgaum.models.context import ContextRows, EncodedContext
from fastgaum.models.item_catalogue import Catalogue
from fastgaum.models.user_model import UserModel
from fastgaum.worlds.learned_world import ContextPopulation, LearnedPopulation, LearnedWorld
from fastgaum.worlds.world import (
    NO_ITEM,
    Past,
    Population,
    Response,
    World,
    checked_reset,
    checked_slates,
)

_MEMBER = np.uint64(3)
"""the stream of a reset's key that draws the member; logged starts have 1 and 2"""


class WorldSet(World):
    """Users of one of several learned worlds each; items, their features and states are the first
    one's."""

    def __init__(self, worlds: Sequence[LearnedWorld]) -> None:
        """Take the members. Raises ConfigError if there is none, one lacks an item of the first, or
        they do not agree whether no click is a choice, or how users begin."""
        self.worlds = tuple(worlds) if isinstance(worlds, Iterable) else ()
        if not all(isinstance(world, LearnedWorld) for world in self.worlds) or not self.worlds:
            raise ConfigError(
                "a set of worlds has at least one member, each a LearnedWorld, got "
                f"{as_given(worlds)}"
            )
        first = self.first = self.worlds[0]
        self.item_ids, self.item_features = first.item_ids, first.item_features
        self.state_dim, self.no_click, self.head = first.state_dim, first.no_click, first.head
        self.begins = first.begins
        self.catalogue: Catalogue = first.catalogue
        self.context: ContextRows | None
        self.context = next((one.context for one in self.worlds if one.context is not None), None)
        """what reads the context of events in the first member that reads any"""
        self.own_of: list[IntArray] = []
        """number in each member of each item, then of `NO_ITEM`, (n_items + 1,)"""
        for number, world in enumerate(self.worlds):
            own = Vocabulary(world.item_ids).codes(self.item_ids)
            if len(own) and own.min() < 0:
                raise ConfigError(
                    f"member {number} does not know the item '{self.item_ids[int(own.argmin())]}' "
                    "of member 0: make its world with it (further=…)"
                )
            if world.no_click != self.no_click:
                raise ConfigError(
                    f"members 0 and {number} do not agree whether no click is a choice: fit them "
                    "with one value of no_click"
                )
            # a member that draws no session fits one that draws contexts alone
            if any(a != b for a, b in zip(self.begins, world.begins, strict=False)):
                raise ConfigError(
                    f"users of member {number} begin by {' '.join(world.begins)}, and those of "
                    f"earlier members by {' '.join(self.begins)}: make all members with the same "
                    "starts, split and log"
                )
            self.begins = max(self.begins, world.begins, key=len)
            self.own_of.append(np.append(own, np.int32(NO_ITEM)).astype(np.int32))
        space, items = first.catalogue.space, np.arange(self.n_items)
        are_fits = all(one.catalogue.space is space for one in self.worlds)
        self.folds = space.folds if are_fits else 0
        self.shares_contexts = are_fits and all(
            np.array_equal(own[:-1], items) for own in self.own_of
        )
        """whether all members encode a context alike"""

    @classmethod
    def of(cls, model: UserModel, **options: Any) -> Self:
        """The set of the fits of a model on folds of users; options as `LearnedWorld`. Raises as
        `LearnedWorld`, and ConfigError for a model without folds."""
        if not isinstance(model, UserModel) or not model.members:
            raise ConfigError(
                "the model has no fits on folds of users, of which a set of worlds is made: train "
                "it with --set folds=5"
            )
        return cls([LearnedWorld(one, **options) for one in (model, *model.members)])

    @cached_property
    def fingerprint(self) -> str:
        """The first member's, whose states policies read."""
        return self.first.fingerprint

    def require_contexts(self) -> None:
        """As `LearnedWorld`."""
        for one in self.worlds:
            one.require_contexts()

    def population(self, n: int, follow_all: bool = False) -> SetPopulation:
        """Make n users without history, in the first member until they are reset; with `follow_all`
        every member follows every user, for `disagreement`. Raises ConfigError unless n is
        positive, and for members of several models that read contexts and were made without a log
        of them."""
        if not self.shares_contexts:
            self.require_contexts()
        return SetPopulation(self, n, follow_all)

    def past(self, keys: KeyArray) -> Iterator[Past]:
        """As `LearnedWorld`."""
        return self.first.past(keys)

    def members_of(self, keys: KeyArray) -> IntArray:
        """The member that users live in after a reset with these keys, each as likely, shape
        (n,)."""
        keys, draws = np.ascontiguousarray(keys, np.uint64), np.empty(len(keys))
        uniforms(keys, _MEMBER, draws)
        return (draws * len(self.worlds)).astype(np.int32)


class SetPopulation(ContextPopulation):
    """Users of a `WorldSet`, each of whom lives in one member (`members`, shape (n,)).

    Each member is a population of all n users. The first one, or with `follow_all` every one,
    follows the users of the others. Contexts are those of the members' logs."""

    world: WorldSet

    def __init__(self, world: WorldSet, n: int, follow_all: bool = False) -> None:
        self.world, self.n, self.follow_all = world, n, follow_all
        self.members: IntArray = np.zeros(n, np.int32)
        self.populations = [one.population(n) for one in world.worlds]
        self.everyone = np.arange(n, dtype=np.int32)
        self.n_following = len(self.populations) if follow_all else 1
        """how many members, the first ones, follow all users"""

    @property
    def states(self) -> FloatArray:
        """As the base says, of the first member."""
        return self.populations[0].states

    @property
    def seen(self) -> Population:
        """The users as the first member takes them to be."""
        return self.populations[0]

    def reset(self, keys: KeyArray, rows: IntArray | None = None) -> None:
        """As the base says, each user in the member that its key draws."""
        keys, who = checked_reset(keys, rows, self.n)
        self.members[who] = self.world.members_of(keys)
        for number, users in enumerate(self.populations):
            mine = self._meets(number, who)
            if mine.any():
                users.reset(keys[mine], who[mine])

    def take(self, context: EncodedContext | None, who: IntArray | None = None) -> None:
        """As the base says. Raises ConfigError for a context where members are of several models:
        they encode it each in its own way."""
        who = self.everyone if who is None else who
        if context is None:
            for _, users, mine in self._at_home(who):
                users.take(None, who[mine])
            return
        if not self.world.shares_contexts:
            raise ConfigError(
                "users of a set of worlds of several models have the contexts of its members' "
                "logs: leave context out, or give it to users of one world"
            )
        for number, users in enumerate(self.populations):
            users.take(context, who[self._meets(number, who)])

    def choose(self, who: IntArray, slates: IntArray, keys: KeyArray) -> Response:
        """As the base says."""
        response = Response.none(len(who))
        for number, users, mine in self._at_home(who):
            found = users.choose(who[mine], self.world.own_of[number][slates[mine]], keys[mine])
            response.places[mine], response.utilities[mine] = found.places, found.utilities
        clicked = np.flatnonzero(response.places >= 0)
        response.items[clicked] = slates[clicked, response.places[clicked]]
        self._follow(who, slates, response.places)
        return response

    def see(self, who: IntArray, slates: IntArray, places: IntArray) -> None:
        """As the base says."""
        for number, users, mine in self._at_home(who):
            users.see(who[mine], self.world.own_of[number][slates[mine]], places[mine])
        self._follow(who, slates, places)

    def acted(self, items: IntArray, action: str) -> None:
        """As the base says, of every member."""
        items = checked_slates(np.reshape(items, (-1, 1)), self.n, self.world.n_items)[:, 0].copy()
        who = np.flatnonzero(items != NO_ITEM).astype(np.int32)
        # every member knows the action, or none is told
        for users, own_of in zip(self.populations, self.world.own_of, strict=True):
            users.ids_of_action(own_of[items], action)
        for number, users in enumerate(self.populations):
            own, some = np.full(self.n, NO_ITEM, np.int32), who[self._meets(number, who)]
            own[some] = self.world.own_of[number][items[some]]
            users.acted(own, action)

    def value(self, who: IntArray, pools: IntArray, k: int | None) -> FloatArray:
        """As the base says."""
        result = np.zeros((len(who), pools.shape[-1]), np.float32)
        for number, users, mine in self._at_home(who):
            own = self.world.own_of[number][pools if pools.ndim == 1 else pools[mine]]
            result[mine] = users.value(who[mine], own, k)
        return result

    def weigh(self, who: IntArray, slates: IntArray) -> tuple[FloatArray, FloatArray]:
        """As the base says."""
        places, none = np.zeros(slates.shape, np.float32), np.ones(len(who), np.float32)
        for number, users, mine in self._at_home(who):
            own = self.world.own_of[number][slates[mine]]
            places[mine], none[mine] = users.weigh(who[mine], own)
        return places, none

    def disagreement(self, slates: IntArray) -> FloatArray:
        """How far apart members are about what each user would choose now, from 0 to 1 − 1/members,
        shape (n,). Raises ConfigError without `follow_all`.

        The total variation between a member's distribution over the places of the slates (n, k) and
        no click, and the mean of all members'; its mean over the members (Kidambi et al., "MOReL",
        2020; the penalty is that of Yu et al., "MOPO", 2020)."""
        if not self.follow_all:
            raise ConfigError(
                "a disagreement needs every member to follow every user: make the users with "
                "population(n, follow_all=True)"
            )
        slates = checked_slates(slates, self.n, self.world.n_items)
        found = self.by_member(slates)
        mean = found.mean(axis=0, dtype=np.float64)
        apart = [0.5 * np.abs(one - mean).sum(axis=1) for one in found]
        return np.asarray(np.mean(apart, axis=0), np.float32)

    def by_member(self, slates: IntArray) -> FloatArray:
        """Each member's probabilities of each place of all users' checked slates (n, k), then of no
        click, shape (n_members, n, k + 1); of users whom all members follow."""
        return np.stack(
            [
                np.column_stack(users.probabilities(own_of[slates]))
                for users, own_of in zip(self.populations, self.world.own_of, strict=True)
            ]
        )

    def _at_home(self, who: IntArray) -> Iterator[tuple[int, LearnedPopulation, IntArray]]:
        """The members that some of these users live in, and at which entries of `who`."""
        for number, users in enumerate(self.populations):
            mine = np.flatnonzero(self.members[who] == number).astype(np.int32)
            if len(mine):
                yield number, users, mine

    def _meets(self, number: int, who: IntArray) -> BoolArray:
        """Which of these users live in a member, or are followed by it."""
        return np.asarray((self.members[who] == number) | (number < self.n_following))

    def _follow(self, who: IntArray, slates: IntArray, places: IntArray) -> None:
        """Have followers see what users chose."""
        for number, users in enumerate(self.populations[: self.n_following]):
            away = np.flatnonzero(self.members[who] != number)
            if len(away):
                own = self.world.own_of[number][slates[away]]
                users.see(who[away], own, places[away])


def require_set(world: World) -> WorldSet:
    """The world, where it is a set. Raises ConfigError for one world, which cannot disagree."""
    if not isinstance(world, WorldSet):
        raise ConfigError(
            "disagreement is that of a set of worlds, and this is one world: train a run with "
            "--set folds=5, or leave out disagreement and pessimism"
        )
    return world


def world_of_model(model: UserModel, **options: Any) -> LearnedWorld | WorldSet:
    """The set of a model that was fitted by folds of users, or the world of another; options as
    `LearnedWorld`."""
    many = isinstance(model, UserModel) and model.members
    return WorldSet.of(model, **options) if many else LearnedWorld(model, **options)


def world_of_run(run: str | os.PathLike[str], **options: Any) -> LearnedWorld | WorldSet:
    """The world, or set of worlds, of a run folder or model file; options as `LearnedWorld`, `log`
    also as `fastgaum.load` takes it. Raises as `LearnedWorld`, and CheckpointError for a damaged
    run."""
    if isinstance(options.get("log"), str | os.PathLike):
        options["log"] = load(str(options["log"]))
    return world_of_model(UserModel.load(os.fspath(run)), **options)

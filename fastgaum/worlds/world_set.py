"""WorldSet: several learned worlds of one catalogue; each user lives in one of them.

    model = UserModel.from_preset("fastgaum", worlds=5)
    model.fit(log)
    world = WorldSet.of(model)

A model that is fitted on other users errs in other places. A policy that earns in all members has
found no error of one of them (randomisation over ensembles: Rajeswaran et al., "EPOpt", ICLR 2017).
Which member a user lives in is drawn by the key of its reset, and hidden. The states that a policy
reads are those of the first member, which follows every user, as soon as they are asked for: states
of two members have no common coordinates, and would tell the member."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fastgaum.arrays import IntArray, KeyArray
from fastgaum.errors import ConfigError, as_given
from fastgaum.kernels.draws import uniforms
from fastgaum.logs.columns import Vocabulary
from fastgaum.logs.log import SessionLog
from fastgaum.logs.read import load
from fastgaum.models.user_model import UserModel
from fastgaum.worlds.catalogue import Catalogue
from fastgaum.worlds.context import Context, ContextRows, Int64Array, LoggedContexts, SetContext
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.set_population import SetPopulation
from fastgaum.worlds.world import NO_ITEM, Past, World

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
        self.worlds = tuple(worlds) if isinstance(worlds, Iterable) else ()
        if not all(isinstance(world, LearnedWorld) for world in self.worlds) or not self.worlds:
            raise ConfigError(
                "a set of worlds has at least one member, each a LearnedWorld, got "
                f"{as_given(worlds)}"
            )
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
        """What reads the context of events in the first member that reads any; None where none
        does."""
        return next((one.context for one in self.worlds if one.context is not None), None)

    @cached_property
    def fingerprint(self) -> str:
        """The first member's, whose states policies read."""
        return self.first.fingerprint

    def require_contexts(self) -> None:
        """As `LearnedWorld`."""
        for one in self.worlds:
            one.require_contexts()

    def context_of(
        self, values: Mapping[str, Sequence[object] | npt.NDArray[np.generic]]
    ) -> SetContext:
        """The context of one event of each user, of values by field, as each member encodes it.

        Raises:
            ConfigError: no member reads context; or as `LearnedWorld.context_of`.
        """
        fields = {
            name for one in self.worlds if one.context for name in one.context.space.context_holds
        }
        if not fields:
            return SetContext(tuple(one.context_of(values) for one in self.worlds))
        members = []
        for one in self.worlds:
            own = set() if one.context is None else set(one.context.space.context_holds)
            # a field that no member knows is told to all: they say so
            given = {name: values[name] for name in values if name in own or name not in fields}
            members.append(one.context_of(given) if own or given else None)
        return SetContext(tuple(members))

    def population(self, n: int, follow_all: bool = False) -> SetPopulation:
        """Make n users without history, in the first member until they are reset.

        With `follow_all` every member follows every user, which `SetPopulation.disagreement` needs:
        a step of which it is asked then costs as much as one in each member.

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


def contexts_of(world: World, log: SessionLog) -> Callable[[Int64Array], Context] | None:
    """What makes contexts of events of a log, (n,), for users of the world; None for a world that
    reads none.

    Raises:
        FeatureMismatchError: the log's fields are not the training log's.
        LogFormatError: a number is not finite.
    """

    def of(one: LearnedWorld) -> LoggedContexts | None:
        every = log.sessions_in("all")
        return None if one.context is None else LoggedContexts(one.context, log, every)

    if isinstance(world, LearnedWorld):
        logged = of(world)
        return None if logged is None else logged.at
    if not isinstance(world, WorldSet) or world.context is None:
        return None
    # members may be one world
    known = {id(one): of(one) for one in world.worlds}
    by_member = [known[id(one)] for one in world.worlds]
    return lambda events: SetContext(
        tuple(None if one is None else one.at(events) for one in by_member)
    )


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

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

from fastgaum.arrays import FloatArray, IntArray, KeyArray
from fastgaum.errors import ConfigError, as_given
from fastgaum.kernels.draws import uniforms
from fastgaum.live_users.context import ContextRows
from fastgaum.live_users.users import Users
from fastgaum.logs.read import load
from fastgaum.models.user_model import UserModel
from fastgaum.worlds.learned_world import LearnedPopulation, LearnedWorld
from fastgaum.worlds.world import (
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
    """Users of one of several learned worlds each, of the fits of one model; items, their features
    and states are the first one's."""

    def __init__(self, worlds: Sequence[LearnedWorld]) -> None:
        """Take the members. Raises ConfigError if there is none, they are not of fits of one model
        with one head and the same items, or do not agree how users begin."""
        self.worlds = tuple(worlds) if isinstance(worlds, Iterable) else ()
        if not all(isinstance(world, LearnedWorld) for world in self.worlds) or not self.worlds:
            raise ConfigError(
                "a set of worlds has at least one member, each a LearnedWorld, got "
                f"{as_given(worlds)}"
            )
        first = self.first = self.worlds[0]
        self.item_ids, self.item_features = first.item_ids, first.item_features
        self.state_dim, self.no_click, self.head = first.state_dim, first.no_click, first.head
        self.begins, self.catalogue = first.begins, first.catalogue
        self.is_logit, self.outcome_labels = first.is_logit, first.outcome_labels
        self.context: ContextRows | None = first.context
        space = self.catalogue.space
        self.folds = space.folds
        for number, world in enumerate(self.worlds):
            # fits on folds share their feature space
            is_fit = world.catalogue.space is space and world.networks.eta == first.networks.eta
            if not is_fit or world.head != self.head or world.no_click != self.no_click:
                raise ConfigError(
                    f"members 0 and {number} are not fits of one model with one head, whose users "
                    "read the same: make the set with WorldSet.of(model), of a model fitted with "
                    "folds"
                )
            if not world.item_ids.equals(self.item_ids):
                raise ConfigError(
                    f"member {number} has other items than member 0: make all members with the "
                    "same further=… and log"
                )
            if world.begins != self.begins:
                raise ConfigError(
                    f"users of member {number} begin by {' '.join(world.begins)}, and those of "
                    f"earlier members by {' '.join(self.begins)}: make all members with the same "
                    "starts, split and log"
                )

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
        self.first.require_contexts()

    def population(self, n: int, follow_all: bool = False) -> SetPopulation:
        """Make n users without history, in the first member until they are reset; with `follow_all`
        every member follows every user, for `disagreement`. Raises ConfigError unless n is
        positive."""
        if n < 1:
            raise ConfigError(f"a population has at least one user, got n = {n}")
        fits = [one.networks for one in self.worlds]
        users = Users(fits, n, within=True, n_following=len(fits) if follow_all else 1)
        return SetPopulation(self, self.first, users)

    def past(self, keys: KeyArray) -> Iterator[Past]:
        """As `LearnedWorld`."""
        return self.first.past(keys)

    def members_of(self, keys: KeyArray) -> IntArray:
        """The member that users live in after a reset with these keys, each as likely, shape
        (n,)."""
        keys, draws = np.ascontiguousarray(keys, np.uint64), np.empty(len(keys))
        uniforms(keys, _MEMBER, draws)
        return (draws * len(self.worlds)).astype(np.int32)


class SetPopulation(LearnedPopulation):
    """Users of a `WorldSet`, each of whom lives in one member (`members`, shape (n,)).

    A display is counted and encoded once: members read the same. The first one, or with
    `follow_all` every one, follows all users."""

    world: WorldSet

    @property
    def members(self) -> IntArray:
        """The member that each user lives in, (n,)."""
        return self.users.member_of

    @property
    def follow_all(self) -> bool:
        """Whether every member follows every user."""
        return self.users.n_following == len(self.users.members)

    @property
    def seen(self) -> Population:
        """The users as the first member takes them to be."""
        seen = LearnedPopulation(self.first, self.first, self.users.seen_by_first())
        seen.contexts = self.contexts
        return seen

    def reset(self, keys: KeyArray, rows: IntArray | None = None) -> None:
        """As the base says, each user in the member that its key draws."""
        keys, who = checked_reset(keys, rows, self.n)
        self.members[who] = self.world.members_of(keys)
        order = self._by_member(who)
        super().reset(keys[order], who[order])

    def choose(self, who: IntArray, slates: IntArray, keys: KeyArray) -> Response:
        """As the base says."""
        order = self._by_member(who)
        found = super().choose(who[order], slates[order], keys[order])
        return found.scattered(order, len(who))

    def see(
        self, who: IntArray, slates: IntArray, places: IntArray, outcomes: FloatArray | None
    ) -> None:
        """As the base says."""
        order = self._by_member(who)
        told = None if outcomes is None else outcomes[order]
        super().see(who[order], slates[order], places[order], told)

    def acted(self, items: IntArray, action: str) -> None:
        """As the base says, of every member."""
        self._shown_last = []
        who, ids = self.ids_of_action(items, action)
        order = self._by_member(who)
        self.users.act(who[order], ids[order])

    def value(self, who: IntArray, pools: IntArray, k: int | None) -> FloatArray:
        """As the base says."""
        order, result = self._by_member(who), np.empty((len(who), pools.shape[-1]), np.float32)
        result[order] = super().value(who[order], pools if pools.ndim == 1 else pools[order], k)
        return result

    def weigh(self, who: IntArray, slates: IntArray) -> tuple[FloatArray, FloatArray]:
        """As the base says."""
        order, probs = self._by_member(who), np.empty(slates.shape, np.float32)
        none = np.empty(len(who), np.float32)
        probs[order], none[order] = super().weigh(who[order], slates[order])
        return probs, none

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
        shown, _, places = self._show(self.everyone, slates)
        found = np.zeros((len(self.users.members), self.n, slates.shape[1] + 1), np.float32)
        for member, probs in zip(self.users.members, found, strict=True):
            scores = member.scores("chooser", self.everyone, shown.batch, examined=True)
            probs[:, -1] = self._weigh(shown, scores, places, probs[:, :-1])
        return found

    def _by_member(self, who: IntArray) -> IntArray:
        """As the base says: by their member."""
        return np.argsort(self.members[who], kind="stable").astype(np.int32)


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

"""LearnedWorld: a trained model as users who can be shown slates.

    users = LearnedWorld(UserModel.load("runs/mine")).population(4096)

A choice is drawn from the generator's distribution over the displayed places, or from the reward's
best response under the run's regulariser and eta."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from fastgaum import ops, threads
from fastgaum.arrays import BoolArray, FloatArray, IntArray, KeyArray, LongArray
from fastgaum.errors import ConfigError, require_known, require_type
from fastgaum.features.fields import OF_PLACE
from fastgaum.features.item_vectors import SAMPLE, principal_axes
from fastgaum.features.number_columns import item_numbers, number_columns, totals_of
from fastgaum.kernels import shown_slates as kernels
from fastgaum.kernels.candidate_counts import UserDisplays
from fastgaum.kernels.candidate_formulas import TRAINING_NUMBERS
from fastgaum.kernels.draws import uniforms
from fastgaum.live_users.context import ContextRows, EncodedContext
from fastgaum.live_users.fixed_networks import FixedNetworks
from fastgaum.live_users.item_catalogue import ActionIds, Catalogue
from fastgaum.live_users.users import Move, ShownDisplays, Users
from fastgaum.logs.clicks import refuse_successive
from fastgaum.logs.log import SessionLog, SplitName, require_log
from fastgaum.models.outcomes import drawn, equal_bags, expected
from fastgaum.models.user_model import UserModel
from fastgaum.nets.bags import BagLinear
from fastgaum.nets.networks import Head
from fastgaum.nets.regularisers import Shannon
from fastgaum.nets.towers import TwoTower
from fastgaum.ops.displays import CANDIDATES_OF_PART, parts_of
from fastgaum.ops.scorer import ScorerModule
from fastgaum.worlds.logged import LoggedContexts, LoggedStarts, UserContexts
from fastgaum.worlds.world import (
    NO_ITEM,
    Past,
    Population,
    Response,
    World,
    checked_reset,
    checked_rows,
    checked_slates,
    first_places,
    inclusive_values,
)

Starts = Literal["empty", "logged"]
POOL_PLACES = 1 << 20
"""places of pools that are scored at once"""
PLACES_OF_GROUP = 20_480
"""places of slates of a group of users, who choose on one thread; with fewer, threads wait for
Python's lock more than they save"""
PLACES_OF_PART = 4096
"""and of the calls within a group"""
_OUTCOME = np.uint64(16)
"""stream of a step's key, and those behind it for further outcomes"""
ITEM_STATISTICS = ("log_displays", "log_choices", "choice_rate")
"""training numbers of an item that a policy may know"""


class LearnedWorld(World):
    """Users who choose as a fitted `UserModel` does, over the items of its training and `further`
    ones. Changing the model afterwards changes nothing here."""

    def __init__(
        self,
        model: UserModel,
        head: Head | None = None,
        *,
        log: SessionLog | None = None,
        starts: Starts = "empty",
        split: SplitName = "train",
        n_features: int = 15,
        further: pl.Series | None = None,
    ) -> None:
        """Copy a model's networks.

        Args:
            model: a fitted model; of one fitted by folds of users the first fit counts.
            head: "generator", or "reward" for its best response; None = the generator where there
                is one.
            log: where fields, logged starts and contexts are read; needed if the model reads
                fields, or for `starts="logged"`.
            starts: "empty": users have chosen nothing yet. "logged": each begins after a prefix of
                a logged session, both drawn by its key: a session of `split`, then how many of its
                events, 0 to all but one.
            split: the log's split that starts and contexts are drawn from.
            n_features: width of `item_features`, at least 3.
            further: ids of items that training never displayed; the model knows no more of them
                than of any new one (and, with a `log`, their static fields).

        Raises:
            ConfigError: the model is not fitted or lacks the head, or a log is needed and none is
                given.
            FeatureMismatchError: the log's fields are not the training log's.
            LogFormatError: logged starts from an empty split, or with events without a choice for a
                model without no click.
        """
        if not isinstance(model, UserModel):
            raise ConfigError(
                f"a {type(model).__name__} has no states of its own to play on: a world is made of "
                "a UserModel, a trained preset"
            )
        if model.networks is None or model.space is None:
            raise ConfigError("the model has not been trained: call fit or load first")
        if log is not None:
            require_log(log)
        for fields in (model.space.context_number_names, () if log is None else log.context):
            refuse_successive(fields, "a world asks its users for")
        if starts not in ("empty", "logged"):
            raise ConfigError(f"starts must be empty or logged, got '{starts}'")
        require_known("split", split, get_args(SplitName))
        if further is not None:
            require_type("further", further, pl.Series)
        if starts == "logged" and log is None:
            raise ConfigError("logged starts need a log to draw them from: pass --log LOG (log=…)")
        self.catalogue = Catalogue.of(model.space, log, further)
        self.networks, vectors = FixedNetworks(model, head), self.catalogue.vectors
        if vectors is not None:
            self.networks = self.networks.with_vectors(vectors, self.catalogue.n_items + 1)
        self.model, self.head, self.no_click = model, self.networks.head, model.no_click
        self.heads = copy.deepcopy(model.heads)
        if self.heads is not None:
            labels = (one.labels for one in model.space.outcomes)
            self.outcome_labels = tuple(label for each in labels for label in each)
        self.is_logit = type(model.regulariser) is Shannon and model.config.eta == 1
        self.item_ids, self.state_dim = self.catalogue.item_ids, self.networks.state_dim
        self.action_ids = ActionIds(self.catalogue) if model.space.actions else None
        self.item_features = item_features(self.catalogue, self.networks.reward.scorer, n_features)
        self.starts: LoggedStarts | None = None
        if starts == "logged" and log is not None:
            self.starts = LoggedStarts(self.catalogue, log, split, model.no_click)
        self.split = split
        self.context: ContextRows | None = None
        self.logged_contexts: LoggedContexts | None = None
        if model.space.context_holds:
            self.context = ContextRows(self.catalogue)
            sessions = np.empty(0, np.int32) if log is None else log.sessions_in(split)
            if log is not None and len(sessions):
                self.logged_contexts = LoggedContexts(self.context, log, sessions)
        self.begins: tuple[str, ...] = (starts,)
        """how users begin, and the split and log of their sessions, if they are drawn"""
        if log is not None and (self.starts is not None or self.logged_contexts is not None):
            self.begins = (starts, split, log.fingerprint)
        # made now: the model may change
        self.trained_fingerprint = self._hash(self.catalogue.space.categorical[0].values)
        """the fingerprint of this world without further items"""
        _ = self.fingerprint

    def _marks(self) -> Iterator[bytes]:
        # the weights as they are in the file
        networks = self.model.networks
        assert networks is not None
        for name, weight in networks.player.state_dict().items():
            yield name.encode()
            yield weight.detach().cpu().float().numpy().tobytes()

    def require_contexts(self) -> None:
        """Raise ConfigError unless users have contexts without being given any, or need none."""
        if self.context is not None and self.logged_contexts is None:
            raise ConfigError(
                f"the model reads the context fields {', '.join(self.context.space.context_holds)},"
                f" and users take theirs from {self.split} sessions of a log: pass a log that has "
                "some, --log LOG (log=…)"
            )

    def context_of(
        self, values: Mapping[str, Sequence[object] | npt.NDArray[np.generic]]
    ) -> EncodedContext:
        """The context of one event of each user, of values by field: what a step takes.

            users.step(slates, keys, context=world.context_of({"page": pages, "hour": hours}))

        A category or item that training did not see is an unknown one, and so is a missing one if
        training had none. Raises ConfigError if the model reads no context, or a field is missing,
        unknown, of another kind or length, or not finite."""
        if self.context is None:
            raise ConfigError("the model reads no context: it was trained without context fields")
        return self.context.of(values)

    @property
    def item_vectors(self) -> FloatArray:
        """The vector of each item by the reward's towers, (n_items, tower_dim): what is learned of
        its id, texts and fields, without an event's numbers. Raises ConfigError without towers."""
        return _vectors_of_items(self.catalogue, self._tower()[1])

    def user_vectors(self, states: FloatArray) -> FloatArray:
        """The vectors of users in these states, (n, state_dim), by the reward's towers, (n,
        tower_dim). Their products with `item_vectors` order a large catalogue before the whole
        model does: exactly, or with a library of nearest neighbours. Raises ConfigError without
        towers."""
        tower = self._tower()[0]
        with torch.no_grad():
            return np.asarray(tower.users(torch.tensor(states, dtype=torch.float32)).numpy())

    def _tower(self) -> tuple[TwoTower, BagLinear]:
        tower = self.networks.reward.scorer.tower
        if tower is None or tower.items is None:
            raise ConfigError(
                "the reward model has no towers, which give users and items vectors: train it with "
                "--set tower_dim=64"
            )
        return tower, tower.items

    def population(self, n: int) -> LearnedPopulation:
        """Make n users without history. Raises ConfigError unless n is positive."""
        if n < 1:
            raise ConfigError(f"a population has at least one user, got n = {n}")
        return LearnedPopulation(self, self, Users([self.networks], n, within=True))

    def past(self, keys: KeyArray) -> Iterator[Past]:
        """As the base says: the logged prefixes."""
        return iter(()) if self.starts is None else self.starts.past(keys)


class ContextPopulation(Population):
    """Users whose steps may be given the context of their event.

    Attributes:
        everyone: 0 … n − 1.
    """

    world: World
    everyone: IntArray

    @abstractmethod
    def take(self, context: EncodedContext | None, who: IntArray | None = None) -> None:
        """Give each user, or each of `who`, a context of n users, which it keeps. Raises
        ConfigError if it does not fit, or none is given and a user has none."""

    @abstractmethod
    def choose(self, who: IntArray, slates: IntArray, keys: KeyArray) -> Response:
        """Show some users a checked slate each, (len(who), k), and let them choose."""

    @abstractmethod
    def see(
        self, who: IntArray, slates: IntArray, places: IntArray, outcomes: FloatArray | None
    ) -> None:
        """Show some users a checked slate each, (len(who), k), and tell their choices, -1 for
        nothing, and what followed, (len(who), n_labels), NaN for what nobody knows."""

    @abstractmethod
    def value(self, who: IntArray, pools: IntArray, k: int | None) -> FloatArray:
        """Utilities of some users of checked pools, (len(who), m) or (m,)."""

    @abstractmethod
    def weigh(self, who: IntArray, slates: IntArray) -> tuple[FloatArray, FloatArray]:
        """Probabilities of some users of checked slates, (len(who), k)."""

    def step(
        self,
        slates: IntArray,
        keys: KeyArray,
        active: BoolArray | None = None,
        context: EncodedContext | None = None,
    ) -> Response:
        """As the base says. `context` is that of this event, by the world's `context_of`; with None
        users keep theirs.

        Raises:
            ConfigError: slates, keys or `active` are not of n users, or a slate holds a number that
                is no item; or the model reads context, and an active user has none.
        """
        keys = np.ascontiguousarray(checked_rows("keys", keys, self.n), np.uint64)
        slates, who = self._begin(slates, active, context)
        if active is None:
            return self.choose(who, slates, keys)
        return self.choose(who, slates[who], keys[who]).scattered(who, self.n)

    def follow(
        self,
        slates: IntArray,
        places: IntArray,
        active: BoolArray | None = None,
        context: EncodedContext | None = None,
        *,
        outcomes: FloatArray | None = None,
    ) -> None:
        """As the base says. Raises ConfigError as `step`, and for outcomes of another shape."""
        shape = self.n, len(self.world.outcome_labels)
        if outcomes is not None and np.shape(outcomes) != shape:
            raise ConfigError(
                f"outcomes have the shape {np.shape(outcomes)}, a row for each user and a column "
                f"for each of world.outcome_labels, {shape}, are required"
            )
        slates, who = self._begin(slates, active, context)
        told = None if outcomes is None else np.asarray(outcomes, np.float32)[who]
        self.see(who, slates[who], first_places(places, slates, who), told)

    def utilities(
        self, pools: IntArray, k: int | None = None, context: EncodedContext | None = None
    ) -> FloatArray:
        """As the base says, 0 at an empty place and where an item stands again; `context` as in
        `step`. Raises ConfigError as `step`, and unless k is positive."""
        if k is not None and k < 1:
            raise ConfigError(f"a slate has at least 1 item, got k = {k}")
        pools = checked_slates(pools, self.n, self.world.n_items, any_rows=True)
        self.take(context)
        return self.value(self.everyone, pools, k)

    def probabilities(
        self, slates: IntArray, context: EncodedContext | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """As the base says; `context` as in `step`."""
        slates = checked_slates(slates, self.n, self.world.n_items)
        self.take(context)
        return self.weigh(self.everyone, slates)

    def _begin(
        self, slates: IntArray, active: BoolArray | None, context: EncodedContext | None
    ) -> tuple[IntArray, IntArray]:
        slates = checked_slates(slates, self.n, self.world.n_items)
        who = self.everyone
        if active is not None:
            there = checked_rows("active users", active, self.n, "b")
            who = np.flatnonzero(there).astype(np.int32)
        self.take(context, who)
        return slates, who


@dataclass(frozen=True)
class _Slates:
    """Slates that some users are shown now."""

    users: IntArray
    slates: IntArray
    shown: ShownDisplays
    items: IntArray
    places: IntArray
    utilities: FloatArray | None = None
    """of the candidates, without the examination of their places; None: not asked for"""

    def are(self, users: IntArray, slates: IntArray) -> bool:
        """Whether these users are shown these slates."""
        return np.array_equal(self.users, users) and np.array_equal(self.slates, slates)


class LearnedPopulation(ContextPopulation):
    """Users of a `LearnedWorld`.

    Attributes:
        first: the world; of users of a set (`worlds.world_set`) its first one."""

    world: World

    def __init__(self, world: World, first: LearnedWorld, users: Users) -> None:
        self.world, self.first, self.users, self.n = world, first, users, users.n
        self.everyone = self.users.everyone
        self.contexts: UserContexts | None = None
        if first.context is not None:
            logged, within = first.logged_contexts, first.starts is not None
            self.contexts = UserContexts(first.context, logged, within, self.users)
        self._seen = self.users.states.view()
        self._seen.flags.writeable = False
        self._shown_last: list[_Slates] = []

    @property
    def states(self) -> FloatArray:
        """As the base says; they end with the context, where the model reads any. Raises
        ConfigError if a user has none yet."""
        self.take(None)
        return self._seen

    def reset(self, keys: KeyArray, rows: IntArray | None = None) -> None:
        """As the base says; a logged prefix is the one that the key draws. Raises ConfigError as
        the base."""
        keys, who = checked_reset(keys, rows, self.n)
        self._shown_last = []
        self.users.reset(who)
        if self.first.starts is not None:
            self.first.starts.play(self.users, who, keys)
        if self.contexts is not None:
            self.contexts.reset(who, keys)

    def take(self, context: EncodedContext | None, who: IntArray | None = None) -> None:
        """As the base says."""
        if self.contexts is not None:
            who = self.everyone if who is None else who
            if context is not None:
                self._shown_last = []
                self.contexts.put(self.contexts.rows.checked(context, self.n).of(who), who)
            self.contexts.require(who)
        elif context is not None:
            raise ConfigError("a context is given, and the model reads none: leave it out")

    def choose(self, who: IntArray, slates: IntArray, keys: KeyArray) -> Response:
        """As the base says."""
        last, self._shown_last = self._shown_last, []
        groups = self._groups(slates)
        if len(last) != len(groups):
            last = []
        chosen: list[tuple[Response, Move] | None] = [None] * len(groups)

        def choose(number: int, group: slice) -> None:
            users, shown = who[group], slates[group]
            if last and last[number].are(users, shown):
                display = last[number]
            else:
                display = _Slates(users, shown, *self._show(users, shown, within=len(groups) > 1))
            chosen[number] = self._choose(display, keys[group])

        threads.run(choose, list(enumerate(groups)))
        made = [one for one in chosen if one is not None]
        self._move([move for _, move in made])
        return Response.joined([response for response, _ in made])

    def _choose(self, display: _Slates, keys: KeyArray) -> tuple[Response, Move]:
        """What these users do, before anyone has moved on."""
        networks, shown, items = self.first.networks, display.shown, display.items
        plain = networks.chooser is networks.reward and networks.reward.scorer.examination is None
        scores = display.utilities if plain else None
        if scores is None:
            scores = self.users.scores("chooser", shown)
        offsets = shown.batch.offsets
        probs, none = networks.distribution(scores, offsets)
        chosen = np.empty(len(display.users), np.int32)
        kernels.draw_choices(offsets, items, probs, none, keys, chosen)
        # the entry behind the last candidate's is that of no click
        earned = (
            np.append(scores, np.float32(0))[chosen]
            if plain
            else self.users.utilities(shown, chosen)
        )
        outcomes = self._draw_outcomes(shown, chosen, keys)
        response = Response(display.places[chosen], items[chosen], earned, outcomes)
        return response, (shown, chosen, outcomes)

    def surplus(self, slates: IntArray, no_click: bool) -> FloatArray:
        """As the base says. What was shown and scored is kept for the step that shows the same."""
        self.take(None)
        order = self._by_member(self.everyone)
        slates = checked_slates(slates, self.n, self.world.n_items)[order]
        groups, result = self._groups(slates), np.empty(self.n, np.float32)
        kept: list[_Slates | None] = [None] * len(groups)

        def find(number: int, group: slice) -> None:
            users, of_users = order[group], slates[group]
            shown, items, places = self._show(users, of_users, within=len(groups) > 1)
            found = self.users.scores("reward", shown, examined=False)
            utilities = np.full(of_users.shape, -np.inf, np.float32)
            rows = np.repeat(np.arange(len(users)), np.diff(shown.batch.offsets))
            utilities[rows, places[: len(rows)]] = found
            kept[number] = _Slates(users, of_users, shown, items, places, found)
            result[users] = inclusive_values(utilities, no_click)

        threads.run(find, list(enumerate(groups)))
        self._shown_last = [one for one in kept if one is not None]
        return result

    def _groups(self, slates: IntArray) -> list[slice]:
        """Users cut into groups that are shown their slates each on one thread; one group whose
        work threads share, where the slates are few or users cannot be moved on apart."""
        n_groups = min(slates.size // PLACES_OF_GROUP, len(slates)) // 2 * 2
        if n_groups == 0 or not self.users.may_part:
            return [slice(0, len(slates))]
        bounds = [len(slates) * number // n_groups for number in range(n_groups + 1)]
        return [slice(*pair) for pair in pairwise(bounds)]

    def _by_member(self, who: IntArray) -> IntArray:
        """These users in the order in which they are scored, as entries of `who`."""
        return np.arange(len(who), dtype=np.int32)

    def _draw_outcomes(
        self, shown: ShownDisplays, chosen: IntArray, keys: KeyArray
    ) -> FloatArray | None:
        """What follows each choice, (n_events, n_labels), NaN for no choice; None where nothing
        is drawn."""
        world = self.first
        if world.heads is None:
            return None
        clicked = np.flatnonzero(chosen >= 0)
        fields = world.catalogue.space.outcomes
        found = np.full((len(chosen), world.networks.n_outcomes), np.nan, np.float32)
        if len(clicked):
            at, batch = chosen[clicked], shown.batch
            states = torch.from_numpy(self.users.states[shown.users[clicked]])
            ones = torch.arange(len(at) + 1, dtype=torch.int32)
            with torch.no_grad(), ops.plain():
                outputs = world.heads(equal_bags(batch.ids[at], batch.numbers[at]), states, ones)
            draws = np.empty((len(at), len(fields)))
            of_clicked = np.ascontiguousarray(keys[clicked])
            for number in range(len(fields)):
                of_outcome = np.empty(len(at))
                uniforms(of_clicked, _OUTCOME + np.uint64(number), of_outcome)
                draws[:, number] = of_outcome
            means = expected(world.heads, fields, outputs)
            found[clicked] = drawn(world.heads, fields, means, draws)
        return found

    def see(
        self, who: IntArray, slates: IntArray, places: IntArray, outcomes: FloatArray | None
    ) -> None:
        """As the base says."""
        # of displays without a choice nothing is scored or read
        for is_read in (True, False):
            part = np.flatnonzero((places >= 0) == is_read)
            if len(part):
                shown, _, place_of = self._show(who[part], slates[part], is_read)
                sizes = np.diff(shown.batch.offsets)
                found = np.flatnonzero(place_of[: sizes.sum()] == np.repeat(places[part], sizes))
                chosen = np.full(len(part), -1, np.int32)
                chosen[np.repeat(np.arange(len(part)), sizes)[found]] = found
                self._move([(shown, chosen, None if outcomes is None else outcomes[part])])

    def acted(self, items: IntArray, action: str) -> None:
        """As the base says."""
        self._shown_last = []
        self.users.act(*self.ids_of_action(items, action))

    def ids_of_action(self, items: IntArray, action: str) -> tuple[IntArray, IntArray]:
        """The users who act, and the feature ids of their actions. Raises ConfigError as
        `acted`."""
        if self.first.action_ids is None:
            super().acted(items, action)
        assert self.first.action_ids is not None
        items = checked_slates(np.reshape(items, (-1, 1)), self.n, self.world.n_items)[:, 0]
        who = np.flatnonzero(items != NO_ITEM).astype(np.int32)
        return who, self.first.action_ids.of(items[who], action)

    def value(self, who: IntArray, pools: IntArray, k: int | None) -> FloatArray:
        """As the base says."""
        m = pools.shape[-1]
        result = np.zeros((len(who), m), np.float32)
        at_once = max(1, POOL_PLACES // max(m, 1))
        for first in range(0, len(who), at_once):
            part = slice(first, first + at_once)
            some = who[part]
            of_users = np.broadcast_to(pools if pools.ndim == 1 else pools[part], (len(some), m))
            shown, _, places = self._show(some, np.ascontiguousarray(of_users), set_size=k or 0)
            rows = np.repeat(np.arange(len(some)), np.diff(shown.batch.offsets))
            found = self.users.scores("reward", shown, examined=False)
            result[part][rows, places[: len(rows)]] = found
        return result

    def weigh(self, who: IntArray, slates: IntArray) -> tuple[FloatArray, FloatArray]:
        """As the base says."""
        shown, _, places = self._show(who, slates)
        probs = np.zeros(slates.shape, np.float32)
        none = self._weigh(shown, self.users.scores("chooser", shown), places, probs)
        return probs, none

    def outcomes(self, slates: IntArray) -> FloatArray:
        """As the base says."""
        heads, slates = self.first.heads, checked_slates(slates, self.n, self.world.n_items)
        if heads is None:
            return super().outcomes(slates)
        shown, _, places = self._show(self.everyone, slates)
        sizes, batch = np.diff(shown.batch.offsets), shown.batch
        with torch.no_grad(), ops.plain():
            states, offsets = torch.from_numpy(self.users.states), torch.from_numpy(batch.offsets)
            outputs = heads(equal_bags(batch.ids, batch.numbers), states, offsets)
        found = np.zeros((*slates.shape, outputs.shape[1]), np.float32)
        at = np.repeat(self.everyone, sizes), places[: sizes.sum()]
        found[at] = expected(heads, self.first.catalogue.space.outcomes, outputs)
        return found

    def _weigh(
        self, shown: ShownDisplays, scores: FloatArray, places: IntArray, probs: FloatArray
    ) -> FloatArray:
        """Write the probability of each place of the slates, (n, k); return those of no click."""
        offsets = shown.batch.offsets
        found, none = self.first.networks.distribution(scores, offsets)
        probs[np.repeat(np.arange(len(probs)), np.diff(offsets)), places[: len(found)]] = found
        return none

    def _show(
        self,
        who: IntArray,
        slates: IntArray,
        is_read: bool = True,
        set_size: int = 0,
        within: bool = False,
    ) -> tuple[ShownDisplays, IntArray, IntArray]:
        """What some users are displayed, `within` one of several groups; item and place in the
        slate of each candidate, each with -1 as its last entry."""
        offsets, rows = np.empty(len(who) + 1, np.int32), self.everyone[: len(who)]
        items, places = both = np.empty((2, slates.size + 1), np.int32)
        both[:, -1] = -1
        n_items = self.world.n_items
        n = kernels.find_displayed(slates, rows, n_items, offsets, items, places)
        displays = UserDisplays(who, offsets, items[:n])
        if not is_read:
            return self.users.pass_by(displays), items, places
        parts = parts_of(offsets, PLACES_OF_PART if within else CANDIDATES_OF_PART)
        catalogue, shown = self.first.catalogue, displays.items
        ids, numbers = catalogue.ids.take(shown, 0), catalogue.fixed.take(shown, 0)
        return self.users.show(displays, ids, numbers, parts, shown, set_size), items, places

    def _move(self, moves: Sequence[Move]) -> None:
        self._shown_last = []
        self.users.move(moves)
        if self.contexts is not None:
            for shown, *_ in moves:
                self.contexts.move_on(shown.users)


def contexts_of(world: World, log: SessionLog) -> Callable[[LongArray], EncodedContext] | None:
    """A function from events of a log, (n,), to contexts of the world's users; None where none are
    read. Raises as `ContextRows.of_log`."""
    # a set of worlds has them too
    rows = getattr(world, "context", None)
    if not isinstance(rows, ContextRows):
        return None
    return rows.of_log(log, np.arange(log.n_events, dtype=np.int32)).of


def _vectors_of_items(catalogue: Catalogue, layer: BagLinear) -> FloatArray:
    """What each item adds to a layer of bags wherever it stands, (n_items, width)."""
    n, n_ids = catalogue.n_items, catalogue.space.n_ids
    table: FloatArray = layer.table.detach().numpy()
    own = [at for at, one in enumerate(catalogue.space.categorical) if one.source not in OF_PLACE]
    vectors: FloatArray = table[catalogue.ids[:n, own]].sum(1)
    if len(table) > n_ids:
        vectors += table[n_ids : n_ids + n]
    return vectors


def item_features(catalogue: Catalogue, reward: ScorerModule, n_features: int) -> FloatArray:
    """Features of each item, (n_items, ≤ n_features): principal components, then log displays, log
    choices, choice rate, standardised. Raises ConfigError for fewer features than statistics.

    The components are of the rows that items add to the reward model's first layer, or with towers
    of their vectors, divided by the first one's standard deviation; the largest weight of each is
    positive."""
    if n_features < len(ITEM_STATISTICS):
        raise ConfigError(
            f"n_features must be at least {len(ITEM_STATISTICS)}, the training statistics, got "
            f"{n_features}"
        )
    n, space = catalogue.n_items, catalogue.space
    n_trained = len(space.item_counts.displays)
    rows = np.append(np.arange(n_trained), np.full(n - n_trained, -1))
    counted = item_numbers(totals_of(space.item_counts, rows), space.prior_rate)
    counted = counted[:, number_columns(ITEM_STATISTICS, TRAINING_NUMBERS)]
    scale = counted.std(axis=0)
    statistics = (counted - counted.mean(axis=0)) / np.where(scale > 1e-6, scale, np.float32(1))
    statistics = np.asarray(statistics, np.float32)
    vectors = _vectors_of_items(catalogue, (reward.tower and reward.tower.items) or reward.first)
    n_components = min(n_features - len(ITEM_STATISTICS), vectors.shape[1])
    if n_components == 0:
        return statistics
    mean, axes, variances = principal_axes(vectors[:: -(-len(vectors) // SAMPLE)])
    axes = axes[:, :n_components] / np.sqrt(max(float(variances[0]), 1e-12))
    components = (vectors - mean.astype(np.float32)) @ axes.astype(np.float32)
    return np.ascontiguousarray(np.concatenate([components, statistics], axis=1), np.float32)

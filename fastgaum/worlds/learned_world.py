"""LearnedWorld: a trained model as users who can be shown slates.

    world = LearnedWorld(UserModel.load("runs/mine"))
    users = world.population(4096)

A user's choice is drawn from the generator's distribution over the displayed places, or from the
reward's best response under the run's regulariser and eta; then the state advances by one recurrent
step. A step costs the same at any time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from fastgaum import threads
from fastgaum.errors import ConfigError
from fastgaum.kernels import slates as kernels
from fastgaum.logs.log import SessionLog, SplitName
from fastgaum.models.choice_model import Head
from fastgaum.models.user_model import UserModel
from fastgaum.nets.histories import HistoryEncoder, Recurrent
from fastgaum.nets.regularisers import L2, ChoiceDistribution, Regulariser, Shannon, Tsallis
from fastgaum.worlds.catalogue import Catalogue, item_features
from fastgaum.worlds.folded import FoldedRecurrent, FoldedScorer, RecurrentUsers, UserHistories
from fastgaum.worlds.logged_starts import LoggedStarts
from fastgaum.worlds.retold import RetoldEncoder
from fastgaum.worlds.session_counts import SessionCounts
from fastgaum.worlds.world import (
    FloatArray,
    IntArray,
    KeyArray,
    Past,
    Population,
    Response,
    World,
    checked_slates,
)

Starts = Literal["empty", "logged"]
PART = 256
"""users per part: a cut that depends on the number of users alone"""
POOL_PLACES = 1 << 20
"""places of pools that are scored at once"""


class LearnedWorld(World):
    """Users who choose as a fitted `UserModel` does. Its items are those of the training split, and
    further ones if asked.

    Attributes:
        model: the model; changing it afterwards changes nothing here.
        head: whose distribution choices are drawn from.
    """

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
        """Fold a model.

        Args:
            model: a fitted model; `UserModel.load(run)` reads one.
            head: "generator", or "reward" for its best response; None = the generator where the
                model has one.
            log: what fields are read from, and logged starts; needed if the model reads fields, or
                for `starts="logged"`.
            starts: "empty": users have chosen nothing yet. "logged": each begins after a prefix of
                a logged session, both drawn by the key that `reset` gets: a session of `split`,
                then how many of its events, 0 to all but one.
            split: the log's split that logged starts are drawn from.
            n_features: width of `item_features`, at least 3.
            further: ids of items that training never displayed; each is an item of its own, of
                which the model knows no more than of any new one (and, with a `log`, its static
                fields).

        Raises:
            ConfigError: the model is not fitted or lacks the head, or a log is needed and none is
                given.
            FeatureMismatchError: the log's fields are not the training log's.
        """
        if model.networks is None or model.space is None:
            raise ConfigError("the model has not been trained: call fit or load first")
        networks = model.networks
        if head is None:
            head = "generator" if networks.generator is not None else "reward"
        if head not in ("generator", "reward"):
            raise ConfigError(f"head must be generator or reward, got '{head}'")
        if head == "generator" and networks.generator is None:
            raise ConfigError(
                "the model has no generator (players = exact): use head='reward', whose best "
                "response it is"
            )
        if starts not in ("empty", "logged"):
            raise ConfigError(f"starts must be empty or logged, got '{starts}'")
        if starts == "logged" and log is None:
            raise ConfigError("logged starts need a log to draw them from: pass log=…")
        self.model, self.head, self.outside = model, head, model.outside
        self.catalogue = Catalogue.of(model.space, log, further)
        self.item_ids = self.catalogue.item_ids
        self.regulariser: Regulariser = model.regulariser
        self.eta = float(model.config.eta) if head == "reward" else 1.0
        self.rewards = [FoldedScorer(player.reward, self.catalogue) for player in networks.players]
        histories: list[HistoryEncoder] = [player.history for player in networks.players]
        self.generator: FoldedScorer | None = None
        self.own_history = False
        if head == "generator" and networks.generator is not None:
            self.generator = FoldedScorer(networks.generator, self.catalogue)
            if networks.generator_history is not None:
                histories.append(networks.generator_history)
                self.own_history = True
        self.state_dim = sum(history.state_dim for history in histories)
        self.histories: list[FoldedRecurrent | HistoryEncoder] = [
            FoldedRecurrent(history, self.catalogue)
            if type(history) is Recurrent
            else deepcopy(history).cpu()
            for history in histories
        ]
        self.item_features = item_features(
            self.catalogue, [scorer.table for scorer in self.rewards], n_features
        )
        self.starts = (
            LoggedStarts(self.catalogue, log, split)
            if starts == "logged" and log is not None
            else None
        )

    def population(self, n: int) -> LearnedPopulation:
        """Make n users without history.

        Raises:
            ConfigError: n is not positive.
        """
        if n < 1:
            raise ConfigError(f"a population has at least one user, got n = {n}")
        return LearnedPopulation(self, n)

    def past(self, keys: KeyArray) -> Iterator[Past]:
        """The logged prefixes that these keys draw, event by event; nothing where users start
        empty."""
        return iter(()) if self.starts is None else self.starts.past(keys)


class LearnedPopulation(Population):
    """Users of a `LearnedWorld`; parts of them are stepped on all threads."""

    def __init__(self, world: LearnedWorld, n: int) -> None:
        self.world, self.n = world, n
        self.session_counts = SessionCounts(world.catalogue, n)
        self.encoders: list[UserHistories] = [
            RecurrentUsers(history, n)
            if isinstance(history, FoldedRecurrent)
            else RetoldEncoder(history, world.catalogue, n)
            for history in world.histories
        ]
        one = len(self.encoders) == 1
        self._states = (
            self.encoders[0].states if one else np.zeros((n, world.state_dim), np.float32)
        )
        self._seen = self._states.view()
        self._seen.flags.writeable = False
        self._everyone = np.ones(n, bool)
        self._cuts = [(first, min(first + PART, n)) for first in range(0, n, PART)]
        self._buffers: dict[int, _Buffers] = {}
        of_rewards = self.encoders[: len(world.rewards)]
        self._rewards = [
            (scorer, encoder.states)
            for scorer, encoder in zip(world.rewards, of_rewards, strict=True)
        ]
        self._choosers = self._rewards
        if world.generator is not None:
            states = self.encoders[-1].states if world.own_history else self._states
            self._choosers = [(world.generator, states)]
        self._distribute = _distribution(world)

    @property
    def states(self) -> FloatArray:
        """The users' states now, shape (n, state_dim); read-only, overwritten by the next `reset`
        or `step`."""
        return self._seen

    def reset(self, keys: KeyArray, rows: IntArray | None = None) -> None:
        """Start users anew, without history or after a logged prefix that their key draws."""
        users: Any = slice(None) if rows is None else rows
        self.session_counts.reset(users)
        for encoder in self.encoders:
            encoder.reset(users)
        if self.world.starts is not None:
            who = np.arange(self.n, dtype=np.int32) if rows is None else np.asarray(rows, np.int32)
            self.world.starts.tell(self, who, keys)
        self._join(0, self.n)

    def step(
        self, slates: IntArray, keys: KeyArray, active: npt.NDArray[np.bool_] | None = None
    ) -> Response:
        """Show each user a slate (n, k) and let them choose; their states move on.

        Raises:
            ConfigError: the slates are not of n users, or hold a number that is no item.
        """
        slates = self._checked(slates)
        keys = np.ascontiguousarray(keys, np.uint64)
        self.session_counts.make_room(slates.shape[1])
        b = self._buffer(slates.shape[1])
        response = Response(
            np.empty(self.n, np.int32), np.empty(self.n, np.int32), np.zeros(self.n, np.float32)
        )
        who = self._everyone if active is None else active
        if self._distribute is None:
            self._run(partial(self._score, b=b, slates=slates, who=who))
            self._by_hand(b)
            self._run(partial(self._move, b=b, keys=keys, who=who, response=response))
        else:

            def step_part(first: int, last: int) -> None:
                self._weigh(first, last, b, slates, who)
                self._move(first, last, b, keys, who, response)

            self._run(step_part)
        for encoder in self.encoders:
            if not encoder.in_parts:
                encoder.advance(0, self.n, who, b.chosen, b.chosen_numbers)
        if not all(encoder.in_parts for encoder in self.encoders):
            self._join(0, self.n)
        return response

    def advance(self, active: npt.NDArray[np.bool_], chosen: IntArray, numbers: FloatArray) -> None:
        """Move the active users' histories on by a choice: table rows (n, 1, ·), -1 for no click,
        and numbers (n, 1, d).

        In the parts in which a step does so: the last bits of a state depend on its place in its
        part."""
        for encoder in self.encoders:
            if encoder.in_parts:
                self._run(partial(encoder.advance, active=active, chosen=chosen, numbers=numbers))
            else:
                encoder.advance(0, self.n, active, chosen, numbers)

    def follow(
        self, slates: IntArray, places: IntArray, active: npt.NDArray[np.bool_] | None = None
    ) -> None:
        """Let each user see a slate and choose as somebody else did, place (n,) or -1 for nothing;
        states move on, of those in `active`.

        Raises:
            ConfigError: the slates are not of n users, or hold a number that is no item.
        """
        told = np.asarray(places)[:, None] == np.arange(slates.shape[1])

        def certain(first: int, last: int, b: _Buffers) -> None:
            b.probs[first:last], b.none[first:last] = (
                told[first:last],
                ~told[first:last].any(axis=1),
            )

        own, self._distribute = self._distribute, certain
        try:
            self.step(slates, np.zeros(self.n, np.uint64), active)
        finally:
            self._distribute = own

    def utilities(self, pools: IntArray, k: int | None = None) -> FloatArray:
        """Each user's utility now of each item of a pool, (n, m) or one for all (m,); shape (n, m),
        0 at an empty place.

        Each item as one of an average slate of k; with None the pool is the display set.

        Raises:
            ConfigError: the pools are not of n users, hold a number that is no item, or k is not
                positive.
        """
        if k is not None and k < 1:
            raise ConfigError(f"a slate has at least 1 item, got k = {k}")
        pools = self._checked(pools, any_rows=True)
        result = np.empty((self.n, pools.shape[-1]), np.float32)
        at_once = max(1, POOL_PLACES // max(pools.shape[-1], 1))
        for first in range(0, self.n, at_once):
            last = min(first + at_once, self.n)
            self._pool_utilities(first, last, pools, k or 0, result)
        return result

    def probabilities(self, slates: IntArray) -> tuple[FloatArray, FloatArray]:
        """Probability of each place of the slates (n, k), and of no click (n,); nobody moves."""
        slates = self._checked(slates)
        b = self._buffer(slates.shape[1])
        if self._distribute is None:
            self._run(lambda first, last: self._score(first, last, b, slates, self._everyone))
            self._by_hand(b)
        else:
            self._run(lambda first, last: self._weigh(first, last, b, slates, self._everyone))
        return b.probs.copy(), b.none.copy()

    def _run(self, function: Callable[[int, int], None]) -> None:
        threads.run(function, self._cuts)

    def _checked(self, slates: IntArray, any_rows: bool = False) -> IntArray:
        return checked_slates(slates, self.n, self.world.n_items, any_rows)

    def _buffer(self, k: int) -> _Buffers:
        if k not in self._buffers:
            catalogue = self.world.catalogue
            fields = 1 if catalogue.position_column < 0 else 2
            self._buffers[k] = _Buffers(self.n, k, fields, catalogue.space.n_numbers)
        return self._buffers[k]

    def _weigh(self, first: int, last: int, b: _Buffers, slates: IntArray, who: Any) -> None:
        """Probabilities of the displayed places."""
        self._score(first, last, b, slates, who)
        assert self._distribute is not None
        self._distribute(first, last, b)

    def _score(self, first: int, last: int, b: _Buffers, slates: IntArray, who: Any) -> None:
        """What is displayed, its numbers, and its scores by the network that chooses."""
        catalogue = self.world.catalogue
        kernels.displayed_rows(
            first, last, slates, who, len(catalogue.ids), catalogue.n_positions, b.rows
        )
        self.session_counts.write(first, last, b.rows, b.numbers)
        _mean_scores(self._choosers, first, last, b.rows, b.numbers, b.scores)

    def _move(
        self, first: int, last: int, b: _Buffers, keys: KeyArray, who: Any, response: Response
    ) -> None:
        """Draw, and move on."""
        kernels.draw_places(
            first,
            last,
            b.probs,
            b.none,
            keys,
            kernels.Displayed(b.rows, b.numbers),
            kernels.Chosen(response.places, response.items, b.chosen, b.chosen_numbers),
        )
        if self._choosers is self._rewards:
            kernels.take_places(first, last, b.scores, response.places, response.utilities)
        else:
            utilities = response.utilities[:, None]
            _mean_scores(self._rewards, first, last, b.chosen, b.chosen_numbers, utilities)
        self.session_counts.count(first, last, who, b.rows, response.items)
        for encoder in self.encoders:
            if encoder.in_parts:
                encoder.advance(first, last, who, b.chosen, b.chosen_numbers)
        self._join(first, last)

    def _join(self, first: int, last: int) -> None:
        """Several encoders' states side by side."""
        if len(self.encoders) > 1:
            at = 0
            for encoder in self.encoders:
                width = encoder.states.shape[1]
                self._states[first:last, at : at + width] = encoder.states[first:last]
                at += width

    def _by_hand(self, b: _Buffers) -> None:
        """Probabilities under a regulariser of the user's own, which no kernel knows."""
        shown = b.rows[:, :, 0] >= 0
        users = shown.any(axis=1)
        offsets = torch.from_numpy(
            np.concatenate([[0], np.cumsum(shown[users].sum(axis=1))]).astype(np.int32)
        )
        scores = torch.from_numpy(self.world.eta * b.scores[shown])
        dist: ChoiceDistribution = self.world.regulariser.best_response(
            scores, offsets, self.world.outside
        )
        b.probs[:], b.none[:] = 0.0, 1.0
        b.probs[shown] = dist.probs.numpy()
        b.none[users] = dist.outside_prob.numpy()

    def _pool_utilities(
        self, first: int, last: int, pools: IntArray, k: int, result: FloatArray
    ) -> None:
        """Utilities of users first to last − 1, each over its pool: as one of an average slate of
        k, of the pool with 0."""
        catalogue, n = self.world.catalogue, last - first
        shared = pools if pools.ndim == 1 else pools[first:last]
        rows = np.empty((n, pools.shape[-1], 1 if catalogue.position_column < 0 else 2), np.int32)
        rows[:, :, 0] = shared
        if catalogue.position_column >= 0:
            # which place an item of a pool would have is open: all are taken to be first, so that
            # none is ahead by its place
            rank = np.zeros_like(shared) if k else np.cumsum(shared >= 0, axis=-1) - 1
            rank = np.where(rank < catalogue.n_positions, rank + 1, 0) + len(catalogue.ids)
            rows[:, :, 1] = np.where(shared >= 0, rank, -1)
        numbers = np.empty((n, pools.shape[-1], catalogue.space.n_numbers), np.float32)
        session_counts = self.session_counts.of_users(first, last)
        scorers = [(scorer, states[first:last]) for scorer, states in self._rewards]

        def write(begin: int, end: int) -> None:
            session_counts.write(begin, end, rows, numbers, k)
            _mean_scores(scorers, begin, end, rows, numbers, result[first:last])

        step = max(1, PART * 16 // max(pools.shape[-1], 1))
        threads.run(write, [(begin, min(begin + step, n)) for begin in range(0, n, step)])


class _Buffers:
    """What a step writes on its way, for slates of one length."""

    def __init__(self, n: int, k: int, n_rows: int, n_numbers: int) -> None:
        self.rows: IntArray = np.empty((n, k, n_rows), np.int32)
        self.numbers: FloatArray = np.empty((n, k, n_numbers), np.float32)
        self.scores: FloatArray = np.empty((n, k), np.float32)
        self.probs: FloatArray = np.empty((n, k), np.float32)
        self.none: FloatArray = np.empty(n, np.float32)
        self.chosen: IntArray = np.empty((n, 1, n_rows), np.int32)
        self.chosen_numbers: FloatArray = np.empty((n, 1, n_numbers), np.float32)


def _mean_scores(
    scorers: Sequence[tuple[FoldedScorer, FloatArray]],
    first: int,
    last: int,
    rows: IntArray,
    numbers: FloatArray,
    scores: FloatArray,
) -> None:
    """Scores of users first to last − 1, the mean over scorers, each with its states."""
    scorer, states = scorers[0]
    scorer.write(first, last, rows, numbers, states, scores)
    if len(scorers) > 1:
        more = np.empty_like(scores)
        for scorer, states in scorers[1:]:
            scorer.write(first, last, rows, numbers, states, more)
            scores[first:last] += more[first:last]
        scores[first:last] /= len(scorers)


def _distribution(world: LearnedWorld) -> Callable[[int, int, _Buffers], None] | None:
    """What turns scores into probabilities; None for a regulariser that has no kernel here."""
    rule, eta, outside = world.regulariser, world.eta, world.outside
    # whatever a regulariser of the user's own is, the generator's own distribution under it is a
    # softmax
    if isinstance(rule, Shannon) or (
        world.head == "generator" and not isinstance(rule, L2 | Tsallis)
    ):
        softmax = kernels.ChoiceRule(eta, outside, 1.0)
        return lambda first, last, b: kernels.softmax_slates(
            first, last, b.scores, b.rows, softmax, b.probs, b.none
        )
    if not isinstance(rule, L2 | Tsallis):
        return None
    entmax = kernels.ChoiceRule(eta, outside, 2.0 if isinstance(rule, L2) else float(rule.alpha))
    return lambda first, last, b: kernels.entmax_slates(
        first, last, b.scores, b.rows, entmax, b.probs, b.none
    )

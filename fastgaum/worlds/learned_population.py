"""LearnedPopulation: users of a `LearnedWorld`, stepped on all threads.

A step scores what is displayed, turns scores into probabilities, draws each user's choice by its
key, and moves the histories on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from fastgaum import threads
from fastgaum.errors import ConfigError
from fastgaum.features.session_counts import SessionCounts
from fastgaum.kernels import slates as kernels
from fastgaum.kernels.candidate_formulas import Slates
from fastgaum.models.folded import (
    FoldedRecurrent,
    RecurrentHistories,
    SlateProbabilities,
    UserHistories,
    slate_distribution,
)
from fastgaum.nets.regularisers import ChoiceDistribution
from fastgaum.worlds.actions import tell_rows
from fastgaum.worlds.context import BoolArray, Context, UserContexts
from fastgaum.worlds.parts import PART, Buffers, Work, cuts_of, do, no_choices
from fastgaum.worlds.user_networks import ReplayedHistories
from fastgaum.worlds.world import (
    FloatArray,
    IntArray,
    KeyArray,
    Population,
    Response,
    checked_slates,
)

if TYPE_CHECKING:
    from fastgaum.worlds.learned_world import LearnedWorld

POOL_PLACES = 1 << 20
"""places of pools that are scored at once"""


class LearnedPopulation(Population):
    """Users of a `LearnedWorld`; parts of them are stepped on all threads."""

    def __init__(self, world: LearnedWorld, n: int) -> None:
        self.world, self.n = world, n
        self.session_counts = SessionCounts(world.catalogue.space, world.catalogue.fixed, n)
        self.encoder: UserHistories = (
            RecurrentHistories(world.history, n)
            if isinstance(world.history, FoldedRecurrent)
            else ReplayedHistories(world.history, world.catalogue, n)
        )
        self.contexts: UserContexts | None = None
        self._states = self.encoder.states
        if world.context is not None:
            self.contexts = UserContexts(
                world.context,
                world.logged_contexts,
                world.starts is not None,
                self.encoder.states,
                self.session_counts.context_items,
                self.session_counts.context_values,
            )
            self._states = self.contexts.states
        self._seen = self._states.view()
        self._seen.flags.writeable = False
        self._everyone = np.ones(n, bool)
        self.live(self._everyone)
        self._buffers: dict[int, Buffers] = {}
        self._chooser = world.reward if world.generator is None else world.generator
        self._distribute = slate_distribution(
            world.regulariser, world.eta, world.outside, world.head
        )

    @property
    def states(self) -> FloatArray:
        """The users' states now, shape (n, state_dim); read-only, overwritten by the next `reset`
        or `step`.

        A model that reads the context of events has states that end with the context: the next
        logged event's where the world has a log, else the one given last.

        Raises:
            ConfigError: the model reads context, and a user has none yet.
        """
        if self.contexts is not None:
            self.contexts.require(self._everyone)
        return self._seen

    def reset(self, keys: KeyArray, rows: IntArray | None = None) -> None:
        """Start users anew, without history or after a logged prefix that their key draws."""
        users: IntArray | slice = slice(None) if rows is None else rows
        self.session_counts.reset(users)
        self.encoder.reset(users)
        if self.world.starts is not None:
            who = np.arange(self.n, dtype=np.int32) if rows is None else np.asarray(rows, np.int32)
            self.world.starts.play(self, who, keys)
        if self.contexts is not None:
            self.contexts.reset(users, keys)

    def step(
        self,
        slates: IntArray,
        keys: KeyArray,
        active: BoolArray | None = None,
        context: Context | None = None,
    ) -> Response:
        """Show each user a slate (n, k) and let them choose; their states move on.

        Args:
            slates: an item, or `NO_ITEM`, at each place.
            keys: one for each user.
            active: who takes part; None: all.
            context: of this event, made by `LearnedWorld.context_of`; None: the one that the users
                have, given before or from the log.

        Raises:
            ConfigError: the slates are not of n users, or hold a number that is no item; or the
                model reads context, and an active user has none.
        """
        slates = self._checked(slates)
        self.take(context, active)
        response, who = no_choices(self.n), self._everyone if active is None else active
        do([self.stepping(slates, np.ascontiguousarray(keys, np.uint64), who, response)])
        return response

    def stepping(
        self, slates: IntArray, keys: KeyArray, who: BoolArray, response: Response
    ) -> Work:
        """What a step of the users `who`, (n,), has to do, and to write to `response`; the other
        arrays have a row for each of the first `n_live` users, and nothing is checked."""
        b = self._counted_buffer(slates.shape[1])
        if self._distribute is None:

            def by_hand() -> None:
                self._by_hand(b)
                self._run(partial(self._move, b=b, keys=keys, who=who, response=response))
                self._moved(b, who)

            return Work(partial(self._score, b=b, slates=slates, who=who), self._cuts, by_hand)

        def step_part(first: int, last: int) -> None:
            self._weigh(first, last, b, slates, who)
            self._move(first, last, b, keys, who, response)

        return Work(step_part, self._cuts, partial(self._moved, b, who))

    def live(self, who: BoolArray) -> None:
        """Let these users alone, (n,), be computed from now on; nothing is asked of the others."""
        self.n_live = n = int(np.flatnonzero(who).max(initial=-1)) + 1
        self._cuts = cuts_of(n)
        self._everyone[:] = who

    def take(self, context: Context | None, active: BoolArray | None = None) -> None:
        """Have a context of each user, or each active one: the given one, or one from before.

        Raises:
            ConfigError: it is not one of n users, a user has none, or the model reads none.
        """
        if self.contexts is None:
            if context is not None:
                raise ConfigError("a context is given, and the model reads none: leave it out")
            return
        who = self._everyone if active is None else active
        if context is not None:
            self.contexts.give(context, who)
        self.contexts.require(who)

    def advance(self, active: BoolArray, chosen: IntArray, numbers: FloatArray) -> None:
        """Move the active users' histories on by a choice: table rows (n, 1, ·), -1 for no click,
        and numbers (n, 1, d).

        In the parts of a step."""
        advance = partial(self.encoder.advance, active=active, chosen=chosen, numbers=numbers)
        threads.run(advance, self._cuts if self.encoder.in_parts else [(0, self.n)])

    def follow(
        self,
        slates: IntArray,
        places: IntArray,
        active: BoolArray | None = None,
        context: Context | None = None,
    ) -> None:
        """Let each user see a slate and choose as somebody else did, place (n,) or -1 for nothing;
        states move on, of those in `active`.

        Raises:
            ConfigError: as `step`.
        """
        slates, who = self._checked(slates), self._everyone if active is None else active
        self.take(context, active)
        do([self.following(slates, np.asarray(places, np.int32), who)])

    def following(self, slates: IntArray, places: IntArray, who: BoolArray) -> Work:
        """What `follow` has to do; arrays as in `stepping`."""
        n, k = slates.shape
        b, keys, clicked = self._counted_buffer(k), np.zeros(n, np.uint64), np.empty(n, np.bool_)
        followed = np.empty(n, np.int32), np.empty(n, np.int32)

        def follow_part(first: int, last: int) -> None:
            part = slice(first, last)
            chosen = who[part, None] & (places[part, None] == np.arange(k))
            # numbers take most of the time, and a history reads those of what was chosen alone
            clicked[part] = chosen.any(axis=1)
            self._show(first, last, b, slates, clicked)
            b.probs[part], b.none[part] = chosen, ~clicked[part]
            self._draw(first, last, b, keys, *followed)
            self._display(first, last, b, slates, who)
            self._remember(first, last, b, who, followed[1])

        return Work(follow_part, self._cuts, partial(self._moved, b, who))

    def acted(self, items: IntArray, action: str) -> None:
        """As the base says. Raises ConfigError as there."""
        tell_rows(self, self.rows_of_action(items, action))

    def rows_of_action(self, items: IntArray, action: str) -> IntArray:
        """What `acted` tells, (n, ·), -1 for `NO_ITEM`. Raises ConfigError as there."""
        if self.world.action_rows is None:
            super().acted(items, action)
        assert self.world.action_rows is not None
        items = checked_slates(np.reshape(items, (-1, 1)), self.n, self.world.n_items)[:, 0]
        return self.world.action_rows.of(items, action)

    def utilities(
        self, pools: IntArray, k: int | None = None, context: Context | None = None
    ) -> FloatArray:
        """Each user's utility now of each item of a pool, (n, m) or one for all (m,); shape (n, m),
        0 at an empty place.

        Each item as one of an average slate of k; with None the pool is the display set. `context`
        as in `step`; the users keep it.

        Raises:
            ConfigError: the pools are not of n users, hold a number that is no item, or k is not
                positive; or the model reads context, and a user has none.
        """
        if k is not None and k < 1:
            raise ConfigError(f"a slate has at least 1 item, got k = {k}")
        pools = self._checked(pools, any_rows=True)
        self.take(context)
        result = np.empty((self.n, pools.shape[-1]), np.float32)
        at_once = max(1, POOL_PLACES // max(pools.shape[-1], 1))
        for first in range(0, self.n_live, at_once):
            last = min(first + at_once, self.n_live)
            self._pool_utilities(first, last, pools, k or 0, result)
        return result

    def probabilities(
        self, slates: IntArray, context: Context | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Probability of each place of the slates (n, k), and of no click (n,); no history moves.

        `context` as in `step`; the users keep it."""
        slates = self._checked(slates)
        self.take(context)
        b = self._buffer(slates.shape[1])
        score = self._score if self._distribute is None else self._weigh
        self._run(partial(score, b=b, slates=slates, who=self._everyone))
        if self._distribute is None:
            self._by_hand(b)
        return b.probs.copy(), b.none.copy()

    def _run(self, function: Callable[[int, int], None]) -> None:
        threads.run(function, self._cuts)

    def _checked(self, slates: IntArray, any_rows: bool = False) -> IntArray:
        return checked_slates(slates, self.n, self.world.n_items, any_rows)

    def _buffer(self, k: int) -> Buffers:
        if k not in self._buffers or len(self._buffers[k].none) < self.n_live:
            # whole parts: the number of users who live in a member changes with every reset
            room = min(-(-self.n_live // PART) * PART, self.n)
            self._buffers[k] = Buffers(self.world.catalogue, room, k)
        return self._buffers[k]

    def _counted_buffer(self, k: int) -> Buffers:
        """The buffer of slates that will be counted."""
        self.session_counts.make_room(k, self.n_live)
        return self._buffer(k)

    def _weigh(self, first: int, last: int, b: Buffers, slates: IntArray, who: BoolArray) -> None:
        """Probabilities of the displayed places."""
        self._score(first, last, b, slates, who)
        assert self._distribute is not None
        self._distribute(first, last, SlateProbabilities(b.rows, b.scores, b.probs, b.none))

    def _score(self, first: int, last: int, b: Buffers, slates: IntArray, who: BoolArray) -> None:
        """What is displayed, its numbers, and its scores by the network that chooses."""
        self._show(first, last, b, slates, who)
        self._chooser.write(first, last, Slates(b.rows, 0), b.numbers, self._states, b.scores)

    def _show(self, first: int, last: int, b: Buffers, slates: IntArray, who: BoolArray) -> None:
        """What is displayed, and its numbers."""
        self._display(first, last, b, slates, who)
        self.session_counts.write(first, last, Slates(b.rows, 0), b.numbers)

    def _display(self, first: int, last: int, b: Buffers, slates: IntArray, who: BoolArray) -> None:
        """What is displayed."""
        catalogue = self.world.catalogue
        kernels.displayed_rows(
            first, last, slates, who, len(catalogue.ids), catalogue.n_positions, b.rows
        )

    def _draw(
        self, first: int, last: int, b: Buffers, keys: KeyArray, places: IntArray, items: IntArray
    ) -> None:
        """Draw what is chosen."""
        kernels.draw_places(
            first,
            last,
            b.probs,
            b.none,
            keys,
            kernels.Displayed(b.rows, b.numbers),
            kernels.Chosen(places, items, b.chosen, b.chosen_numbers),
        )

    def _move(
        self, first: int, last: int, b: Buffers, keys: KeyArray, who: BoolArray, response: Response
    ) -> None:
        """Draw, and move on."""
        self._draw(first, last, b, keys, response.places, response.items)
        reward, states = self.world.reward, self._states
        if self._chooser is not reward and not reward.reads_slate:
            utilities = response.utilities[:, None]
            chosen = Slates(b.chosen, 0)
            reward.write(first, last, chosen, b.chosen_numbers, states, utilities)
        else:
            if self._chooser is not reward:
                reward.write(first, last, Slates(b.rows, 0), b.numbers, states, b.scores)
            kernels.take_places(first, last, b.scores, response.places, response.utilities)
        self._remember(first, last, b, who, response.items)

    def _remember(self, first: int, last: int, b: Buffers, who: BoolArray, items: IntArray) -> None:
        """Count what was shown and chosen, and move the histories on."""
        self.session_counts.count(first, last, who, b.rows, items)
        if self.encoder.in_parts:
            self.encoder.advance(first, last, who, b.chosen, b.chosen_numbers)

    def _moved(self, b: Buffers, who: BoolArray) -> None:
        """What is left of a step when all parts have moved."""
        if not self.encoder.in_parts:
            self.encoder.advance(0, self.n, who, b.chosen, b.chosen_numbers)
        if self.contexts is not None:
            self.contexts.move_on(who, self.n_live)

    def _by_hand(self, b: Buffers) -> None:
        """Probabilities under a regulariser that no kernel knows: all but Shannon's."""
        n = self.n_live
        shown = b.rows[:n, :, 0] >= 0
        users = shown.any(axis=1)
        offsets = torch.from_numpy(
            np.concatenate([[0], np.cumsum(shown[users].sum(axis=1))]).astype(np.int32)
        )
        scores = torch.from_numpy(self.world.eta * b.scores[:n][shown])
        dist: ChoiceDistribution = self.world.regulariser.best_response(
            scores, offsets, self.world.outside
        )
        b.probs[:], b.none[:] = 0.0, 1.0
        b.probs[:n][shown] = dist.probs.numpy()
        b.none[:n][users] = dist.outside_prob.numpy()

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
        states, scores = self._states[first:last], result[first:last]
        of_pools = Slates(rows, k)

        def write(begin: int, end: int) -> None:
            session_counts.write(begin, end, of_pools, numbers)
            self.world.reward.write(begin, end, of_pools, numbers, states, scores)

        step = max(1, PART * 16 // max(pools.shape[-1], 1))
        threads.run(write, [(begin, min(begin + step, n)) for begin in range(0, n, step)])

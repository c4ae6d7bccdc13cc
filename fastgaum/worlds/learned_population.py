"""LearnedPopulation: users of a `LearnedWorld`.

A step scores what is displayed, turns scores into probabilities, draws each user's choice by its
key, and moves the histories on. It costs as many users as take part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastgaum.arrays import BoolArray, FloatArray, IntArray, KeyArray
from fastgaum.errors import ConfigError
from fastgaum.kernels import slates as kernels
from fastgaum.kernels.candidate_counts import UserDisplays
from fastgaum.models.users import ShownDisplays, Users
from fastgaum.worlds.context import Context, UserContexts
from fastgaum.worlds.world import NO_ITEM, Population, Response, checked_slates

if TYPE_CHECKING:
    from fastgaum.worlds.learned_world import LearnedWorld

POOL_PLACES = 1 << 20
"""places of pools that are scored at once"""


class LearnedPopulation(Population):
    """Users of a `LearnedWorld`."""

    def __init__(self, world: LearnedWorld, n: int) -> None:
        self.world, self.n = world, n
        self.users = Users(world.networks, n, within=True)
        self.contexts: UserContexts | None = None
        if world.context is not None:
            logged, within = world.logged_contexts, world.starts is not None
            self.contexts = UserContexts(world.context, logged, within, self.users)
        self._everyone = np.ones(n, np.bool_)
        self._seen = self.users.states.view()
        self._seen.flags.writeable = False

    @property
    def states(self) -> FloatArray:
        """The users' states now, shape (n, state_dim); read-only, overwritten by the next `reset`
        or `step`.

        A model that reads the context of events has states that end with the context: the next
        logged event's where the world has a log, else the one given last.

        Raises:
            ConfigError: the model reads context, and a user has none yet.
        """
        self.take(None)
        return self._seen

    def reset(self, keys: KeyArray, rows: IntArray | None = None) -> None:
        """Start users anew, without history or after a logged prefix that their key draws."""
        who = np.arange(self.n, dtype=np.int32)
        if rows is not None:
            # `ShownDisplays` wants users in their order
            order = np.argsort(rows)
            who, keys = np.asarray(rows, np.int32)[order], np.asarray(keys)[order]
        self.users.reset(who)
        if self.world.starts is not None:
            self.world.starts.play(self.users, who, keys)
        if self.contexts is not None:
            self.contexts.reset(who, keys)

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
        slates = checked_slates(slates, self.n, self.world.n_items)
        self.take(context, active)
        who, users, networks = self._who(active), self.users, self.world.networks
        shown, places = self._show(slates, who)
        scores, offsets = users.scores(networks.chooser, shown), shown.batch.offsets
        probs, none = networks.distribution(scores, offsets)
        chosen = np.empty(len(who), np.int32)
        keys = np.ascontiguousarray(keys, np.uint64)[who]
        kernels.draw_choices(offsets, probs, none, keys, chosen)
        clicked = chosen >= 0
        at, of = chosen[clicked], who[clicked]
        response = Response(
            np.full(self.n, -1, np.int32),
            np.full(self.n, NO_ITEM, np.int32),
            np.zeros(self.n, np.float32),
        )
        response.places[of], response.items[of] = places[at], shown.items[at]
        if networks.chooser is networks.reward:
            response.utilities[of] = scores[at]
        else:
            response.utilities[who] = users.utilities(shown, chosen)
        self._move(shown, chosen, active)
        return response

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
        slates = checked_slates(slates, self.n, self.world.n_items)
        self.take(context, active)
        who = self._who(active)
        shown, place_of = self._show(slates, who)
        sizes = np.diff(shown.batch.offsets)
        wanted = np.repeat(np.asarray(places, np.int32)[who], sizes)
        found = np.flatnonzero(place_of == wanted).astype(np.int32)
        chosen = np.full(len(who), -1, np.int32)
        chosen[np.repeat(np.arange(len(who)), sizes)[found]] = found
        self._move(shown, chosen, active)

    def acted(self, items: IntArray, action: str) -> None:
        """As the base says. Raises ConfigError as there."""
        self.users.act(*self.ids_of_action(items, action))

    def ids_of_action(self, items: IntArray, action: str) -> tuple[IntArray, IntArray]:
        """The users who act, and the feature ids of their actions. Raises ConfigError as
        `acted`."""
        if self.world.action_ids is None:
            super().acted(items, action)
        assert self.world.action_ids is not None
        items = checked_slates(np.reshape(items, (-1, 1)), self.n, self.world.n_items)[:, 0]
        who = np.flatnonzero(items != NO_ITEM).astype(np.int32)
        return who, self.world.action_ids.of(items[who], action)

    def utilities(
        self,
        pools: IntArray,
        k: int | None = None,
        context: Context | None = None,
        active: BoolArray | None = None,
    ) -> FloatArray:
        """Each user's utility now of each item of a pool, (n, m) or one for all (m,); shape (n, m),
        0 at an empty place.

        Each item as one of an average slate of k; with None the pool is the display set. `context`
        as in `step`; the users keep it. Of users outside `active` nothing is asked: 0.

        Raises:
            ConfigError: the pools are not of n users, hold a number that is no item, or k is not
                positive; or the model reads context, and a user has none.
        """
        if k is not None and k < 1:
            raise ConfigError(f"a slate has at least 1 item, got k = {k}")
        pools = checked_slates(pools, self.n, self.world.n_items, any_rows=True)
        self.take(context, active)
        m, everyone = pools.shape[-1], self._who(active)
        result = np.zeros((self.n, m), np.float32)
        at_once = max(1, POOL_PLACES // max(m, 1))
        for first in range(0, len(everyone), at_once):
            who = everyone[first : first + at_once]
            of_users = np.broadcast_to(pools if pools.ndim == 1 else pools[who], (len(who), m))
            held = of_users >= 0
            offsets = np.append(0, np.cumsum(held.sum(axis=1))).astype(np.int32)
            shown = self._shown(UserDisplays(who, offsets, of_users[held]), k or 0)
            scores = self.users.scores(self.world.networks.reward, shown, examined=not k)
            result[np.repeat(who, np.diff(offsets)), np.nonzero(held)[1]] = scores
        return result

    def probabilities(
        self, slates: IntArray, context: Context | None = None, active: BoolArray | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Probability of each place of the slates (n, k), and of no click (n,); no history moves.

        `context` as in `step`; the users keep it. Of users outside `active` nothing is asked: they
        choose nothing."""
        slates = checked_slates(slates, self.n, self.world.n_items)
        self.take(context, active)
        who = self._who(active)
        shown, places = self._show(slates, who)
        offsets, networks = shown.batch.offsets, self.world.networks
        found, nothing = networks.distribution(self.users.scores(networks.chooser, shown), offsets)
        probs, none = np.zeros(slates.shape, np.float32), np.ones(self.n, np.float32)
        probs[np.repeat(who, np.diff(offsets)), places], none[who] = found, nothing
        return probs, none

    def _who(self, active: BoolArray | None) -> IntArray:
        """The active users."""
        return np.flatnonzero(self._everyone if active is None else active).astype(np.int32)

    def _show(self, slates: IntArray, who: IntArray) -> tuple[ShownDisplays, IntArray]:
        """What some users are displayed, and the place in the slate of each candidate."""
        k, offsets = slates.shape[1], np.empty(len(who) + 1, np.int32)
        items, places = np.empty((2, len(who) * k), np.int32)
        n_items = self.world.n_items
        n = kernels.find_displayed(slates, who, n_items, offsets, items, places)
        return self._shown(UserDisplays(who, offsets, items[:n]), 0), places[:n]

    def _shown(self, displays: UserDisplays, set_size: int) -> ShownDisplays:
        catalogue, items = self.world.catalogue, displays.items
        ids, numbers = catalogue.ids.take(items, 0), catalogue.fixed.take(items, 0)
        return self.users.show(displays, ids, numbers, items, set_size)

    def _move(self, shown: ShownDisplays, chosen: IntArray, active: BoolArray | None) -> None:
        self.users.move(shown, chosen)
        if self.contexts is not None:
            self.contexts.move_on(self._everyone if active is None else active)

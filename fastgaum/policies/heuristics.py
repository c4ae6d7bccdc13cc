"""Policies that do not learn: random, popular, greedy, and the best items by a model fitted on a
log.

The two greedy policies read the users' minds (`Observation.users`): in the world that they were
made in they know what a recommender with a perfect one-step model would know. In another world
`transfer.TransferPolicy` shows them the users of their own world instead."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl

from fastgaum.errors import ConfigError
from fastgaum.logs.log import SessionLog
from fastgaum.models.choice_model import ChoiceModel
from fastgaum.policies.base import BoolArray, Observation, Policy, Transition, items_at, top_places
from fastgaum.worlds.pools import draw_distinct
from fastgaum.worlds.world import NO_ITEM, FloatArray, IntArray, Past, World

_TEST = 2


class RandomPolicy(Policy):
    """Distinct items of the pool, each slate as likely: the floor of every policy table."""

    name = "random"

    def act(self, observation: Observation, k: int) -> IntArray:
        """Draw k distinct items of each user's pool, shape (n, k)."""
        places = draw_distinct(observation.keys, observation.pools.shape[-1], k)
        return items_at(observation.pools, places)


class Popular(Policy):
    """The items of the pool that were chosen most, the same for every user.

    Attributes:
        popularity: by item number, shape (n_items,).
    """

    name = "popular"

    def __init__(self, popularity: FloatArray) -> None:
        """Take a popularity per item. Raises ConfigError unless it is a vector of finite
        numbers."""
        self.popularity = np.asarray(popularity, np.float32)
        if self.popularity.ndim != 1 or not np.isfinite(self.popularity).all():
            raise ConfigError(
                f"a popularity is one finite number per item, got the shape {self.popularity.shape}"
            )

    @classmethod
    def of_log(cls, world: World, log: SessionLog) -> Popular:
        """Popularity = how often the log's training split chose each of the world's items."""
        sessions = log.sessions_in("train")
        events = np.isin(log.session_of_event, sessions) & (np.asarray(log.choices) >= 0)
        chosen = np.asarray(log.items)[(np.asarray(log.display_offsets)[:-1] + log.choices)[events]]
        counts = np.bincount(chosen, minlength=len(log.item_ids))
        by_id = dict(zip(log.item_ids.cast(str).to_list(), counts.tolist(), strict=True))
        return cls(np.array([by_id.get(item, 0) for item in world.item_ids.to_list()], np.float32))

    def act(self, observation: Observation, k: int) -> IntArray:
        """The k most popular items of each pool, ties to the first in the pool, shape (n, k)."""
        pools = observation.pools if observation.pools.ndim == 2 else observation.pools[None]
        slates = items_at(pools, top_places(self.popularity[pools], k))
        return np.array(np.broadcast_to(slates, (observation.users.n, k)))


class Greedy(Policy):
    """The k items of the largest learned utility."""

    name = "greedy"

    def act(self, observation: Observation, k: int) -> IntArray:
        """The k items of largest utility, best first, shape (n, k)."""
        return items_at(
            observation.pools, top_places(observation.users.utilities(observation.pools, k), k)
        )


class GreedyClick(Policy):
    """The slate of the largest probability of any click, 1 − P(no click), built item by item.

    Where choices are a best response to utilities that do not depend on the display, the k items of
    largest utility are that
    slate: P(no click) falls with each utility. A generator's distribution, or utilities relative to
    the display set, need not agree, so each place takes the item that lowers P(no click) most, of
    the `width` items of largest utility. Where no click is never offered, every slate is certain of
    one and ties leave the order by utility."""

    name = "greedy-click"

    def __init__(self, width: int = 16) -> None:
        """Try so many items per place. Raises ConfigError for fewer than one."""
        if width < 1:
            raise ConfigError(f"width must be at least 1 item, got {width}")
        self.width = width

    def act(self, observation: Observation, k: int) -> IntArray:
        """Grow each slate by the item that lowers P(no click) most, shape (n, k)."""
        users, pools = observation.users, observation.pools
        width = min(max(self.width, k), pools.shape[-1])
        shortlist = items_at(pools, top_places(users.utilities(pools, k), width))
        slates = np.full((users.n, k), NO_ITEM, np.int32)
        free = np.ones((users.n, width), bool)
        rows = np.arange(users.n)
        for place in range(k):
            none = np.empty((users.n, width), np.float32)
            for i in range(width):
                slates[:, place] = shortlist[:, i]
                none[:, i] = users.probabilities(slates)[1]
            best = _least(none, free)
            slates[:, place] = shortlist[rows, best]
            free[rows, best] = False
        return slates


def _least(values: FloatArray, allowed: np.ndarray) -> np.ndarray:
    """Place of each row's least allowed value; values equal to six digits are ties, and go to the
    first place."""
    return np.asarray(np.where(allowed, np.round(values, 6), np.inf).argmin(axis=1))


class ModelPolicy(Policy):
    """The k items of a pool that a fitted model finds most useful to a user with this session.
    W&D-LR and W&D-CCF, the paper's rivals, are such models.

    Each `ChoiceModel` scores display sets of a log. So the users met are kept as a log: what each
    was shown and chose, and as a last event the pool. The model encodes that as it encodes any
    held-out session, and the pool is ranked by its utilities."""

    def __init__(self, name: str, model: ChoiceModel, world: World) -> None:
        """Take a fitted model and the world whose users it is to serve.

        Raises:
            ConfigError: the model is not fitted, or reads columns that a simulated candidate has
                not.
        """
        if model.space is None:
            raise ConfigError(f"{name} has not been trained: call fit first")
        if model.space.reads_columns:
            raise ConfigError(
                f"{name} reads columns of the log, which simulated candidates lack: fit it without "
                "them"
            )
        self.name, self.model = name, model
        self.item_ids = world.item_ids.cast(pl.String)
        self.events: list[Past] = []

    def start(self, n: int, past: Iterable[Past] = ()) -> None:
        """Meet n users with what they have behind them."""
        self.events = list(past)

    def act(self, observation: Observation, k: int) -> IntArray:
        """The k items of largest utility, shape (n, k)."""
        pools = np.broadcast_to(
            observation.pools, (observation.users.n, observation.pools.shape[-1])
        )
        return items_at(pools, top_places(self.utilities(pools), k))

    def observe(self, transition: Transition) -> None:
        """Remember what was shown and chosen."""
        self.events.append(Past(transition.slates, transition.response.places, transition.active))

    def utilities(self, pools: IntArray) -> FloatArray:
        """The model's utilities of pools (n, m) after the sessions so far, shape (n, m)."""
        log, m = self._log(pools), pools.shape[1]
        parts = [self.model.utility(batch).numpy() for batch in self.model.tensors(log, "all")]
        # the pool is the last event of each session
        starts = log.display_offsets[log.session_offsets[1:] - 1]
        return np.asarray(np.concatenate(parts)[starts[:, None] + np.arange(m)], np.float32)

    def _log(self, pools: IntArray) -> SessionLog:
        n = len(pools)
        events = [*self.events, Past(pools, np.zeros(n, np.int32), np.ones(n, np.bool_))]
        shown = [_displayed(event) for event in events]
        sizes = np.stack([mask.sum(axis=1) for mask in shown], axis=1)
        # what is not displayed is counted out of the place of the choice
        choices = [
            np.where(e.places >= 0, mask.cumsum(axis=1)[np.arange(n), e.places] - 1, -1)
            for e, mask in zip(events, shown, strict=True)
        ]
        happened = sizes > 0
        items = np.concatenate([event.slates for event in events], axis=1)[
            np.concatenate(shown, axis=1)
        ]
        return SessionLog(
            session_offsets=_offsets(happened.sum(axis=1)),
            display_offsets=_offsets(sizes[happened]),
            items=items.astype(np.int32),
            choices=np.stack(choices, axis=1)[happened].astype(np.int32),
            split=np.full(n, _TEST, np.int8),
            users=np.arange(n, dtype=np.int32),
            session_ids=pl.Series("session", [str(i) for i in range(n)], dtype=pl.String),
            event_ids=pl.Series("event", np.nonzero(happened)[1]),
            item_ids=self.item_ids,
            name="rollout",
        )


def _displayed(event: Past) -> BoolArray:
    """Places of each user's event that show something, (n, k): none where there was no event, or
    what was chosen is unknown."""
    chosen = event.slates[np.arange(len(event.slates)), event.places]
    there = event.active & ((event.places < 0) | (chosen >= 0))
    return np.asarray((event.slates >= 0) & there[:, None])


def _offsets(counts: IntArray) -> IntArray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)

"""Policies that do not learn: random, popular and greedy.

The two greedy policies read the users' minds (`Observation.users`): in the world that they were
made in they know what a recommender with a perfect one-step model would know. In another world
`transfer.TransferPolicy` shows them the users of their own world instead."""

from __future__ import annotations

import numpy as np

from fastgaum.errors import ConfigError
from fastgaum.logs.log import SessionLog
from fastgaum.policies.base import Observation, Policy, items_at, top_places
from fastgaum.worlds.random_keys import draw_distinct
from fastgaum.worlds.world import NO_ITEM, FloatArray, IntArray, World


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

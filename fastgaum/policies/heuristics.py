"""Policies that do not learn: random, popular and greedy, which reads the users' minds
(`Observation.users`)."""

from __future__ import annotations

import numpy as np
from scipy.special import comb

from fastgaum.arrays import Float64Array, FloatArray, IntArray
from fastgaum.errors import ConfigError
from fastgaum.logs.log import SessionLog
from fastgaum.policies.base import Observation, Policy, items_at, top_places
from fastgaum.worlds.pools import draw_distinct
from fastgaum.worlds.world import World


class RandomPolicy(Policy):
    """Distinct items of the pool, each slate as likely."""

    name = "random"

    def act(self, observation: Observation, k: int) -> IntArray:
        """As the base says."""
        places = draw_distinct(observation.keys, observation.pools.shape[-1], k)
        return items_at(observation.pools, places)

    def propensities(
        self, observation: Observation, own: IntArray, slates: IntArray
    ) -> Float64Array:
        """As the base says."""
        return np.full(len(slates), 1 / comb(observation.pools.shape[-1], slates.shape[1]))


class Popular(Policy):
    """The items of the pool that were chosen most: `popularity` by item number, shape
    (n_items,)."""

    name = "popular"
    deterministic = True

    def __init__(self, popularity: FloatArray) -> None:
        """Take a popularity per item. Raises ConfigError unless it is a vector of finite
        numbers."""
        self.popularity = np.asarray(popularity, np.float32)
        if self.popularity.ndim != 1 or not np.isfinite(self.popularity).all():
            raise ConfigError(
                f"a popularity is one finite number per item, got the shape {self.popularity.shape}"
            )

    @classmethod
    def of_log(cls, world: World | SessionLog, log: SessionLog) -> Popular:
        """Popularity = how often the log's training split chose each item of a world, or log.
        Raises ConfigError where it chose none of them."""
        sessions = log.sessions_in("train")
        events = np.isin(log.session_of_event, sessions) & (np.asarray(log.choices) >= 0)
        chosen = np.asarray(log.items)[(np.asarray(log.display_offsets)[:-1] + log.choices)[events]]
        counts = np.bincount(chosen, minlength=len(log.item_ids))
        by_id = dict(zip(log.item_ids.cast(str).to_list(), counts.tolist(), strict=True))
        popularity = np.array([by_id.get(item, 0) for item in world.item_ids.to_list()], np.float32)
        if not popularity.any():
            raise ConfigError(
                f"popular shows the items that training chose most, and the {len(sessions):,} "
                f"training sessions of log '{log.name}' chose none of the {len(popularity):,} "
                "items: split the log (--split-by user, split='user'), or take another policy"
            )
        return cls(popularity)

    def act(self, observation: Observation, k: int) -> IntArray:
        """As the base says, ties to the first in the pool."""
        pools = observation.pools if observation.pools.ndim == 2 else observation.pools[None]
        slates = items_at(pools, top_places(self.popularity[pools], k))
        return np.array(np.broadcast_to(slates, (observation.users.n, k)))


class Greedy(Policy):
    """The k items of the largest learned utility, best first."""

    name = "greedy"
    deterministic = True

    def act(self, observation: Observation, k: int) -> IntArray:
        """As the base says."""
        return items_at(
            observation.pools, top_places(observation.users.utilities(observation.pools, k), k)
        )

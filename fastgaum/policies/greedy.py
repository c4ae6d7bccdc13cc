"""Greedy: the best slate for the next choice alone, by what the simulated user itself would say.

Both policies here read the users' minds (`Observation.users`): in the world that they were learned
from they know what a recommender with a perfect one-step model would know. Followed users
(`following.Followed`) lend them those of another world."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fastgaum.errors import ConfigError
from fastgaum.policies.base import Observation, Policy, items_at, top_places
from fastgaum.worlds.world import NO_ITEM, FloatArray, IntArray


class Greedy(Policy):
    """The k items of the largest learned utility."""

    name: ClassVar[str] = "greedy"

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

    name: ClassVar[str] = "greedy-click"

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

"""Random: distinct items of the pool, each slate as likely."""

from __future__ import annotations

from typing import ClassVar

from fastgaum.policies.base import Observation, Policy, items_at
from fastgaum.worlds.random_keys import distinct
from fastgaum.worlds.world import IntArray


class Random(Policy):
    """Shows what chance gives; the floor of every policy table."""

    name: ClassVar[str] = "random"

    def act(self, observation: Observation, k: int) -> IntArray:
        """Draw k distinct items of each user's pool, shape (n, k)."""
        places = distinct(observation.keys, observation.pools.shape[-1], k)
        return items_at(observation.pools, places)

"""Explore: what is deployed to learn from, a policy of which a share is random. It knows how
probable each set was that it shows (`Policy.propensities`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Literal, get_args

import numpy as np
from scipy.special import comb

from fastgaum.arrays import Float64Array, IntArray
from fastgaum.errors import ConfigError, require_known
from fastgaum.policies.base import Observation, Policy, Transition, items_at
from fastgaum.policies.heuristics import RandomPolicy
from fastgaum.policies.q_learning import explore
from fastgaum.worlds.pools import draw_distinct, draw_uniforms
from fastgaum.worlds.world import Past

ExploreBy = Literal["place", "slate"]
_COIN = np.uint64(1)
"""flips keys: policies draw by the keys themselves"""
_INNER = np.uint64(0x9E3779B97F4A7C15)
"""added to the keys of the policy within, which may flip coins too"""


class Explore(Policy):
    """Another policy, of whose places or slates a share is random.

    Random sets of the pool are each as likely; a random place holds an item that the kept places do
    not. The propensity of a set S of k of m items, which shares o items with the policy's own:

        place      Σ_i C(o, i) (1 − s)^i s^(k − i) / C(m − i, k − i),    i ≤ o of its items kept
        slate      s / C(m, k) + (1 − s) P(S)

    P(S) is that of the policy within: 1 for its own set if it is deterministic. By place, what a
    policy within draws is taken as given."""

    def __init__(self, policy: Policy, share: float, by: ExploreBy = "slate") -> None:
        """Take the policy and the share. Raises ConfigError for a share outside [0, 1], or another
        `by`."""
        if not 0.0 <= share <= 1.0:
            raise ConfigError(f"a share from 0 to 1 is explored, got {share!r}")
        require_known("by", by, get_args(ExploreBy))
        self.policy, self.share, self.by, self.chance = policy, share, by, RandomPolicy()
        what = "random" if by == "slate" else f"of {by}s random"
        self.name, self.made_in = f"{policy.name}, {100 * share:g} % {what}", policy.made_in

    def start(self, n: int, past: Iterable[Past] = ()) -> None:
        """As the base says."""
        self.policy.start(n, past)

    def act(self, observation: Observation, k: int) -> IntArray:
        """As the base says."""
        within = dataclasses.replace(observation, keys=observation.keys + _INNER)
        own = self.policy.act(within, k)
        self._acted = within, own
        keys, m = observation.keys, observation.pools.shape[-1]
        if self.by == "place":
            drawn = draw_distinct(keys, m, min(2 * k, m))
            return explore(own, items_at(observation.pools, drawn), keys, self.share)
        random = self.chance.act(observation, k)
        return np.where(draw_uniforms(keys ^ _COIN, 1) < self.share, random, own).astype(np.int32)

    def propensities(
        self, observation: Observation, own: IntArray, slates: IntArray
    ) -> Float64Array:
        """As the base says."""
        within, own = self._acted
        m, k, share = observation.pools.shape[-1], slates.shape[1], self.share
        if self.by == "slate":
            plain = self.policy.propensities(within, own, slates)
            return np.asarray(share / comb(m, k) + (1 - share) * plain)
        shared = (own[:, :, None] == slates[:, None, :]).sum(axis=(1, 2))
        kept = np.arange(k + 1)
        each = (1 - share) ** kept * share ** (k - kept) / comb(m - kept, k - kept)
        return np.asarray((comb(shared[:, None], kept) * each).sum(axis=1))

    def observe(self, transition: Transition) -> None:
        """As the base says."""
        self.policy.observe(transition)

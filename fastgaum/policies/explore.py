"""Explore: what is deployed to learn from, a policy of which a share of the slates is random."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
from scipy.special import comb

from fastgaum.arrays import Float64Array, IntArray
from fastgaum.errors import ConfigError
from fastgaum.policies.base import Observation, Policy, Transition
from fastgaum.policies.heuristics import RandomPolicy
from fastgaum.worlds.pools import draw_uniforms
from fastgaum.worlds.world import Past, displayed

_COIN = np.uint64(1)
"""flips keys: policies draw by the keys themselves"""
_INNER = np.uint64(0xD1342543DE82EF95)
"""added to the keys of the policy within, which may flip coins too"""


class Explore(Policy):
    """Another policy, a share s of whose slates are random sets of the pool, each as likely. A set
    S of k of m items has the propensity s / C(m, k) + (1 − s) P(S), where P(S) is that of the
    policy within."""

    def __init__(self, policy: Policy, share: float) -> None:
        """Take the policy and the share. Raises ConfigError for a share outside [0, 1]."""
        if not 0.0 <= share <= 1.0:
            raise ConfigError(f"a share from 0 to 1 is explored, got {share!r}")
        self.policy, self.share = policy, share
        self.name, self.made_in = f"{policy.name}, {100 * share:g} % random", policy.made_in

    def start(self, n: int, past: Iterable[Past] = ()) -> None:
        """As the base says."""
        self.policy.start(n, past)

    def act(self, observation: Observation, k: int) -> IntArray:
        """As the base says."""
        within = dataclasses.replace(observation, keys=observation.keys + _INNER)
        self._acted = within, self.policy.act(within, k)
        random = RandomPolicy().act(observation, k)
        coins = draw_uniforms(observation.keys ^ _COIN, 1)
        return np.where(coins < self.share, random, self._acted[1]).astype(np.int32)

    def propensities(
        self, observation: Observation, own: IntArray, slates: IntArray
    ) -> Float64Array:
        """As the base says."""
        within, own, slates = self._acted[0], displayed(self._acted[1]), displayed(slates)
        # a random set repeats no item, and has no empty place
        random = np.where((slates < 0).any(axis=1), 0.0, self.share)
        random /= comb(within.pools.shape[-1], slates.shape[1])
        return np.asarray(random + (1 - self.share) * self.policy.propensities(within, own, slates))

    def observe(self, transition: Transition) -> None:
        """As the base says."""
        self.policy.observe(transition)

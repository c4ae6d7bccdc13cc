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
from fastgaum.policies.base import Observation, Policy, Transition, displayed, items_at
from fastgaum.policies.heuristics import RandomPolicy
from fastgaum.policies.q_learning import explore
from fastgaum.worlds.pools import draw_distinct, draw_uniforms
from fastgaum.worlds.world import Past

ExploreBy = Literal["place", "slate", "session"]
_COIN = np.uint64(1)
"""flips keys: policies draw by the keys themselves"""
_INNER = np.uint64(0xD1342543DE82EF95)
"""added to the keys of the policy within, which may flip coins too; a draw adds another number for
its next one"""


class Explore(Policy):
    """Another policy, of whose places, slates or sessions a share is random.

    Random sets of the pool are each as likely; a random place holds an item that the kept places do
    not. The propensity of a set S of k of m items, which shares o items with the policy's own:

        place      Σ_i C(o, i) (1 − s)^i s^(k − i) / C(m − i, k − i),    i ≤ o of its items kept
        slate      s / C(m, k) + (1 − s) P(S)
        session    the same, where s is the probability, after the slates so far, that the session
                   is a random one

    P(S) is that of the policy within: 1 for its own set if it is deterministic. By place, what a
    policy within draws is taken as given; nothing is known (NaN) where its slate repeats an item or
    has an empty place. By session, a log says little of random slates: a session that has shown the
    policy's own ones is hardly ever random."""

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
        self._at_random: Float64Array = np.full(n, float(self.share))
        """probability that a user's slate is random, as its slates so far say"""
        self._coins: Float64Array | None = None
        self.policy.start(n, past)

    def act(self, observation: Observation, k: int) -> IntArray:
        """As the base says."""
        if not hasattr(self, "_coins"):
            raise ConfigError("a policy meets its users in start: call start(n) before act")
        within = dataclasses.replace(observation, keys=observation.keys + _INNER)
        own = self.policy.act(within, k)
        self._acted = within, own
        keys, m = observation.keys, observation.pools.shape[-1]
        if self.by == "place":
            drawn = draw_distinct(keys, m, min(2 * k, m))
            return explore(own, items_at(observation.pools, drawn), keys, self.share)
        if self._coins is None or self.by == "slate":
            self._coins = draw_uniforms(keys ^ _COIN, 1)
        random = self.chance.act(observation, k)
        return np.where(self._coins < self.share, random, own).astype(np.int32)

    def propensities(
        self, observation: Observation, own: IntArray, slates: IntArray
    ) -> Float64Array:
        """As the base says."""
        within = self._acted[0]
        own, slates = displayed(self._acted[1]), displayed(slates)
        m, k = observation.pools.shape[-1], slates.shape[1]
        if self.by == "place":
            shared = (own[:, :, None] == slates[:, None, :]).sum(axis=(1, 2))
            kept = np.arange(k + 1)
            each = (1 - self.share) ** kept * self.share ** (k - kept) / comb(m - kept, k - kept)
            found = (comb(shared[:, None], kept) * each).sum(axis=1)
            return np.where((own < 0).any(axis=1), np.nan, found)
        plain = self.policy.propensities(within, own, slates)
        return np.asarray(self._by_chance(m, slates) + (1 - self._at_random) * plain)

    def observe(self, transition: Transition) -> None:
        """As the base says."""
        if self.by == "session":
            within, own = self._acted
            shown = self.propensities(within, own, transition.slates)
            random = self._by_chance(within.pools.shape[-1], displayed(transition.slates))
            known = transition.active & (shown > 0)
            self._at_random = np.divide(random, shown, out=self._at_random.copy(), where=known)
        self.policy.observe(transition)

    def _by_chance(self, m: int, slates: IntArray) -> Float64Array:
        # a random set repeats no item, and has no empty place
        sets = self._at_random / comb(m, slates.shape[1])
        return np.where((slates < 0).any(axis=1), 0.0, sets)

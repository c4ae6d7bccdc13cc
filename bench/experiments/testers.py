"""Testers: ten policies from bad to good, by which one can see whether two worlds rank policies
alike; and policies that log.

`Noisy` and `Alternating` are made of other policies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np

from fastgaum.policies.base import Observation, Policy, Transition
from fastgaum.policies.heuristics import Greedy, Popular, RandomPolicy
from fastgaum.worlds.pools import draw_uniforms
from fastgaum.worlds.world import FloatArray, IntArray, Past

LOGGING = ("random", "popular", "greedy")
"""names of policies that log: every slate of the first is random, half of the others' slates are"""
HALF = 0.5
APART = 3.0
"""standard errors by which the truth tells two policies apart"""
_NOISE = np.uint64(1)
"""flips the keys of the noise: policies draw by the keys themselves"""


class Noisy(Policy):
    """Another policy, of whose slates a share is random: each with that probability, apart from
    the others."""

    def __init__(self, policy: Policy, share: float = HALF) -> None:
        """Take the policy and the share."""
        self.policy, self.share, self.chance = policy, share, RandomPolicy()
        self.name = f"{policy.name}, {100 * share:g} % random"

    def start(self, n: int, past: Iterable[Past] = ()) -> None:
        """Let the policy meet the users."""
        self.policy.start(n, past)

    def act(self, observation: Observation, k: int) -> IntArray:
        """The policy's slates or random ones, shape (n, k)."""
        noise = draw_uniforms(observation.keys ^ _NOISE, 1) < self.share
        return np.where(
            noise, self.chance.act(observation, k), self.policy.act(observation, k)
        ).astype(np.int32)

    def observe(self, transition: Transition) -> None:
        """Let the policy see what came of all slates."""
        self.policy.observe(transition)


class Alternating(Policy):
    """Two policies in turn: the first shows slates 0, 2, 4, …, the second the others. Made of
    greedy and the least popular items it gives users a rest from what tires them."""

    name = "alternating"

    def __init__(self, even: Policy, odd: Policy) -> None:
        self.policies, self.step = (even, odd), 0

    def start(self, n: int, past: Iterable[Past] = ()) -> None:
        """Begin with the first policy, whatever is behind the users."""
        events = list(past)
        self.step = 0
        for policy in self.policies:
            policy.start(n, events)

    def act(self, observation: Observation, k: int) -> IntArray:
        """The slates of the policy whose turn it is, shape (n, k)."""
        return self.policies[self.step % 2].act(observation, k)

    def observe(self, transition: Transition) -> None:
        """Let both see what came of it."""
        self.step += 1
        for policy in self.policies:
            policy.observe(transition)


def ten_testers(trained: Policy, popularity: FloatArray) -> list[Policy]:
    """Ten policies: a trained one, greedy, popular and unpopular slates, each also with half of its
    slates random, random ones, and greedy in turn with the unpopular.

    Args:
        trained: a policy that was trained in the world they are made for.
        popularity: of each item of that world, shape (n_items,).
    """
    unpopular = Popular(-np.asarray(popularity))
    unpopular.name = "unpopular"
    plain: Sequence[Policy] = (trained, Greedy(), Popular(popularity), unpopular)
    return [
        *plain,
        *map(Noisy, plain),
        RandomPolicy(),
        Alternating(Greedy(), unpopular),
    ]


def rank_agreement(promised: Sequence[float], paid: Sequence[FloatArray]) -> float:
    """Kendall's tau of promises and of what was paid, over those pairs of policies that the truth
    tells apart: (agreeing − disagreeing) / pairs, NaN without such a pair.

    A pair is told apart where the mean difference of the same users' returns is more than
    `APART` standard errors: the order of two policies that earn the same means nothing.

    Args:
        promised: by policy.
        paid: returns of the same users under each policy, each of shape (n_users,).
    """
    signs = []
    for (one, a), (other, b) in combinations(zip(promised, paid, strict=True), 2):
        difference = np.subtract(a, b, dtype=np.float64)
        error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else np.inf
        if abs(difference.mean()) > APART * error:
            signs.append(np.sign(one - other) * np.sign(difference.mean()))
    return float(np.mean(signs)) if signs else float("nan")


def logging_policy(name: str, popularity: FloatArray) -> Policy:
    """A policy of `LOGGING` for the users themselves, whose minds it reads; `popularity` is that of
    their items, shape (n_items,)."""
    return {
        "random": RandomPolicy(),
        "popular": Noisy(Popular(popularity)),
        "greedy": Noisy(Greedy()),
    }[name]

"""Policy: a rule that shows slates to many users at once, and may learn from what they did."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fastgaum.arrays import BoolArray, Float64Array, FloatArray, IntArray, KeyArray
from fastgaum.errors import ConfigError
from fastgaum.worlds.world import Past, Population, Response, World, displayed

MOST_DECOYS = 1 / 3
"""where users always choose, no policy is recommended of whose displayed items more are decoys"""


@dataclass(frozen=True)
class Observation:
    """A policy sees this before it acts."""

    users: Population
    """whom slates are for. Most learners read `states` alone; the greedy policies and slateq read
    the simulated users' minds: utilities and probabilities"""
    pools: IntArray
    """the items that may be shown, (m,) for all, or (n, m)"""
    keys: KeyArray
    """a key per user for the policy's own draws, shape (n,)"""
    left: float
    """share of the episode that is left, 1 at its first step"""
    met: Population | None = None
    """those who choose, for who writes down their minds: of a set of worlds `users` are what they
    are taken to be"""

    @property
    def states(self) -> FloatArray:
        """The users' states, shape (n, state_dim)."""
        return self.users.states


@dataclass(frozen=True)
class Transition:
    """One step of all users; arrays are copies that stay as they are."""

    states: FloatArray
    """before the choice, shape (n, state_dim)"""
    left: float
    """share of the episode that was left then"""
    slates: IntArray
    """items shown, shape (n, k)"""
    response: Response
    rewards: FloatArray
    """shape (n,)"""
    next_states: FloatArray
    next_left: float
    """0 after the last step"""
    next_pools: KeyArray
    """keys of the next step's pools, for `Pool.draw`, shape (n,)"""
    active: BoolArray
    """who was shown a slate, shape (n,); the others earn 0"""
    ended: BoolArray
    """who left after this step, shape (n,)"""
    pools: IntArray
    """the items that could be shown, (m,) for all, or (n, m)"""
    decoys: BoolArray | None = None
    """`decoys_of` the slates, by those who choose, (n, k); None where they were not counted"""


class Policy(ABC):
    """Base of all policies."""

    name: str
    """its name on the command line"""
    made_in: str = ""
    """fingerprint of the only world that it plays in, or empty"""
    deterministic: bool = False
    """whether one observation always gets the same slate"""

    def require_world(self, world: World) -> None:
        """Raise ConfigError if it reads the states, or the numbers of items, of another world."""
        if self.made_in and self.made_in != world.fingerprint:
            raise ConfigError(
                f"{self.name} reads the states of the world that it was made in, and the "
                f"{type(world).__name__} has others: judge it with own=…, its world "
                "(judge_seeds(policies, world, setting, own=own)), or play TransferPolicy(policy, "
                "own, world), which plays in that world alone and is judged without own"
            )

    def start(self, n: int, past: Iterable[Past] = ()) -> None:  # noqa: B027
        """Meet n users with what they have behind them."""

    @abstractmethod
    def act(self, observation: Observation, k: int) -> IntArray:
        """Choose a slate of k distinct items of its pool for each user, shape (n, k)."""

    def propensities(
        self, observation: Observation, own: IntArray, slates: IntArray
    ) -> Float64Array:
        """Probability with which each user was shown a set of items, (n, k), in a step in which
        `act` has just made `own` of the observation; shape (n,). NaN, not known, unless the policy
        is deterministic or has its own rule."""
        if not self.deterministic:
            return np.full(len(own), np.nan)
        return np.asarray((np.sort(own) == np.sort(slates)).all(axis=1), np.float64)

    def observe(self, transition: Transition) -> None:  # noqa: B027
        """See what came of the last slates."""


def items_at(pools: IntArray, places: IntArray) -> IntArray:
    """The items at places of the pools, (n, k), for pools (m,) or (n, m)."""
    return pools[places] if pools.ndim == 1 else np.take_along_axis(pools, places, axis=1)


def decoys_of(slates: IntArray, pools: IntArray, utilities: FloatArray) -> BoolArray:
    """Which displayed items of slates (n, k) have a utility below the median of their pool's, whose
    items are (m,) or (n, m) and their utilities (n, m); shape (n, k).

    >>> decoys_of(np.array([[4, 5]]), np.array([4, 5, 6]), np.array([[0.0, 2.0, 1.0]], np.float32))
    array([[ True, False]])"""
    low = utilities < np.median(utilities, axis=1, keepdims=True)
    # a place at a time: pools may hold the whole catalogue
    places = [(low & (pools == item[:, None])).any(axis=1) for item in displayed(slates).T]
    return np.stack(places, axis=1)


def decoys_text(share: float) -> str:
    """Why a policy with so many decoys is not recommended where users always choose."""
    return (
        f"{share:.0%} of the items that it shows are below the median utility of its user's pool, "
        f"at most {MOST_DECOYS:.0%} are allowed where users always choose: there, utility and "
        "contrast pay most for one good item among items that no user picks"
    )


def top_places(scores: FloatArray, k: int) -> IntArray:
    """Places of the k largest scores of each row, best first, ties to the first place, shape (n,
    k).

    >>> top_places(np.array([[0.0, 2.0, 1.0, 2.0]], np.float32), 3)
    array([[1, 3, 2]], dtype=int32)"""
    scores = np.array(scores, np.float32)
    places = np.empty((len(scores), k), np.int32)
    rows = np.arange(len(scores))
    for j in range(k):
        places[:, j] = scores.argmax(axis=1)
        scores[rows, places[:, j]] = -np.inf
    return places

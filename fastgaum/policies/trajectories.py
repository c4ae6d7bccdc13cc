"""Trajectories: episodes of a policy in a world written down as a log, a row per displayed
candidate.

The columns are those of the long layout, so that `fastgaum data audit` and `train` read them back,
and beside them what a log cannot have: each candidate's utility and probability before the choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from fastgaum.errors import ConfigError
from fastgaum.policies.base import BoolArray, LearningPolicy, Observation, Policy, Transition
from fastgaum.policies.registry import Sources, make_policy
from fastgaum.policies.rollout import Setting, rollout
from fastgaum.worlds.pools import Pool, PoolKind
from fastgaum.worlds.rules import Leaving
from fastgaum.worlds.world import NO_ITEM, IntArray, Past, World

ROWS = 1 << 19
"""rows made at once; what is written does not depend on it"""


@dataclass(frozen=True)
class Episodes:
    """Which episodes are played. Raises ConfigError for an impossible value."""

    number: int
    """how many; episode i is the same whatever the number"""
    slate_size: int = 10
    """items of a slate"""
    horizon: int = 20
    """steps at most"""
    pool: PoolKind | Sequence[int] | Pool = "fixed"
    """fixed, per_user or per_step; the items themselves; or a policy's own pool, which knows its
    size"""
    pool_size: int | None = None
    """items of a pool; None: the whole catalogue"""
    leaving: Leaving | None = None
    """probability of leaving after a step"""
    seed: int = 0
    """the one source of randomness"""

    def __post_init__(self) -> None:
        for name in ("number", "slate_size", "horizon", "pool_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(
                    f"{name} of episodes is {getattr(self, name)}, at least 1 is required"
                )
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}, a number from 0 is required")

    @property
    def setting(self) -> Setting:
        """The same for a rollout. Raises ConfigError as `Setting` and `Pool`."""
        if isinstance(self.pool, Pool):
            pool = self.pool
        elif isinstance(self.pool, str):
            pool = Pool(self.pool, self.pool_size or 0, seed=self.seed)
        else:
            pool = Pool("fixed", self.pool_size or 0, tuple(self.pool), self.seed)
        return Setting(self.slate_size, self.horizon, pool, leaving=self.leaving)


def trajectories(
    world: World,
    episodes: Episodes,
    policy: str | Policy = "random",
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[pl.DataFrame]:
    """Play episodes and yield their rows, some episodes at a time: memory does not grow with their
    number.

    Args:
        world: whose users.
        episodes: how many, and of what kind.
        policy: what makes slates; by name random, greedy and greedy-click, or popular in a learned
            world. A policy that learns does not learn here.
        progress: called with events done and events at most.

    Returns:
        frames of session, event, item (as in the world's `item_ids`), chosen (0 or 1), utility,
        probability; rows in the order of session, event and display. An event without a click has
        no chosen row.

    Raises:
        ConfigError: an unknown policy, or a pool that does not fill a slate.
    """
    if isinstance(policy, str):
        policy = make_policy(policy, world, Sources.of(world))
    if isinstance(policy, LearningPolicy):
        policy.learning = False
    episodes.setting.pool.check(world.n_items, episodes.slate_size)
    at_once = int(np.clip(ROWS // (episodes.horizon * episodes.slate_size), 1, 4096))
    for first in range(0, episodes.number, at_once):
        last = min(first + at_once, episodes.number)
        yield _played(world, episodes, policy, first, last)
        if progress is not None:
            progress(last * episodes.horizon, episodes.number * episodes.horizon)


class _Recorder(Policy):
    """Shows what a policy shows, and writes down what users thought of it."""

    def __init__(self, policy: Policy, shape: tuple[int, int, int]) -> None:
        self.policy, self.step = policy, 0
        self.name = policy.name
        self.items: IntArray = np.full(shape, NO_ITEM, np.int32)
        self.chosen = np.zeros(shape, np.int8)
        self.utility, self.probability = np.zeros((2, *shape), np.float32)

    def start(self, n: int, past: Iterable[Past] = ()) -> None:
        self.policy.start(n, past)

    def act(self, observation: Observation, k: int) -> IntArray:
        slates = _displayed(self.policy.act(observation, k))
        self.utility[:, self.step] = observation.users.utilities(slates)
        self.probability[:, self.step] = observation.users.probabilities(slates)[0]
        return slates

    def observe(self, transition: Transition) -> None:
        there: BoolArray = transition.active
        self.items[there, self.step] = transition.slates[there]
        clicked = np.flatnonzero(there & (transition.response.places >= 0))
        self.chosen[clicked, self.step, transition.response.places[clicked]] = 1
        self.step += 1
        self.policy.observe(transition)


def _played(
    world: World, episodes: Episodes, policy: Policy, first: int, last: int
) -> pl.DataFrame:
    """The rows of episodes first to last − 1."""
    recorder = _Recorder(policy, (last - first, episodes.horizon, episodes.slate_size))
    for _ in rollout(world, recorder, episodes.setting, last - first, episodes.seed, first):
        pass
    session, event, place = np.nonzero(recorder.items >= 0)
    return pl.DataFrame(
        {
            "session": session.astype(np.int64) + first,
            "event": event.astype(np.int32),
            "item": world.item_ids.gather(recorder.items[session, event, place]),
            "chosen": recorder.chosen[session, event, place],
            "utility": recorder.utility[session, event, place],
            "probability": recorder.probability[session, event, place],
        }
    )


def _displayed(slates: IntArray) -> IntArray:
    """Slates without what is not displayed: a repeated item."""
    slates = np.array(slates, np.int32)
    for place in range(1, slates.shape[1]):
        slates[(slates[:, :place] == slates[:, place, None]).any(axis=1), place] = NO_ITEM
    return slates

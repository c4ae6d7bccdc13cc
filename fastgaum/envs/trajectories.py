"""Trajectories: episodes of a world written down as a log, a row per displayed candidate.

The columns are those of the long layout, so that `fastgaum data audit` and `train` read them back, and beside them what a
log cannot have: each candidate's utility and probability before the choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.envs.keys import CHOICE, LEAVE, SLATE, START, Keys, uniform
from fastgaum.envs.pools import PoolKind, Pools
from fastgaum.envs.rules import Leaving, leaving_rule
from fastgaum.envs.world import NO_ITEM, FloatArray, IntArray, KeyArray, Population, World
from fastgaum.errors import ConfigError, did_you_mean
from fastgaum.kernels.keys import draw_without_replacement

Act = Callable[[Population, IntArray, KeyArray, int], IntArray]
"""act(users, pools, keys, k): a slate of k items for each user, (n, k), of its pool, (n, m), by its key, (n,)"""

ROWS = 1 << 19
"""rows made at once; what is written does not depend on it"""


def random_slates(users: Population, pools: IntArray, keys: KeyArray, k: int) -> IntArray:
    """Different items of each pool, every slate as likely."""
    places, at = np.empty((users.n, k), np.int32), np.empty(k, np.int64)
    everything = np.arange(pools.shape[1], dtype=np.int32)
    draw_without_replacement(keys, np.arange(users.n, dtype=np.int32), everything, at, places)
    return np.take_along_axis(pools, places, axis=1)


POLICIES: dict[str, Act] = {"random": random_slates}


@dataclass(frozen=True)
class Episodes:
    """Which episodes are played. Raises ConfigError for an impossible value."""

    number: int
    """how many; episode i is the same whatever the number"""
    slate_size: int = 10
    """items of a slate"""
    horizon: int = 20
    """steps at most"""
    pool: PoolKind = "fixed"
    """fixed, per_user or per_step"""
    pool_size: int | None = None
    """items of a pool; None: the whole catalogue"""
    leaving: Leaving | None = None
    """probability of leaving after a step"""
    seed: int = 0
    """the one source of randomness"""

    def __post_init__(self) -> None:
        for name in ("number", "slate_size", "horizon"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} of episodes is {getattr(self, name)}, at least 1 is required")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}, a number from 0 is required")


def trajectories(
    world: World,
    episodes: Episodes,
    policy: str | Act = "random",
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[pl.DataFrame]:
    """Play episodes and yield their rows, some episodes at a time: memory does not grow with their number.

    Args:
        world: whose users.
        episodes: how many, and of what kind.
        policy: a name of `POLICIES`, or what makes slates.
        progress: called with events done and events at most.

    Returns:
        frames of session, event, item (as in the world's `item_ids`), chosen (0 or 1), utility, probability; rows in the
        order of session, event and display. An event without a click has no chosen row.

    Raises:
        ConfigError: an unknown policy, or a pool that does not fill a slate.
    """
    if isinstance(policy, str):
        if policy not in POLICIES:
            raise ConfigError(
                f"policy is '{policy}', one of {', '.join(POLICIES)} is required{did_you_mean(policy, POLICIES)}"
            )
        policy = POLICIES[policy]
    at_once = int(np.clip(ROWS // (episodes.horizon * episodes.slate_size), 1, 4096))
    pools = Pools(world, 1, episodes.pool, episodes.pool_size, episodes.seed)
    if pools.size < episodes.slate_size:
        raise ConfigError(
            f"a pool of {pools.size} items does not fill a slate of {episodes.slate_size}: enlarge the pool or shrink it"
        )
    for first in range(0, episodes.number, at_once):
        last = min(first + at_once, episodes.number)
        yield _played(world, episodes, policy, first, last)
        if progress is not None:
            progress(last * episodes.horizon, episodes.number * episodes.horizon)


def _played(world: World, episodes: Episodes, act: Act, first: int, last: int) -> pl.DataFrame:
    """The rows of episodes first to last − 1."""
    n, k, horizon = last - first, episodes.slate_size, episodes.horizon
    users, keys = world.population(n), Keys(n)
    pools = Pools(world, n, episodes.pool, episodes.pool_size, episodes.seed)
    leaving = None if episodes.leaving is None else leaving_rule(episodes.leaving)
    keys.seed(episodes.seed, keys.everyone, first)
    keys.start(keys.everyone)
    users.reset(keys.of(START))
    items = np.full((n, horizon, k), NO_ITEM, np.int32)
    chosen = np.zeros((n, horizon, k), np.int8)
    utility, probability = np.zeros((2, n, horizon, k), np.float32)
    there = np.ones(n, np.bool_)
    for step in range(horizon):
        if pools.kind == "per_step" or (pools.kind == "per_user" and step == 0):
            pools.draw(keys, keys.everyone)
        slates = _displayed(act(users, pools.of(keys.everyone), keys.of(SLATE), k), there)
        items[:, step] = slates
        utility[:, step] = users.utilities(slates)
        probability[:, step] = users.probabilities(slates)[0]
        response = users.step(slates, keys.of(CHOICE), there)
        clicked = np.flatnonzero(response.places >= 0)
        chosen[clicked, step, response.places[clicked]] = 1
        keys.steps += 1
        if leaving is not None:
            there &= uniform(keys.of(LEAVE)) >= leaving(response, keys.steps, users.states)
    return _rows(world, first, items, chosen, utility, probability)


def _displayed(slates: IntArray, there: npt.NDArray[np.bool_]) -> IntArray:
    """Slates without what is not displayed: a repeated item, and all of a user who has left."""
    slates = np.array(slates, np.int32)
    for place in range(1, slates.shape[1]):
        slates[(slates[:, :place] == slates[:, place, None]).any(axis=1), place] = NO_ITEM
    slates[~there] = NO_ITEM
    return slates


def _rows(
    world: World,
    first: int,
    items: IntArray,
    chosen: npt.NDArray[np.int8],
    utility: FloatArray,
    probability: FloatArray,
) -> pl.DataFrame:
    session, event, place = np.nonzero(items >= 0)
    return pl.DataFrame({
        "session": session.astype(np.int64) + first,
        "event": event.astype(np.int32),
        "item": world.item_ids.gather(items[session, event, place]),
        "chosen": chosen[session, event, place],
        "utility": utility[session, event, place],
        "probability": probability[session, event, place],
    })  # fmt: skip

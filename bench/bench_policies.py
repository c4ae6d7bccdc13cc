"""Large pools: the cascade's slates for 1,024 users out of 100,000 items, in milliseconds.

Three networks, each scanned over the whole pool for every user, on all threads: the users' parts
are computed anew at each call, the items' parts are kept, as they are between two updates.
`policies-argmax` is the default network, 16 wide for such a pool, `-32` the one that smaller pools
have. The slates of a few users are checked against scores
computed one by one with torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import numpy as np
import polars as pl
import pytest
import torch

from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.dqn import CascadeDqn
from fastgaum.policies.q_network import QNetwork
from fastgaum.worlds.pools import Pool
from fastgaum.worlds.world import FloatArray, IntArray, Population, World

SETTINGS = {
    "policies-argmax": PolicyConfig(),
    "policies-argmax-32": PolicyConfig(width=32),
}
GROUPS = dict.fromkeys(SETTINGS)
K, STATE, FEATURES = 3, 20, 18
BAR = 100.0
"""milliseconds, on two cores"""


class Catalogue(World):
    """Items with features and users with states, who never choose: all that an arg-max reads of a
    world."""

    def __init__(self, n_items: int) -> None:
        self.item_ids = pl.Series([str(i) for i in range(n_items)], dtype=pl.String)
        self.item_features: FloatArray = np.random.default_rng(0).standard_normal(
            (n_items, FEATURES), np.float32
        )
        self.state_dim, self.outside = STATE, False

    def population(self, n: int) -> Population:
        raise NotImplementedError("only the catalogue of this world is read")


@cache
def catalogue(full: bool) -> Catalogue:
    return Catalogue(100_000 if full else 300)


@pytest.mark.parametrize("group", SETTINGS)
def test_argmax(record: Callable[..., None], full: bool, group: str) -> None:
    world, n = catalogue(full), 1024 if full else 20
    policy = CascadeDqn(world, K, Pool(), SETTINGS[group])
    states = policy.reading(np.random.default_rng(1).standard_normal((n, STATE), np.float32), 0.5)
    pool = np.arange(world.n_items, dtype=np.int32)
    places = policy.best(states, pool, policy.target)
    assert_best(policy, states[:3], places[:3])
    best = float("inf")
    for _ in range(15 if full else 1):
        started = time.perf_counter()
        policy.best(states, pool, policy.target)
        best = min(best, time.perf_counter() - started)
    bar = BAR if group == "policies-argmax" else None
    record(1000 * best, f"ms, {n:,} users, {world.n_items:,} items, k = {K}", at_most=bar)
    record(n * world.n_items * K / best / 1e9, "10⁹ items scored per second")


def assert_best(policy: CascadeDqn, states: FloatArray, places: IntArray) -> None:
    """Nobody's place j scores less than the best item that the slate does not hold yet, to
    rounding."""
    features = torch.from_numpy(policy.item_features)
    for state, slate in zip(torch.from_numpy(states), places, strict=True):
        for j, scorer in enumerate(policy.target):
            assert isinstance(scorer, QNetwork)
            before = features[slate[:j].astype(np.int64)][None].expand(len(features), -1, -1)
            with torch.no_grad():
                scores = scorer(state.expand(len(features), -1), before, features)
            scores[slate[:j].astype(np.int64)] = -torch.inf
            assert scores[slate[j]] >= scores.max() - 1e-4

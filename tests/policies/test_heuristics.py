"""Policies that learn nothing: random, popular, greedy by utility and by click."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import polars as pl
import pytest
from scipy.stats import chisquare

from fastgaum.errors import ConfigError
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.user_model import UserModel
from fastgaum.policies.base import Observation, Policy, top_places
from fastgaum.policies.heuristics import Greedy, GreedyClick, Popular, RandomPolicy
from fastgaum.policies.registry import Sources, make_policy
from fastgaum.policies.rollout import Setting, play
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.pools import SLATE, START
from fastgaum.worlds.world import IntArray
from tests.builders import log_of
from tests.policies.contract import check_policy
from tests.policies.small_world import TiringWorld, keys_of


@pytest.mark.parametrize(
    "make",
    [
        lambda world, k: RandomPolicy(),
        lambda world, k: Popular(np.arange(world.n_items, dtype=np.float32)),
        lambda world, k: Greedy(),
        lambda world, k: GreedyClick(),
    ],
    ids=["random", "popular", "greedy", "greedy-click"],
)
def test_contract(make: object) -> None:
    check_policy(make)  # type: ignore[arg-type]


def observation(world: TiringWorld, n: int, pools: np.ndarray) -> Observation:
    users = world.population(n)
    users.reset(keys_of(0, n, START))
    return Observation(users, pools.astype(np.int32), keys_of(0, n, SLATE), 1.0)


def test_random_slates_are_uniform_in_every_place() -> None:
    slates = RandomPolicy().act(observation(TiringWorld(), 20_000, np.arange(7)), 3)
    for place in range(3):
        assert chisquare(np.bincount(slates[:, place], minlength=7)).pvalue > 1e-4


def test_greedy_takes_the_largest_utilities_in_order() -> None:
    world = TiringWorld()
    seen = observation(world, 5, np.array([2, 3, 4, 9, 10]))
    utilities = seen.users.utilities(seen.pools)
    expected = seen.pools[np.argsort(-utilities, axis=1, kind="stable")[:, :3]]
    np.testing.assert_array_equal(Greedy().act(seen, 3), expected)


@pytest.mark.parametrize("outside", [True, False])
def test_greedy_click_finds_the_slate_of_the_largest_click_probability(outside: bool) -> None:
    world = TiringWorld(7, outside=outside)
    seen = observation(world, 4, np.arange(7))
    got = seen.users.probabilities(GreedyClick().act(seen, 3))[1]
    slates = np.array(list(itertools.combinations(range(7), 3)), np.int32)
    least = np.min(
        [seen.users.probabilities(np.tile(slate, (4, 1)))[1] for slate in slates], axis=0
    )
    np.testing.assert_allclose(got, least, atol=1e-6)


def test_popular_counts_choices_of_the_training_split_by_id() -> None:
    train = [[([0, 1], 1), ([1, 2], 0), ([0, 2], -1)], [([0, 1, 2], 2)]]
    test = [[([0, 1], 0)]] * 5
    log = log_of([*train, *test], [0, 0, 2, 2, 2, 2, 2])
    world = TiringWorld(4)
    world.item_ids = pl.Series(["i2", "i1", "i0", "unseen"])
    assert Popular.of_log(world, log).popularity.tolist() == [1, 2, 0, 0]


def test_popular_needs_a_number_per_item() -> None:
    with pytest.raises(ConfigError, match="finite number per item"):
        Popular(np.array([1.0, np.nan]))


def test_ties_go_to_the_first_place() -> None:
    assert top_places(np.zeros((1, 4), np.float32), 2).tolist() == [[0, 1]]


def test_greedy_earns_more_at_once_and_less_in_the_end() -> None:
    """The small world is one in which greed is short-sighted; otherwise the learners' tests would
    show nothing."""
    world, setting = TiringWorld(), Setting(3, 20)
    greedy, chance = (
        play(world, policy, setting, 2000, seed=1) for policy in (Greedy(), RandomPolicy())
    )
    assert greedy.rewards[:, 0].mean() > chance.rewards[:, 0].mean() + 0.1
    assert greedy.returns.mean() < chance.returns.mean() - 0.5


def test_a_published_model_ranks_pools_of_an_ordered_log_without_places() -> None:
    """Pool and slate lie in other places: what was learned of a log's places must not rank them."""
    log, _ = synthesise(400, n_items=12, no_click=0.2, max_display=6, mean_display=4.0)
    log = dataclasses.replace(log, ordered=True)
    model = UserModel.from_preset("fastgaum", epochs=1, warm_start=2, catch_up=1, search=[])
    model.fit(log)
    world = LearnedWorld(model)
    policy = make_policy("wd-lr", world, Sources(log=log))
    pool = np.arange(world.n_items, dtype=np.int32)
    slates = [policy_slates(policy, world, order) for order in (pool, pool[::-1].copy())]
    np.testing.assert_array_equal(np.sort(slates[0]), np.sort(slates[1]))
    assert len(set(slates[0][0].tolist())) == 3


def policy_slates(policy: Policy, world: LearnedWorld, pool: IntArray) -> IntArray:
    users = world.population(5)
    users.reset(np.arange(5, dtype=np.uint64))
    policy.start(5)
    return policy.act(Observation(users, pool, np.arange(5, dtype=np.uint64), 1.0), 3)

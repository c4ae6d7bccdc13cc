"""Policies that learn nothing: random, popular, greedy."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy.stats import chisquare

from fastgaum.errors import ConfigError
from fastgaum.policies.base import Observation
from fastgaum.policies.heuristics import Greedy, Popular, RandomPolicy
from fastgaum.policies.rollout import Setting, play
from fastgaum.worlds.pools import SLATE, START
from tests.builders import log_of
from tests.policies.contract import check_policy
from tests.policies.small_world import TiringWorld, keys_of


@pytest.mark.parametrize(
    "make",
    [
        lambda world, k: RandomPolicy(),
        lambda world, k: Popular(np.arange(world.n_items, dtype=np.float32)),
        lambda world, k: Greedy(),
    ],
    ids=["random", "popular", "greedy"],
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


def test_popular_counts_choices_of_the_training_split_by_id() -> None:
    train = [[([0, 1], 1), ([1, 2], 0), ([0, 2], -1)], [([0, 1, 2], 2)]]
    test = [[([0, 1], 0)]] * 5
    log = log_of([*train, *test], [0, 0, 2, 2, 2, 2, 2])
    world = TiringWorld(4)
    world.item_ids = pl.Series(["i2", "i1", "i0", "unseen"])
    assert Popular.of_log(world, log).popularity.tolist() == [1, 2, 0, 0]


def test_popular_of_no_choice_is_refused() -> None:
    log = log_of([[([0, 1], 0)], [([1, 2], -1)]], [2, 0])
    with pytest.raises(
        ConfigError, match=r"1 training sessions of log .* chose none of the 3 item"
    ):
        Popular.of_log(log, log)


def test_popular_needs_a_number_per_item() -> None:
    with pytest.raises(ConfigError, match="finite number per item"):
        Popular(np.array([1.0, np.nan]))


def test_greedy_earns_more_at_once_and_less_in_the_end() -> None:
    """The small world is one in which greed is short-sighted; otherwise the learners' tests would
    show nothing."""
    world, setting = TiringWorld(), Setting(3, 20)
    greedy, chance = (
        play(world, policy, setting, 2000, seed=1) for policy in (Greedy(), RandomPolicy())
    )
    assert greedy.rewards[:, 0].mean() > chance.rewards[:, 0].mean() + 0.1
    assert greedy.returns.mean() < chance.returns.mean() - 0.5

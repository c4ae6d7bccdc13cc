"""Pools that a function makes of users' states, and the vectors that it may order a catalogue by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fastgaum.errors import ConfigError
from fastgaum.models.user_model import UserModel
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.vector_env import UserVectorEnv
from tests.builders import random_log
from tests.worlds.simulated import keys_of

N, SIZE = 20, 5


@pytest.fixture(scope="module")
def world() -> LearnedWorld:
    """Whose utilities are their towers' products alone."""
    model = UserModel.from_preset(
        "fastgaum", epochs=2, warm_start=2, catch_up=1, tower_dim=6, search=[], folds=0
    )
    model.fit(random_log(n_sessions=80, n_items=30))
    assert model.networks is not None
    reward = model.networks.player.reward
    assert reward.tower is not None
    assert reward.tower.items is not None
    assert reward.tower.numbers is not None
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in (*reward.rest[-1].parameters(), reward.tower.numbers.weight):
            parameter.zero_()
        # users who differ
        reward.tower.items.table.normal_()
        reward.tower.direct.weight.normal_(std=3)
    return LearnedWorld(model, "reward")


def test_products_of_vectors_are_utilities(world: LearnedWorld) -> None:
    users = world.population(N)
    users.reset(keys_of(0, N))
    for t in range(3):
        pools = np.tile(np.arange(world.n_items, dtype=np.int32), (N, 1))
        products = world.user_vectors(users.states) @ world.item_vectors.T
        np.testing.assert_allclose(users.utilities(pools), products, atol=1e-4)
        users.step(pools[:, :4], keys_of(t + 1, N))


def nearest(world: LearnedWorld) -> Callable[[np.ndarray], np.ndarray]:
    vectors = world.item_vectors

    def pools(states: np.ndarray) -> np.ndarray:
        products = world.user_vectors(states) @ vectors.T
        return np.argsort(-products, axis=1)[:, :SIZE]

    return pools


@pytest.mark.parametrize("observation", ["flat", "dict"])
def test_pools_follow_the_states(world: LearnedWorld, observation: Any) -> None:
    rule = nearest(world)
    env = UserVectorEnv(
        N,
        world=world,
        pool=rule,
        pool_size=SIZE,
        slate_size=2,
        observation=observation,
        leaving=0.3,
        horizon=4,
    )
    observed, info = env.reset(seed=1)
    seen = set()
    for t in range(6):
        np.testing.assert_array_equal(info["pool"], rule(env.users.states))
        if observation == "dict":
            np.testing.assert_array_equal(observed["pool"], info["pool"])
        else:
            features = world.item_features[info["pool"]].reshape(N, -1)
            np.testing.assert_allclose(observed[:, world.state_dim :], features)
        seen |= set(map(tuple, info["pool"].tolist()))
        before = info["pool"]
        observed, *_, info = env.step(np.tile([0, 1], (N, 1)))
        shown = info["item"][info["_item"]]
        assert np.isin(shown[shown >= 0], before[:, :2]).all(), t
    assert len(seen) > 10


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (lambda states: np.zeros((len(states), SIZE), int), "not distinct"),
        (lambda states: np.tile(np.arange(SIZE) + 40, (len(states), 1)), "0 to 29"),
        (lambda states: np.arange(SIZE), r"shape \(20, 5\)"),
        (lambda states: np.ones((len(states), SIZE)), "whole numbers"),
        (lambda states: None, "whole numbers"),
    ],
)
def test_what_is_no_pool_is_refused(world: LearnedWorld, rule: Any, says: str) -> None:
    env = UserVectorEnv(N, world=world, pool=rule, pool_size=SIZE, slate_size=2)
    with pytest.raises(ConfigError, match=says):
        env.reset(seed=0)


def test_a_function_needs_a_size_and_vectors_need_towers(world: LearnedWorld) -> None:
    for size in (None, 0, 31):
        with pytest.raises(ConfigError, match=r"pool_size|larger"):
            UserVectorEnv(N, world=world, pool=nearest(world), pool_size=size, slate_size=2)
    model = UserModel.from_preset("fastgaum", epochs=1, search=[], folds=0, tower_dim=0)
    plain = LearnedWorld(model.fit(random_log()))
    with pytest.raises(ConfigError, match="tower_dim=64"):
        _ = plain.item_vectors
    with pytest.raises(ConfigError, match="tower_dim=64"):
        plain.user_vectors(np.zeros((1, plain.state_dim), np.float32))

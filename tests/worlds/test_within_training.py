"""What a world computes of a display: utilities of pools are those of slates, and nothing leaves
what training has seen."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from fastgaum.features.fitting import fit_training
from fastgaum.features.number_columns import number_columns
from fastgaum.features.training_order import training_order
from fastgaum.kernels.candidate_formulas import SESSION_NUMBERS
from fastgaum.models.user_model import UserModel
from fastgaum.worlds.learned_world import LearnedPopulation, LearnedWorld
from tests.builders import random_log
from tests.live_users.online_users import fitted, log_of_kind
from tests.worlds.simulated import keys_of, play

PLAIN: dict[str, Any] = {"relations": False, "relative_numbers": False}


def moved(world: LearnedWorld, n: int = 5) -> LearnedPopulation:
    """Users who have a short past."""
    users = world.population(n)
    users.reset(keys_of(0, n))
    play(users, world, steps=2)
    return users


@pytest.mark.parametrize("changes", [PLAIN, {**PLAIN, "protocol": "identity"}], ids=str)
def test_a_pool_of_any_size_and_order_gives_an_item_the_same_utility(
    changes: dict[str, Any],
) -> None:
    world = LearnedWorld(fitted(random_log(4, n_sessions=60, n_items=40, no_click=0.3), **changes))
    users = moved(world)
    everything = users.utilities(np.arange(world.n_items, dtype=np.int32), 3)
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 7, 30):
        pools = np.stack([rng.permutation(world.n_items)[:size] for _ in range(5)]).astype(np.int32)
        np.testing.assert_allclose(
            users.utilities(pools, 3), np.take_along_axis(everything, pools, axis=1), atol=1e-5
        )
    # and that is the utility by which a slate of 3 is chosen from
    slates = pools[:, :3]
    response = users.step(slates, keys_of(5, 5))
    chose = response.places >= 0
    assert chose.any()
    np.testing.assert_allclose(
        response.utilities[chose],
        everything[chose, slates[chose, response.places[chose]]],
        atol=1e-5,
    )


@pytest.mark.parametrize("protocol", ["bags", "views"])
def test_an_item_of_a_pool_stands_first_where_order_matters(protocol: str) -> None:
    log = log_of_kind("fields", 4, 60)
    users = moved(LearnedWorld(fitted(log, **PLAIN, protocol=protocol), log=log))
    pool = np.array([4, 1, 7, 3], np.int32)
    utilities = users.utilities(pool, 2)
    np.testing.assert_array_equal(users.utilities(pool[::-1].copy(), 2), utilities[:, ::-1])
    for place, item in enumerate(pool):
        slate = np.array([item, 2], np.int32)
        np.testing.assert_allclose(users.utilities(slate)[:, 0], utilities[:, place], atol=1e-6)


def test_a_pool_of_k_items_is_the_slate() -> None:
    world = LearnedWorld(fitted(random_log(4, n_sessions=60, no_click=0.3), relations=True))
    users = moved(world)
    pools = np.array(
        [np.random.default_rng(i).permutation(world.n_items)[:4] for i in range(5)], np.int32
    )
    np.testing.assert_array_equal(users.utilities(pools, 4), users.utilities(pools))


def unbounded(model: UserModel) -> LearnedWorld:
    """The same model's world, of which nobody has said what training has seen."""
    world = LearnedWorld(model)
    space = world.catalogue.space
    nothing = np.full_like(space.least, np.inf)
    world.networks.space = dataclasses.replace(space, least=-nothing, most=nothing)
    return world


@pytest.mark.parametrize("changes", [PLAIN, {"relations": True}], ids=str)
def test_within_what_training_has_seen_nothing_changes(changes: dict[str, Any]) -> None:
    """The same bits as without bounds, for sessions no longer and slates no larger than
    training's."""
    model = fitted(random_log(4, n_sessions=120, n_items=40, max_length=6, no_click=0.3), **changes)
    users = [world.population(50) for world in (LearnedWorld(model), unbounded(model))]
    for one in users:
        one.reset(keys_of(0, 50))
    for t in range(3):
        # new items at every step: none has been displayed more often than in training
        slates = np.tile(np.arange(5 * t, 5 * t + 5, dtype=np.int32), (50, 1))
        bounded, free = (one.probabilities(slates) for one in users)
        assert np.array_equal(bounded[0], free[0])
        assert np.array_equal(bounded[1], free[1])
        responses = [one.step(slates, keys_of(t, 50)) for one in users]
        assert np.array_equal(responses[0].utilities, responses[1].utilities)
        assert np.array_equal(users[0].states, users[1].states)


def test_beyond_what_training_has_seen_the_nearest_of_it_stands() -> None:
    log = random_log(4, n_sessions=80, n_items=40, max_length=4, no_click=0.3)
    model = fitted(log, **PLAIN)
    users, free = moved(LearnedWorld(model)), moved(unbounded(model))
    pool = np.arange(10, dtype=np.int32)
    largest = int(np.diff(log.display_offsets).max())
    assert np.array_equal(users.utilities(pool, 400), users.utilities(pool, largest))
    assert np.abs(free.utilities(pool, 400) - free.utilities(pool, largest)).max() > 1e-4
    space = users.world.catalogue.space
    slates = np.tile(np.arange(30, dtype=np.int32), (5, 1))
    for t in range(20):
        users.step(slates, keys_of(t, 5))
    numbers = users._show(np.arange(5, dtype=np.int32), slates)[0].batch.numbers
    lines = slice(space.n_raw)
    raw = numbers[:, lines] * space.code.scale[lines] + space.code.start[lines]
    assert users.users.counts.users.events.min() > np.diff(log.session_offsets).max()
    for column in number_columns(SESSION_NUMBERS, space.number_names):
        assert (raw[:, column] <= space.most[column] + 1e-5).all()
        assert (raw[:, column] >= space.least[column] - 1e-5).all()


def test_ranges_are_those_of_the_training_sessions() -> None:
    log = random_log(4, n_sessions=80, n_items=40, no_click=0.3)
    space = fitted(log).space
    assert space is not None
    made_of = space.protocol, space.relative_numbers, space.relations is not None
    encoded = fit_training(log, *made_of, order=training_order(log))[1].numbers
    start, scale = space.code.start[: space.n_raw], space.code.scale[: space.n_raw]
    np.testing.assert_allclose((space.least - start) / scale, encoded.min(axis=0), atol=1e-5)
    np.testing.assert_allclose((space.most - start) / scale, encoded.max(axis=0), atol=1e-5)

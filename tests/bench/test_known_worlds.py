"""Worlds by name, and what rivalry takes from items that are alike."""

from __future__ import annotations

import numpy as np
import pytest

from fastgaum.bench.experiments.known_worlds import (
    KNOWN_WORLDS,
    true_users,
)
from fastgaum.bench.experiments.planning import Planner
from fastgaum.logs.synthetic import SyntheticWorld
from fastgaum.worlds.true_world import Bait, TrueWorld
from tests.worlds.simulated import keys_of


def rivals(n_items: int = 12) -> tuple[TrueWorld, TrueWorld]:
    """A world with rivalry, and the same without."""
    world = SyntheticWorld(n_items=n_items, no_click=0.3, max_display=4, mean_display=3.0)
    return TrueWorld(world, Bait(), rivalry=0.7), TrueWorld(world, Bait())


def test_alike_items_of_a_slate_take_from_each_other() -> None:
    world, plain = rivals()
    slates = np.array([[0, 1, 2], [3, 3, 4], [5, -1, 6], [7, 8, 9]], np.int32)
    users, others = world.population(4), plain.population(4)
    expected = others.utilities(slates).astype(np.float64)
    shown = [[0, 1, 2], [3, 4], [5, 6], [7, 8, 9]]
    for user, items in enumerate(shown):
        for place, item in enumerate(slates[user]):
            if item >= 0 and item not in slates[user, :place]:
                alike = [max(0.0, world.latents[item] @ world.latents[b]) for b in items]
                expected[user, place] -= 0.7 * (sum(alike) - alike[items.index(item)])
    found = users.utilities(slates)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # users choose by them
    odds = users.probabilities(slates[[0, 3]].repeat(2, axis=0))[0][[0, 2]]
    weights = np.exp(expected[[0, 3]])
    np.testing.assert_allclose(odds, weights / (1 + weights.sum(axis=1, keepdims=True)), atol=1e-6)
    chosen = users.step(slates, keys_of(0, 4))
    for user in np.flatnonzero(chosen.places >= 0):
        assert chosen.utilities[user] == pytest.approx(expected[user, chosen.places[user]])


def test_an_item_of_a_pool_has_the_rivals_of_an_average_slate() -> None:
    """The mean over all slates of 3 of the pool that hold the item."""
    world, _ = rivals(6)
    pool = np.arange(6, dtype=np.int32)
    of_pool = world.population(1).utilities(pool, 3)[0]
    pairs = [(a, b) for a in range(1, 6) for b in range(a + 1, 6)]
    slates = np.array([[0, a, b] for a, b in pairs], np.int32)
    of_slates = world.population(len(pairs)).utilities(slates)[:, 0]
    assert of_pool[0] == pytest.approx(of_slates.mean(), abs=1e-6)


@pytest.mark.parametrize("name", KNOWN_WORLDS)
def test_a_known_world_is_what_it_says(name: str) -> None:
    known = KNOWN_WORLDS[name]
    world = true_users(name)
    known.pool.check(world.n_items, 3)
    assert f"{world.n_items:,} items" in known.what
    assert (world.world.rule == "l2") == (name == "l2")
    assert (world.rivalry > 0) == (name == "rivalry")
    assert (world.world.dim > 8) == (name == "wide-taste")
    assert world.is_bait.mean() == 0.5
    if known.planned:
        planner = Planner(world, 3, 3)
        assert planner.greedy() < planner.best()

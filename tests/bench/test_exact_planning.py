"""The plan equals what recursion over everything that can happen gives, and what playing a policy
earns on average."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from fastgaum.arrays import IntArray
from fastgaum.bench.experiments.exact_planning import Planner
from fastgaum.bench.experiments.known_worlds import KNOWN_WORLDS, short_sighted, true_users
from fastgaum.errors import ConfigError
from fastgaum.logs.synthetic import SyntheticWorld
from fastgaum.policies.base import Observation, Policy
from fastgaum.policies.rollout import Setting, play
from fastgaum.worlds.true_world import Bait, TrueWorld
from tests.worlds.simulated import keys_of

WORLDS = {
    "bait": TrueWorld(SyntheticWorld(n_items=5, no_click=0.4, max_display=5), Bait(recovery=0.5)),
    "tastes that last": TrueWorld(
        SyntheticWorld(n_items=5, no_click=0.3, max_display=5, decay=0.6, affinity=3.0)
    ),
}


def brute_force(world: TrueWorld, horizon: int, k: int) -> float:
    """V_0 by recursion over histories, in plain Python: no states are merged, no arrays shared."""

    def utility(history: list[int], item: int) -> float:
        taste, boredom = np.zeros(world.latents.shape[1]), 0.0
        for past in history:
            taste = world.world.decay * taste
            step = -world.law.recovery
            if past >= 0:
                taste = taste + (1 - world.world.decay) * world.latents[past]
                step = 1.0 if world.is_bait[past] else step
            boredom = min(max(boredom + step, 0.0), world.law.most)
        return float(
            world.base[item]
            + world.world.affinity * taste @ world.latents[item]
            - world.law.cost * boredom
        )

    def value(history: list[int]) -> float:
        if len(history) == horizon:
            return 0.0
        later = {item: value([*history, item]) for item in range(-1, world.n_items)}
        utilities = [utility(history, item) for item in range(world.n_items)]
        returns = []
        for slate in combinations(range(world.n_items), k):
            weights = np.exp([world.world.eta * utilities[item] for item in slate])
            total = 1.0 + weights.sum()
            inside = sum(w * (1 + later[item]) for w, item in zip(weights, slate, strict=True))
            returns.append((inside + later[-1]) / total)
        return max(returns)

    return value([])


@pytest.mark.parametrize("name", WORLDS)
def test_the_best_return_is_brute_force_s(name: str) -> None:
    planner = Planner(WORLDS[name], horizon=3, k=3)
    assert planner.best() == pytest.approx(brute_force(WORLDS[name], 3, 3), rel=1e-9)
    assert planner.greedy() <= planner.best() + 1e-12


def test_a_policy_s_exact_return_is_what_it_earns_when_played() -> None:
    world = short_sighted(n_items=6, seed=1)
    planner = Planner(world, horizon=6)

    class Rests(Policy):
        def act(self, observation: Observation, k: int) -> IntArray:
            bored = observation.states[:, -1] > 0.5
            return np.where(bored[:, None], [0, 1, 2], [5, 4, 3]).astype(np.int32)

    exact = planner.policy_return(Rests())
    earned = play(world, Rests(), Setting(3, 6, reward="click"), 20_000, seed=0).returns
    assert exact == pytest.approx(earned.mean(), abs=4 * earned.std() / np.sqrt(20_000))
    assert exact < planner.best()


def test_what_cannot_be_planned_is_named() -> None:
    world = TrueWorld(SyntheticWorld(n_items=12, no_click=0.3, decay=0.5))
    with pytest.raises(ConfigError, match="decay = 0"):
        Planner(world, horizon=9, k=1)
    ordered = SyntheticWorld(n_items=12, order="random", examination=1.0)
    for world_of_order in (ordered, SyntheticWorld(n_items=12, repeat=1.0)):
        with pytest.raises(ConfigError, match="slates as sets of items and forgets choices"):
            Planner(TrueWorld(world_of_order), horizon=1)


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

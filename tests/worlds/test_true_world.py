"""TrueWorld is the synthetic world where there is no bait, and what its docstring says where there
is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.logs.synthetic import SyntheticWorld
from fastgaum.worlds.true_world import Bait, TrueWorld
from tests.worlds.simulated import displayed, keys_of, naive_choice, play, random_slates


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rule": "l2"},
        {"no_click": 0.3, "repeat": 1.0},
        {"decay": 0.0, "eta": 2.0},
        {"order": "popularity", "examination": 1.0, "no_click": 0.3},
    ],
    ids=str,
)
def test_utilities_and_probabilities_are_the_synthetic_world_s(changes: dict) -> None:
    """The log that the world draws, played again: its truth at each event is the population's."""
    world = SyntheticWorld(n_items=20, seed=3, **changes)
    log, truth = world.draw(60)
    users = TrueWorld(world).population(1)
    for session in range(log.n_sessions):
        users.reset(keys_of(session, 1))
        for event in range(log.session_offsets[session], log.session_offsets[session + 1]):
            part = slice(log.display_offsets[event], log.display_offsets[event + 1])
            slate = log.items[part][None]
            probabilities, none = users.probabilities(slate)
            np.testing.assert_allclose(users.utilities(slate)[0], truth.utility[part], atol=1e-5)
            np.testing.assert_allclose(probabilities[0], truth.probability[part], atol=1e-5)
            np.testing.assert_allclose(none[0], truth.no_click_probability[event], atol=1e-5)
            choice = log.choices[event]
            _force(users, log.items[part.start + choice] if choice >= 0 else -1)


def _force(users, item: int) -> None:
    """Let the one user choose an item, or nothing: a slate of it alone, keys until it happens."""
    parts = users.truth.taste, users.boredom, users.truth.chosen_before
    state = [part.copy() for part in parts]
    slate = np.array([[item]], np.int32)
    for seed in range(5000):
        if users.step(slate, keys_of(seed, 1)).items[0] == item:
            return
        for part, was in zip(parts, state, strict=True):
            part[:] = was
    raise AssertionError("an item of positive probability was never chosen")


@pytest.mark.parametrize(("rule", "no_click"), [("shannon", 0.3), ("l2", 0.0)])
def test_empty_places_and_repeats_change_nothing(rule: str, no_click: float) -> None:
    world = SyntheticWorld(
        n_items=10, rule=rule, no_click=no_click, order="random", examination=0.8
    )
    for user, slate in enumerate(random_slates(TrueWorld(world), 40, 6, 1, empty=0.3)):
        users, shown = TrueWorld(world).population(1), displayed(slate)
        probabilities, none = users.probabilities(slate[None])
        alone, none_alone = users.probabilities(slate[None, shown])
        assert np.array_equal(probabilities[0, shown], alone[0]), user
        assert probabilities.sum() == pytest.approx(alone.sum())
        assert np.array_equal(none, none_alone)
    for empty in (np.full((1, 3), -1, np.int32), np.empty((1, 0), np.int32)):
        assert users.probabilities(empty)[1] == 1.0
        assert users.step(empty, keys_of(0, 1)).items == -1


def test_bait_pays_now_and_costs_later() -> None:
    plain = TrueWorld(SyntheticWorld(n_items=12, no_click=0.3))
    bait = Bait(share=0.25, bonus=0.5, cost=0.5, most=2.0, recovery=0.5)
    world = TrueWorld(SyntheticWorld(n_items=12, no_click=0.3), bait)
    assert world.is_bait.sum() == 3
    assert world.base[world.is_bait].min() > world.base[~world.is_bait].max()
    pool = np.arange(12, dtype=np.int32)
    users, other = world.population(1), plain.population(1)
    np.testing.assert_allclose(
        users.utilities(pool) - other.utilities(pool), 0.5 * world.is_bait[None], atol=1e-6
    )
    a = int(np.flatnonzero(world.is_bait)[0])
    expected = 0.0
    for item in (a, a, a, -1, int(np.flatnonzero(~world.is_bait)[0]), a):
        before = users.boredom[0]
        _force(users, item)
        expected = min(before + 1, 2.0) if item == a else max(before - 0.5, 0.0)
        assert users.boredom[0] == users.states[0, -1] == expected
    bored = users.utilities(pool)
    users.boredom[:] = 0
    np.testing.assert_allclose(users.utilities(pool) - bored, 0.5 * expected, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 1000), st.sampled_from([0.0, 0.4]))
def test_choices_follow_the_keys_and_the_probabilities(
    n: int, k: int, seed: int, no_click: float
) -> None:
    world = TrueWorld(SyntheticWorld(n_items=10, no_click=no_click, repeat=0.5), Bait())
    users = world.population(n)
    slates, keys = random_slates(world, n, k, seed), keys_of(seed, n)
    probabilities, none = users.probabilities(slates)
    utilities = users.utilities(slates)
    np.testing.assert_allclose(probabilities.sum(axis=1) + none, 1, atol=1e-5)
    response = users.step(slates, keys)
    for user in range(n):
        shown = displayed(slates[user])
        hidden = np.setdiff1d(np.arange(k), shown)
        assert (probabilities[user, hidden] == 0).all()
        place = response.places[user]
        assert (place in shown and response.items[user] == slates[user, place]) or (
            place == -1 == response.items[user]
        )
        assert response.utilities[user] == pytest.approx(
            utilities[user, place] if place >= 0 else 0.0, abs=1e-6
        )
        assert place == naive_choice(
            int(keys[user]), slates[user], probabilities[user], float(none[user])
        )
    if not no_click:
        assert (response.places >= 0).all()


def test_users_outside_active_and_reset_rows() -> None:
    world = TrueWorld(SyntheticWorld(n_items=10, repeat=0.5), Bait())
    users = world.population(6)
    play(users, world, steps=3, idle=0.3)
    states = users.states.copy()
    active = np.array([True, False] * 3)
    response = users.step(random_slates(world, 6, 3, 1), keys_of(1, 6), active)
    assert np.array_equal(users.states[~active], states[~active])
    assert (response.places[~active] == -1).all()
    assert (response.items[~active] == -1).all()
    assert (response.utilities[~active] == 0).all()
    assert not np.array_equal(users.states[active], states[active])
    after = users.states.copy()
    users.reset(keys_of(2, 2), np.array([0, 3], np.int32))
    assert (users.states[[0, 3]] == 0).all()
    assert np.array_equal(users.states[[1, 2, 4, 5]], after[[1, 2, 4, 5]])
    with pytest.raises(ValueError, match="read-only"):
        users.states[0] = 1

"""Members who follow every user of a set see what happened when they are asked: they then know what
members know who follow at every step."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from fastgaum.errors import ConfigError
from fastgaum.logs.log import SessionLog
from fastgaum.models.user_model import UserModel
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.world_set import MOST_WAITING, SetPopulation, WorldSet
from tests.builders import put, with_drawn_actions
from tests.worlds.simulated import keys_of, random_context, random_slates
from tests.worlds.test_context import links
from tests.worlds.test_learned_world import fitted

N, K = 40, 4


@pytest.fixture(scope="module")
def log() -> SessionLog:
    """Sessions with context and actions."""
    return with_drawn_actions(links(), 4)


def live(world: WorldSet, users: SetPopulation, reading: bool, logged: bool) -> list[np.ndarray]:
    """Users who come and go, act, and see slates, of which some are out of their hands; what they
    say, and at the end what their followers know. With `reading`, that is asked for at every
    step."""
    space = world.first.catalogue.space
    (action, *_), rows, found = space.actions[0].values, None, []
    for t in range(8):
        users.reset(keys_of(100 + t, N if rows is None else len(rows)), rows)
        slates, active = random_slates(world, N, K + t % 2, t), np.random.default_rng(t).random(N)
        values = [random_context(space, N, seed) for seed in (t, 50 + t)]
        contexts = [None if logged else world.context_of(one) for one in values]
        who = None if t % 3 == 0 else active < 0.8
        response = users.step(slates, keys_of(t, N), who, contexts[0])
        found += [response.places.copy(), response.utilities]
        found += users.probabilities(slates, contexts[1])
        items = np.where(active < 0.5, slates[:, 0], -1).astype(np.int32)
        users.acted(items, action)
        users.follow(slates, np.where(active < 0.3, 0, -1), who)
        # what is shown and told belongs to its owner, who may write to it
        for values_of in (slates, response.places, items, active):
            values_of[:] = 0
        if reading:
            assert users.disagreement(random_slates(world, N, K, t)).shape == (N,)
            assert len(users.states) == N
        # once somebody starts anew, twice all do
        rows = np.flatnonzero(active < 0.4).astype(np.int32)
        rows = {3: None, 5: np.arange(N, dtype=np.int32)[::-1]}.get(t, rows)
    found.append(users.disagreement(random_slates(world, N, K, 9)))
    return [*found, users.states.copy(), *users.seen.probabilities(random_slates(world, N, K, 10))]


@pytest.mark.parametrize("logged", [False, True])
@pytest.mark.parametrize("changes", [{}, {"relations": False, "history": "bilstm"}], ids=str)
def test_who_sees_later_knows_the_same(
    log: SessionLog, changes: dict[str, Any], logged: bool
) -> None:
    options = {"log": log} if logged else {}
    members = [LearnedWorld(fitted(log, seed=seed, **changes), **options) for seed in (0, 7)]
    world = WorldSet(members)
    late, reading, kept = (world.population(N, follow_all=True) for _ in range(3))
    kept.reset(keys_of(0, N))
    assert kept.seen is kept.seen
    expected = live(world, reading, True, logged)
    for users in (late, kept):
        for ours, theirs in zip(live(world, users, False, logged), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_logged_starts_wait_too(set_model: UserModel, small_log: SessionLog) -> None:
    world = WorldSet([LearnedWorld(set_model, starts="logged", log=small_log)] * 2)
    late, reading = world.population(N), world.population(N)
    for users in (late, reading):
        users.reset(keys_of(1, N))
        for t in range(3):
            users.step(random_slates(world, N, K, t), keys_of(t, N))
            users.reset(keys_of(10 + t, 5), np.arange(t, t + 5, dtype=np.int32))
            if users is reading:
                assert users.states.any()
    np.testing.assert_array_equal(late.states, reading.states)


def test_what_waits_is_bounded(set_model: UserModel) -> None:
    world = WorldSet([LearnedWorld(set_model)] * 2)
    users = world.population(N)
    users.reset(keys_of(1, N))
    for t in range(MOST_WAITING + 3):
        users.step(random_slates(world, N, 10, t), keys_of(t, N))
        assert len(users.waiting) == min(t + 1, MOST_WAITING)


def test_what_a_follower_cannot_take_is_refused_at_once(log: SessionLog) -> None:
    """And nobody has moved."""
    assert log.actions is not None
    without = put(log, event={})
    silent = dataclasses.replace(log, actions=None)
    world = WorldSet([LearnedWorld(fitted(one)) for one in (silent, without)])
    users = world.population(1)
    seed = next(s for s in range(99) if world.members_of(keys_of(s, 1)).tolist() == [1])
    users.reset(keys_of(seed, 1))
    slates = random_slates(world, 1, K, 0)
    before = users.probabilities(slates)
    with pytest.raises(ConfigError, match="user 0 has no context"):
        users.step(slates, keys_of(0, 1))
    with pytest.raises(ConfigError, match="users of this world know no actions"):
        users.acted(slates[:, 0], str(log.actions.kind_names[0]))
    for ours, theirs in zip(users.probabilities(slates), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)

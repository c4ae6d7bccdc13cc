"""Worlds of models that read the context of events: what users choose from is what the encoder makes
of a log with the same contexts, given step by step or taken from a log."""

from __future__ import annotations

import dataclasses
from copy import deepcopy
from typing import Any

import gymnasium
import numpy as np
import polars as pl
import pytest
import torch

from fastgaum.errors import ConfigError
from fastgaum.features.encoder import Encoder
from fastgaum.live_users.context import EncodedContext
from fastgaum.logs.clicks import CLICKS_SO_FAR
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.log import SessionLog
from fastgaum.models.user_model import UserModel
from fastgaum.nets.batches import assemble
from fastgaum.policies.heuristics import Greedy
from fastgaum.policies.rollout import Setting, play
from fastgaum.policies.transfer import TransferPolicy
from fastgaum.threads import set_threads
from fastgaum.worlds.learned_world import LearnedPopulation, LearnedWorld, Starts
from fastgaum.worlds.replay import replay, world_of
from fastgaum.worlds.vector_env import UserVectorEnv
from fastgaum.worlds.world_set import WorldSet
from tests.builders import put, random_log, values_of
from tests.live_users.online_users import IDENTITY, fitted
from tests.logs.test_context import navigation
from tests.worlds.simulated import Within, keys_of, random_context, random_slates


def links(n_items: int = 40, no_click: float = 0.2) -> SessionLog:
    """A log whose events have a context of each kind, with pages that fix their displays."""
    log = navigation(60, n_items=n_items, fixed=True)
    nothing = np.random.default_rng(5).random(log.n_events) < no_click
    return dataclasses.replace(log, choices=np.where(nothing, -1, log.choices).astype(np.int32))


@pytest.fixture(scope="module")
def log() -> SessionLog:
    return links()


@pytest.fixture(scope="module")
def model(log: SessionLog) -> UserModel:
    return fitted(log, tower_dim=6)


def test_successive_choices_have_no_world(
    log: SessionLog, model: UserModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slate has one choice: neither a log nor a model of displays that shrink is played."""
    assert model.space is not None
    fields = {**values_of(log, "event"), CLICKS_SO_FAR: np.zeros(log.n_events, np.float32)}
    each = put(log, event=fields)
    for play_it in (
        lambda: LearnedWorld(model, log=each),
        lambda: replay(world_of(model, log), each),
    ):
        with pytest.raises(
            ConfigError, match=r"one choice of each display, .* with --clicks first"
        ):
            play_it()
    names = (*model.space.context_number_names, CLICKS_SO_FAR)
    monkeypatch.setattr(
        model, "space", dataclasses.replace(model.space, context_number_names=names)
    )
    with pytest.raises(ConfigError, match="a world asks its users for one choice of each display"):
        LearnedWorld(model)


def test_the_context_decides(log: SessionLog, model: UserModel) -> None:
    """Users with one history choose differently in two contexts; without a new one they keep
    theirs."""
    world = LearnedWorld(model)
    users, slates = world.population(5), random_slates(world, 5, 4, 0)
    assert model.space is not None
    one, other = (world.context_of(random_context(model.space, 5, seed)) for seed in (0, 1))
    first = users.probabilities(slates, one)[0]
    assert np.array_equal(users.probabilities(slates)[0], first)
    assert np.abs(users.probabilities(slates, other)[0] - first).max() > 1e-3
    users.step(slates, keys_of(0, 5), context=one)
    kept = users.states.copy()
    again = users.utilities(slates)
    assert not np.array_equal(users.utilities(slates, context=other), again)
    assert np.array_equal(users.utilities(slates, context=one), again)
    assert np.array_equal(users.states, kept)
    # users who sit out keep their context, as all else
    active = np.array([True, False, True, False, False])
    users.follow(slates, np.full(5, -1), active, other)
    assert np.array_equal(users.states[~active], kept[~active])
    assert (users.states[active] != kept[active]).any(axis=1).all()
    fresh = world.population(5)
    fresh.follow(slates, np.full(5, -1), None, other)
    context = slice(model.networks.player.history.state_dim, None)  # type: ignore[union-attr]
    assert np.array_equal(users.states[active, context], fresh.states[active, context])


def test_a_further_item_is_the_item_of_the_context(log: SessionLog) -> None:
    """Training displayed neither item, so their ids are one; the world knows them apart."""
    model = fitted(log)
    assert model.space is not None
    new = ["new 1", "new 2"]
    world = LearnedWorld(model, further=pl.Series(new))
    context = random_context(model.space, 2, 0) | {"page": new, "target": ["i0", "i0"]}
    context |= {"kind": [None, None], "hour": [0.0, 0.0]}
    made = world.context_of(context)
    assert len(set(made.ids[:, 1].tolist())) == 1
    assert made.items[:, 0].tolist() == [world.n_items - 2, world.n_items - 1]
    slates = np.tile(np.arange(world.n_items - 2, world.n_items, dtype=np.int32), (2, 1))
    probabilities = world.population(2).probabilities(slates, made)[0]
    np.testing.assert_allclose(probabilities[0], probabilities[1, ::-1], atol=1e-6)
    assert abs(probabilities[0, 0] - probabilities[0, 1]) > 1e-4


@pytest.mark.parametrize("starts", ["empty", "logged"])
def test_users_take_the_contexts_of_a_logged_session(
    log: SessionLog, model: UserModel, starts: Starts
) -> None:
    """Event by event, then the last one's; a user's contexts depend on its key alone."""
    n, split = 50, "test"
    world = LearnedWorld(model, log=log, starts=starts, split=split)
    users, few = world.population(n), world.population(3)
    keys, who = keys_of(3, n), np.array([40, 2, 17], np.int32)
    users.reset(keys)
    few.reset(keys[who])
    assert world.logged_contexts is not None
    assert model.space is not None
    assert model.networks is not None
    rows = log.sessions_in(split)
    batch = assemble(Encoder(model.space, log).encode(rows))
    with torch.no_grad():
        states = model.networks.eval().player.states(batch).numpy()
    width = model.networks.player.history.state_dim
    first = np.concatenate([[0], np.cumsum(np.diff(log.session_offsets)[rows])])
    sessions = np.searchsorted(first, users.contexts.events, "right") - 1  # type: ignore[union-attr]
    before = users.contexts.events - first[sessions]  # type: ignore[union-attr]
    assert len(set(sessions.tolist())) > 5
    assert (before > 0).any() == (starts == "logged")
    if starts == "logged":
        np.testing.assert_allclose(users.states, states[first[sessions] + before], atol=1e-5)
    for t in range(6):
        at = np.minimum(first[sessions] + before + t, first[sessions + 1] - 1)
        np.testing.assert_allclose(users.states[:, width:], states[at, width:], atol=1e-6)
        set_threads(1 + t % 2)
        slates, keys = random_slates(world, n, 4, t), keys_of(t, n)
        items = users.step(slates, keys).items
        assert np.array_equal(few.step(slates[who], keys[who]).items, items[who])
        np.testing.assert_allclose(few.states, users.states[who], atol=1e-5)
    set_threads(1)
    users.reset(keys_of(3, n)[:2], np.array([7, 30], np.int32))
    same = world.population(2)
    same.reset(keys_of(3, n)[:2])
    assert np.array_equal(users.states[[7, 30]], same.states)


def test_an_environment_needs_a_log_and_nothing_else(log: SessionLog, model: UserModel) -> None:
    envs = UserVectorEnv(6, world=LearnedWorld(model, log=log), slate_size=3, horizon=3)
    observation, _ = envs.reset(seed=1)
    assert observation.shape == (6, LearnedWorld(model).state_dim)  # type: ignore[union-attr]
    for _ in range(7):
        observation, reward, *_ = envs.step(envs.action_space.sample())
        assert np.isfinite(reward).all()
    outcome = play(LearnedWorld(model, log=log), Greedy(), Setting(3, 4), 20, seed=1)
    assert np.isfinite(outcome.rewards).all()
    for make in (
        lambda: UserVectorEnv(6, world=LearnedWorld(model), slate_size=3),
        lambda: gymnasium.make(
            "fastgaum.worlds:fastgaum/User-v0", world=LearnedWorld(model), slate_size=3
        ),
    ):
        with pytest.raises(
            ConfigError, match=r"reads the context fields .*a log, --log LOG \(log=…\)"
        ):
            make().reset(seed=0)
    nothing = slice_sessions(log, log.sessions_in("test"))
    users = LearnedWorld(model, log=nothing).population(2)
    users.reset(keys_of(0, 2))
    with pytest.raises(ConfigError, match="user 0 has no context"):
        users.step(random_slates(users.world, 2, 3, 0), keys_of(0, 2))
    with pytest.raises(ConfigError, match="greedy reads states of a model with context fields"):
        TransferPolicy(Greedy(), users.world, users.world)


def test_a_replay_is_in_the_logged_contexts(
    log: SessionLog, model: UserModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every event of sessions that a world lived, the encoder, kept within training, says what
    the population said."""
    test = slice_sessions(log, log.sessions_in("test"))
    said: list[float] = []
    step = LearnedPopulation.step

    def overheard(users: LearnedPopulation, slates: Any, keys: Any, active: Any) -> Any:
        response = step(users, slates, keys, active)
        said.extend(response.utilities[response.places >= 0].tolist())
        return response

    monkeypatch.setattr(LearnedPopulation, "step", overheard)
    world = world_of(model, test)
    choices = replay(world, test, 1, seed=4)[0]
    told = dataclasses.replace(test, choices=choices)
    assert model.space is not None
    encoded = Within(model.space, told).encode(told.sessions_in("all"))
    batch = assemble(encoded, np.arange(told.n_sessions, dtype=np.int32))
    at = (told.display_offsets[:-1] + choices)[choices >= 0]
    assert len(at) > 20
    assert sorted(said) == pytest.approx(sorted(model.utility(batch).numpy()[at]), abs=1e-4)


GOOD: dict[str, Any] = {
    "page": ["i1", "2"],
    "target": ["i3", None],
    "kind": [7, 8],
    "hour": [1, 0.5],
}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"page": None}, "no field 'page': give each of hour, kind, page, target"),
        ({"page": ["i1"]}, "one value for each user, got 2 in 'hour', 2 in 'kind', 1 in 'page'"),
        ({"page": "i1"}, "'page' takes a row of values, one for each user, got 'i1'"),
        ({"page": [["i1"], ["i2"]]}, r"'page' takes text or a whole number, got \['i1'\]"),
        ({"page": 3}, "'page' takes a row of values"),
        ({"hour": [1.0, np.inf]}, "'hour' takes a number .*, got inf"),
    ],
    ids=str,
)
def test_values_that_are_no_context(model: UserModel, change: dict[str, Any], says: str) -> None:
    values = {name: value for name, value in {**GOOD, **change}.items() if value is not None}
    with pytest.raises(ConfigError, match=says):
        LearnedWorld(model).context_of(values)


def test_contexts_that_are_not_the_users(log: SessionLog, model: UserModel) -> None:
    world = LearnedWorld(model)
    users, slates = world.population(3), random_slates(world, 3, 4, 0)
    two = world.context_of(GOOD)
    with pytest.raises(ConfigError, match="the world's context_of makes"):
        users.step(slates, keys_of(0, 3), context=GOOD)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"shape \(3, 3\) for 3 users, got \(2, 3\)"):
        users.step(slates, keys_of(0, 3), context=two)
    users = world.population(2)
    wrong = dataclasses.replace(two, ids=two.ids + np.int32(10_000))
    with pytest.raises(ConfigError, match=r"the context has the id .*, those of 'kind' are"):
        users.probabilities(slates[:2], wrong)
    wrong = EncodedContext(two.ids, two.items + np.int32(world.n_items), two.numbers, two.factors)
    with pytest.raises(ConfigError, match="the context has the items"):
        users.utilities(slates[:2], context=wrong)
    wrong = EncodedContext(two.ids, two.items, two.numbers * np.float32(np.nan), two.factors)
    with pytest.raises(ConfigError, match="a number that is not finite"):
        users.utilities(slates[:2], context=wrong)
    plain = LearnedWorld(fitted(random_log(4, no_click=0.3), **IDENTITY))
    with pytest.raises(ConfigError, match="the model reads no context"):
        plain.context_of(GOOD)
    with pytest.raises(ConfigError, match="the model reads none"):
        plain.population(2).step(random_slates(plain, 2, 3, 0), keys_of(0, 2), context=two)


def test_users_of_a_set_have_the_contexts_of_its_log(log: SessionLog) -> None:
    """Beside users who all live in one member, also after some have started anew in the other."""
    n, k, world = 40, 4, WorldSet.of(fitted(log, tower_dim=6, folds=2), log=log)
    users = world.population(n, follow_all=True)
    alone, all_along = ([one.population(n) for one in world.worlds] for _ in range(2))
    rows, members = np.arange(n, dtype=np.int32), np.zeros(n, np.int32)
    for t in range(5):
        keys = keys_of(200 + t, len(rows))
        for each in (users, *alone, *all_along):
            each.reset(keys, rows)
        members[rows] = world.members_of(keys)
        slates, step_keys = random_slates(world, n, k, t), keys_of(t, n)
        active = np.random.default_rng(t).random(n) < 0.8
        response = users.step(slates, step_keys, active)
        places, none = users.probabilities(slates)
        utilities, apart = users.utilities(slates, k), users.disagreement(slates)
        found = []
        for member, one in enumerate(alone):
            mine = members == member
            stepped = one.step(slates, step_keys, active & mine)
            np.testing.assert_array_equal(response.places[mine], stepped.places[mine])
            all_along[member].follow(slates, response.places, active)
            found.append(np.column_stack(all_along[member].probabilities(slates)))
            of_places, of_none = one.probabilities(slates)
            np.testing.assert_allclose(places[mine], of_places[mine], atol=1e-5)
            np.testing.assert_allclose(none[mine], of_none[mine], atol=1e-5)
            its = one.utilities(slates, k)
            np.testing.assert_allclose(utilities[mine], its[mine], atol=1e-5)
        np.testing.assert_allclose(users.states, all_along[0].states, atol=1e-5)
        np.testing.assert_allclose(apart, np.abs(found[0] - found[1]).sum(axis=1) / 4, atol=1e-6)
        assert apart.max() > 1e-3
        rows = np.flatnonzero(np.random.default_rng(9 + t).random(n) < 0.4).astype(np.int32)


def test_users_of_the_fits_of_one_model_take_contexts(log: SessionLog) -> None:
    """Step by step, without a log, and followers too: beside users of each member's world."""
    n, model = 30, fitted(log, tower_dim=6, folds=2)
    world, rng = WorldSet.of(model), np.random.default_rng(0)
    assert model.space is not None
    users = world.population(n, follow_all=True)
    alone = [one.population(n) for one in world.worlds]
    users.members[:] = np.arange(n) % 2
    for t in range(3):
        slates, keys, active = random_slates(world, n, 4, t), keys_of(t, n), rng.random(n) < 0.7
        context = world.first.context_of(random_context(model.space, n, t))
        # of users who have none yet
        given = active if t else None
        response = users.step(slates, keys, given, context)
        for member, one in enumerate(alone):
            mine = users.members == member
            stepped = deepcopy(one).step(slates, keys, given, context)
            np.testing.assert_array_equal(response.places[mine], stepped.places[mine])
            one.follow(slates, response.places, given, context)
        np.testing.assert_allclose(users.states, alone[0].states, atol=1e-6)
        probs = [np.column_stack(one.probabilities(slates)) for one in alone]
        np.testing.assert_allclose(users.by_member(slates), probs, atol=1e-6)


def test_what_users_of_a_set_cannot_take_is_refused(log: SessionLog, model: UserModel) -> None:
    with_log = LearnedWorld(model, log=log)
    users, slates = WorldSet([with_log] * 2).population(2), random_slates(with_log, 2, 3, 0)
    with pytest.raises(ConfigError, match="no context yet: call reset"):
        users.step(slates, keys_of(0, 2))
    # an action that the model does not know; and no user has moved
    before = users.seen.users.states.copy()  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="users of this world know no actions"):
        users.acted(slates[:, 0], "cart")
    np.testing.assert_array_equal(users.seen.users.states, before)  # type: ignore[attr-defined]

"""Learned worlds in off-policy values: what they say of logged displays is what their models say,
and policies read the users in the logged contexts."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from fastgaum.arrays import IntArray
from fastgaum.errors import ConfigError
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.log import SessionLog
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.user_model import UserModel
from fastgaum.ope.replay import Target, replay_policy
from fastgaum.ope.values import off_policy_block, off_policy_values
from fastgaum.policies.base import Observation
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.heuristics import Greedy, Popular, RandomPolicy
from fastgaum.policies.registry import untrained
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.pools import Pool
from fastgaum.worlds.replay import world_of
from fastgaum.worlds.world_set import WorldSet
from tests.builders import put, with_drawn_actions
from tests.ope.test_values import Watcher
from tests.worlds.test_learned_world import IDENTITY, SMALL


@pytest.fixture(scope="module")
def log() -> SessionLog:
    """Events have an hour."""
    log, _ = synthesise(200, preset="sample", n_items=12, no_click=0.5, max_length=4, seed=1)
    hours = np.random.default_rng(0).integers(0, 24, log.n_events) + 0.5
    return put(log, event={"hour": hours.astype(np.float32)})


@pytest.fixture(scope="module")
def model(log: SessionLog) -> UserModel:
    model = UserModel.from_preset(
        "fastgaum", folds=2, epochs=1, warm_start=1, catch_up=1, search=[]
    )
    model.fit(log)
    return model


@pytest.fixture(scope="module")
def world(log: SessionLog, model: UserModel) -> LearnedWorld | WorldSet:
    return world_of(model, log)


def pool_of(log: SessionLog) -> IntArray:
    return np.arange(log.n_items, dtype=np.int32)


def test_followed_users_are_those_of_the_model(
    log: SessionLog, model: UserModel, world: LearnedWorld | WorldSet
) -> None:
    """After each logged event, in its context: probabilities of a click on held-out events are the
    model's own. Events beyond the training's range are not: a world keeps its numbers within it."""
    shown = replay_policy(log, Target(Greedy()), world, pool_of(log), np.ones(log.n_items))
    frame = model.predict(log, "all")
    chances = np.add.reduceat(frame["generator_probability"].to_numpy(), log.display_offsets[:-1])
    held_out = np.isin(log.session_of_event, log.sessions_in("test"))
    near = np.abs(chances - shown.logged)[held_out] < 1e-5
    assert near.mean() > 0.95
    assert held_out.sum() > 30


def test_followed_users_are_told_what_the_logged_ones_did(log: SessionLog) -> None:
    log = with_drawn_actions(put(log, event={}))
    model = UserModel.from_preset("fastgaum", players="exact", **{**SMALL, **IDENTITY})
    model.fit(log)
    test = slice_sessions(log, log.sessions_in("test"))
    one = replay_policy(
        test, Target(Greedy()), world_of(model, test), pool_of(log), np.ones(log.n_items)
    )
    chances = model.predict(test, "all")["probability"].to_numpy()
    chances = np.add.reduceat(chances, test.display_offsets[:-1])
    assert (np.abs(chances - one.logged) < 1e-5).mean() > 0.95
    with pytest.raises(ConfigError, match="has actions on items that the world does not have"):
        replay_policy(
            test, Target(Greedy()), LearnedWorld(model), pool_of(log)[:12], np.ones(log.n_items)
        )


def test_a_policy_that_shows_an_item_twice_has_no_value(
    log: SessionLog, world: LearnedWorld | WorldSet
) -> None:
    class Twice(Greedy):
        def act(self, observation: Observation, k: int) -> IntArray:
            return np.repeat(super().act(observation, 1), k, axis=1)

    with pytest.raises(ConfigError, match=r"greedy shows an item twice in a slate.*MaskablePPO"):
        replay_policy(log, Target(Twice()), world, pool_of(log), np.ones(log.n_items))


def test_a_set_is_valued_by_the_mean_over_its_members(log: SessionLog, model: UserModel) -> None:
    """Of slates that no member chooses; greedy slates are those of the first member, whose states
    policies read."""
    many, asked = WorldSet.of(model, log=log), (pool_of(log), np.ones(log.n_items))
    for target in (Target(Popular.of_log(log, log), 0.5), Target(Greedy())):
        found = replay_policy(log, target, many, *asked)
        each = [replay_policy(log, target, one, *asked) for one in many.worlds]
        np.testing.assert_array_equal(found.slates, each[0].slates)
        names = ("own", "random", "logged") if target.epsilon else ("random", "logged")
        for name in names:
            of_each = np.array([getattr(one, name) for one in each])
            assert np.ptp(of_each, axis=0).max() > 1e-3 or not of_each.any()
            np.testing.assert_allclose(getattr(found, name), of_each.mean(axis=0), atol=1e-6)


def test_logged_users_have_their_own_past_alone(log: SessionLog, model: UserModel) -> None:
    """Whatever the world's users start with."""
    test = slice_sessions(log, log.sessions_in("test"))
    for kind in (LearnedWorld, WorldSet.of):
        empty, logged = (
            off_policy_values(
                test, Target(Greedy(), 0.5), world=kind(model, log=log, starts=starts)
            )
            for starts in ("empty", "logged")
        )
        assert empty == logged


def test_a_policy_that_reads_states_needs_its_own_world(
    log: SessionLog, model: UserModel, world: LearnedWorld | WorldSet
) -> None:
    """Further items do not make another one."""
    more = WorldSet.of(model, log=log, further=pl.Series(["new"]))
    other = LearnedWorld(model.members[0], log=log)
    pool = Pool(items=tuple(range(6)))
    asked: dict[str, Any] = {"pool": pool_of(log), "item_values": np.ones(log.n_items)}
    policy = untrained("slateq", world, 3, pool, PolicyConfig())
    target = Target(policy, k=3, pool=pool_of(log)[:6])
    found = [replay_policy(log, target, one, **asked).own for one in (world, more)]
    np.testing.assert_allclose(*found, atol=1e-5)
    with pytest.raises(ConfigError, match="reads the states of the world that it was made in"):
        replay_policy(log, target, other, **asked)


def test_events_that_the_run_was_fitted_on_are_warned_of(
    log: SessionLog, world: LearnedWorld | WorldSet
) -> None:
    target = Target(RandomPolicy())
    result = off_policy_values(log, target, world=world)
    (note,) = result["notes"]
    in_training = np.isin(log.session_of_event, log.sessions_in("train")).sum()
    assert f"warning: {in_training:,} of these events are of the training split" in note
    assert "--split test" in note
    assert note in off_policy_block(result).notes
    test = slice_sessions(log, log.sessions_in("test"))
    assert off_policy_values(test, target, world=world)["notes"] == []
    assert off_policy_values(log, target)["notes"] == [], "no run"


def test_policies_read_users_in_the_logged_contexts(log: SessionLog, world: LearnedWorld) -> None:
    """Before an event its own; not those that a world draws itself."""
    policy = Watcher()
    size = int(np.diff(log.display_offsets).max())
    replay_policy(log, Target(policy, k=size), world, pool_of(log), np.ones(log.n_items))
    rows = world.context
    assert rows is not None
    hours = log.columns["hour"].values
    encoded = rows.space.encode_context(hours[:, None])[:, -1]
    lengths = np.diff(log.session_offsets)
    sessions = np.argsort(-lengths, kind="stable")
    assert len(policy.told) == lengths.max()
    for t, told in enumerate(policy.told):
        plays = lengths[sessions] > t
        events = log.session_offsets[sessions] + t
        np.testing.assert_allclose(told.states[plays, -1], encoded[events[plays]], atol=1e-6)
    before = [told.states[:, -1].tolist() for told in policy.told]
    assert all(read[:, -1].tolist() in before for read in policy.read)

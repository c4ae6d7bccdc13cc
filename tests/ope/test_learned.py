"""Learned worlds in off-policy values: what they say of logged displays is what their models say, a
set says the mean of its members, and policies read the users in the logged contexts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.log import SessionLog
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.user_model import UserModel
from fastgaum.ope.shown import replay_policy
from fastgaum.ope.targets import Target, trained_target, world_over
from fastgaum.ope.values import off_policy_block, off_policy_values
from fastgaum.policies.base import Observation, Policy, Transition
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.evaluation import lower_bound_of
from fastgaum.policies.heuristics import Greedy, RandomPolicy
from fastgaum.policies.registry import save_policy, untrained
from fastgaum.policies.rollout import Setting
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.pools import Pool
from fastgaum.worlds.world import IntArray
from fastgaum.worlds.world_set import WorldSet, world_of_model


@pytest.fixture(scope="module")
def log() -> SessionLog:
    """Events have an hour, which the members of a set standardise each in its own way."""
    log, _ = synthesise(200, preset="sample", n_items=12, no_click=0.5, max_length=4, seed=1)
    hours = np.random.default_rng(0).integers(0, 24, log.n_events) + 0.5
    return dataclasses.replace(log, event_fields={"hour": hours.astype(np.float32)})


@pytest.fixture(scope="module")
def model(log: SessionLog) -> UserModel:
    model = UserModel.from_preset(
        "fastgaum", worlds=2, epochs=1, warm_start=1, catch_up=1, search=[], grow=False
    )
    model.fit(log)
    return model


@pytest.fixture(scope="module")
def world(log: SessionLog, model: UserModel) -> WorldSet:
    world = world_over(model, log)
    assert isinstance(world, WorldSet)
    return world


def pool_of(log: SessionLog) -> IntArray:
    return np.arange(log.n_items, dtype=np.int32)


def test_followed_users_are_those_of_the_model(
    log: SessionLog, model: UserModel, world: WorldSet
) -> None:
    """After each logged event, in its context: probabilities of a click on held-out events are the
    model's own. Events beyond the training's range are not: a world keeps its numbers within it."""
    shown = replay_policy(log, Target(Greedy()), world.first, pool_of(log))
    frame = model.predict(log, "all")
    chances = np.add.reduceat(frame["generator_probability"].to_numpy(), log.display_offsets[:-1])
    held_out = ~np.isin(log.session_of_event, log.sessions_in("train"))
    near = np.abs(chances - shown.logged)[held_out] < 1e-5
    assert near.mean() > 0.95
    assert held_out.sum() > 60


class First(Policy):
    """Shows the first items of the pool always."""

    name = "first"

    def act(self, observation: Observation, k: int) -> IntArray:
        return np.tile(observation.pools[:k], (observation.users.n, 1))


@pytest.mark.parametrize("policy", [First(), RandomPolicy()], ids=["own slates", "random"])
def test_a_set_says_the_mean_of_its_members(
    log: SessionLog, world: WorldSet, policy: Policy
) -> None:
    """Of logged displays and the target's, in the contexts of the events."""
    target = Target(policy, 0.3)
    found = replay_policy(log, target, world, pool_of(log))
    alone = [replay_policy(log, target, one, pool_of(log)) for one in world.worlds]
    logged, promised = (
        np.stack([getattr(one, name) for one in alone]) for name in ("logged", "promised")
    )
    assert np.abs(logged[0] - logged[1]).max() > 1e-3
    np.testing.assert_allclose(found.logged, logged.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found.by_member, promised, atol=1e-6)
    np.testing.assert_allclose(found.promised, promised.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found.slopes[2], (1 - found.logged) ** 2)
    assert (found.disagreement > 0).all()
    # the members differ in the probability of a click alone by less than in all that they say
    assert (found.disagreement > np.abs(promised[0] - promised[1]) / 2 - 1e-6).all()


def test_greed_in_a_set_reads_the_first_member(log: SessionLog, world: WorldSet) -> None:
    target, pool = Target(Greedy()), pool_of(log)
    first, second = (replay_policy(log, target, one, pool) for one in world.worlds)
    assert (first.slates != second.slates).any()
    found = replay_policy(log, target, world, pool)
    np.testing.assert_array_equal(found.slates, first.slates)
    equal = replay_policy(log, target, WorldSet([world.first] * 2), pool)
    np.testing.assert_array_equal(equal.promised, first.promised)
    assert (equal.disagreement == 0).all()


def test_what_members_say_is_in_the_result(log: SessionLog, world: WorldSet) -> None:
    test = slice_sessions(log, log.sessions_in("test"))
    result = off_policy_values(test, Target(Greedy(), 0.5), world=world)
    shown = replay_policy(test, Target(Greedy(), 0.5), world, pool_of(log))
    rows = {one["estimator"]: one["value"] for one in result["estimates"]}
    of_set = result["set"]
    assert rows["dm"] == pytest.approx(np.mean(of_set["dm"]))
    np.testing.assert_allclose(of_set["dm"], shown.by_member.mean(axis=1))
    assert of_set["lower_bound"] == lower_bound_of(np.array(of_set["dm"]))
    assert of_set["disagreement"] == pytest.approx(shown.disagreement.mean())
    (note,) = [one for one in off_policy_block(result).notes if "mean of 2 worlds" in one]
    assert f"a display of the policy is {of_set['disagreement']:.3f}" in note
    single = off_policy_values(test, Target(Greedy(), 0.5), world=world.first)
    assert single["set"] is None


def test_events_that_the_run_was_fitted_on_are_warned_of(log: SessionLog, world: WorldSet) -> None:
    target = Target(RandomPolicy())
    (note,) = off_policy_values(log, target, world=world.first)["notes"]
    in_training = np.isin(log.session_of_event, log.sessions_in("train")).sum()
    assert f"warning: {in_training:,} of these events are of the training split" in note
    assert "--split test" in note
    block = off_policy_block(off_policy_values(log, target, world=world))
    assert note in block.notes
    test = slice_sessions(log, log.sessions_in("test"))
    assert off_policy_values(test, target, world=world)["notes"] == []
    assert off_policy_values(log, target)["notes"] == [], "no run"


class Watcher(First):
    """Keeps the last number of the states that it reads."""

    def __init__(self) -> None:
        self.read: list[np.ndarray] = []
        self.told: list[Transition] = []

    def act(self, observation: Observation, k: int) -> IntArray:
        self.read.append(observation.states[:, -1].copy())
        return super().act(observation, k)

    def observe(self, transition: Transition) -> None:
        self.told.append(transition)


@pytest.mark.parametrize("many", [False, True])
def test_policies_read_users_in_the_logged_contexts(
    log: SessionLog, world: WorldSet, many: bool
) -> None:
    """Before an event its own, after it the next event's; not those that a world draws itself."""
    policy = Watcher()
    size = int(np.diff(log.display_offsets).max())
    replay_policy(log, Target(policy, k=size), world if many else world.first, pool_of(log))
    rows = world.first.context
    assert rows is not None
    hours = log.event_fields["hour"]
    standardised = (hours - rows.space.context_mean[0]) / rows.space.context_scale[0]
    lengths = np.diff(log.session_offsets)
    sessions = np.argsort(-lengths, kind="stable")
    assert len(policy.told) == lengths.max()
    for t, told in enumerate(policy.told):
        plays, goes_on = lengths[sessions] > t, lengths[sessions] > t + 1
        events = log.session_offsets[sessions] + t
        np.testing.assert_allclose(told.states[plays, -1], standardised[events[plays]], atol=1e-6)
        np.testing.assert_allclose(
            told.next_states[goes_on, -1], standardised[events[goes_on] + 1], atol=1e-6
        )
    before = [told.states[:, -1].tolist() for told in policy.told]
    assert all(read.tolist() in before for read in policy.read)


def test_a_trained_policy_reads_context_in_a_log_with_new_items(
    log: SessionLog, model: UserModel, tmp_path: Path
) -> None:
    """The log knows an item that training never displayed: the policy is that of its own world."""
    own = world_of_model(model, log=log)
    policy = untrained("cascade-dqn", own, 3, Pool(), PolicyConfig())
    save_policy(policy, tmp_path / "policy.safetensors", Setting(3))
    wider = dataclasses.replace(log, item_ids=pl.concat([log.item_ids, pl.Series(["new"])]))
    target, world = trained_target(tmp_path / "policy.safetensors", model, wider)
    assert world.n_items == own.n_items + 1
    assert isinstance(world, WorldSet)
    assert isinstance(world.first, LearnedWorld)
    shown = replay_policy(wider, target, world, pool_of(wider))
    expected = replay_policy(log, dataclasses.replace(target), own, pool_of(log))
    np.testing.assert_array_equal(shown.slates, expected.slates)
    np.testing.assert_allclose(shown.promised, expected.promised, atol=1e-6)

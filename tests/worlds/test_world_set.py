"""A set of worlds: every user lives in one member, and all that a policy reads is the first one's;
how far the members disagree, and what that costs."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import polars as pl
import pytest

from fastgaum.errors import ConfigError
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.log import SessionLog
from fastgaum.models.user_model import UserModel, members_of
from fastgaum.policies.evaluation import advise, judge_seeds, lower_bound_of, member_means
from fastgaum.policies.heuristics import Greedy, RandomPolicy
from fastgaum.policies.rollout import Setting, first_keys, play, rollout
from fastgaum.policies.transfer import TransferPolicy
from fastgaum.reports.fidelity import fidelity
from fastgaum.worlds import learned_world
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.pools import START, Pool
from fastgaum.worlds.replay import replay
from fastgaum.worlds.vector_env import UserVectorEnv
from fastgaum.worlds.world import Population
from fastgaum.worlds.world_set import WorldSet, world_of_model
from tests.builders import random_log
from tests.worlds.simulated import keys_of
from tests.worlds.small_world import SmallWorld, true_world

N = 300


def slates_of(world: Any, seed: int, k: int = 4, n: int = N) -> np.ndarray:
    """Random slates, some with an empty place or an item twice."""
    return np.random.default_rng(seed).integers(-1, world.n_items, (n, k)).astype(np.int32)


def lives(world: Any, **options: Any) -> list[np.ndarray]:
    """What an environment gives users who come and go."""
    env = UserVectorEnv(
        N, world=world, slate_size=4, pool="per_step", pool_size=8, leaving=0.3, **options
    )
    seen = [env.reset(seed=4)[0].copy()]
    rng = np.random.default_rng(0)
    for _ in range(7):
        observation, rewards, terminated, truncated, info = env.step(rng.integers(8, size=(N, 4)))
        seen += [observation.copy(), rewards, terminated, truncated, info["item"]]
    return seen


@pytest.mark.parametrize("options", [{}, {"disagreement": True}], ids=["alone", "followed"])
def test_a_set_of_equal_members_is_one_world(
    set_model: UserModel, small_log: SessionLog, options: dict[str, Any]
) -> None:
    for world in (
        LearnedWorld(set_model),
        LearnedWorld(set_model, starts="logged", log=small_log, head="reward"),
    ):
        for ours, its in zip(lives(WorldSet([world] * 3), **options), lives(world), strict=True):
            np.testing.assert_allclose(ours, its, atol=1e-5)


@pytest.mark.parametrize("places", [learned_world.PLACES_OF_GROUP, 100])
@pytest.mark.parametrize("n_members", [1, 3])
def test_a_step_takes_over_what_a_surplus_has_scored(
    set_model: UserModel,
    small_log: SessionLog,
    n_members: int,
    places: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same steps as users' of whom no surplus is asked, also where other slates, other users
    or a new start lie between the two; of one group and of several."""
    monkeypatch.setattr(learned_world, "PLACES_OF_GROUP", places)
    options: dict[str, Any] = {"starts": "logged", "log": small_log, "head": "reward"}
    for made in ({}, options):
        world = WorldSet.of(set_model, **made) if n_members > 1 else LearnedWorld(set_model, **made)
        asked, plain = world.population(N), world.population(N)
        there = np.arange(N) % 3 > 0
        for t in range(6):
            if t in (0, 4):
                for users in (asked, plain):
                    users.reset(keys_of(t, N))
            slates = slates_of(world, t)
            found = asked.surplus(slates, world.no_click)
            expected = Population.surplus(plain, slates, world.no_click)
            np.testing.assert_allclose(found, expected, atol=1e-5)
            if t == 1:
                for users in (asked, plain):
                    users.reset(keys_of(9, 5), np.arange(5))
            shown = slates_of(world, 50) if t == 2 else slates
            active = there if t == 3 else None
            both = [users.step(shown, keys_of(20 + t, N), active) for users in (asked, plain)]
            for name in ("places", "items", "utilities"):
                np.testing.assert_allclose(*(getattr(one, name) for one in both), atol=1e-6)
            np.testing.assert_allclose(asked.states, plain.states, atol=1e-6)


def test_every_user_lives_in_the_member_that_its_key_draws(set_model: UserModel) -> None:
    """Beside populations of all users in each member: the same choices, utilities and
    probabilities, also when some users start anew and their slots go to others."""
    world = WorldSet.of(set_model)
    users = world.population(N)
    alone = [one.population(N) for one in world.worlds]
    first = world.first.population(N)
    keys, rows = keys_of(1, N), np.arange(N, dtype=np.int32)
    members = np.zeros(N, np.int32)
    for t in range(6):
        users.reset(keys, rows)
        first.reset(keys, rows)
        members[rows] = world.members_of(keys)
        for one in alone:
            one.reset(keys, rows)
        assert set(members) == {0, 1, 2}
        np.testing.assert_array_equal(users.members, members)
        slates, step_keys = slates_of(world, t), keys_of(50 + t, N)
        active = np.random.default_rng(t).random(N) < 0.9
        utilities = users.utilities(slates, 3)
        of_pool = users.utilities(np.arange(world.n_items, dtype=np.int32))
        probabilities, none = users.probabilities(slates)
        response = users.step(slates, step_keys, active)
        first.follow(slates, response.places, active)
        np.testing.assert_allclose(users.states, first.states, atol=1e-5)
        for member, one in enumerate(alone):
            mine, own = members == member, slates
            every = np.arange(world.n_items, dtype=np.int32)
            np.testing.assert_allclose(utilities[mine], one.utilities(own, 3)[mine], atol=1e-5)
            np.testing.assert_allclose(of_pool[mine], one.utilities(every)[mine], atol=1e-5)
            of_places, of_none = one.probabilities(own)
            np.testing.assert_allclose(probabilities[mine], of_places[mine], atol=1e-5)
            np.testing.assert_allclose(none[mine], of_none[mine], atol=1e-5)
            found = one.step(own, step_keys, active & mine)
            np.testing.assert_array_equal(response.places[mine], found.places[mine])
            np.testing.assert_allclose(response.utilities[mine], found.utilities[mine], atol=1e-5)
        clicked = response.places >= 0
        assert clicked.any()
        chosen = slates[np.arange(N), response.places]
        np.testing.assert_array_equal(response.items, np.where(clicked, chosen, -1))
        rows = np.flatnonzero(np.random.default_rng(9 + t).random(N) < 0.4).astype(np.int32)
        keys = keys_of(100 + t, len(rows))


def test_the_member_is_as_likely_as_any_other_and_follows_from_the_key_alone(
    set_model: UserModel,
) -> None:
    world = WorldSet.of(set_model)
    keys = keys_of(3, 30_000)
    counts = np.bincount(world.members_of(keys))
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 14  # chi square, 2 degrees, p < 0.001
    np.testing.assert_array_equal(world.members_of(keys[::-1]), world.members_of(keys)[::-1])


def test_disagreement_is_the_mean_distance_to_the_mean_choice(set_model: UserModel) -> None:
    world = WorldSet.of(set_model)
    users = world.population(40, follow_all=True)
    users.reset(keys_of(1, 40))
    alone = [one.population(40) for one in world.worlds]
    for t in range(3):
        slates = slates_of(world, t, n=40)
        each = []
        for one in alone:
            places, none = one.probabilities(slates)
            each.append(np.concatenate([places, none[:, None]], axis=1).astype(np.float64))
        mean = sum(each) / 3
        slow = [[np.abs(one[i] - mean[i]).sum() / 2 for one in each] for i in range(40)]
        found = users.disagreement(slates)
        np.testing.assert_allclose(found, np.mean(slow, axis=1), atol=1e-6)
        assert 0.001 < found.mean() < 2 / 3
        response = users.step(slates, keys_of(9 + t, 40))
        for one in alone:
            one.follow(slates, response.places)
    with pytest.raises(ConfigError, match="follow_all=True"):
        world.population(4).disagreement(slates[:4])


def test_pessimism_pays_less(set_model: UserModel) -> None:
    world, rng = WorldSet.of(set_model), np.random.default_rng(0)
    options: dict[str, Any] = {"world": world, "slate_size": 4}
    plain = UserVectorEnv(N, **options)
    told = UserVectorEnv(N, disagreement=True, **options)
    for env in (plain, told):
        env.reset(seed=3)
    actions = rng.integers(plain.pools.size, size=(N, 4))
    _, rewards, _, truncated, info = plain.step(actions)
    assert "disagreement" not in info
    assert not truncated.any()
    _, same, _, _, info = told.step(actions)
    np.testing.assert_array_equal(same, rewards)
    apart = info["disagreement"]
    assert apart.dtype == np.float32
    assert info["_disagreement"].all()
    wary = UserVectorEnv(N, pessimism=2.0, **options)
    wary.reset(seed=3)
    np.testing.assert_allclose(wary.step(actions)[1], rewards - 2 * apart, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pessimism": -1.0}, "pessimism is -1.0"),
        ({"pessimism": float("nan")}, "pessimism is nan"),
        ({"pessimism": "much"}, "pessimism is 'much'"),
        ({"disagreement": True}, "train a run with --set folds=5"),
    ],
)
def test_what_no_set_can_do_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        UserVectorEnv(3, world=SmallWorld(), slate_size=3, **options)


def test_sessions_are_replayed_by_users_of_all_members(
    set_model: UserModel, small_log: SessionLog
) -> None:
    """As many users in each member, none in its former one: a set of one is that world."""
    part, made = slice_sessions(small_log, np.arange(60)), []

    class Counted(WorldSet):
        def population(self, n: int, follow_all: bool = False) -> Any:
            made.append(super().population(n, follow_all))
            return made[-1]

    world = Counted(WorldSet.of(set_model).worlds)
    choices = replay(world, part, 20)
    counts = np.bincount(made[0].members)
    assert ((counts - 400) ** 2 / 400).sum() < 14  # chi square, 2 degrees, p < 0.001
    alone = [replay(one, part, 20) for one in world.worlds]
    first = part.session_offsets[:-1]
    clicked = [(one[:, first] >= 0).mean() for one in (choices, *alone)]
    assert clicked[0] == pytest.approx(np.mean(clicked[1:]), abs=0.06)
    found = fidelity(set_model, part, world=world, split="all", episodes=60, draws=9)
    assert found["head"] == LearnedWorld(set_model).head == "generator"


def test_a_policy_reads_the_first_member_alone(set_model: UserModel) -> None:
    """Greedy slates in a set are those of the plain fit, which knows no member; the other members
    are strange to it."""
    world, first = WorldSet.of(set_model), LearnedWorld(set_model)
    assert world.fingerprint == world.first.fingerprint != world.worlds[1].fingerprint
    setting = Setting(3, 4, Pool("per_step", 8))
    for own, moved in zip(
        rollout(world, Greedy(), setting, N, 5),
        rollout(world, TransferPolicy(Greedy(), first, world), setting, N, 5),
        strict=True,
    ):
        np.testing.assert_array_equal(own.slates, moved.slates)
        np.testing.assert_array_equal(own.rewards, moved.rewards)
    # and a policy of a set plays elsewhere as one of its first member
    setting = Setting(3, 4, Pool("fixed"))
    plays = [
        play(first, TransferPolicy(Greedy(), own, first), setting, N, 5) for own in (world, first)
    ]
    np.testing.assert_array_equal(plays[0].rewards, plays[1].rewards)


def test_decoys_are_those_of_the_member_that_a_user_lives_in(set_model: UserModel) -> None:
    world, setting = WorldSet.of(set_model), Setting(3, 1, Pool("per_user", 8))
    (step,) = rollout(world, RandomPolicy(), setting, N, 5, count_decoys=1)
    users, keys = world.population(N), first_keys(N, 5).of(START)
    users.reset(keys)
    found = []
    for utilities in (users.utilities(step.pools, 3), users.seen.utilities(step.pools, 3)):
        own = np.median(utilities, axis=1, keepdims=True)
        at = (step.slates[:, :, None] == step.pools[:, None, :]).argmax(axis=2)
        found.append(np.take_along_axis(utilities, at, axis=1) < own)
    np.testing.assert_array_equal(step.decoys, found[0])
    assert (found[0] != found[1]).any(), "the first member is of another opinion"


def test_pessimism_is_what_training_earns_less_and_no_table_shows(set_model: UserModel) -> None:
    world = WorldSet.of(set_model)
    plain = play(world, RandomPolicy(), Setting(3, 5), N, 1)
    wary = play(world, RandomPolicy(), Setting(3, 5, pessimism=1.0), N, 1)
    assert (wary.rewards < plain.rewards).all()
    np.testing.assert_array_equal(wary.clicks, plain.clicks)
    earned = [
        judge_seeds([RandomPolicy()], world, Setting(3, 5, pessimism=x), n_users=N)
        for x in (0.0, 1.0)
    ]
    assert earned[0].returns == earned[1].returns


def test_a_set_has_a_lower_bound_of_what_a_policy_earns(set_model: UserModel) -> None:
    world, setting = WorldSet.of(set_model), Setting(3, 5, reward="click")
    earned = judge_seeds([RandomPolicy()] * 2, world, setting, n_users=N)
    assert earned.by_member is not None
    assert earned.lower_bound is not None
    assert len(earned.by_member) == 3
    values = earned.by_member
    # Student's t of 2 degrees of freedom, from a printed table; the jackknife's √2 of three folds
    assert (world.folds, earned.folds) == (3, 3)
    far = 2.91999 * np.sqrt(2)
    assert earned.lower_bound == pytest.approx(values.mean() - far * np.std(values))
    assert earned.to_dict()["lower_bound"] == earned.lower_bound
    # each member's value is that of its own world, but for the users who were drawn
    for value, one in zip(values, world.worlds, strict=True):
        alone = judge_seeds([RandomPolicy()], one, setting, n_users=4 * N)
        assert value == pytest.approx(alone.returns[0], abs=0.3)
        assert alone.lower_bound is None
        assert "lower_bound" not in alone.to_dict()


@pytest.mark.parametrize("members", [2, 5])
def test_the_lower_bound_is_exceeded_in_95_of_100_new_worlds(members: int) -> None:
    """Of normal values, whose mean and spread the bound does not know."""
    n = 4000
    values = np.random.default_rng(0).normal(3.0, 2.0, (n, members + 1))
    bounds = np.array([lower_bound_of(row) for row in values[:, 1:]])
    # four standard errors
    assert lower_bound_of(np.array([3.0])) is None
    assert (values[:, 0] > bounds).mean() == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / n))


def test_the_lower_bound_of_folds_on_known_numbers() -> None:
    """By hand: mean 2.5 and standard deviation 1.2910 of 1, 2, 3, 4; error 3 / √4 · 1.2910 = 1.9365;
    t(.95, 3) = 2.3534 from a printed table."""
    found = lower_bound_of(np.array([1.0, 2.0, 3.0, 4.0]), 4)
    assert found == pytest.approx(2.5 - 2.3534 * 1.9365, abs=1e-3)
    assert lower_bound_of(np.array([1.0]), 5) is None


def test_a_set_knows_whether_its_members_share_their_users(
    set_model: UserModel, small_model: UserModel, small_log: SessionLog
) -> None:
    """However it is made of the fits of one model."""
    by_hand = WorldSet([LearnedWorld(one) for one in members_of(set_model)])  # type: ignore[arg-type]
    assert by_hand.folds == WorldSet.of(set_model).folds == 3
    assert LearnedWorld(set_model).folds == 0
    assert WorldSet([LearnedWorld(small_model)] * 2).folds == 0
    policies = (Greedy(), RandomPolicy())
    earned = [
        judge_seeds([one], by_hand, Setting(3, 5, reward="click"), n_users=N) for one in policies
    ]
    (advice,) = advise(earned)
    by_member = member_means(earned[1].by_user - earned[0].by_user, earned[0].members)  # type: ignore[arg-type]
    np.testing.assert_allclose(advice.leads, by_member)
    # one world cannot say how wrong it is, and a lead is one over greedy slates
    alone = [dataclasses.replace(one, members=None) for one in earned]
    assert advise(alone) == advise(earned[1:]) == []
    few = [judge_seeds([one], by_hand, Setting(3, 5), n_users=1) for one in policies]
    assert advise(few) == []


def test_a_reset_takes_a_key_of_each_of_its_users(set_model: UserModel) -> None:
    keys, mask = keys_of(0, 4), np.array([False, False, True, True])
    for world in (LearnedWorld(set_model), WorldSet.of(set_model), true_world()):
        users = world.population(4)
        for given, rows, says in (
            (keys[:1], None, r"keys are uint64 of shape \(1,\), whole numbers of shape \(4,\)"),
            (keys / 2, None, "keys are float64"),
            (keys[:2], mask, "rows are bool"),
            (keys[:2], np.array([2, 4]), "rows hold user 4, a whole number from 0 to 3"),
            (keys[:1], np.array([-1]), "rows hold user -1"),
            (keys[:3], np.array([2, 3]), r"of shape \(2,\) are required"),
        ):
            with pytest.raises(ConfigError, match=says):
                users.reset(given, rows)  # type: ignore[arg-type]
        users.step(slates_of(world, 0, n=4), keys)
        before = users.states.copy()
        users.reset(keys[:2], np.flatnonzero(mask))  # type: ignore[arg-type]
        np.testing.assert_array_equal(users.states[:2], before[:2])
        assert not users.states[2:].any()


def test_users_of_all_members_begin_in_one_way(set_model: UserModel, small_log: SessionLog) -> None:
    begun: Any = {"log": small_log, "starts": "logged"}
    worlds = [LearnedWorld(set_model), LearnedWorld(set_model, **begun)]
    worlds += [LearnedWorld(set_model, **begun, split="test")]
    for number, one in enumerate(worlds):
        for another in worlds[number + 1 :]:
            for pair in ([one, another], [another, one]):
                with pytest.raises(ConfigError, match="with the same starts, split and log"):
                    WorldSet(pair)
    assert WorldSet([LearnedWorld(set_model, **begun), worlds[1]]).head == "generator"


def test_members_that_make_no_set_are_refused(set_model: UserModel, small_model: UserModel) -> None:
    one = LearnedWorld(set_model)
    with pytest.raises(ConfigError, match="at least one member"):
        WorldSet([])
    more = LearnedWorld(set_model, further=pl.Series(["another"]))
    with pytest.raises(ConfigError, match="member 1 has other items than member 0"):
        WorldSet([more, one])
    for other in (LearnedWorld(small_model), LearnedWorld(set_model, "reward")):
        with pytest.raises(ConfigError, match="not fits of one model with one head"):
            WorldSet([one, other])
    model = UserModel.from_preset(
        "fastgaum", epochs=1, warm_start=1, search=[], folds=0, hidden=[4]
    )
    model.fit(random_log(4, n_sessions=60))
    with pytest.raises(ConfigError, match="no fits on folds of users"):
        WorldSet.of(model)
    assert isinstance(world_of_model(model), LearnedWorld)
    assert isinstance(world_of_model(set_model), WorldSet)

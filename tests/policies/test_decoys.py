"""Decoys: items that no user picks, beside which one good item looks best where users always
choose."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from fastgaum.arrays import IntArray
from fastgaum.errors import CheckpointError, ConfigError
from fastgaum.logs.hashes import mixed_bits
from fastgaum.policies import evaluation
from fastgaum.policies import rollout as module
from fastgaum.policies.base import MOST_DECOYS, Observation, Policy, items_at, top_places
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.evaluation import (
    ComparisonPlan,
    Earned,
    advise,
    compare_policies,
    difference,
    judge_seeds,
)
from fastgaum.policies.heuristics import Greedy
from fastgaum.policies.registry import (
    POLICY_FORMAT,
    load_policy,
    make_policy,
    save_policy,
    untrained,
)
from fastgaum.policies.rollout import Setting, play
from fastgaum.policies.training import train_policy
from fastgaum.reports.world_tables import policy_blocks
from fastgaum.state_file import State, load_state, save_state
from fastgaum.worlds.env_options import StepReward
from fastgaum.worlds.pools import Pool
from fastgaum.worlds.vector_env import UserVectorEnv
from tests.worlds.small_world import SmallWorld

SETTING = Setting(5, 4, Pool("per_step", 10), "contrast")


class OneGood(Policy):
    """The best item of each pool, and the worst ones beside it."""

    name = "one-good"

    def act(self, observation: Observation, k: int) -> IntArray:
        utilities = observation.users.utilities(observation.pools, k)
        places = [top_places(utilities, 1), top_places(-utilities, k - 1)]
        return items_at(observation.pools, np.concatenate(places, axis=1))


def world(no_click: bool) -> SmallWorld:
    made = SmallWorld()
    made.no_click = no_click
    return made


def judged(no_click: bool) -> list[Earned]:
    """One good item among the worst and greedy slates, by users of three members."""
    members = np.arange(300)[None] % 3
    return [
        dataclasses.replace(judge_seeds([one], world(no_click), SETTING, 300), members=members)
        for one in (OneGood(), Greedy())
    ]


def test_one_good_item_among_the_worst_is_paid_more_and_not_recommended() -> None:
    plan, greedy = judged(no_click=False)
    assert difference(plan, greedy).low > 0, "what a contrast pays where users always choose"
    assert plan.to_dict()["decoys"] == plan.displays["decoys"].item() == pytest.approx(0.8)
    assert greedy.to_dict()["decoys"] == 0
    (advice,) = advise([plan, greedy])
    assert (advice.decision, advice.decoys) == ("keep greedy", pytest.approx(0.8))
    assert advice.interval[0] > 0
    assert "80% of the items that it shows are below the median" in str(advice)
    # a third is allowed
    few = dataclasses.replace(plan, displays={"decoys": np.array([MOST_DECOYS])})
    assert advise([few, greedy])[0].decision == "deploy"


def test_a_surplus_pays_good_slates() -> None:
    """One good item among the worst is paid less than greedy slates, by the sum over the slate."""
    setting, users = dataclasses.replace(SETTING, reward="surplus"), world(no_click=False)
    plan, greedy = (judge_seeds([one], users, setting, 300) for one in (OneGood(), Greedy()))
    assert difference(plan, greedy).high < 0
    config = PolicyConfig(episodes=20, users=64, warm_up=64, batch=64, evaluations=1)
    policy = untrained("slateq", users, setting.k, setting.pool, config)
    share = train_policy(policy, users, setting)["decoys"].item()
    assert share < MOST_DECOYS
    assert policy.not_recommended is None


def test_a_mean_over_some_items_is_that_of_the_pool_in_expectation() -> None:
    users, pools = world(no_click=False).population(4000), np.arange(12, dtype=np.int32)
    slates = np.tile(pools[:2], (4000, 1))
    pays = StepReward("contrast")
    every = pays.before(users, slates, pools, no_click=False)
    assert isinstance(every, np.ndarray)
    keys = np.arange(4000, dtype=np.uint64)
    some = pays.before(users, slates, pools, no_click=False, keys=mixed_bits(keys))
    apart = np.asarray(some - every, np.float64)
    assert apart.std() > 0.01
    assert abs(apart.mean()) < 4 * apart.std() / np.sqrt(len(apart))


def test_a_table_says_why_a_policy_is_not_recommended(monkeypatch: pytest.MonkeyPatch) -> None:
    users, config = world(no_click=False), PolicyConfig()
    monkeypatch.setattr(
        evaluation, "judging_members", lambda world, n, seeds: np.arange(n)[None] % 3
    )
    agents = {"one-good": lambda setting, seed: OneGood()}
    plan = ComparisonPlan(["random", "greedy"], [5], 1, 300, config, users, users, agents)
    result = compare_policies(plan, lambda k, items: SETTING)
    found = {one["policy"]: one["decision"] for one in result["advice"]}
    assert found == {"one-good": "keep greedy", "random": "keep greedy"}
    earned, shown = policy_blocks({**result, "world": "small"})
    assert any("; 80% of the items" in note for note in earned.notes)
    assert [(row[0], row[-1]) for row in shown.rows] == [
        ("one-good", "80.0"),
        ("greedy", "0.0"),
        ("random", shown.rows[-1][-1]),
    ]


def test_where_users_may_choose_nothing_the_rule_is_as_it_was() -> None:
    plan, greedy = judged(no_click=True)
    assert plan.displays["decoys"].item() == pytest.approx(0.8)
    for lead, decision in ((1, "deploy"), (-1, "keep greedy")):
        (advice,) = advise([dataclasses.replace(plan, by_user=greedy.by_user + lead), greedy])
        assert (advice.decision, advice.decoys) == (decision, 0)
        assert "median" not in str(advice)


def test_of_large_pools_some_steps_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 users, pools of 10 and 4 steps score 1,600 items; every second step 800."""
    for most, counted in ((1600, [1, 1, 1, 1]), (800, [1, 0, 1, 0]), (1, [1, 0, 0, 0])):
        monkeypatch.setattr(module, "MOST_SCORED", most)
        played = play(world(no_click=False), OneGood(), SETTING, 40, 0)
        assert [one is not None for one in played.decoys] == counted
        assert played.decoy_share == pytest.approx(0.8)


def test_a_trained_policy_and_its_file_say_that_it_is_not_recommended(tmp_path: Path) -> None:
    file, setting = tmp_path / "policy.safetensors", SETTING
    config = PolicyConfig(episodes=4, users=64, warm_up=64, batch=64, evaluations=1)
    for no_click in (False, True):
        users = world(no_click)
        policy = untrained("slateq", users, setting.k, setting.pool, config)
        assert policy.not_recommended is None
        share = train_policy(policy, users, setting)["decoys"].item()
        assert policy.decoys == share
        if not no_click:
            assert share > MOST_DECOYS
        policy.decoys = max(share, 0.5)
        save_policy(policy, file, setting)
        saved = load_policy(file, users)
        assert saved.policy.decoys == policy.decoys
        notes = saved.notes(setting)
        assert len(notes) == (not no_click)
        assert all("slateq is not recommended: " in note for note in notes)
    state = load_state(file, POLICY_FORMAT, "", State)
    for wrong in (2.0, -0.1, "most", np.ones(1, np.float32)):
        save_state(file, POLICY_FORMAT, state | {"decoys": wrong})
        with pytest.raises(CheckpointError, match="share of decoys"):
            load_policy(file, users)
    # a file of an earlier version says nothing
    save_state(file, POLICY_FORMAT, {name: state[name] for name in state if name != "decoys"})
    assert load_policy(file, users).policy.decoys is None
    assert judge_seeds([make_policy("random")], users, setting, 50).no_click


def test_a_surplus_is_that_of_users_who_choose_by_the_softmax() -> None:
    users, setting = world(no_click=False), dataclasses.replace(SETTING, reward="surplus")
    users.is_logit = False
    with pytest.raises(ConfigError, match=r"softmax .* regulariser = shannon and eta = 1"):
        judge_seeds([Greedy()], users, setting, 50)
    with pytest.raises(ConfigError, match="softmax"):
        UserVectorEnv(4, world=users, slate_size=2, reward="surplus")
    assert judge_seeds([Greedy()], users, SETTING, 50).by_user.shape == (1, 50)

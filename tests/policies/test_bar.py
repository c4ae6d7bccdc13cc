"""The bars of learners where the best policy is known: the cascade's 95 % of the best return, SlateQ's
97 %, and above greedy; and 5 % above greedy with 200 items.

Trainings of a minute, which `make slow` runs. A training's share differs by the processor, whose
last bits decide what is explored."""

from __future__ import annotations

import pytest

from fastgaum.bench.experiments.exact_planning import Planner
from fastgaum.bench.experiments.known_worlds import KNOWN_WORLDS, short_sighted, true_users
from fastgaum.policies.base import Policy
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.evaluation import difference, judge
from fastgaum.policies.heuristics import Greedy
from fastgaum.policies.registry import untrained
from fastgaum.policies.rollout import Setting
from fastgaum.policies.training import train_policy
from fastgaum.worlds.true_world import TrueWorld

SHARE = {"cascade-dqn": 0.95, "slateq": 0.97}
"""of the best return, by learner"""


def trained(name: str, world: TrueWorld, setting: Setting, **settings: object) -> Policy:
    config = PolicyConfig.from_mapping({"evaluations": 1, **settings})
    policy = untrained(name, world, setting.k, setting.pool, config)
    train_policy(policy, world, setting)
    return policy


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARE)
def test_a_learner_earns_what_planning_earns_and_greed_does_not(name: str) -> None:
    """Slates of 3, 20 events, clicks; the return is exact, not sampled; the lead over greedy is
    sampled, over 5 seeds of users."""
    world, setting = short_sighted(), Setting(3, 20, reward="click")
    planner, policy = Planner(world, 20, 3), trained(name, world, setting)
    best = planner.best()
    assert planner.policy_return(policy) >= SHARE[name] * best
    assert planner.greedy() < 0.9 * best
    lead = difference(
        judge([policy] * 5, world, setting, 200), judge([Greedy()] * 5, world, setting, 200)
    )
    assert lead.low > 0


@pytest.mark.slow
def test_slateq_sees_further_than_greed_with_200_items() -> None:
    world = true_users("items-200")
    setting = Setting(3, 20, KNOWN_WORLDS["items-200"].pool, reward="click")
    policy = trained("slateq", world, setting, episodes=40)
    ours, greedy = (judge([one], world, setting, 2_000) for one in (policy, Greedy()))
    assert ours.returns.mean() >= 1.05 * greedy.returns.mean()

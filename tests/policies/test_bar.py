"""The bars of learners where the best policy is known: the cascade's 95 % of what planning earns,
SlateQ's 97 %, and above greedy; and 5 % above greedy with 200 items.

Trainings of a minute, which `make slow` runs; `bench/policies_quality.py` takes the mean of
several. A training's share differs by the processor, whose last bits decide what is explored."""

from __future__ import annotations

import pytest

from fastgaum.bench.policies_quality import SHARE, beyond_greed, exact_return
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.evaluation import difference, judge
from fastgaum.policies.heuristics import Greedy
from fastgaum.policies.registry import untrained
from fastgaum.policies.rollout import Setting
from fastgaum.policies.training import train_policy
from fastgaum.worlds.planning import Planner, short_sighted


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARE)
def test_a_learner_earns_what_planning_earns_and_greed_does_not(name: str) -> None:
    """Slates of 3, 20 events, clicks; the return is exact, not sampled; the lead over greedy is
    sampled, over 5 seeds of users."""
    world, horizon = short_sighted(), 20
    planner, setting = Planner(world, horizon, 3), Setting(3, horizon, reward="click")
    policy = untrained(name, world, 3, setting.pool, PolicyConfig(evaluations=1))
    train_policy(policy, world, setting)
    best = planner.best()
    assert exact_return(policy, planner) >= SHARE[name] * best
    assert planner.greedy() < 0.9 * best
    lead = difference(
        judge([policy] * 5, world, setting, 200), judge([Greedy()] * 5, world, setting, 200)
    )
    assert lead.low > 0


@pytest.mark.slow
def test_slateq_sees_further_than_greed_with_200_items() -> None:
    lead, _ = beyond_greed("items-200", 1, episodes=40, evaluations=1)
    assert lead.mean >= 0.05

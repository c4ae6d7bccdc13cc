"""The bars of learners where the best policy is known: the cascade's 95 % of the best return, SlateQ's
97 %, and above greedy; and 5 % above greedy with 200 items.

Trainings of a minute, which `make slow` runs. A training's share differs by the processor, whose
last bits decide what is explored."""

from __future__ import annotations

from typing import Any

import pytest

from fastgaum.logs.synthetic import SyntheticWorld
from fastgaum.policies.base import Policy
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.evaluation import difference, judge_seeds
from fastgaum.policies.heuristics import Greedy
from fastgaum.policies.registry import untrained
from fastgaum.policies.rollout import Setting
from fastgaum.policies.training import train_policy
from fastgaum.worlds.pools import Pool
from fastgaum.worlds.true_world import Bait, TrueWorld

SHARE = {"cascade-dqn": 0.95, "slateq": 0.97}
"""of the best return, by learner"""
BEST, GREEDY = 9.9153, 7.6776
"""exact mean returns with 10 items: of the best policy, and of one that maximises the probability of
each click"""


def world_of(n_items: int, cost: float, **law: Any) -> TrueWorld:
    """Half of the items are bait: worth 1 more now, while each choice of one makes all items worth
    `cost` less until some events without bait have passed."""
    world = SyntheticWorld(
        n_items=n_items, no_click=0.4, popularity=0.6, max_display=min(n_items, 50), **law
    )
    return TrueWorld(world, Bait(share=0.5, bonus=1.0, cost=cost, most=3.0, recovery=0.5))


def trained(name: str, world: TrueWorld, setting: Setting, **settings: object) -> Policy:
    config = PolicyConfig.from_mapping({"evaluations": 1, **settings})
    policy = untrained(name, world, setting.k, setting.pool, config)
    train_policy(policy, world, setting)
    return policy


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARE)
def test_a_learner_earns_what_planning_earns_and_greed_does_not(name: str) -> None:
    """Slates of 3, 20 events, clicks; returns are means of 10,000 users: 5 seeds of 2,000."""
    world, setting = world_of(10, 1.5, decay=0.0, affinity=0.5), Setting(3, 20, reward="click")
    policy = trained(name, world, setting)
    ours, greedy = (judge_seeds([one] * 5, world, setting, 2_000) for one in (policy, Greedy()))
    assert ours.returns.mean() >= SHARE[name] * BEST
    assert greedy.returns.mean() == pytest.approx(GREEDY, rel=0.01)
    assert difference(ours, greedy).low > 0


@pytest.mark.slow
def test_slateq_sees_further_than_greed_with_200_items() -> None:
    world = world_of(200, 1.0, seed=1, decay=0.6, affinity=1.0, dim=2)
    setting = Setting(3, 20, Pool(), reward="click")
    policy = trained("slateq", world, setting, episodes=40)
    ours, greedy = (judge_seeds([one], world, setting, 2_000) for one in (policy, Greedy()))
    assert ours.returns.mean() >= 1.05 * greedy.returns.mean()

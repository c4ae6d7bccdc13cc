"""Testers: turns, and ten different policies."""

from __future__ import annotations

import numpy as np

from fastgaum.bench.experiments.promises import Alternating, ten_testers
from fastgaum.policies.heuristics import Greedy, Popular, RandomPolicy
from fastgaum.policies.rollout import Setting, play, rollout
from tests.policies.contract import check_policy
from tests.policies.small_world import TiringWorld


def test_contract() -> None:
    check_policy(lambda world, k: Alternating(Greedy(), RandomPolicy()))


def test_policies_take_turns() -> None:
    world = TiringWorld()
    first, second = Popular(world.appeal), Popular(-world.appeal)
    policy = Alternating(first, second)
    for _ in range(2):
        # a new rollout begins with the first again
        slates = [step.slates for step in rollout(world, policy, Setting(2, 3), 4, 0)]
        expected = [
            next(rollout(world, one, Setting(2, 1), 4, 0)).slates for one in (first, second)
        ]
        for slate, one in zip(slates, (expected[0], expected[1], expected[0]), strict=True):
            np.testing.assert_array_equal(slate, one)


def test_ten_testers_differ() -> None:
    world = TiringWorld()
    # in this world moods move all items alike: greedy is what the most appealing ones are
    ten = ten_testers(Alternating(RandomPolicy(), Greedy()), np.roll(world.appeal, 3))
    names = [policy.name for policy in ten]
    assert len(ten) == 10
    # the policy that was trained has the name of another only in this test
    assert names.count("alternating") == 2
    assert len(set(names)) == 9
    returns = [play(world, policy, Setting(3, 5, reward="click"), 200, 1).returns for policy in ten]
    assert len({one.tobytes() for one in returns}) == 10

"""Testers and policies that log: a share of random slates, turns, and ten different policies."""

from __future__ import annotations

import numpy as np
import pytest

from fastgaum.bench.experiments.promises import (
    Alternating,
    Noisy,
    ten_testers,
)
from fastgaum.policies.heuristics import Greedy, Popular, RandomPolicy
from fastgaum.policies.rollout import Setting, play, rollout
from tests.policies.contract import check_policy
from tests.policies.small_world import TiringWorld


@pytest.mark.parametrize(
    "make",
    [
        lambda world, k: Noisy(Greedy()),
        lambda world, k: Alternating(Greedy(), RandomPolicy()),
    ],
    ids=["noisy", "alternating"],
)
def test_contract(make: object) -> None:
    check_policy(make)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_slates_is_random(share: float) -> None:
    """The others are the policy's own; random ones are those of a random policy with the same
    keys."""
    world, setting = TiringWorld(), Setting(3, 4)
    popular = Popular(world.appeal)
    noisy, plain, chance = (
        np.concatenate([step.slates for step in rollout(world, policy, setting, 2000, 3)])
        for policy in (Noisy(popular, share), popular, RandomPolicy())
    )
    own, random = (noisy == plain).all(axis=1), (noisy == chance).all(axis=1)
    assert (own | random).all()
    # a random slate is the popular one in 1 of 1,320 events
    assert abs(random.mean() - share) < 0.02


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

"""Policies of which a share of the slates is random: what they show, and whether they know how
probable it was."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from fastgaum.arrays import IntArray
from fastgaum.errors import ConfigError
from fastgaum.policies.base import Observation, Policy
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.explore import Explore
from fastgaum.policies.heuristics import Greedy, Popular, RandomPolicy
from fastgaum.policies.registry import untrained
from fastgaum.policies.rollout import Setting, rollout
from fastgaum.policies.trajectories import trajectories
from fastgaum.policies.transfer import TransferPolicy
from fastgaum.worlds.pools import Pool
from fastgaum.worlds.world import NO_ITEM
from tests.policies.contract import check_policy
from tests.policies.small_world import TiringWorld, keys_of


def test_contract() -> None:
    check_policy(lambda world, k: Explore(Greedy(), 0.4))


@given(
    st.integers(1, 4),
    st.integers(0, 4),
    st.floats(0, 1),
    st.sampled_from(["popular", "random", "explore"]),
    st.integers(0, 99),
)
def test_propensities_of_all_sets_sum_to_one(
    k: int, more: int, share: float, within: str, seed: int
) -> None:
    """Over all sets of a pool, whatever is within."""
    world = TiringWorld(k + more)
    popular = Popular(world.appeal)
    policy: Policy = {
        "popular": popular,
        "random": RandomPolicy(),
        "explore": Explore(popular, 0.3),
    }[within]
    sets = np.array([*combinations(range(k + more), k)], np.int32)
    users = world.population(len(sets))
    # one key for all: the same draws within
    keys = np.repeat(keys_of(seed, 1), len(sets))
    explorer = Explore(policy, share)
    explorer.start(len(sets))
    seen = Observation(users, np.arange(k + more, dtype=np.int32), keys, 1.0)
    own = explorer.act(seen, k)
    found = explorer.propensities(seen, own, sets)
    assert found.sum() == pytest.approx(1, rel=1e-9)
    assert (found >= 0).all()


@pytest.mark.parametrize("elsewhere", [False, True])
def test_propensities_are_frequencies(elsewhere: bool) -> None:
    """How often each sequence of two sets is shown, against the product of its propensities."""
    world = TiringWorld(5)
    popular, rare = Popular(world.appeal), Popular(-world.appeal)
    policy: Policy = Explore(Turns(popular, rare), 0.3)
    if elsewhere:
        policy = TransferPolicy(policy, Followed(5), world)
    frame = pl.concat(trajectories(world, policy, Setting(2, 2), 40_000, 1))
    events = frame.group_by("session", "event", maintain_order=True).agg(
        pl.col("item").sort().str.join("+"), pl.col("propensity").unique()
    )
    assert (events["propensity"].list.len() == 1).all()
    sessions = events.group_by("session", maintain_order=True).agg(
        pl.col("item").str.join(" "), pl.col("propensity").explode().product()
    )
    expected = dict(zip(sessions["item"], sessions["propensity"], strict=True))
    for item, propensity in zip(sessions["item"], sessions["propensity"], strict=True):
        assert propensity == pytest.approx(expected[item], rel=1e-9)
    assert sum(expected.values()) == pytest.approx(1, abs=0.02)
    counts = Counter(sessions["item"].to_list())
    observed = np.array([counts[item] for item in expected], float)
    model = np.array([*expected.values()]) * sessions.height
    often = model >= 5
    told = np.append(model[often], max(sessions.height - model[often].sum(), 1e-9))
    seen = np.append(observed[often], sessions.height - observed[often].sum())
    assert chisquare(seen, told * seen.sum() / told.sum()).pvalue > 1e-4


def test_a_share_of_the_slates_is_random() -> None:
    """The others are the policy's own; random ones are those of a random policy with the same
    keys."""
    world, setting = TiringWorld(), Setting(3, 4)
    popular = Popular(world.appeal)

    def shown(policy: Policy) -> IntArray:
        return np.stack([step.slates for step in rollout(world, policy, setting, 2000, 3)])

    plain, chance = shown(popular), shown(RandomPolicy())
    for share in (0.0, 0.3, 1.0):
        found = shown(Explore(popular, share))
        own, random = (found == plain).all(axis=2), (found == chance).all(axis=2)
        assert (own | random).all()
        # a random slate is the popular one in 1 of 1,320 events
        assert abs(random.mean() - share) < 0.04


def test_states_of_another_world_are_refused() -> None:
    one = Popular(np.zeros(12))
    one.made_in = "another"
    for play in (rollout, trajectories):
        with pytest.raises(ConfigError, match="judge it with own="):
            next(play(TiringWorld(), Explore(one, 0.5), Setting(3, 1), 1, 0))


class Drawing(Policy):
    """A policy of one's own that draws, and does not say how."""

    name = "drawing"

    def act(self, observation: Observation, k: int) -> IntArray:
        return RandomPolicy().act(observation, k)


def test_a_policy_that_does_not_say_how_it_draws_has_no_propensity() -> None:
    """None is guessed: 1 would make a value that `ope` reads wrong in silence."""
    world, setting = TiringWorld(), Setting(3, 2)
    learning = untrained("slateq", world, 3, setting.pool, PolicyConfig())
    learning.learning = True
    for policy in (Drawing(), Explore(Drawing(), 0.5), Explore(learning, 0.1)):
        found = pl.concat(trajectories(world, policy, setting, 4))["propensity"]
        assert found.is_nan().all(), policy.name
    learning.learning = False
    for policy in (learning, Greedy()):
        found = pl.concat(trajectories(world, policy, setting, 4))["propensity"]
        assert found.is_between(0, 1, closed="right").all(), policy.name


class Twice(Greedy):
    """The best item in all places but the last, which holds the second."""

    def act(self, observation: Observation, k: int) -> IntArray:
        best = super().act(observation, 2)
        return np.column_stack([*[best[:, 0]] * (k - 1), best[:, 1]])


def test_a_slate_that_repeats_an_item_is_no_random_set() -> None:
    frames = trajectories(TiringWorld(), Explore(Twice(), 0.25), Setting(3, 1), 400)
    shown = pl.concat(frames).group_by("session").agg("item", pl.col("propensity").first())
    own = shown.filter(pl.col("item").list.len() == 2)["propensity"]
    assert len(own) > 100
    assert (own == 0.75).all()


@pytest.mark.parametrize("first", [[0, 0, 1], [1, 0, NO_ITEM]])
def test_a_slate_with_a_gap_is_the_policy_s_own(first: list[int]) -> None:
    class Opens(Policy):
        name, deterministic = "opens", True

        def act(self, observation: Observation, k: int) -> IntArray:
            own = first if observation.left == 1 else [0, 1, 2]
            return np.tile(np.array(own, np.int32), (observation.users.n, 1))

    explorer, setting = Explore(Opens(), 0.5), Setting(3, 2, Pool(items=(0, 1, 2, 3)))
    frame = pl.concat(trajectories(TiringWorld(), explorer, setting, 400))
    shown = frame.group_by("session", "event", maintain_order=True).agg(
        pl.col("item").sort().str.join(), pl.col("propensity").first()
    )
    for event in (0, 1):
        one_each = shown.filter(event=event).unique("item")["propensity"]
        assert one_each.sum() == pytest.approx(1)
    assert (shown.filter(event=0, item="i00i01")["propensity"] == 0.5).all()


class Turns(Policy):
    """The one policy at the first step, the other at the second."""

    name = "turns"
    deterministic = True

    def __init__(self, *policies: Policy) -> None:
        self.policies = policies

    def act(self, observation: Observation, k: int) -> IntArray:
        return self.policies[int(observation.left < 1)].act(observation, k)


class Followed(TiringWorld):
    """Users who can be told what to choose."""

    def population(self, n: int) -> Any:
        users = super().population(n)
        users.follow = lambda slates, places, active=None, outcomes=None: None  # type: ignore[method-assign]
        return users

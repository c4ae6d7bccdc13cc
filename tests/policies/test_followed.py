"""A policy in a world other than its own: users followed, items mapped by id."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from fastgaum.envs.learned import LearnedWorld
from fastgaum.errors import ConfigError
from fastgaum.models.user_model import UserModel
from fastgaum.policies.followed import Followed, shared_items
from fastgaum.policies.greedy import Greedy
from fastgaum.policies.pool import Pool
from fastgaum.policies.random import Random
from fastgaum.policies.rollout import Setting, play, rollout
from fastgaum.sessions.synthetic import synthesise
from tests.policies.small_world import TiringWorld


@pytest.fixture(scope="module")
def learned() -> LearnedWorld:
    log, _ = synthesise(400, n_items=12, no_click=0.2, max_display=6, mean_display=4.0)
    model = UserModel.from_preset("fastgaum", epochs=1, warm_start=2, catch_up=1, search=[])
    model.fit(log)
    return LearnedWorld(model)


def test_a_followed_user_is_the_user(learned: LearnedWorld) -> None:
    """Told the choices of users of its own world, the follower's states and utilities are theirs, to the bit."""
    follower = Followed(Random(), learned, learned)
    moved = 0
    for step in rollout(learned, follower, Setting(3, 6), 40, seed=2):
        assert follower.users is not None
        np.testing.assert_array_equal(follower.users.states, step.next_states)
        moved += int((step.states != step.next_states).any())
    assert moved > 0


def test_a_policy_decides_as_at_home(learned: LearnedWorld) -> None:
    setting = Setting(3, 6, Pool("per_step", 6))
    home = play(learned, Greedy(), setting, 40, seed=2)
    away = play(learned, Followed(Greedy(), learned, learned), setting, 40, seed=2)
    np.testing.assert_array_equal(home.rewards, away.rewards)


def test_items_are_the_same_where_their_ids_are(learned: LearnedWorld) -> None:
    """The other world numbers its items in reverse and has one more, which pools must leave out."""
    other = TiringWorld(13)
    other.item_ids = pl.concat([learned.item_ids.reverse(), pl.Series(["new"])])
    items = shared_items(learned, other)
    assert items == tuple(range(12))
    outcome = play(other, Followed(Greedy(), learned, other), Setting(3, 4, Pool(items=items)), 20, seed=1)
    assert np.isfinite(outcome.rewards).all()
    first = next(iter(rollout(other, Followed(Greedy(), learned, other), Setting(3, 4, Pool(items=items)), 20, seed=1)))
    own = learned.population(1)
    own.reset(np.zeros(1, np.uint64))
    best = np.argsort(-own.utilities(np.arange(11, -1, -1, dtype=np.int32))[0], kind="stable")[:3]
    assert (first.slates == best).all()
    with pytest.raises(ConfigError, match="unknown to the world"):
        play(other, Followed(Greedy(), learned, other), Setting(3, 4), 20, seed=1)


def test_worlds_without_a_common_item(learned: LearnedWorld) -> None:
    other = TiringWorld(4)
    other.item_ids = pl.Series(["a", "b", "c", "d"])
    with pytest.raises(ConfigError, match="no item in common"):
        shared_items(learned, other)


def test_a_world_of_unlearned_users_cannot_follow(learned: LearnedWorld) -> None:
    world = TiringWorld(4)
    with pytest.raises(ConfigError, match="cannot follow"):
        play(world, Followed(Random(), world, world), Setting(2, 2), 5, seed=1)

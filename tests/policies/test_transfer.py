"""A policy in a world other than its own: users followed, items mapped by id."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fastgaum.arrays import FloatArray, IntArray, KeyArray
from fastgaum.errors import ConfigError
from fastgaum.logs.log import SessionLog
from fastgaum.logs.synthetic import SyntheticWorld
from fastgaum.models.user_model import UserModel
from fastgaum.policies.base import Observation, Transition
from fastgaum.policies.evaluation import judge_seeds
from fastgaum.policies.explore import Explore
from fastgaum.policies.heuristics import Greedy, RandomPolicy
from fastgaum.policies.rollout import Setting, play, rollout
from fastgaum.policies.transfer import TransferPolicy, shared_items, shared_pool
from fastgaum.worlds.env_options import StepReward
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.pools import POOL, Pool
from fastgaum.worlds.true_world import Bait, TrueWorld
from fastgaum.worlds.world import NO_ITEM, Past, Response
from tests.builders import random_log, with_drawn_actions
from tests.policies.small_world import TiringPopulation, TiringWorld, keys_at


def test_a_followed_user_is_the_user(learned: LearnedWorld) -> None:
    """Told the choices of users of its own world, the follower's states and utilities are theirs,
    to the bit."""
    follower = TransferPolicy(RandomPolicy(), learned, learned)
    moved = 0
    for step in rollout(learned, follower, Setting(3, 6), 40, seed=2):
        assert follower.users is not None
        np.testing.assert_allclose(follower.users.states, step.next_states, atol=1e-5)
        moved += int((step.states != step.next_states).any())
    assert moved > 0


class Rescaled(TiringWorld):
    """The same catalogue as a learned world's, and users whose utilities are on another scale; they
    choose as they would without it."""

    def __init__(self, item_ids: pl.Series, scale: float) -> None:
        super().__init__(len(item_ids))
        self.item_ids, self.scale = item_ids, scale

    def population(self, n: int) -> TiringPopulation:
        users = super().population(n)
        users.step, step = self.scaled, users.step  # type: ignore[method-assign]
        self.plain = step
        return users

    def scaled(
        self, slates: IntArray, keys: KeyArray, active: np.ndarray | None = None
    ) -> Response:
        found = self.plain(slates, keys, active)
        return Response(found.places, found.items, found.utilities * self.scale)


@pytest.mark.parametrize("reward", ["utility", "contrast", "surplus", "click", "own"])
def test_a_policy_elsewhere_learns_from_what_a_site_can_see(
    learned: LearnedWorld, reward: Any
) -> None:
    """What it is told does not depend on what the met users think, only on what they choose; it is
    what its own world would have paid for these choices."""

    def own(response: Response, slates: IntArray, states: FloatArray) -> FloatArray:
        return response.utilities + states[:, 0] + slates[:, 1]

    reward = own if reward == "own" else reward
    told: list[list[Transition]] = [[], []]
    setting = Setting(3, 5, Pool("per_step", 7), reward, leaving=0.1)
    for scale, seen in zip((1.0, 40.0), told, strict=True):

        class Listens(RandomPolicy):
            def observe(self, transition: Transition, seen: Any = seen) -> None:
                seen.append(transition)

        world = Rescaled(learned.item_ids, scale)
        follower = TransferPolicy(Listens(), learned, world, reward)
        paid = [step.rewards for step in rollout(world, follower, setting, 60, seed=2)]
        if reward != "click":
            assert np.abs(paid[0] - seen[0].rewards).max() > 0.1
    pays = StepReward(reward)
    for one, other in zip(*told, strict=True):
        np.testing.assert_array_equal(one.response.places, other.response.places)
        np.testing.assert_array_equal(one.rewards, other.rewards)
        np.testing.assert_array_equal(one.response.utilities, other.response.utilities)
        assert set(one.slates.ravel().tolist()) <= set(one.pools.ravel().tolist())
    users = learned.population(60)
    for one in told[0]:
        before = pays.before(users, one.slates, one.pools, learned.no_click)
        utilities = users.utilities(one.slates)[np.arange(60), one.response.places]
        users.follow(one.slates, one.response.places, one.active)
        clicked = one.active & (one.response.places >= 0)
        response = Response(
            one.response.places, one.response.items, np.where(clicked, utilities, np.float32(0))
        )
        expected = np.where(one.active, pays.of(response, one.slates, users.states, before), 0)
        np.testing.assert_allclose(one.rewards, expected, atol=1e-5)
    assert any((one.rewards != 0).any() for one in told[0])


def test_a_follower_knows_what_its_user_had_behind_it(
    learned: LearnedWorld, begun: LearnedWorld
) -> None:
    """Users who start within a session: told their prefixes, the follower's states are theirs from
    the first step."""
    follower = TransferPolicy(RandomPolicy(), learned, begun)
    apart = 0
    for t, step in enumerate(rollout(begun, follower, Setting(3, 4), 200, seed=2)):
        assert follower.users is not None
        assert follower.before is not None
        np.testing.assert_allclose(follower.before, step.states, atol=1e-5)
        np.testing.assert_allclose(follower.users.states, step.next_states, atol=1e-5)
        apart += t == 0 and int(np.abs(step.states).max(axis=1).astype(bool).sum())
    assert 20 < apart < 200
    # a world that starts its own users within sessions has no say in what these had behind them
    homeless = TransferPolicy(RandomPolicy(), begun, learned)
    homeless.start(50)
    assert homeless.users is not None
    assert not homeless.users.states.any()


def test_a_past_with_actions_is_refused_where_states_depend_on_them() -> None:
    """A past holds no actions: the follower's states would not be its user's."""
    log = with_drawn_actions(random_log(4, n_sessions=60, no_click=0.3), 4)
    model = UserModel.from_preset(
        "fastgaum", epochs=1, warm_start=1, search=[], folds=0, hidden=[4]
    )
    model.fit(log)
    own, begun = LearnedWorld(model), LearnedWorld(model, log=log, starts="logged")
    with pytest.raises(ConfigError, match="does not get the actions before the logged starts"):
        TransferPolicy(RandomPolicy(), own, begun)
    TransferPolicy(RandomPolicy(), begun, own)


def test_a_past_is_told_in_the_items_of_the_own_world(learned: LearnedWorld) -> None:
    """Unknown items are left out, an event whose choice is one is none, and an item shown twice
    counts where it stands first."""
    other = TiringWorld(13)
    other.item_ids = pl.concat([learned.item_ids.reverse(), pl.Series(["new"])])
    slates = np.array([[12, 0, 3], [12, 0, 3], [4, 5, 4], [0, 1, -1], [1, 2, 3]], np.int32)
    places, active = np.array([1, 0, 2, -1, 0], np.int32), np.array([True, True, True, True, False])
    told: list[Past] = []

    class Keeps(RandomPolicy):
        def start(self, n: int, past: Iterable[Past] = ()) -> None:
            told.extend(past)

    follower = TransferPolicy(Keeps(), learned, other)
    follower.start(5, [Past(slates, places, active)])
    (event,) = told
    assert event.slates.tolist() == [[-1, 11, 8], [-1, 11, 8], [7, 6, 7], [11, 10, -1], [10, 9, 8]]
    assert event.places.tolist() == [1, -1, 0, -1, -1]
    assert event.active.tolist() == [True, False, True, True, False]
    alone = learned.population(5)
    alone.follow(event.slates, event.places, event.active)
    assert follower.users is not None
    np.testing.assert_array_equal(follower.users.states, alone.states)
    assert not alone.states[[1, 4]].any()
    assert alone.states[[0, 2, 3]].any(axis=1).all()


@pytest.mark.parametrize(
    "pool", [Pool("fixed", 5), Pool(), Pool("per_user", 4), Pool("per_step", 4)]
)
def test_a_pool_is_the_same_in_both_worlds(pool: Pool) -> None:
    """A fixed pool keeps its items, less what is unknown; others draw the same items for the same
    key."""
    own, other = TiringWorld(12), TiringWorld(12)
    other.item_ids = pl.concat(
        [pl.Series(["x", "y"]), own.item_ids.gather([11, 3, 4, 0, 5, 1, 7, 9, 2, 10])]
    )
    mine, theirs = shared_pool(pool, own, other)
    keys = keys_at(3, 6).of(POOL)
    names = [
        world.item_ids.gather(np.ravel(drawn.draw(keys, 12))).to_list()
        for world, drawn in ((own, mine), (other, theirs))
    ]
    assert names[0] == names[1]
    if pool.rule == "fixed":
        before = own.item_ids.gather(pool.draw(keys, 12)).to_list()
        assert names[0] == [name for name in before if name in set(other.item_ids)]
        assert len(names[0]) < len(before)
    assert shared_pool(pool, own, own) == (pool, pool)


def test_items_are_the_same_where_their_ids_are(learned: LearnedWorld) -> None:
    """The other world numbers its items in reverse and has one more, which pools must leave out."""
    other = TiringWorld(13)
    other.item_ids = pl.concat([learned.item_ids.reverse(), pl.Series(["new"])])
    items = shared_items(learned, other)
    assert items == tuple(range(12))
    follower = TransferPolicy(Greedy(), learned, other)
    first = next(rollout(other, follower, Setting(3, 4, Pool(items=items)), 20, seed=1))
    own = learned.population(1)
    own.reset(np.zeros(1, np.uint64))
    utilities = own.utilities(np.arange(11, -1, -1, dtype=np.int32), 3)[0]
    assert (first.slates == np.argsort(-utilities, kind="stable")[:3]).all()
    with pytest.raises(ConfigError, match="unknown to the world"):
        play(other, TransferPolicy(Greedy(), learned, other), Setting(3, 4), 20, seed=1)
    other.item_ids = pl.Series([f"another {i}" for i in range(13)])
    with pytest.raises(ConfigError, match="no item in common"):
        shared_items(learned, other)


def reversed_world(own: LearnedWorld) -> TiringWorld:
    """Of the same items, numbered in reverse, and one more."""
    other = TiringWorld(own.n_items + 1)
    other.item_ids = pl.concat([own.item_ids.reverse(), pl.Series(["new"])])
    return other


def test_an_empty_place_stays_empty(learned: LearnedWorld) -> None:
    class Half(Greedy):
        def act(self, observation: Observation, k: int) -> IntArray:
            slates = super().act(observation, k)
            slates[:, 1] = NO_ITEM
            return slates

    other = reversed_world(learned)
    setting = Setting(3, 2, Pool(items=shared_items(learned, other)))
    for step in rollout(other, TransferPolicy(Half(), learned, other), setting, 9, seed=1):
        assert (step.slates[:, 1] == NO_ITEM).all()
        assert (step.slates[:, [0, 2]] >= 0).all()


def test_a_policy_plays_in_the_world_it_was_brought_to(learned: LearnedWorld) -> None:
    other = reversed_world(learned)
    away = TransferPolicy(Greedy(), learned, other)
    setting = Setting(3, 2, Pool(items=shared_items(learned, other)))
    judge_seeds([away], other, setting, 9)
    for policy, world in ((away, learned), (Explore(away, 0.5), TiringWorld(12))):
        with pytest.raises(ConfigError, match="plays in that world alone"):
            judge_seeds([policy], world, setting, 9)
    with pytest.raises(ConfigError, match="is judged without own"):
        judge_seeds([away], other, setting, 9, own=learned)


def test_a_function_is_told_the_numbers_of_the_items_that_are_met(learned: LearnedWorld) -> None:
    """In a world that numbers items in reverse the policy is told what is paid there."""
    other, told = reversed_world(learned), []

    def price(response: Response, slates: IntArray, states: FloatArray) -> FloatArray:
        return np.float32(response.items + 100 * slates[:, 0])

    class Listens(RandomPolicy):
        def observe(self, transition: Transition) -> None:
            told.append(transition.rewards)

    follower = TransferPolicy(Listens(), learned, other, price)
    setting = Setting(3, 4, Pool(items=shared_items(learned, other)), price)
    paid = [step.rewards for step in rollout(other, follower, setting, 30, seed=1)]
    np.testing.assert_array_equal(told, paid)


def test_a_world_is_known_by_its_items_and_states(
    learned: LearnedWorld, begun: LearnedWorld, learned_log: SessionLog, tmp_path: Path
) -> None:
    """Where users start, who chooses and whether the model comes from a file change no state's
    meaning; other weights, items or truths do."""
    learned.model.save(tmp_path / "model.safetensors")
    again = LearnedWorld(UserModel.load(tmp_path / "model.safetensors"), head="reward")
    assert learned.fingerprint == begun.fingerprint == again.fingerprint
    assert TiringWorld(12).fingerprint == TiringWorld(12).fingerprint
    model = UserModel.from_preset("fastgaum", epochs=1, warm_start=1, search=[], folds=0, seed=1)
    model.fit(learned_log)
    truths = [
        TrueWorld(SyntheticWorld(n_items=12, seed=seed), bait)
        for seed in (0, 1)
        for bait in (None, Bait(0.5))
    ]
    others = [LearnedWorld(model), TiringWorld(12), TiringWorld(11), *truths]
    marks = [learned.fingerprint, *(world.fingerprint for world in others)]
    assert len(set(marks)) == len(marks)

"""Trajectories: rows of a log, with the probabilities and utilities that the world gives, and
nothing kept in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from fastgaum.arrays import IntArray
from fastgaum.logs.log import SessionLog
from fastgaum.models.user_model import UserModel
from fastgaum.policies import trajectories as module
from fastgaum.policies.base import Observation, Policy
from fastgaum.policies.rollout import Setting, first_keys
from fastgaum.policies.trajectories import trajectories
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.pools import START, Pool
from fastgaum.worlds.world import NO_ITEM, World
from fastgaum.worlds.world_set import WorldSet
from tests.worlds.small_world import SmallWorld, true_world

WORLD = SmallWorld()


def played(
    world: World = WORLD, policy: Any = "random", n: int = 40, seed: int = 0, **options: Any
) -> pl.DataFrame:
    setting = Setting(**{"k": 4, "horizon": 5} | options)
    return pl.concat(trajectories(world, policy, setting, n, seed))


@pytest.fixture(params=["small", "true", "learned", "logged starts"])
def any_world(request: pytest.FixtureRequest, learned: LearnedWorld, begun: LearnedWorld) -> World:
    worlds = {"small": WORLD, "learned": learned, "logged starts": begun, "true": true_world()}
    return worlds[request.param]


def test_rows_are_the_choices_of_the_world(any_world: World) -> None:
    """Utilities and probabilities are those of the users; choices follow the probabilities."""
    frame = played(any_world, n=600)
    assert frame.columns == [
        "session",
        "event",
        "item",
        "chosen",
        "utility",
        "probability",
        "propensity",
    ]
    assert frame.height == 600 * 5 * 4
    events = frame.group_by("session", "event", maintain_order=True)
    assert set(events.agg(pl.col("item").n_unique())["item"]) == {4}
    assert events.agg(pl.col("chosen").sum())["chosen"].max() == 1
    sums = events.agg(pl.col("probability").sum())["probability"].to_numpy()
    assert sums.max() < 1 + 1e-5
    if not any_world.no_click:
        np.testing.assert_allclose(sums, 1, rtol=1e-5)
    assert set(frame["item"]) <= set(any_world.item_ids)
    # calibrated: in each tenth of the rows by probability, as many are chosen as should be
    probability, chosen = frame["probability"].to_numpy().astype(float), frame["chosen"].to_numpy()
    for part in np.array_split(np.argsort(probability), 10):
        spread = np.sqrt((probability[part] * (1 - probability[part])).sum())
        assert abs(chosen[part].sum() - probability[part].sum()) < 4.5 * spread + 1e-9


def test_in_a_set_they_are_those_of_the_user_s_own_member(
    learned_log: SessionLog,
) -> None:
    model = UserModel.from_preset("fastgaum", epochs=1, warm_start=1, search=[], folds=2)
    model.fit(learned_log)
    world = WorldSet.of(model)
    users, keys = world.population(40), first_keys(40, 0).of(START)
    users.reset(keys)
    frame = played(world, horizon=1)
    codes = {item: number for number, item in enumerate(world.item_ids)}
    slates = np.array([codes[item] for item in frame["item"]], np.int32).reshape(40, 4)
    found, _ = users.probabilities(slates)
    assert np.unique(users.members).size == 2
    np.testing.assert_allclose(frame["probability"].to_numpy(), found.ravel(), atol=1e-6)
    thought = users.utilities(slates).ravel()
    np.testing.assert_allclose(frame["utility"].to_numpy(), thought, atol=1e-5)


@pytest.mark.parametrize("rule", ["fixed", "per_user", "per_step"])
def test_an_episode_does_not_depend_on_how_many_there_are(
    rule: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"pool": Pool(rule, 6), "leaving": 0.2}
    many = played(n=50, seed=3, **options)
    few = played(n=20, seed=3, **options)
    assert many.filter(pl.col("session") < 20).equals(few)
    monkeypatch.setattr(module, "WRITTEN_AT_ONCE", 5 * 4 * 7)
    parts = list(trajectories(WORLD, "random", Setting(4, 5, **options), 50, 3))
    assert len(parts) == 8
    assert pl.concat(parts).equals(many)
    assert not played(n=50, seed=4, **options).equals(many)
    per_event = many.group_by("session", "event").agg("item")
    pools = per_event.group_by("session").agg(pl.col("item").explode().n_unique())["item"]
    assert (pools.max() > 6) == (rule == "per_step")


def test_a_policy_of_one_s_own_may_leave_places_empty_and_repeat_items() -> None:
    class Own(Policy):
        name = "own"

        def act(self, observation: Observation, k: int) -> IntArray:
            n = observation.users.n
            assert observation.keys.shape == (n,)
            pools = np.broadcast_to(observation.pools, (n, observation.pools.shape[-1]))
            none = np.full(n, NO_ITEM)
            return np.column_stack([pools[:, 3], pools[:, 5], pools[:, 3], none]).astype(np.int32)

    frame = played(policy=Own())
    assert frame.height == 40 * 5 * 2
    assert frame["item"].unique().sort().to_list() == ["i3", "i5"]

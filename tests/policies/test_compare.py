"""The policy table: the same pools in both worlds, a row for each policy and size."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from fastgaum.errors import ConfigError
from fastgaum.policies import evaluation as module
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.evaluation import ComparisonPlan, Earned, compare_policies
from fastgaum.policies.heuristics import RandomPolicy
from fastgaum.policies.rollout import Setting
from fastgaum.worlds.pools import POOL, Pool
from tests.policies.small_world import TiringWorld, keys_at

CONFIG = PolicyConfig(episodes=2, users=16, warm_up=16, batch=16, evaluations=1)


def test_fixed_pools_hold_the_same_items_in_both_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    own, judge = TiringWorld(12), TiringWorld(14)
    judge.item_ids = pl.concat([pl.Series(["x"]), own.item_ids.reverse(), pl.Series(["y"])])
    met: list[Setting] = []

    def setting(k: int, items: tuple[int, ...]) -> Setting:
        met.append(Setting(k, 3, Pool("fixed", 5, items)))
        return met[-1]

    monkeypatch.setattr(
        module, "judge_seeds", lambda *_: Earned("random", 2, np.ones((1, 1)), np.ones(1))
    )
    compare_policies(ComparisonPlan(["random"], [2], 1, 10, CONFIG, own, judge), setting)
    keys = keys_at(0, 1).of(POOL)
    names = [
        set(world.item_ids.gather(one.pool.draw(keys, world.n_items)).to_list())
        for one, world in zip(met, (own, judge), strict=True)
    ]
    assert names[0] == names[1]
    assert len(names[0]) == 5


def test_each_size_and_seed_has_its_row() -> None:
    world = TiringWorld()
    plan = ComparisonPlan(["greedy", "cascade-dqn"], [2, 3], 2, 10, CONFIG, world, world)
    result = compare_policies(plan, lambda k, items: Setting(k, 3, Pool(items=items)))
    assert [(row["policy"], row["k"], len(row["return_by_seed"])) for row in result["rows"]] == [
        (name, k, 2) for k in (2, 3) for name in ("greedy", "cascade-dqn")
    ]
    cascade = result["rows"][1]["return_by_seed"]
    assert cascade[0] != cascade[1]
    for row in result["rows"]:
        assert 0 < row["coverage"] <= 1
        assert 0 <= row["gini"] <= 1
        assert row["diversity_ci"][0] <= row["diversity"] <= row["diversity_ci"][1]
    assert result["advice"] == []
    with pytest.raises(ConfigError, match="at least 1 seed"):
        ComparisonPlan(["greedy"], [2], 0, 10, CONFIG, world, world)


def test_agents_are_told_apart_by_their_keys() -> None:
    world = TiringWorld()
    agents = {name: lambda setting, seed: RandomPolicy() for name in ("one", "two")}
    plan = ComparisonPlan(["random"], [2], 1, 10, CONFIG, world, world, agents)
    result = compare_policies(plan, lambda k, items: Setting(k, 3))
    assert [row["policy"] for row in result["rows"]] == ["random", "one", "two"]
    with pytest.raises(ConfigError, match="named twice in one, one"):
        ComparisonPlan(["one"], [2], 1, 10, CONFIG, world, world, {"one": agents["one"]})

"""The policy table: the same pools in both worlds, a row for each policy and size."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from fastgaum.errors import ConfigError
from fastgaum.policies import evaluation as module
from fastgaum.policies.base import Policy
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.evaluation import ComparisonPlan, compare_policies
from fastgaum.policies.rollout import Setting
from fastgaum.worlds.pools import POOL, Pool
from tests.policies.small_world import TiringPopulation, TiringWorld, keys_at

CONFIG = PolicyConfig(episodes=2, users=16, warm_up=16, batch=16, evaluations=1)


class Followable(TiringPopulation):
    def follow(
        self, slates: np.ndarray, places: np.ndarray, active: np.ndarray | None = None
    ) -> None:
        """Moods stay: what policies see of the other world's users is not what is tested here."""


class FollowableWorld(TiringWorld):
    def population(self, n: int) -> TiringPopulation:
        return Followable(self, n)


def test_fixed_pools_hold_the_same_items_in_both_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    own, judge = FollowableWorld(12), FollowableWorld(14)
    judge.item_ids = pl.concat([pl.Series(["x"]), own.item_ids.reverse(), pl.Series(["y"])])
    seen: dict[str, set[str]] = {"own": set(), "judge": set()}

    def setting(k: int, items: tuple[int, ...]) -> Setting:
        return Setting(k, 3, Pool("fixed", 5, items))

    def keep(setting: Setting, world: TiringWorld, where: str) -> None:
        pool = setting.pool.draw(keys_at(0, 1).of(POOL), world.n_items)
        seen[where] |= set(world.item_ids.gather(pool).to_list())

    monkeypatch.setattr(
        module, "train_policy", lambda policy, world, setting: keep(setting, world, "own")
    )
    judged = module.judge

    def judging(
        policies: list[Policy], world: TiringWorld, setting: Setting, *rest: object
    ) -> object:
        keep(setting, world, "judge")
        return judged(policies, world, setting, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "judge", judging)
    compare_policies(ComparisonPlan(["cascade-dqn"], [2], 1, 10, CONFIG, own, judge), setting)
    assert seen["own"] == seen["judge"]
    assert len(seen["own"]) == 5


def test_each_size_and_seed_has_its_row() -> None:
    world = TiringWorld()
    plan = ComparisonPlan(["greedy", "cascade-dqn"], [2, 3], 2, 10, CONFIG, world, world)
    result = compare_policies(plan, lambda k, items: Setting(k, 3, Pool(items=items)))
    assert [(row["policy"], row["k"], len(row["return_by_seed"])) for row in result["rows"]] == [
        (name, k, 2) for k in (2, 3) for name in ("greedy", "cascade-dqn")
    ]
    cascade = result["rows"][1]["return_by_seed"]
    assert cascade[0] != cascade[1]
    with pytest.raises(ConfigError, match="at least 1 seed"):
        ComparisonPlan(["greedy"], [2], 0, 10, CONFIG, world, world)

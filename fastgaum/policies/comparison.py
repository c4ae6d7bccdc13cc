"""The policy table: every policy made once per seed and size of slates in one world, and judged
there or in another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastgaum.errors import ConfigError
from fastgaum.policies.base import Policy
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.evaluation import Earned, judge, versus_best
from fastgaum.policies.followed import rows_of, shared_items
from fastgaum.policies.registry import FITTED, TRAINED, Sources, plain, untrained
from fastgaum.policies.rollout import Setting
from fastgaum.policies.training import train
from fastgaum.worlds.world import World

MakeSetting = Callable[[int, tuple[int, ...]], Setting]
"""(k, items that pools are drawn from) → the setting"""


@dataclass(frozen=True)
class Comparison:
    """What is compared. Raises ConfigError without a seed."""

    names: Sequence[str]
    """policies, of `registry.POLICIES`"""
    sizes: Sequence[int]
    """items of a slate, each a table of its own"""
    seeds: int
    """trainings of each policy, each judged by users of its own"""
    users: int
    """users that judge a policy, per seed"""
    config: PolicyConfig
    own: World
    """the world that policies are made in"""
    judge: World
    """the world that they are judged in; the same, or one fitted on other users"""
    sources: Sources

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ConfigError(f"a comparison has at least 1 seed, got {self.seeds}")


def compare(
    plan: Comparison, setting: MakeSetting, observer: Callable[[int, int, str], None] | None = None
) -> dict[str, Any]:
    """Make, train and judge; returns the table as a JSON object, a row per policy and size.

    `observer` is called with trainings done, trainings in all, and the policy that is at hand.

    Raises:
        ConfigError: slates or pools do not fit, or a policy lacks its source.
        NumericsError: a training diverged.
    """
    items: tuple[int, ...] = ()
    own_items: tuple[int, ...] = ()
    if plan.judge is not plan.own:
        # in one order, so that a fixed pool holds the same items in both
        items = shared_items(plan.own, plan.judge)
        own_items = tuple(rows_of(plan.own, plan.judge)[list(items)].tolist())
    settings = {k: (setting(k, own_items), setting(k, items)) for k in plan.sizes}
    for own_setting, judge_setting in settings.values():
        own_setting.pool.check(plan.own.n_items, own_setting.k)
        judge_setting.pool.check(plan.judge.n_items, judge_setting.k)
    table: list[Earned] = []
    kept: dict[tuple[str, int], Policy] = {}
    done, total = 0, len(plan.sizes) * len(plan.names) * plan.seeds
    for own_setting, judge_setting in settings.values():
        for name in plan.names:
            policies: list[Policy] = []
            for seed in range(plan.seeds):
                if observer is not None:
                    observer(done, total, f"{name}, k = {own_setting.k}")
                policies.append(_made(plan, name, own_setting, seed, kept))
                done += 1
            table.append(judge(policies, plan.judge, judge_setting, plan.users, plan.own))
    some = settings[plan.sizes[0]][1]
    return {
        "rows": _rows(table),
        "seeds": plan.seeds,
        "users": plan.users,
        "reward": some.reward,
        "horizon": some.horizon,
        "pool": f"{some.pool.rule} of {some.pool.size or 'all'}",
        "config": plan.config.to_mapping(),
    }


def _made(
    plan: Comparison, name: str, setting: Setting, seed: int, kept: dict[tuple[str, int], Policy]
) -> Policy:
    """A policy; one that knows nothing of k, or not even of the seed, is made once and kept."""
    if name not in TRAINED:
        which = name, seed if name in FITTED else 0
        if which not in kept:
            kept[which] = plain(name, plan.own, plan.sources, seed)
        return kept[which]
    policy = untrained(
        name, plan.own, setting.k, setting.pool, plan.config.replace(seed=plan.config.seed + seed)
    )
    train(policy, plan.own, setting)
    return policy


def _rows(table: Sequence[Earned]) -> list[dict[str, Any]]:
    leads = versus_best(table)
    rows = []
    for row in table:
        best = leads.get((row.policy, row.k))
        versus = (
            None
            if best is None
            else {"policy": best[0], "diff": best[1].mean, "ci": [best[1].low, best[1].high]}
        )
        rows.append(row.to_dict() | {"versus": versus})
    return rows

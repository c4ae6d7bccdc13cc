"""A policy that learns which slates please the users of a log, and what it earns: `python
train_policy.py`.

It is trained among learned users, and judged beside chance and greed among others of them.
"""

from typing import Any

import polars as pl

import fastgaum as fg
from fastgaum.policies.cascade_dqn import CascadeDqn
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.evaluation import judge_seeds
from fastgaum.policies.heuristics import Greedy, RandomPolicy
from fastgaum.policies.rollout import Setting
from fastgaum.policies.training import train_policy
from fastgaum.worlds.pools import Pool


def main(episodes: int = 20, n_users: int = 500, **settings: Any) -> dict[str, float]:
    """Fit users, train a policy among them; return the mean return of each policy."""
    log, _ = fg.synthesise(2000, n_items=40, no_click=0.3, seed=2)
    model = fg.UserModel.from_preset("fastgaum", **settings)
    model.fit(log)
    world = fg.LearnedWorld(model)

    setting = Setting(
        k=3, horizon=10, pool=Pool()
    )  # slates of three, ten steps, the whole catalogue
    policy = CascadeDqn(
        world,
        setting.k,
        setting.pool,
        PolicyConfig(episodes=episodes, users=128, warm_up=256, seed=0),
    )
    curve = train_policy(policy, world, setting)
    with pl.Config(tbl_rows=6):
        print(curve.select("steps", "return", "click_rate", "epsilon"))

    earned = {
        made.name: float(judge_seeds([made], world, setting, n_users).returns.mean())
        for made in (RandomPolicy(), Greedy(), policy)
    }
    for name, value in earned.items():
        print(f"{name:<12}{value:6.2f}")
    return earned


if __name__ == "__main__":
    main()

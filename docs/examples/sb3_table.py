"""Agents of Stable-Baselines3 in one table with FastGAUM's policies: `python sb3_table.py RUN
OTHER_RUN [table.json]`.

PPO learns whole slates. MaskablePPO of sb3-contrib picks item by item, and its mask leaves out what
the slate holds. All learn in one world, from as many slates, and are judged in the other."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO

from fastgaum.machine import machine_facts
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.evaluation import ComparisonPlan, compare_policies
from fastgaum.policies.rollout import Setting
from fastgaum.policies.sb3 import Sb3Policy
from fastgaum.reports.table import blocks_to_markdown, finite
from fastgaum.reports.world_tables import policy_blocks
from fastgaum.worlds.item_by_item import VectorCascadeWrapper
from fastgaum.worlds.pools import Pool
from fastgaum.worlds.sb3 import SB3VecEnv
from fastgaum.worlds.vector_env import UserVectorEnv
from fastgaum.worlds.world import World
from fastgaum.worlds.world_set import world_of_run

NAMES, HORIZON = ("random", "popular", "greedy", "slateq"), 5
LEARNER = {"episodes": 80, "updates": 2, "batch": 256, "evaluations": 1}
"""of slateq: 80 episodes of 256 users are 102,400 slates, as many as each agent sees"""


def agent(kind: type[Any], own: World, slates: int, n: int) -> Callable[[Setting, int], Sb3Policy]:
    """What trains an agent of that kind, by n users side by side."""

    def trained(setting: Setting, seed: int) -> Sb3Policy:
        envs: Any = UserVectorEnv(
            n,
            world=own,
            slate_size=setting.k,
            horizon=setting.horizon,
            end="termination",  # as for slateq, nothing counts that would follow
            pool=setting.pool,
            reward=setting.reward,
            autoreset_mode="SAME_STEP",
        )
        picks = setting.k if kind is MaskablePPO else 1
        envs = SB3VecEnv(VectorCascadeWrapper(envs) if kind is MaskablePPO else envs)
        sizes = {"n_steps": 2 * setting.horizon * picks, "batch_size": 2 * n}
        made = kind("MlpPolicy", envs, 1e-3, gamma=1.0, seed=seed, device="cpu", **sizes)
        return Sb3Policy(made.learn(slates * picks))

    return trained


def main(own: World, other: World, seeds: int = 3, judges: int = 1000, **sizes: Any) -> Any:
    """Train and judge; return the table as a JSON object."""
    learner = PolicyConfig.from_mapping({**LEARNER, **sizes})
    n, slates = learner.users, HORIZON * learner.users * learner.episodes
    agents = {kind.__name__.lower(): agent(kind, own, slates, n) for kind in (PPO, MaskablePPO)}
    plan = ComparisonPlan(NAMES, [3], seeds, judges, learner, own, other, agents)
    return compare_policies(
        plan, lambda k, items: Setting(k, HORIZON, Pool("per_step", 20, items), "contrast")
    )


if __name__ == "__main__":
    result = main(*(world_of_run(run) for run in sys.argv[1:3]))
    result |= {"world": f"{sys.argv[2]}, policies of {sys.argv[1]}", "machine": machine_facts(0)}
    print(blocks_to_markdown(policy_blocks(result)))
    if len(sys.argv) > 3:
        Path(sys.argv[3]).write_text(json.dumps(finite(result), indent=1) + "\n", encoding="utf-8")

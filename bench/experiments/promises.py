"""What is trained in a world, how its policy is judged, and figures over seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fastgaum.arrays import Float64Array, FloatArray
from fastgaum.policies.base import Policy
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.evaluation import JUDGING_SEED, Estimate
from fastgaum.policies.registry import require_trained, untrained
from fastgaum.policies.rollout import Setting, play
from fastgaum.policies.training import train_policy
from fastgaum.worlds.world import World

MODEL: dict[str, object] = {"set_context": False, "relations": False}
"""what changes of the preset `fastgaum`: utilities then know no set"""


@dataclass(frozen=True)
class Learner:
    """What is trained, and how many users judge it in each world. Raises ConfigError for a policy
    that is not trained."""

    policy: str
    config: PolicyConfig
    """of its training; its seed is that of the judging users too"""
    users: int

    def __post_init__(self) -> None:
        require_trained(self.policy)

    def trained(self, world: World, setting: Setting) -> Policy:
        """The policy, trained among a world's users."""
        policy = untrained(self.policy, world, setting.k, setting.pool, self.config)
        train_policy(policy, world, setting)
        return policy

    def returns(self, policy: Policy, world: World, setting: Setting) -> FloatArray:
        """Returns of new users, the same for every policy of a seed; shape (users,)."""
        seed = JUDGING_SEED + self.config.seed
        return play(world, policy, setting, self.users, seed).returns


def mean_returns(returns: Mapping[str, FloatArray]) -> dict[str, float]:
    return {name: float(found.mean(dtype=np.float64)) for name, found in returns.items()}


def seeds_figure(name: str, by_seed: Float64Array) -> dict[str, object]:
    """A figure with its interval over seeds and its value of each seed."""
    one = Estimate.of(by_seed)
    return {name: one.mean, f"{name}_ci": [one.low, one.high], f"{name}_by_seed": by_seed.tolist()}

"""What the cascade earns where the best policy is known: `python bench/policies_quality.py [--seeds
3] [--episodes 60]`.

In `short_sighted()`, whose users tire of bait, 20 events and slates of 3, a click earns 1. Each
seed's training is scored exactly by `Planner.policy_return`, without sampling, beside the planner's
optimum and greed. Intervals are Student's over trainings."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np

from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.dqn import CascadeDqn
from fastgaum.policies.evaluation import Estimate
from fastgaum.policies.rollout import Setting
from fastgaum.policies.training import train_policy
from fastgaum.worlds.planning import Planner, short_sighted
from fastgaum.worlds.world import FloatArray, IntArray

SHARE = 0.95
"""of the best return that a training must reach on average"""


@dataclass(frozen=True)
class Quality:
    """Mean returns of one episode."""

    best: float
    """of the best policy there is"""
    greedy: float
    """of the policy that maximises each event's own reward"""
    returns: list[float]
    """of the cascade, by training"""

    @property
    def share(self) -> Estimate:
        """The cascade's return as a share of the best."""
        return Estimate.of(np.array(self.returns) / self.best)

    @property
    def lead(self) -> Estimate:
        """The cascade's return less greed's."""
        return Estimate.of(np.array(self.returns) - self.greedy)

    @property
    def holds(self) -> bool:
        """Whether the mean share reaches `SHARE` and the lead's interval lies above 0."""
        return self.share.mean >= SHARE and self.lead.low > 0


def quality(
    seeds: int = 3, horizon: int = 20, k: int = 3, *, n_items: int = 10, **settings: object
) -> Quality:
    """Train so many cascades, with `settings` for `PolicyConfig`, and score them."""
    world = short_sighted(n_items)
    planner, setting = Planner(world, horizon, k), Setting(k, horizon, reward="click")
    pool = np.arange(world.n_items, dtype=np.int32)
    returns = []
    for seed in range(seeds):
        policy = CascadeDqn(
            world, k, setting.pool, PolicyConfig.from_mapping({**settings, "seed": seed})
        )
        train_policy(policy, world, setting)

        def slates(step: int, states: FloatArray, policy: CascadeDqn = policy) -> IntArray:
            read = policy.reading(states, 1 - step / horizon)
            return np.asarray(pool[policy.best(read, pool, policy.target)])

        returns.append(float(planner.policy_return(slates)))
    return Quality(float(planner.best()), float(planner.greedy()), returns)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=60)
    arguments = parser.parse_args()
    started = time.perf_counter()
    found = quality(arguments.seeds, episodes=arguments.episodes, evaluations=1)
    print(
        f"best {found.best:.3f}, greedy {found.greedy:.3f} ({100 * found.greedy / found.best:.1f} "
        "%)"
    )
    print(
        f"cascade-dqn, {arguments.seeds} trainings: "
        f"{', '.join(f'{value:.3f}' for value in found.returns)}"
    )
    for name, value in (("share of the best", found.share), ("lead over greedy", found.lead)):
        print(f"{name}: {value.mean:.3f} ({value.low:.3f} to {value.high:.3f})")
    print(
        f"{'holds' if found.holds else 'missed'}; "
        f"{(time.perf_counter() - started) / arguments.seeds:.0f} s a training"
    )

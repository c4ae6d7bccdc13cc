"""What a learner earns where it is known what can be earned: `python bench/policies_quality.py
[--policy slateq] [--seeds 3] [--episodes 40]`.

Users tire of bait; 20 events, slates of 3, a click earns 1. In `items-10` each seed's training is
scored exactly by `Planner.policy_return`, without sampling, beside the planner's optimum and greed.
The other worlds are too large to plan. There the training stands beside greed and `Alternating`, a
rule made by hand that reads the truth: what it earns above greed shows what planning pays. Means of
so many users, the same for all. Intervals are Student's over trainings."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np

from fastgaum.policies.base import Observation, Policy, items_at, top_places
from fastgaum.policies.cascade_dqn import CascadeDqn
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.evaluation import Estimate
from fastgaum.policies.heuristics import Greedy
from fastgaum.policies.registry import LEARNERS, untrained
from fastgaum.policies.rollout import Setting, play
from fastgaum.policies.slateq import SlateQ
from fastgaum.policies.training import train_policy
from fastgaum.worlds.known_worlds import KNOWN_WORLDS, true_users
from fastgaum.worlds.planning import Planner, short_sighted
from fastgaum.worlds.true_world import TrueWorld
from fastgaum.worlds.world import FloatArray, IntArray

SHARE = {CascadeDqn.name: 0.95, SlateQ.name: 0.97}
"""of the best return that a training must reach on average, by learner"""
HORIZON, K = 20, 3
USERS, SEED = 2_000, 1 << 41
"""whom all policies meet where nothing is exact"""
LAST = 0.16
"""share of the episode in which `Alternating` forgets what comes later"""


class Alternating(Policy):
    """What pleases most while a user is not bored and in the last three events, else what pleases
    most and is no bait."""

    name = "alternating"

    def __init__(self, world: TrueWorld) -> None:
        """Take the truth."""
        self.is_bait = world.is_bait

    def act(self, observation: Observation, k: int) -> IntArray:
        """The rule's slates, shape (n, k)."""
        users, pools = observation.users, observation.pools
        careful = (users.states[:, -1] > 0) & (observation.left > LAST)
        kept_back = careful[:, None] & self.is_bait[pools]
        utilities = users.utilities(pools, k)
        return items_at(pools, top_places(np.where(kept_back, utilities - 1e3, utilities), k))


@dataclass(frozen=True)
class Quality:
    """Mean returns of one episode."""

    best: float
    """of the best policy there is"""
    greedy: float
    """of the policy that maximises each event's own reward"""
    returns: list[float]
    """of the learner, by training"""
    bar: float = SHARE[CascadeDqn.name]
    """share of the best that they must reach on average"""

    @property
    def share(self) -> Estimate:
        """The learner's return as a share of the best."""
        return Estimate.of(np.array(self.returns) / self.best)

    @property
    def lead(self) -> Estimate:
        """The learner's return less greed's."""
        return Estimate.of(np.array(self.returns) - self.greedy)

    @property
    def holds(self) -> bool:
        """Whether the mean share reaches the bar and the lead's interval lies above 0."""
        return self.share.mean >= self.bar and self.lead.low > 0


def quality(
    seeds: int = 3,
    horizon: int = HORIZON,
    k: int = K,
    *,
    n_items: int = 10,
    policy: str = SlateQ.name,
    **settings: object,
) -> Quality:
    """Train so many learners of a name, with `settings` for `PolicyConfig`, and score them."""
    world = short_sighted(n_items)
    planner, setting = Planner(world, horizon, k), Setting(k, horizon, reward="click")
    returns = []
    for seed in range(seeds):
        learner = untrained(
            policy,
            world,
            k,
            setting.pool,
            PolicyConfig.from_mapping({**settings, "seed": seed}),
        )
        train_policy(learner, world, setting)
        returns.append(exact_return(learner, planner))
    return Quality(float(planner.best()), float(planner.greedy()), returns, SHARE.get(policy, 0.0))


def exact_return(policy: Policy, planner: Planner) -> float:
    """A policy's mean return, without sampling, where it draws nothing."""

    def slates(step: int, states: FloatArray) -> IntArray:
        keys = np.zeros(len(states), np.uint64)
        left = 1 - step / planner.horizon
        policy.start(len(states))
        return policy.act(Observation(planner.users(step), planner.pool, keys, left), planner.k)

    return float(planner.policy_return(slates))


def beyond_greed(
    name: str, seeds: int = 3, *, policy: str = SlateQ.name, **settings: object
) -> tuple[Estimate, float]:
    """What a learner in a known world, and `Alternating`, earn above greed, as shares of it."""
    known, world = KNOWN_WORLDS[name], true_users(name)
    setting = Setting(K, HORIZON, known.pool, reward="click")

    def earned(one: Policy) -> float:
        return float(play(world, one, setting, USERS, SEED).returns.mean())

    greedy, returns = earned(Greedy()), []
    for seed in range(seeds):
        config = PolicyConfig.from_mapping({**settings, "seed": seed})
        learner = untrained(policy, world, K, setting.pool, config)
        train_policy(learner, world, setting)
        returns.append(earned(learner))
    return Estimate.of(np.array(returns) / greedy - 1), earned(Alternating(world)) / greedy - 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", choices=LEARNERS, default=SlateQ.name)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--worlds", nargs="*", default=["items-200", "items-2000"])
    arguments = parser.parse_args()
    started = time.perf_counter()
    options = {"policy": arguments.policy, "episodes": arguments.episodes, "evaluations": 1}
    found = quality(arguments.seeds, **options)
    print(
        f"best {found.best:.3f}, greedy {found.greedy:.3f} ({100 * found.greedy / found.best:.1f} "
        "%)"
    )
    print(
        f"{arguments.policy}, {arguments.seeds} trainings: "
        f"{', '.join(f'{value:.3f}' for value in found.returns)}"
    )
    for name, value in (("share of the best", found.share), ("lead over greedy", found.lead)):
        print(f"{name}: {value.mean:.3f} ({value.low:.3f} to {value.high:.3f})")
    print(
        f"{'holds' if found.holds else 'missed'}; "
        f"{(time.perf_counter() - started) / arguments.seeds:.0f} s a training"
    )
    for name in arguments.worlds:
        lead, by_hand = beyond_greed(name, arguments.seeds, **options)
        print(
            f"{name}: {arguments.policy} {100 * lead.mean:+.1f} % ({100 * lead.low:+.1f} to "
            f"{100 * lead.high:+.1f}) to greed, alternating by hand {100 * by_hand:+.1f} %"
        )

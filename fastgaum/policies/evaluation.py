"""Earnings of policies, paired differences, and the curve of a policy that meets new users.

Each seed trains every policy once and tests all of them on the same users with the same draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import t as student

from fastgaum.arrays import Float64Array, FloatArray
from fastgaum.errors import ConfigError
from fastgaum.policies.base import Policy
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.q_learning import QLearner
from fastgaum.policies.registry import LEARNERS, make_policy, popularity_in, untrained
from fastgaum.policies.rollout import EpisodeResult, Setting, first_keys, play
from fastgaum.policies.training import EVALUATION_SEED, train_policy
from fastgaum.policies.transfer import TransferPolicy, item_map, shared_items
from fastgaum.worlds.pools import START
from fastgaum.worlds.world import World
from fastgaum.worlds.world_set import WorldSet

JUDGING_SEED = EVALUATION_SEED << 1
"""seeds of judging users begin here"""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % interval; NaN bounds with a single seed."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, means: Sequence[float] | Float64Array) -> Estimate:
        """Student's interval of independent seeds' means.

        >>> Estimate.of([1.0, 2.0, 3.0]).mean
        2.0
        """
        values = np.asarray(means, np.float64)
        if len(values) < 2:
            return cls(float(values.mean()), float("nan"), float("nan"))
        half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
        return cls(float(values.mean()), float(values.mean() - half), float(values.mean() + half))


@dataclass(frozen=True)
class Earned:
    """Earnings of one policy in one setting."""

    policy: str
    k: int
    returns: Float64Array
    """cumulative reward, mean over users, by seed, shape (n_seeds,)"""
    click_rates: Float64Array
    """share of the slates shown with a choice, by seed, (n_seeds,)"""
    by_member: Float64Array | None = None
    """cumulative reward in each member of a set of worlds, mean over its users and seeds,
    (n_members,); None in one world"""

    @property
    def lower_bound(self) -> float | None:
        """`lower_bound_of` the members' values; None in one world."""
        return None if self.by_member is None else lower_bound_of(self.by_member)

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        reward, clicks = Estimate.of(self.returns), Estimate.of(self.click_rates)
        return {
            "policy": self.policy,
            "k": self.k,
            "seeds": len(self.returns),
            "return": reward.mean,
            "return_ci": [reward.low, reward.high],
            "return_by_seed": self.returns.tolist(),
            "click_rate": clicks.mean,
            "click_rate_ci": [clicks.low, clicks.high],
            **({} if self.lower_bound is None else {"lower_bound": self.lower_bound}),
        }


def lower_bound_of(by_member: Float64Array) -> float | None:
    """The lower prediction bound of one more member, of the members' values, (n_members,): a value
    that the policy exceeds in 95 % of new worlds, if worlds' values are normal. None with fewer
    than two.

    mean − t(.95, K − 1) · sd · √(1 + 1/K) of K members (Geisser, "Predictive Inference", 1993).
    """
    k = len(by_member)
    if k < 2:
        return None
    far = student.ppf(0.95, k - 1) * np.sqrt(1 + 1 / k)
    return float(by_member.mean() - far * by_member.std(ddof=1))


def judge(
    policies: Sequence[Policy],
    world: World,
    setting: Setting,
    n_users: int = 1000,
    own: World | None = None,
) -> Earned:
    """Play one policy's seeds, `policies` in their order, each with users of its own. `own` is the
    world that they were made in, where they play in another (`TransferPolicy`).

    Raises:
        ConfigError: no policy is given, slates and pools do not fit the world, or a policy reads
            the states of another world than `own`, or than `world` without it.
    """
    if not policies:
        raise ConfigError("a policy is judged by at least one seed of it, none was given")
    plain = replace(setting, pessimism=0.0)
    outcomes: list[EpisodeResult] = []
    for seed, policy in enumerate(policies):
        if isinstance(policy, QLearner):
            policy.learning = False
        player = _player(policy, world, setting, own)
        outcomes.append(play(world, player, plain, n_users, JUDGING_SEED + seed))
    returns = np.array([outcome.returns.mean(dtype=np.float64) for outcome in outcomes])
    clicks = np.array([outcome.click_rate for outcome in outcomes])
    by_member = None
    if isinstance(world, WorldSet):
        by_member = returns_by_member(world, [outcome.returns for outcome in outcomes])
    return Earned(policies[0].name, setting.k, returns, clicks, by_member)


def returns_by_member(
    world: WorldSet, by_seed: Sequence[FloatArray], first_seed: int = 0
) -> Float64Array:
    """Mean return of the users of each member that has some, over all seeds, of the returns of the
    users that judge, each of shape (n_users,)."""
    members = [
        world.members_of(first_keys(len(returns), JUDGING_SEED + seed).of(START))
        for seed, returns in enumerate(by_seed, start=first_seed)
    ]
    counts = np.bincount(np.concatenate(members), minlength=len(world.worlds))
    sums = np.bincount(np.concatenate(members), np.concatenate(by_seed), len(world.worlds))
    return np.asarray(sums[counts > 0] / counts[counts > 0], np.float64)


def difference(one: Earned, other: Earned) -> Estimate:
    """The paired difference of two policies' cumulative rewards, over the same seeds. Raises
    ConfigError for different numbers of seeds."""
    if len(one.returns) != len(other.returns):
        raise ConfigError(
            f"{one.policy} was judged by {len(one.returns)} seeds and {other.policy} by "
            f"{len(other.returns)}: use the same"
        )
    return Estimate.of(one.returns - other.returns)


def adaptation(
    policies: Mapping[str, Sequence[QLearner]],
    world: World,
    setting: Setting,
    *,
    episodes: int = 10,
    n_users: int = 100,
    own: World | None = None,
    epsilon: float = 0.05,
) -> pl.DataFrame:
    """How policies do while they learn from new users: a row per label, seed and episode with its
    mean return. Each plays `episodes` episodes with `n_users` new users each, exploring with a
    share `epsilon` of places. In another world than `own` it learns from what a site can see.

    Raises:
        ConfigError: slates or pools do not fit the world.
        NumericsError: learning diverged.
    """
    rows = []
    for label, seeds in policies.items():
        for seed, policy in enumerate(seeds):
            player = _player(policy, world, setting, own)
            for episode in range(episodes):
                policy.learning, policy.fixed_epsilon = True, epsilon
                outcome = play(
                    world, player, setting, n_users, JUDGING_SEED + seed, episode * n_users
                )
                rows.append(
                    {
                        "policy": label,
                        "seed": seed,
                        "users": (episode + 1) * n_users,
                        "return": float(outcome.returns.mean()),
                        "click_rate": outcome.click_rate,
                    }
                )
            policy.learning = False
    return pl.DataFrame(rows)


def adaptation_summary(curve: pl.DataFrame) -> list[dict[str, Any]]:
    """Means over seeds of an adaptation's frame, with intervals: a row per policy and number of
    users met."""
    return [
        {"policy": label, "users": users, "return": mean.mean, "ci": [mean.low, mean.high]}
        for (label, users), part in curve.group_by(["policy", "users"], maintain_order=True)
        for mean in [Estimate.of(part["return"].to_numpy())]
    ]


def _player(policy: Policy, world: World, setting: Setting, own: World | None) -> Policy:
    if own is None or own is world:
        return policy
    return TransferPolicy(policy, own, world, setting.reward)


@dataclass(frozen=True)
class ComparisonPlan:
    """The plan of a comparison. Raises ConfigError without a seed."""

    names: Sequence[str]
    """of `registry.POLICIES`"""
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
    """the world that they are judged in"""
    agents: Mapping[str, Callable[[Setting, int], Policy]] = field(default_factory=dict)
    """further policies, by what progress calls them: each is made for a setting in `own` and a
    seed"""

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ConfigError(f"a comparison has at least 1 seed, got {self.seeds}")


def compare_policies(
    plan: ComparisonPlan,
    setting: Callable[[int, tuple[int, ...]], Setting],
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, object]:
    """Make, train and judge; returns the table as a JSON object, a row per policy and size.

    `setting` is called with k and the items that pools are drawn from, `progress` with trainings
    done, trainings in all, and the present policy.

    Raises:
        ConfigError: slates or pools do not fit, or a policy lacks its source.
        NumericsError: a training diverged.
    """
    items: tuple[int, ...] = ()
    own_items: tuple[int, ...] = ()
    if plan.judge is not plan.own:
        # in one order, so that a fixed pool holds the same items in both
        items = shared_items(plan.own, plan.judge)
        own_items = tuple(item_map(plan.own, plan.judge)[list(items)].tolist())
    settings = [(setting(k, own_items), setting(k, items)) for k in plan.sizes]
    for met, judged in settings:
        met.pool.check(plan.own.n_items, met.k)
        judged.pool.check(plan.judge.n_items, judged.k)
    table: list[Earned] = []
    names = [*plan.names, *plan.agents]
    trained, total = 0, len(plan.sizes) * len(names) * plan.seeds
    for met, judged in settings:
        for name in names:
            policies: list[Policy] = []
            for seed in range(plan.seeds):
                if progress is not None:
                    progress(trained, total, f"{name}, k = {met.k}")
                trained += 1
                if name in plan.agents:
                    policies.append(plan.agents[name](met, plan.config.seed + seed))
                    continue
                if name not in LEARNERS:
                    policies.append(make_policy(name, popularity_in(plan.own)))
                    continue
                config = plan.config.replace(seed=plan.config.seed + seed)
                learner = untrained(name, plan.own, met.k, met.pool, config)
                train_policy(learner, plan.own, met)
                policies.append(learner)
            table.append(judge(policies, plan.judge, judged, plan.users, plan.own))
    some = settings[0][1]
    return {
        "rows": [row.to_dict() | {"versus": _versus_best(row, table)} for row in table],
        "seeds": plan.seeds,
        "users": plan.users,
        "reward": some.pays.name,
        "horizon": some.horizon,
        "pool": f"{some.pool.rule} of {some.pool.size or 'all'}",
        "config": plan.config.to_mapping(),
    }


def _versus_best(row: Earned, table: Sequence[Earned]) -> dict[str, object] | None:
    """The best other policy of the same k, and the paired difference to it; None without one."""
    others = [other for other in table if other.k == row.k and other.policy != row.policy]
    if not others:
        return None
    best = max(others, key=lambda other: float(other.returns.mean()))
    lead = difference(row, best)
    return {"policy": best.policy, "diff": lead.mean, "ci": [lead.low, lead.high]}

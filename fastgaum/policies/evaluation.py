"""What policies earn: the policy table, paired differences, and the curve of a policy that meets
new users.

A seed is a policy's training seed and the seed of the users that judge it. Users are the same for
every policy of a seed, with the same luck, so that a difference of two policies is a paired one.
Intervals are Student's over the seeds' means: they hold what a seed changes, training and users
both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.stats import t as student

from fastgaum.errors import ConfigError
from fastgaum.policies.base import Policy
from fastgaum.policies.followed import Followed
from fastgaum.policies.learner import Learner
from fastgaum.policies.linucb import LinUcb
from fastgaum.policies.rollout import Outcome, Setting, play
from fastgaum.policies.training import EVALUATION_SEED
from fastgaum.worlds.world import World

Float64Array = npt.NDArray[np.float64]
JUDGING_SEED = EVALUATION_SEED << 1
"""seeds of judging users begin here: neither training nor its evaluations met them"""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % interval; NaN bounds with a single seed, whose spread nobody
    knows."""

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

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval is known and 0 lies outside."""
        return bool(self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Earned:
    """What one policy earned in one setting."""

    policy: str
    k: int
    returns: Float64Array
    """cumulative reward of a user, mean over users, by seed, shape (n_seeds,)"""
    click_rates: Float64Array
    """share of the slates shown with a choice, by seed, shape (n_seeds,)"""

    def to_dict(self) -> dict[str, Any]:
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
        }


def judge(
    policies: Sequence[Policy],
    world: World,
    setting: Setting,
    n_users: int = 1000,
    own: World | None = None,
) -> Earned:
    """Play one policy's seeds, `policies` in their order, each with users of its own.

    `own` is the world that the policies were made in, where that is not the one they play in: they
    then see the users through it (`Followed`).

    Raises:
        ConfigError: no policy is given, or slates and pools do not fit the world.
    """
    if not policies:
        raise ConfigError("a policy is judged by at least one seed of it, none was given")
    outcomes: list[Outcome] = []
    for seed, policy in enumerate(policies):
        player = policy if own is None or own is world else Followed(policy, own, world)
        outcomes.append(_still(player, policy, world, setting, n_users, seed))
    returns = np.array([outcome.returns.mean(dtype=np.float64) for outcome in outcomes])
    return Earned(
        policies[0].name, setting.k, returns, np.array([outcome.click_rate for outcome in outcomes])
    )


def difference(one: Earned, other: Earned) -> Estimate:
    """The paired difference of two policies' cumulative rewards, over the same seeds.

    Raises:
        ConfigError: they were judged by different numbers of seeds.
    """
    if len(one.returns) != len(other.returns):
        raise ConfigError(
            f"{one.policy} was judged by {len(one.returns)} seeds and {other.policy} by "
            f"{len(other.returns)}: use the same"
        )
    return Estimate.of(one.returns - other.returns)


def versus_best(table: Sequence[Earned]) -> dict[tuple[str, int], tuple[str, Estimate]]:
    """For each policy and k the best other policy of that k, and the paired difference to it."""
    result = {}
    for row in table:
        others = [other for other in table if other.k == row.k and other.policy != row.policy]
        if others:
            best = max(others, key=lambda other: float(other.returns.mean()))
            result[row.policy, row.k] = best.policy, difference(row, best)
    return result


def adaptation(
    policies: Mapping[str, Sequence[Learner | LinUcb]],
    world: World,
    setting: Setting,
    *,
    episodes: int = 10,
    n_users: int = 100,
    own: World | None = None,
    epsilon: float = 0.05,
) -> pl.DataFrame:
    """How policies do while they learn from new users: a row per label, seed and episode with its
    mean return.

    Each policy plays `episodes` episodes with `n_users` new users each and learns in them,
    exploring with a share `epsilon` of places; a pre-trained and an untrained one under two labels
    give the adaptation curve.

    Raises:
        ConfigError: slates or pools do not fit the world.
        NumericsError: learning diverged.
    """
    rows = []
    for label, seeds in policies.items():
        for seed, policy in enumerate(seeds):
            player: Policy = policy if own is None or own is world else Followed(policy, own, world)
            for episode in range(episodes):
                policy.learning = True
                if isinstance(policy, Learner):
                    policy.fixed_epsilon = epsilon
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


def summary(curve: pl.DataFrame) -> list[dict[str, Any]]:
    """Means over seeds of an adaptation's frame, with intervals: a row per policy and number of
    users met."""
    rows = []
    for (label, users), part in curve.group_by(["policy", "users"], maintain_order=True):
        estimate = Estimate.of(part["return"].to_numpy())
        rows.append(
            {
                "policy": label,
                "users": users,
                "return": estimate.mean,
                "ci": [estimate.low, estimate.high],
            }
        )
    return rows


def _still(
    player: Policy, policy: Policy, world: World, setting: Setting, n_users: int, seed: int
) -> Outcome:
    """Play with learning off."""
    if isinstance(policy, Learner | LinUcb):
        policy.learning = False
    return play(world, player, setting, n_users, JUDGING_SEED + seed)

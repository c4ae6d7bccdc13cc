"""Two sides compared: intervals from a bootstrap over users, and a permutation test within users.

The hypothesis is that the logged session is one more draw of the world: given the displays, a
user's logged choices and those of their replicas are then exchangeable. Each permutation takes, for
every user independently, one of the user's versions (the log or a replica, all sessions of the user
together) as the logged one; p is the share of permutations, the log itself among them, whose two
sides differ at least as much. It is exact for any statistic, small sample or not, and allows
whatever ties a user's events together.

    mean   |difference of the two ratios| chi2   Σ over groups of counts · (difference)² / ratio of
    both sides together: Pearson's, for shares and rates ks     largest |difference of the cumulated
    shares|: Kolmogorov and Smirnov's

p-values of one family are adjusted by Holm's (1979) rule: where all hypotheses hold, some adjusted
p lies below 0.05 in at most one family of twenty."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fastgaum.metrics.sums import AnyArray, Float64Array, Statistic, Test, ratio

CHUNK = 1 << 22
"""entries that are gathered at once"""
LEVEL = 0.95


@dataclass(frozen=True)
class Compared:
    """A statistic on both sides; arrays have an entry per group."""

    statistic: Statistic
    logged: Float64Array
    logged_ci: Float64Array
    """shape (2, n_groups): from, to"""
    simulated: Float64Array
    """of all replicas together"""
    simulated_ci: Float64Array
    difference: Float64Array
    """simulated − logged"""
    difference_ci: Float64Array
    """of the same drawn users on both sides"""
    distance: float
    """the test's statistic; NaN where a side counts nothing"""
    p: float
    """before Holm's rule; NaN where a side counts nothing"""


def compare(statistic: Statistic, draws: int = 1999, seed: int = 0) -> Compared:
    """Both sides of a statistic, their intervals over users and the test; the same seed gives the
    same figures."""
    n_users = statistic.sums.shape[1]
    logged, simulated = (side[0] for side in sides(statistic, np.ones((1, n_users))))
    parts = [sides(statistic, weights) for weights in drawn_users(n_users, draws, seed)]
    drawn = (
        np.concatenate([logged for logged, _ in parts]),
        np.concatenate([simulated for _, simulated in parts]),
    )
    distance, p = permutation_test(statistic, draws, seed)
    return Compared(
        statistic,
        logged,
        interval(drawn[0]),
        simulated,
        interval(drawn[1]),
        simulated - logged,
        interval(drawn[1] - drawn[0]),
        distance,
        p,
    )


def sides(statistic: Statistic, weights: AnyArray) -> tuple[Float64Array, Float64Array]:
    """Logged and simulated ratios, (n_draws, n_groups) each, of users that count `weights`
    (n_draws, n_users) times."""
    (sums, more_sums), (counts, more_counts) = (
        (part[0], part[1:].sum(axis=0)) for part in (statistic.sums, statistic.counts)
    )
    return ratio(weights @ sums, weights @ counts), ratio(
        weights @ more_sums, weights @ more_counts
    )


def drawn_users(n_users: int, draws: int, seed: int) -> Iterator[Float64Array]:
    """How often each user is drawn, with replacement, as many as there are; chunks of shape (·,
    n_users)."""
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK // n_users)
    for start in range(0, draws, step):
        size = min(step, draws - start)
        yield rng.multinomial(n_users, np.full(n_users, 1 / n_users), size=size).astype(np.float64)


def interval(values: Float64Array) -> Float64Array:
    """Percentile interval of draws, (n_draws, ·) → (2, ·); draws that count nothing are left out,
    NaN if all do."""
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    columns = [values[~np.isnan(values[:, i]), i] for i in range(values.shape[1])]
    return np.stack(
        [np.quantile(one, ends) if len(one) else np.full(2, np.nan) for one in columns], axis=1
    )


def permutation_test(statistic: Statistic, draws: int, seed: int) -> tuple[float, float]:
    """Distance of the two sides, and p; NaN both where a side counts nothing."""
    observed = distance(*next(exchanged(statistic, 0, seed)), statistic.test)
    if np.isnan(observed[0]):
        return float("nan"), float("nan")
    others = np.concatenate(
        [distance(*part, statistic.test) for part in exchanged(statistic, draws, seed)]
    )
    # sums that are equal may differ by rounding; a permutation that counts nothing on a side is no
    # evidence
    below = np.count_nonzero(others < observed[0] - 1e-9 * abs(observed[0]))
    return float(observed[0]), (len(others) - below) / len(others)


Sides = tuple[tuple[AnyArray, AnyArray], tuple[AnyArray, AnyArray]]
"""sums and counts, (n_draws, n_groups) each, of the log and of the world"""


def exchanged(statistic: Statistic, draws: int, seed: int) -> Iterator[Sides]:
    """The sides as they are, then `draws` permutations within users, in chunks."""
    sums, counts = statistic.sums, statistic.counts
    n_versions, n_users, n_groups = sums.shape
    totals = sums.sum(axis=(0, 1)), counts.sum(axis=(0, 1))
    rng = np.random.default_rng([seed, 1])
    everyone = np.arange(n_users)
    step = max(1, CHUNK // (n_users * n_groups))
    for start in range(0, draws + 1, step):
        size = min(step, draws + 1 - start)
        picked = rng.integers(n_versions, size=(size, n_users))
        if start == 0:
            picked[0] = 0
        one = sums[picked, everyone].sum(axis=1), counts[picked, everyone].sum(axis=1)
        yield one, (totals[0] - one[0], totals[1] - one[1])


def distance(
    logged: tuple[AnyArray, AnyArray], simulated: tuple[AnyArray, AnyArray], test: Test
) -> Float64Array:
    """How far two sides are apart, (n_draws,); sums and counts (n_draws, n_groups) of each. NaN if
    one counts nothing."""
    one, other = ratio(*logged), ratio(*simulated)
    if test == "mean":
        return np.abs(one - other)[:, 0]
    if test == "ks":
        return np.asarray(np.abs(np.cumsum(one - other, axis=1)).max(axis=1), np.float64)
    together = ratio(logged[0] + simulated[0], logged[1] + simulated[1])
    terms = logged[1] * (one - other) ** 2 / np.where(together > 0, together, 1.0)
    # a group that one side lacks says nothing; where all do, there is nothing to compare
    apart = np.where(np.isnan(terms).all(axis=1), np.nan, np.nansum(terms, axis=1))
    return np.asarray(apart, np.float64)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted by Holm's rule, in the same order; NaN stays NaN and does not count.

    >>> holm([0.01, 0.04, 0.03, float("nan")])
    [0.03, 0.06, 0.06, nan]
    """
    values = np.asarray(p_values, np.float64)
    adjusted = np.full(len(values), np.nan)
    order = [i for i in np.argsort(values, kind="stable") if not np.isnan(values[i])]
    reached = 0.0
    for rank, i in enumerate(order):
        reached = max(reached, min(1.0, (len(order) - rank) * float(values[i])))
        adjusted[i] = reached
    return [float(value) for value in adjusted]

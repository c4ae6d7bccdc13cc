"""Log and world compared: intervals from a bootstrap over users, a permutation test within users.

If the log is one more draw of the world, a user's logged choices and those of their replicas are
exchangeable. Each permutation takes, for every user, one version as the logged one; p is the share
of permutations, the log itself among them, whose two sides differ at least as much:

    mean   |difference of the two ratios|
    chi2   Σ over groups of counts · (difference)² / ratio of both sides together: Pearson's, for
           shares and rates
    ks     largest |difference of the cumulated shares|: Kolmogorov and Smirnov's"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastgaum.arrays import Float64Array
from fastgaum.metrics.intervals import AnyArray, Statistic, Test, ratio
from fastgaum.reports.table import Json

CHUNK = 1 << 22
"""entries that are gathered at once"""


def compare_sides(statistic: Statistic, draws: int = 1999, seed: int = 0) -> Json:
    """Both sides of a statistic, their intervals over users and the test.

    Returns: `distance` and `p`, before Holm's rule, NaN where a side counts nothing; and `groups`,
        each with its label, `logged`, `simulated` (of all replicas together), `difference`
        (simulated − logged), and their ends `…_ci`, of the same drawn users on both sides.
    """
    n_users = statistic.sums.shape[1]
    weights = [np.ones((1, n_users)), *draw_users(n_users, draws, seed)]
    # the first row is of all users once, the others are draws
    logged, simulated = map(
        np.concatenate, zip(*(sides(statistic, one) for one in weights), strict=True)
    )
    figures = {"logged": logged, "simulated": simulated, "difference": simulated - logged}
    ends = {name: percentile_interval(values[1:]) for name, values in figures.items()}
    observed, p = permutation_test(statistic, draws, seed)
    groups = [
        {"label": label}
        | {name: float(values[0, i]) for name, values in figures.items()}
        | {f"{name}_ci": both[:, i].tolist() for name, both in ends.items()}
        for i, label in enumerate(statistic.labels)
    ]
    return {"distance": observed, "p": p, "groups": groups}


def sides(statistic: Statistic, weights: AnyArray) -> tuple[Float64Array, Float64Array]:
    """Logged and simulated ratios, (n_draws, n_groups) each, of users that count `weights`
    (n_draws, n_users) times."""
    (sums, more_sums), (counts, more_counts) = (
        (part[0], part[1:].sum(axis=0)) for part in (statistic.sums, statistic.counts)
    )
    simulated = ratio(weights @ more_sums, weights @ more_counts)
    return ratio(weights @ sums, weights @ counts), simulated


def draw_users(n_users: int, draws: int, seed: int) -> Iterator[Float64Array]:
    """How often each user is drawn, with replacement; chunks of shape (·, n_users)."""
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK // n_users)
    for start in range(0, draws, step):
        size = min(step, draws - start)
        yield rng.multinomial(n_users, np.full(n_users, 1 / n_users), size=size).astype(np.float64)


def percentile_interval(values: Float64Array) -> Float64Array:
    """95 % percentile interval of draws, (n_draws, ·) → (2, ·); NaN draws are left out."""
    columns = [column[~np.isnan(column)] for column in values.T]
    ends = [np.quantile(one, [0.025, 0.975]) if len(one) else [np.nan] * 2 for one in columns]
    return np.array(ends).T


def permutation_test(statistic: Statistic, draws: int, seed: int) -> tuple[float, float]:
    """Distance of the two sides, and p; NaN both where a side counts nothing."""
    observed = distance(*next(permute_sides(statistic, 0, seed)), statistic.test)
    if np.isnan(observed[0]):
        return float("nan"), float("nan")
    others = np.concatenate(
        [distance(*part, statistic.test) for part in permute_sides(statistic, draws, seed)]
    )
    # sums that are equal may differ by rounding; a permutation that counts nothing on a side is no
    # evidence
    below = np.count_nonzero(others < observed[0] - 1e-9 * abs(observed[0]))
    return float(observed[0]), float((len(others) - below) / len(others))


Side = tuple[AnyArray, AnyArray]
"""sums and counts, (n_draws, n_groups) each"""


def permute_sides(statistic: Statistic, draws: int, seed: int) -> Iterator[tuple[Side, Side]]:
    """The sides of the log and of the world, then of `draws` permutations within users."""
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


def distance(logged: Side, simulated: Side, test: Test) -> Float64Array:
    """How far two sides are apart, (n_draws,). NaN if one counts nothing."""
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

"""Intervals with the user as the unit.

An interval is that of a mean over events, from a bootstrap over users (Efron & Tibshirani 1993,
percentile interval): each draw takes as many users as there are, with replacement, and averages
over all their events. Of several seeds a draw takes one fewer, with replacement and apart from the
users (Owen 2007, Rao & Wu 1988)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from fastgaum import threads
from fastgaum.arrays import Float64Array
from fastgaum.kernels.draws import sum_drawn
from fastgaum.metrics.precision import AnyFloats, AnyInts, micro_mean, sums_by_user

# At most this many drawn users at a time: 1,000 draws of a million users would need gigabytes at
# once.
_CHUNK = 1 << 22
BOOTSTRAP_PARTS = 8
"""of the draws, which threads share"""


@dataclass(frozen=True)
class Interval:
    """A mean over events with its percentile interval over users and, of several seeds, seeds."""

    mean: float
    low: float
    high: float
    n_events: int
    n_users: int

    def to_dict(self) -> dict[str, Any]:
        """The mean and the ends, for JSON."""
        return {"mean": self.mean, "ci": [self.low, self.high]}


def bootstrap_mean(
    per_event: Float64Array,
    users: AnyInts,
    weights: AnyFloats | None = None,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Interval:
    """The mean of per_event, shape (n_events,) or (n_seeds, n_events), and its interval; users
    (n_events,) any integer labels; weights of the events, (n_events,), or None: all alike.

    Events that are NaN under a seed are left out. The same `seed` gives the same interval. Without
    a counted event all is NaN; with a single user and seed the interval is the mean alone.

    >>> bootstrap_mean(np.array([0.5, 0.5, np.nan]), np.array([0, 1, 1]))
    Interval(mean=0.5, low=0.5, high=0.5, n_events=2, n_users=2)
    """
    return bootstrap_means([per_event], users, weights, draws=draws, seed=seed)[0]


def bootstrap_means(
    columns: Sequence[Float64Array],
    users: AnyInts,
    weights: AnyFloats | None = None,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> list[Interval]:
    """The `bootstrap_mean` of each of some columns, (n_events,) or (n_seeds, n_events) each; those
    of as many users share their draws."""
    return _intervals([[np.atleast_2d(values)] for values in columns], users, weights, draws, seed)


def _intervals(
    columns: Sequence[Sequence[Float64Array]],
    users: AnyInts,
    weights: AnyFloats | None,
    draws: int,
    seed: int,
) -> list[Interval]:
    """The interval of each column, a sum of parts, (n_seeds, n_events) each: the seeds of each part
    are drawn on their own."""
    of_users, of_seeds, means, counts = [], [], [], []
    for parts in columns:
        rows = np.concatenate(parts, dtype=np.float64)
        rows[:, np.isnan(rows).any(axis=0)] = np.nan
        pairs = [sums_by_user(row, users, weights) for row in rows]
        means.append(micro_mean(np.sum([part.mean(axis=0) for part in parts], axis=0), weights))
        counts.append(int((~np.isnan(rows[0])).sum()))
        of_users.append(np.stack([*(sums for sums, _ in pairs), pairs[0][1]], axis=1))
        drawn = []
        for number, n_seeds in enumerate(map(len, parts), 1):
            n, even = max(1, n_seeds - 1), np.full(n_seeds, 1 / n_seeds)
            drawn.append(np.random.default_rng([seed, number]).multinomial(n, even, draws) / n)
        of_seeds.append(np.concatenate(drawn, axis=1))
    nothing = Interval(float("nan"), float("nan"), float("nan"), 0, 0)
    found = dict.fromkeys(range(len(columns)), nothing)
    for n_users in {len(table) for table in of_users} - {0}:
        alike = [i for i, table in enumerate(of_users) if len(table) == n_users]
        stacked = np.concatenate([of_users[i] for i in alike], axis=1)
        totals = np.concatenate(
            [_sums_of(drawn, stacked) for drawn in _drawn_users(n_users, draws, seed)]
        )
        ends = np.cumsum([of_users[i].shape[1] for i in alike])[:-1]
        for i, part in zip(alike, np.split(totals, ends, axis=1), strict=True):
            values = (part[:, :-1] * of_seeds[i]).sum(axis=1) / part[:, -1]
            low, high = np.quantile(values, [0.025, 0.975]).tolist()
            found[i] = Interval(means[i], low, high, counts[i], n_users)
    return list(found.values())


def _sums_of(drawn: npt.NDArray[np.int32], values: Float64Array) -> Float64Array:
    sums = np.empty((len(drawn), values.shape[1]))
    ends = np.linspace(0, len(drawn), BOOTSTRAP_PARTS + 1).astype(int).tolist()
    threads.run(sum_drawn, [(*part, drawn, values, sums) for part in pairwise(ends)])
    return sums


def paired_difference(
    per_event: Float64Array,
    other_per_event: Float64Array,
    users: AnyInts,
    weights: AnyFloats | None = None,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Interval:
    """The interval of the mean of per_event − other_per_event, two models on the same events,
    (n_events,) or (n_seeds, n_events) each: of the same drawn users on both sides, and each side's
    own drawn seeds. Raises ValueError if the events differ.

    >>> paired_difference(np.array([1.0, 0.0]), np.array([0.5, -0.5]), np.array([0, 1])).low
    0.5
    """
    ours, theirs = np.atleast_2d(per_event), np.atleast_2d(other_per_event)
    if ours.shape[1] != theirs.shape[1]:
        raise ValueError(
            f"the two models were scored on {ours.shape[1]} and {theirs.shape[1]} events: "
            "pass the same events"
        )
    mean = theirs.mean(axis=0)
    parts = [ours - mean] if len(theirs) == 1 else [ours - mean, mean - theirs]
    return _intervals([parts], users, weights, draws, seed)[0]


def jackknife_error(of_folds: Float64Array, n_folds: int) -> Float64Array:
    """The standard error of a figure, of the figures of fits that each left out another of n_folds
    folds of its users, (n, …), at least two of them; shape (…,).

    It is (n_folds − 1) / √n_folds times their standard deviation: two such fits share most of their
    users, and differ less than the figure errs. So few fits say its size with Student's t of n − 1
    degrees of freedom (the delete-a-group jackknife, Kott, Journal of Official Statistics 2001).

    >>> jackknife_error(np.array([1.0, 2.0, 3.0, 2.0]), 4).round(3)
    np.float64(1.225)
    """
    spread = of_folds.std(axis=0, ddof=1)
    return np.asarray((n_folds - 1) / math.sqrt(n_folds) * spread)[()]


def _drawn_users(n_users: int, draws: int, seed: int) -> Iterator[npt.NDArray[np.int32]]:
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // n_users)
    for start in range(0, draws, step):
        yield rng.integers(n_users, size=(min(step, draws - start), n_users), dtype=np.int32)


AnyArray = npt.NDArray[Any]


def draw_users(n_users: int, draws: int, seed: int) -> Iterator[Float64Array]:
    """How often each user is drawn, with replacement; chunks of shape (·, n_users)."""
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // n_users)
    for start in range(0, draws, step):
        size = min(step, draws - start)
        yield rng.multinomial(n_users, np.full(n_users, 1 / n_users), size=size).astype(np.float64)


def percentile_interval(values: Float64Array) -> Float64Array:
    """95 % percentile interval of draws, (n_draws, ·) → (2, ·); NaN draws are left out."""
    columns = [column[~np.isnan(column)] for column in values.T]
    ends = [np.quantile(one, [0.025, 0.975]) if len(one) else [np.nan] * 2 for one in columns]
    return np.array(ends).T


def ratio(sums: AnyArray, counts: AnyArray) -> Float64Array:
    """sums / counts, NaN where nothing was counted."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(counts > 0, sums / counts, np.nan), np.float64)


def cut(levels: AnyArray, n: int) -> tuple[AnyArray, tuple[str, ...]]:
    """Cut whole-number levels (n_cases,) into at most n groups of about as many cases; equal levels
    stay together. Returns the largest level of each group but the last, and labels.

    >>> cut(np.array([0, 0, 0, 1, 2, 3, 9, 9]), 4)
    (array([0, 1, 3]), ('0', '1', '2–3', '9'))
    """
    ordered = np.sort(levels)
    edges = np.unique(
        ordered[
            [len(ordered) * (i + 1) // n - 1 for i in range(n - 1) if len(ordered) * (i + 1) >= n]
        ]
    )
    edges = edges[edges < ordered[-1]]
    tops = np.append(edges, ordered[-1])
    bottoms = ordered[np.append(0, np.searchsorted(ordered, edges, side="right"))]
    labels = tuple(
        str(a) if a == b else f"{a}–{b}"
        for a, b in zip(bottoms.tolist(), tops.tolist(), strict=True)
    )
    return edges, labels

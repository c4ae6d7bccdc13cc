"""Statistics as sums by user: what intervals and tests are made of, with the user as the unit."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fastgaum.metrics.precision import Float64Array

AnyArray = npt.NDArray[Any]
Test = Literal["mean", "chi2", "ks"]
Unit = Literal["%", "nats", "places", "log", "ratio"]


@dataclass(frozen=True)
class Statistic:
    """Ratios of sums, Σ sums / Σ counts over users, of the log (version 0) and of each replica of
    it.

    A mean is one such ratio; a distribution, or a mean by group, is one per group.
    """

    name: str
    what: str
    """its definition and denominator"""
    test: Test
    """what two sides are compared by: see `reports/permutation.py`"""
    labels: tuple[str, ...]
    """name of each group, one for a mean"""
    sums: Float64Array
    """shape (n_versions, n_users, n_groups)"""
    counts: Float64Array
    """shape (n_versions, n_users, n_groups)"""
    unit: Unit = "%"
    """what the ratios are; % = shares, kept as numbers in [0, 1]"""


class Sums:
    """Adds up values of events by version, user and group."""

    def __init__(self, n_versions: int, users: AnyArray) -> None:
        """`users`: user of each event of one version, shape (n_events,), any labels."""
        distinct, rows = np.unique(users, return_inverse=True)
        self.n_versions, self.n_users = n_versions, len(distinct)
        version = np.repeat(np.arange(n_versions), len(rows))
        self.rows: npt.NDArray[np.int64] = version * self.n_users + np.tile(rows, n_versions)
        """version and user of each event of all versions"""

    def add(
        self, values: AnyArray, rows: AnyArray, groups: AnyArray, n_groups: int
    ) -> Float64Array:
        """Sums of values (n,) that belong to `rows` and groups; shape (n_versions, n_users,
        n_groups)."""
        flat = np.bincount(
            rows * n_groups + groups, values, self.n_versions * self.n_users * n_groups
        )
        return np.asarray(flat, np.float64).reshape(self.n_versions, self.n_users, n_groups)

    def mean(self, name: str, what: str, values: AnyArray, unit: Unit = "%") -> Statistic:
        """Mean of one value per event, those that are NaN left out."""
        one = self.by_group(name, what, values, np.zeros(len(values), np.int64), ("",))
        return dataclasses.replace(one, test="mean", unit=unit)

    def by_group(
        self, name: str, what: str, values: AnyArray, groups: AnyArray, labels: tuple[str, ...]
    ) -> Statistic:
        """Mean of the values of each group of events, those that are NaN left out."""
        kept = np.flatnonzero(~np.isnan(values))
        rows, groups = self.rows[kept], groups[kept]
        sums, counts = (
            self.add(part, rows, groups, len(labels)) for part in (values[kept], np.ones(len(kept)))
        )
        return Statistic(name, what, "chi2", labels, sums, counts)

    def shares(
        self, name: str, what: str, groups: AnyArray, labels: tuple[str, ...], test: Test = "chi2"
    ) -> Statistic:
        """Share of the events in each group, those of group -1 left out."""
        kept = np.flatnonzero(groups >= 0)
        sums = self.add(np.ones(len(kept)), self.rows[kept], groups[kept], len(labels))
        counts = np.repeat(sums.sum(axis=2, keepdims=True), len(labels), axis=2)
        return Statistic(name, what, test, labels, sums, counts)


def ratio(sums: AnyArray, counts: AnyArray) -> Float64Array:
    """sums / counts, NaN where nothing was counted."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(counts > 0, sums / counts, np.nan), np.float64)


def cut(levels: AnyArray, n: int) -> tuple[AnyArray, tuple[str, ...]]:
    """Cut whole-number levels (n_cases,) into at most n groups of about as many cases; equal levels
    stay together.

    Returns the largest level of each group but the last, and the groups' labels:
    `np.searchsorted(edges, level)` is a level's group.

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

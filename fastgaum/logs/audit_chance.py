"""What chance alone would score: the null distribution of a rule's hits, intervals by user,
adjusted p-values."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import add
from typing import Self

import numpy as np
import numpy.typing as npt

from fastgaum.logs.log import IntArray

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ExcessSums:
    """What a rule's hits sum up to: all that its interval and p-value need, so that a log can be
    gone through in parts.

    The excess of an event is its hit (1/t or 0, t candidates sharing the best score) less 1/n, n
    candidates being displayed."""

    n_events: int
    hits: float
    floor: float
    """sum of 1/n"""
    squares: float
    """sum of the events' squared excess"""
    n_users: int
    of_users: tuple[float, float, float]
    """sums over users, S being the sum of a user's excess and c the number of the user's events: of
    S², S c and c²"""
    pairs: Mapping[tuple[int, int], int]
    """how many events have t best of n candidates"""

    @classmethod
    def of(cls, hits: Float64Array, ties: IntArray, sizes: IntArray, users: IntArray) -> Self:
        """Sum up events: hits, ties t, sizes n and users, shape (n_events,) each."""
        excess = hits - 1.0 / sizes
        user = np.unique(users, return_inverse=True)[1]
        sums, counts = np.bincount(user, weights=excess), np.bincount(user)
        each, times = np.unique(np.stack([ties, sizes]), axis=1, return_counts=True)
        return cls(
            n_events=len(hits),
            hits=float(hits.sum()),
            floor=float((1.0 / sizes).sum()),
            squares=float((excess**2).sum()),
            n_users=len(sums),
            of_users=(float(sums @ sums), float(sums @ counts), float(counts @ counts)),
            pairs=Counter(dict(zip(zip(*each.tolist(), strict=True), times.tolist(), strict=True))),
        )

    def plus(self, other: ExcessSums) -> ExcessSums:
        """The sums of two parts of a log that share no user."""
        return ExcessSums(
            self.n_events + other.n_events,
            self.hits + other.hits,
            self.floor + other.floor,
            self.squares + other.squares,
            self.n_users + other.n_users,
            tuple(map(add, self.of_users, other.of_users)),
            Counter(self.pairs) + Counter(other.pairs),
        )

    @property
    def mean(self) -> float:
        """Mean of the hits; NaN without events."""
        return self.hits / self.n_events if self.n_events else math.nan

    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean of the hits, within [0, 1], its standard error clustered by
        user.

        The display sets are taken as given: what is uncertain is the excess over 1/n. A single user
        says nothing of others: the interval is then all of [0, 1]."""
        if not self.n_events:
            return math.nan, math.nan
        if self.n_users < 2:
            return 0.0, 1.0
        half = (
            1.96 * math.sqrt(self._together() * self.n_users / (self.n_users - 1)) / self.n_events
        )
        return max(self.mean - half, 0.0), min(self.mean + half, 1.0)

    def p_value(self) -> float:
        """Return the probability under the null of hits as many or more; 1 if they are not above
        the floor.

        The null's events are independent. Should those of one user resemble one another, the
        variance of the sum grows by the design effect, sum over users of (their sum)² / sum over
        events of squares: the excess is shrunk by its root."""
        total = self.hits - self.floor
        free = {(t, n): times for (t, n), times in self.pairs.items() if t < n}
        if total <= 0 or not free:
            return 1.0
        alone = max(self.squares - total**2 / self.n_events, 0.0)
        ties, sizes = np.array(list(free), dtype=np.int64).T
        shrunk = total / math.sqrt(max(1.0, self._together() / alone) if alone > 0 else 1.0)
        return tail_probability(ties, sizes, shrunk, np.array(list(free.values()), dtype=np.int64))

    def _together(self) -> float:
        """Sum over users of their squared sum of excess less its mean."""
        mean = (self.hits - self.floor) / self.n_events
        squares, mixed, counts = self.of_users
        return max(squares - 2 * mean * mixed + mean**2 * counts, 0.0)


def tail_probability(
    ties: npt.NDArray[np.integer],
    sizes: npt.NDArray[np.integer],
    excess: float,
    times: npt.NDArray[np.integer] | None = None,
) -> float:
    """Return P(sum of X - sum of 1/n >= excess), X = 1/t with probability t/n, else 0, independent;
    excess > 0.

    ties t and sizes n have the shape (n,); `times`: how many events each stands for, one if not
    given. Saddlepoint approximation of Lugannani and Rice (1980) with Daniels' (1987) correction
    for sums on the whole numbers. With ties the sum moves in smaller steps than 1, for which the
    correction errs upwards: the p-value is then larger than need be, never smaller."""
    free = ties < sizes  # where all candidates tie X is constant
    pairs, of_pair = np.unique(np.stack([ties[free], sizes[free]]), axis=1, return_inverse=True)
    counts = np.bincount(of_pair.reshape(-1), weights=None if times is None else times[free])
    step, odds = 1.0 / pairs[0], np.log(pairs[0] / (pairs[1] - pairs[0]))
    target = float(excess + (counts / pairs[1]).sum())
    largest = float((counts * step).sum())
    if target >= largest * (1 - 1e-12):
        return math.exp(float((counts * np.log(pairs[0] / pairs[1])).sum()))

    def tilted(s: float) -> Float64Array:
        """Probability of X > 0 under the distribution tilted by s."""
        return np.asarray(
            1.0 / (1.0 + np.exp(-np.clip(odds + s * step, -700.0, 700.0))), dtype=np.float64
        )

    low, high = 0.0, 1.0
    while float((counts * step * tilted(high)).sum()) < target and high < 1e4:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (
            (middle, high)
            if float((counts * step * tilted(middle)).sum()) < target
            else (low, middle)
        )
    s, q = high, tilted(high)
    # K(s) = sum log(1 - t/n + t/n e^(s/t)), its second derivative sum q (1 - q) / t².
    cumulant = float(
        (counts * (np.logaddexp(0.0, odds + s * step) - np.logaddexp(0.0, odds))).sum()
    )
    curvature = float((counts * step**2 * q * (1 - q)).sum())
    r = math.sqrt(max(2 * (s * target - cumulant), 0.0))
    u = -math.expm1(-s) * math.sqrt(curvature)
    if r < 1e-3 or u < 1e-12:
        return 0.5
    density = math.exp(-r * r / 2) / math.sqrt(2 * math.pi)
    return min(max(0.5 * math.erfc(r / math.sqrt(2)) + density * (1 / u - 1 / r), 1e-300), 1.0)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted by Holm's rule, in the same order; NaN stays NaN and does not count. A rule
    that cannot beat the floor (p = 1) counts.

    >>> holm([0.01, 0.04, 0.03, float("nan")])
    [0.03, 0.06, 0.06, nan]
    """
    values = np.asarray(p_values, np.float64)
    adjusted = np.full(len(values), np.nan)
    order = [i for i in np.argsort(values, kind="stable") if not np.isnan(values[i])]
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * float(values[i])))
        adjusted[i] = highest
    return adjusted.tolist()

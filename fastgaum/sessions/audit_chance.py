"""What chance alone would score: the null distribution of a rule's hits, intervals by user, adjusted p-values."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fastgaum.sessions.packed import IntArray

Float64Array = npt.NDArray[np.float64]


def clustered_interval(hits: Float64Array, sizes: IntArray, users: IntArray) -> tuple[float, float]:
    """95 % interval of the mean of hits (n_events,), within [0, 1], its standard error clustered by user.

    The display sets are taken as given: what is uncertain is the excess over 1/n, sizes n of shape (n_events,). A
    single user says nothing of others: the interval is then all of [0, 1].
    """
    if not len(hits):
        return math.nan, math.nan
    excess = hits - 1.0 / sizes
    sums = np.bincount(users, weights=excess - excess.mean())
    n_users = len(np.unique(users))
    if n_users < 2:
        return 0.0, 1.0
    half = 1.96 * math.sqrt(float(np.square(sums).sum()) * n_users / (n_users - 1)) / len(hits)
    return max(float(hits.mean()) - half, 0.0), min(float(hits.mean()) + half, 1.0)


def p_value(hits: Float64Array, ties: IntArray, sizes: IntArray, users: IntArray) -> float:
    """Return the probability under the null of hits as many or more; 1 if they are not above the floor.

    A rule's hits (1/t or 0), its ties t, the sizes n of the display sets and the users have the shape (n_events,). The
    null's events are independent. Should those of one user resemble one another, the variance of the sum grows by the
    design effect, sum over users of (their sum)² / sum over events of squares: the excess is shrunk by its root.
    """
    excess = hits - 1.0 / sizes
    total = float(excess.sum())
    if total <= 0 or not (ties < sizes).any():
        return 1.0
    deviations = excess - excess.mean()
    alone, together = np.square(deviations).sum(), np.square(np.bincount(users, weights=deviations)).sum()
    return tail_probability(ties, sizes, total / math.sqrt(max(1.0, together / alone) if alone > 0 else 1.0))


def tail_probability(ties: IntArray, sizes: IntArray, excess: float) -> float:
    """Return P(sum of X - sum of 1/n >= excess), X = 1/t with probability t/n, else 0, independent; excess > 0.

    ties t and sizes n have the shape (n_events,). Saddlepoint approximation of Lugannani and Rice (1980) with Daniels'
    (1987) correction for sums on the whole numbers. With ties the sum moves in smaller steps than 1, for which the
    correction errs upwards: the p-value is then larger than need be, never smaller.
    """
    free = ties < sizes  # where all candidates tie X is constant
    pairs, counts = np.unique(np.stack([ties[free], sizes[free]]), axis=1, return_counts=True)
    step, odds = 1.0 / pairs[0], np.log(pairs[0] / (pairs[1] - pairs[0]))
    target = float(excess + (counts / pairs[1]).sum())
    largest = float((counts * step).sum())
    if target >= largest * (1 - 1e-12):
        return math.exp(float((counts * np.log(pairs[0] / pairs[1])).sum()))

    def tilted(s: float) -> Float64Array:
        """Probability of X > 0 under the distribution tilted by s."""
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(odds + s * step, -700.0, 700.0))), dtype=np.float64)

    low, high = 0.0, 1.0
    while float((counts * step * tilted(high)).sum()) < target and high < 1e4:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if float((counts * step * tilted(middle)).sum()) < target else (low, middle)
    s, q = high, tilted(high)
    # K(s) = sum log(1 - t/n + t/n e^(s/t)), its second derivative sum q (1 - q) / t².
    cumulant = float((counts * (np.logaddexp(0.0, odds + s * step) - np.logaddexp(0.0, odds))).sum())
    curvature = float((counts * step**2 * q * (1 - q)).sum())
    r = math.sqrt(max(2 * (s * target - cumulant), 0.0))
    u = -math.expm1(-s) * math.sqrt(curvature)
    if r < 1e-3 or u < 1e-12:
        return 0.5
    density = math.exp(-r * r / 2) / math.sqrt(2 * math.pi)
    return min(max(0.5 * math.erfc(r / math.sqrt(2)) + density * (1 / u - 1 / r), 1e-300), 1.0)


def holm(p_values: list[float]) -> list[float]:
    """Holm's adjusted p-values; rules that cannot or do not beat the floor (p = 1) are counted too.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable").tolist()):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted

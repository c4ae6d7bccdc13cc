"""Intervals for means over events, from a bootstrap over users: a user's events stand or fall
together.

Efron & Tibshirani 1993, percentile interval, with the user as the unit that is drawn: each draw
takes as many users as there are, with replacement, and averages over all events of the drawn users.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastgaum.metrics.precision import AnyInts, Float64Array, sums_by_user

# At most this many drawn users at a time: 1,000 draws of a million users would need gigabytes at
# once.
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Interval:
    """A mean over events with its percentile interval over users."""

    mean: float
    low: float
    high: float
    n_events: int
    n_users: int

    def excludes(self, value: float) -> bool:
        """Whether `value` lies outside the interval: only then may a difference from it be
        claimed."""
        return not self.low <= value <= self.high


def bootstrap_mean(
    per_event: Float64Array,
    users: AnyInts,
    *,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return the mean of per_event, shape (n_events,), and its interval; users (n_events,) any
    integer labels.

    NaN events (no choice) are left out. The same seed gives the same interval. Without a counted
    event all is NaN; with a single user the interval is the mean alone, which says that nothing is
    known about other users.

    >>> bootstrap_mean(np.array([0.5, 0.5, np.nan]), np.array([0, 1, 1]))
    Interval(mean=0.5, low=0.5, high=0.5, n_events=2, n_users=2)
    """
    sums, counts = sums_by_user(np.asarray(per_event, dtype=np.float64), users)
    n_users = len(sums)
    if n_users == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0, 0)
    means = np.concatenate(
        [
            sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
            for drawn in _drawn_users(n_users, draws, seed)
        ]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(
        float(sums.sum() / counts.sum()), float(low), float(high), int(counts.sum()), n_users
    )


def paired_difference(
    per_event: Float64Array,
    other_per_event: Float64Array,
    users: AnyInts,
    *,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return the interval of the mean of per_event - other_per_event, two models on the same
    events.

    The events and users are the same on both sides of every draw, so that what is hard for both
    cancels out: the interval is narrower than the two single ones suggest. Raises ValueError if the
    shapes differ.

    >>> paired_difference(np.array([1.0, 0.0]), np.array([0.5, -0.5]), np.array([0, 1])).low
    0.5
    """
    if np.shape(per_event) != np.shape(other_per_event):
        raise ValueError(
            f"the two models were scored on {len(per_event)} and {len(other_per_event)} events: "
            "pass the same events"
        )
    return bootstrap_mean(
        np.asarray(per_event) - other_per_event, users, draws=draws, seed=seed, level=level
    )


def _drawn_users(n_users: int, draws: int, seed: int) -> Iterator[npt.NDArray[np.int32]]:
    """Yield drawn users in chunks, shape (draws in the chunk, n_users), until all draws are
    made."""
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // n_users)
    for start in range(0, draws, step):
        yield rng.integers(n_users, size=(min(step, draws - start), n_users), dtype=np.int32)

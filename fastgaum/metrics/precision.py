"""prec@k: is the chosen candidate among the k best, ties counted by their exact expectation.

Let b other candidates score strictly better than the chosen one and t tie with it. A random order
of the ties puts the chosen one among the k best with probability

    1                 if b + t + 1 <= k
    0                 if b >= k
    (k - b) / (t + 1) otherwise.

Denominator: events with a choice. An event without one is NaN, and left out of every mean."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastgaum.arrays import Float64Array
from fastgaum.errors import NumericsError
from fastgaum.kernels.ranking import rank_counts

AnyFloats = npt.NDArray[np.floating]
AnyInts = npt.NDArray[np.integer]
KS = (1, 2)
"""of the prec@k that evaluations and tables have"""


def require_finite(scores: AnyFloats, display_offsets: AnyInts, what: str = "score") -> None:
    """Raise NumericsError, naming the event, if a candidate's score is NaN or infinite; scores
    (n_candidates,)."""
    finite = np.isfinite(scores)
    if not finite.all():
        candidate = int(np.argmin(finite))
        event = int(np.searchsorted(display_offsets, candidate, side="right")) - 1
        raise NumericsError(
            f"event {event} has the {what} {scores[candidate]} at candidate "
            f"{candidate - int(display_offsets[event])}, a finite number is required: the model "
            "has diverged; lower its learning rate or load an earlier state"
        )


def precision_at_k(
    scores: AnyFloats, display_offsets: AnyInts, choices: AnyInts, k: int
) -> Float64Array:
    """prec@k of each event, shape (n_events,), in [0, 1]; NaN for an event without a choice.

    scores (n_candidates,), higher is better; display_offsets (n_events + 1,); choices (n_events,),
    position or -1. Raises NumericsError for a score that is not finite, ValueError for k < 1.

    >>> scores, offsets, choices = np.array([2.0, 1.0, 1.0]), np.array([0, 3]), np.array([2])
    >>> [float(precision_at_k(scores, offsets, choices, k)[0]) for k in (1, 2, 3)]
    [0.0, 0.5, 1.0]
    """
    if k < 1:
        raise ValueError(f"k is {k}, at least 1 is required")
    require_finite(scores, display_offsets)
    # One dtype each, so that the kernel is compiled once. float64 holds float32 exactly: ties stay
    # ties.
    better, tied = rank_counts(
        np.ascontiguousarray(scores, np.float64),
        np.ascontiguousarray(display_offsets, np.int32),
        np.ascontiguousarray(choices, np.int32),
    )
    values: Float64Array = np.clip((k - better) / (tied + 1.0 + (better < 0)), 0.0, 1.0)
    values[better < 0] = np.nan
    return values


def micro_mean(per_event: Float64Array, weights: AnyFloats | None = None) -> float:
    """Mean over the events that are not NaN, each with its weight, (n_events,), or with the same
    one; NaN if there are none.

    >>> micro_mean(np.array([1.0, 0.0, np.nan]))
    0.5
    """
    counted = ~np.isnan(per_event)
    if not counted.any():
        return float("nan")
    return float(
        np.average(per_event[counted], None, None if weights is None else weights[counted])
    )


def user_mean(per_event: Float64Array, users: AnyInts, weights: AnyFloats | None = None) -> float:
    """Mean over users of each user's own mean over events that are not NaN, with their weights;
    users (n_events,) any integer labels.

    >>> user_mean(np.array([1.0, 1.0, 0.0]), np.array([7, 7, 3]))
    0.5
    """
    sums, counts = sums_by_user(per_event, users, weights)
    return float((sums / counts).mean()) if len(sums) else float("nan")


def sums_by_user(
    per_event: Float64Array, users: AnyInts, weights: AnyFloats | None = None
) -> tuple[Float64Array, Float64Array]:
    """Weighted sum of each user's events that are not NaN, and sum of their weights (their number
    without weights), both shape (n_users,); users without one are left out.

    >>> values, users = np.array([1.0, 2.0, np.nan, 4.0]), np.array([7, 7, 5, 3])
    >>> [part.tolist() for part in sums_by_user(values, users)]
    [[4.0, 3.0], [1.0, 2.0]]
    """
    counted = ~np.isnan(per_event)
    distinct, rows = np.unique(np.asarray(users)[counted], return_inverse=True)
    own = np.ones(len(rows)) if weights is None else weights[counted].astype(np.float64)
    sums = np.bincount(rows, own * per_event[counted], len(distinct))
    return np.asarray(sums, np.float64), np.asarray(np.bincount(rows, own), np.float64)

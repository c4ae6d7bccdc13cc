"""Does a probability of 30 % come true in 30 % of cases: calibration of candidates and of no
click."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastgaum.errors import NumericsError
from fastgaum.metrics.precision import AnyFloats, AnyInts, Float64Array


def candidate_outcomes(display_offsets: AnyInts, choices: AnyInts) -> Float64Array:
    """Return 1 for each chosen candidate and 0 for the others, shape (n_candidates,).

    >>> candidate_outcomes(np.array([0, 3, 5]), np.array([2, -1])).tolist()
    [0.0, 0.0, 1.0, 0.0, 0.0]
    """
    outcomes = np.zeros(int(display_offsets[-1]))
    choices = np.asarray(choices)
    clicked = choices >= 0
    outcomes[np.asarray(display_offsets)[:-1][clicked] + choices[clicked]] = 1.0
    return outcomes


def expected_calibration_error(probs: AnyFloats, outcomes: AnyFloats, bins: int = 15) -> float:
    """Return the mean over cases of |mean probability - share that came true| of the case's bin, in
    [0, 1].

    probs and outcomes (0 or 1), both shape (n,): for candidates one case per candidate, no click
    not among them. Bins hold equally many cases, in order of probability (Naeini et al. 2015 with
    equal mass), at most `bins` of them. Tie rule: cases of one probability share their mean
    outcome, so that the order of the input never matters.
    Denominator: all cases. Raises NumericsError for a probability outside [0, 1]; 0 cases give NaN.

    >>> expected_calibration_error(np.array([0.5, 0.5, 1.0]), np.array([0, 1, 1]), bins=1)
    0.0
    >>> expected_calibration_error(np.array([0.25, 0.5, 1.0]), np.array([0, 0, 1]), bins=3)
    0.25
    """
    return (
        float(np.mean(np.abs(_gaps(probs, outcomes, bins, per_case=True))))
        if len(probs)
        else float("nan")
    )


@dataclass(frozen=True)
class NoClickCalibration:
    """Predicted against observed no-click share, as probabilities in [0, 1]."""

    predicted: float
    """mean predicted probability of no click"""
    observed: float
    """share of events without a click"""
    error: float
    """|predicted - observed| over all events"""
    decile_errors: tuple[float, ...]
    """|mean predicted - share observed| in each tenth of the events, by rising predicted
    probability"""

    @property
    def worst_decile(self) -> float:
        """The largest of the decile errors."""
        return max(self.decile_errors, default=float("nan"))


def no_click_calibration(
    no_click_probs: AnyFloats, choices: AnyInts, deciles: int = 10
) -> NoClickCalibration:
    """Compare predicted no-click probabilities, shape (n_events,), with choices, shape (n_events,),
    -1 being no click.

    Denominator: all events. Tie rule as in `expected_calibration_error`. Raises NumericsError for a
    probability outside [0, 1]. Of 10 000 perfectly calibrated events with p = 0.3, a decile of 1
    000 has an error of about 1.2 points.

    >>> choices = np.array([-1, 2, 0, 1])
    >>> no_click_calibration(np.full(4, 0.5), choices, deciles=1).decile_errors
    (0.25,)
    """
    outcomes = (np.asarray(choices) < 0).astype(np.float64)
    if not len(outcomes):
        return NoClickCalibration(float("nan"), float("nan"), float("nan"), ())
    gaps = _gaps(no_click_probs, outcomes, deciles, per_case=False)
    predicted, observed = float(np.mean(no_click_probs, dtype=np.float64)), float(outcomes.mean())
    return NoClickCalibration(
        predicted, observed, abs(predicted - observed), tuple(np.abs(gaps).tolist())
    )


def _gaps(probs: AnyFloats, outcomes: AnyFloats, bins: int, *, per_case: bool) -> Float64Array:
    """Mean probability minus mean outcome of each equal-mass bin, or that of its bin for each case
    in sorted order."""
    probs = np.asarray(probs, dtype=np.float64)
    # Softmax in float32 may leave 1 + 1e-7; NaN fails both comparisons and is caught with the rest.
    wrong = ~((probs >= -1e-5) & (probs <= 1 + 1e-5))
    if wrong.any():
        case = int(np.argmax(wrong))
        raise NumericsError(
            f"case {case} has the probability {probs[case]}, a number from 0 to 1 is required: the "
            "model has diverged"
        )
    levels, level, sizes = np.unique(probs, return_inverse=True, return_counts=True)
    shared = np.repeat(np.bincount(level, weights=outcomes) / sizes, sizes)
    n_bins = min(bins, len(probs))
    # 15 bins over 100 cases: edges 0, 6, 13, …, 100; no bin is empty because n_bins <= cases.
    edges = np.arange(n_bins + 1) * len(probs) // n_bins
    counts = np.diff(edges)
    gaps: Float64Array = np.add.reduceat(np.repeat(levels, sizes) - shared, edges[:-1]) / counts
    return np.repeat(gaps, counts) if per_case else gaps

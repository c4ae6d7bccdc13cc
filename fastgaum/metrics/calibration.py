"""The worth of a model's probabilities: negative log-likelihood, Brier score, calibration.

A distribution over an event's outcomes has two parts: a number per candidate, shape
(n_candidates,), and one for no click, shape (n_events,), None where that is no outcome. Likelihood
and Brier score are values per event, of which `precision.micro_mean` is the mean; events without a
choice count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastgaum.arrays import Float64Array
from fastgaum.errors import NumericsError
from fastgaum.metrics.precision import AnyFloats, AnyInts, require_finite

MIN_PROB = 1e-6
"""the least probability in a NLL, so that a sparse distribution's is finite"""


def choice_nll(
    candidate_log_probs: AnyFloats,
    no_click_log_probs: AnyFloats | None,
    display_offsets: AnyInts,
    choices: AnyInts,
) -> Float64Array:
    """The negative log-likelihood of each event's outcome in nats, shape (n_events,).

    log-probabilities (n_candidates,) and (n_events,); choices (n_events,), position or -1. Raises
    NumericsError for NaN, for a log-probability above 0 (by more than rounding), and for no click
    without one.

    >>> halves = np.log(np.array([0.5, 0.25, 0.25]))
    >>> choice_nll(halves, None, np.array([0, 3]), np.array([0])).round(3).tolist()
    [0.693]
    """
    chosen = _of_outcome(candidate_log_probs, no_click_log_probs, display_offsets, choices)
    wrong = np.isnan(chosen) | (chosen > 1e-5)
    if wrong.any():
        event = int(np.argmax(wrong))
        raise NumericsError(
            f"event {event} has the log-probability {chosen[event]} at its choice, a number of at "
            "most 0 is required:"
            " pass normalised log-probabilities; if they were, the model has diverged"
        )
    # min(…, 0) first: rounding may leave log-probabilities a hair above 0, and -0.0 is no nice
    # figure in a table.
    return np.abs(np.maximum(np.minimum(chosen, 0.0), np.log(MIN_PROB)))


def brier_score(
    candidate_probs: AnyFloats,
    no_click_probs: AnyFloats | None,
    display_offsets: AnyInts,
    choices: AnyInts,
) -> Float64Array:
    """Each event's sum of (probability − outcome)² over candidates and no click: 0 best, 2 worst
    (Brier 1950). Raises NumericsError for a probability that is not finite.

    >>> brier_score(np.array([0.5, 0.25, 0.25]), None, np.array([0, 3]), np.array([0])).tolist()
    [0.375]
    """
    require_finite(candidate_probs, display_offsets, "probability")
    # sum (p - y)² = sum p² - 2 p_outcome + 1, because exactly one outcome has y = 1.
    squares = np.square(candidate_probs, dtype=np.float64)
    if len(display_offsets) > 1:
        # display sets are never empty, which reduceat needs
        squares = np.add.reduceat(squares, np.asarray(display_offsets)[:-1])
    if no_click_probs is not None:
        finite = np.isfinite(no_click_probs)
        if not finite.all():
            event = int(np.argmin(finite))
            raise NumericsError(
                f"event {event} has the no-click probability {no_click_probs[event]}, a finite "
                "number is required: the model has diverged"
            )
        squares = squares + np.square(no_click_probs, dtype=np.float64)
    chosen = _of_outcome(candidate_probs, no_click_probs, display_offsets, choices)
    return np.asarray(squares - 2.0 * chosen + 1.0, dtype=np.float64)


def _of_outcome(
    candidate_values: AnyFloats,
    no_click_values: AnyFloats | None,
    display_offsets: AnyInts,
    choices: AnyInts,
) -> Float64Array:
    choices = np.asarray(choices)
    clicked = choices >= 0
    if no_click_values is None and not clicked.all():
        raise NumericsError(
            f"event {int(np.argmin(clicked))} ends without a click, but the model gives no click "
            "no probability: train it with no_click='auto' or 'always'"
        )
    values: npt.NDArray[np.float64] = np.empty(len(choices))
    if no_click_values is not None:
        values[~clicked] = np.asarray(no_click_values, dtype=np.float64)[~clicked]
    candidates = np.asarray(display_offsets)[:-1][clicked] + choices[clicked]
    values[clicked] = np.asarray(candidate_values, dtype=np.float64)[candidates]
    return values


def candidate_outcomes(display_offsets: AnyInts, choices: AnyInts) -> Float64Array:
    """1 for each chosen candidate and 0 for the others, shape (n_candidates,).

    >>> candidate_outcomes(np.array([0, 3, 5]), np.array([2, -1])).tolist()
    [0.0, 0.0, 1.0, 0.0, 0.0]
    """
    outcomes = np.zeros(int(display_offsets[-1]))
    choices = np.asarray(choices)
    clicked = choices >= 0
    outcomes[np.asarray(display_offsets)[:-1][clicked] + choices[clicked]] = 1.0
    return outcomes


def expected_calibration_error(
    probs: AnyFloats, outcomes: AnyFloats, bins: int = 15, weights: AnyFloats | None = None
) -> float:
    """The mean over cases of |mean probability − share that came true| of the case's bin, 0 to 1.

    probs and outcomes (0 or 1), both shape (n,). At most `bins` bins hold equally many cases, in
    order of probability (Naeini et al. 2015 with equal mass). Tie rule: cases of one probability
    share their mean outcome. Denominator: all cases; 0 cases give NaN. With weights, (n,), means
    are weighted, and bins have equal sums of weights. Raises NumericsError for a probability
    outside [0, 1].

    >>> expected_calibration_error(np.array([0.5, 0.5, 1.0]), np.array([0, 1, 1]), bins=1)
    0.0
    >>> expected_calibration_error(np.array([0.25, 0.5, 1.0]), np.array([0, 0, 1]), bins=3)
    0.25
    """
    if not len(probs):
        return float("nan")
    gaps, sizes = _gaps(probs, outcomes, bins, weights)
    return float((np.abs(gaps) * sizes).sum() / sizes.sum())


@dataclass(frozen=True)
class NoClickCalibration:
    """Predicted against observed no-click share, as probabilities in [0, 1]."""

    predicted: float
    """mean predicted probability of no click"""
    observed: float
    """share of events without a click"""
    error: float
    """|predicted - observed| over all events"""
    worst_decile: float
    """the largest |mean predicted − share observed| of a tenth of the events, by prediction"""


def no_click_calibration(
    no_click_probs: AnyFloats,
    choices: AnyInts,
    deciles: int = 10,
    weights: AnyFloats | None = None,
) -> NoClickCalibration:
    """Compare predicted no-click probabilities with choices, -1 being no click, by weighted means;
    shape (n_events,) each.

    Denominator: all events. Tie rule as in `expected_calibration_error`. Raises NumericsError for a
    probability outside [0, 1].

    >>> choices = np.array([-1, 2, 0, 1])
    >>> no_click_calibration(np.full(4, 0.5), choices, deciles=1).worst_decile
    0.25
    """
    outcomes = (np.asarray(choices) < 0).astype(np.float64)
    if not len(outcomes):
        return NoClickCalibration(*[float("nan")] * 4)
    gaps, _ = _gaps(no_click_probs, outcomes, deciles, weights)
    sides = np.asarray(no_click_probs, np.float64), outcomes
    predicted, observed = (float(np.average(side, weights=weights)) for side in sides)
    worst = float(np.abs(gaps).max())
    return NoClickCalibration(predicted, observed, abs(predicted - observed), worst)


def _gaps(
    probs: AnyFloats, outcomes: AnyFloats, bins: int, weights: AnyFloats | None
) -> tuple[Float64Array, AnyFloats | AnyInts]:
    """Mean probability minus mean outcome of each equal-mass bin, and its cases or their weight."""
    probs, outcomes = np.asarray(probs), np.asarray(outcomes, dtype=np.float64)
    # Softmax in float32 may leave 1 + 1e-7; NaN fails both comparisons and is caught with the rest.
    wrong = ~((probs >= -1e-5) & (probs <= 1 + 1e-5))
    if wrong.any():
        case = int(np.argmax(wrong))
        raise NumericsError(
            f"case {case} has the probability {probs[case]}, a number from 0 to 1 is required: the "
            "model has diverged"
        )
    n_bins = min(bins, len(probs))
    if weights is not None:
        levels, level = np.unique(probs, return_inverse=True)
        masses = np.bincount(level, weights)
        rises = masses * levels - np.bincount(level, weights * outcomes)
        sizes, sums = (np.append(0.0, np.cumsum(one)) for one in (masses, rises))
        ends = np.linspace(0, sizes[-1], n_bins + 1)
        return np.diff(np.interp(ends, sizes, sums)) / np.diff(ends), np.diff(ends)
    # Numbers are sorted ten times as fast as their order is found, so only the cases with an
    # outcome are looked up.
    came_true, ordered = np.flatnonzero(outcomes), np.sort(probs)
    levels, level = np.unique(probs[came_true], return_inverse=True)
    of_levels = np.bincount(level, outcomes[came_true], len(levels))
    first = np.searchsorted(ordered, levels)
    sizes = np.searchsorted(ordered, levels, side="right") - first
    # 15 bins over 100 cases: edges 0, 6, 13, …, 100; no bin is empty because n_bins <= cases.
    edges = np.arange(n_bins + 1) * len(probs) // n_bins
    # what lies before an edge, where the cases of one probability share their outcomes evenly
    before = [float((of_levels * np.clip(edge - first, 0, sizes) / sizes).sum()) for edge in edges]
    counts = np.diff(edges)
    sums = np.add.reduceat(ordered, edges[:-1], dtype=np.float64)
    return np.asarray((sums - np.diff(before)) / counts, np.float64), counts

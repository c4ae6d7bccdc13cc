"""How probable a model held the choices: negative log-likelihood, Brier score.

A distribution over an event's outcomes is given in two parts: one number per candidate, shape
(n_candidates,), and one for no click, shape (n_events,), or None where no click is not an outcome.
Every function returns one value per event, shape (n_events,); the mean over events is
`precision.micro_mean`. Unlike prec@k, events without a choice count here: no click is an outcome
with a probability of its own."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastgaum.errors import NumericsError
from fastgaum.metrics.precision import AnyFloats, AnyInts, Float64Array, require_finite


def choice_nll(
    candidate_log_probs: AnyFloats,
    no_click_log_probs: AnyFloats | None,
    display_offsets: AnyInts,
    choices: AnyInts,
    *,
    min_prob: float = 0.0,
) -> Float64Array:
    """Return the negative log-likelihood of each event's outcome in nats: low is good, 0 is
    certainty.

    log-probabilities (n_candidates,) and (n_events,); choices (n_events,), position or -1. A sparse
    distribution (L2) may give a choice the probability 0: its NLL is then infinite, unless
    `min_prob` > 0 replaces what is below it. Raises NumericsError for NaN, for a
    log-probability above 0 (by more than rounding), and for no click without one.

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
    with np.errstate(divide="ignore"):
        lowest = np.log(np.float64(min_prob))
    # min(…, 0) first: rounding may leave log-probabilities a hair above 0, and -0.0 is no nice
    # figure in a table.
    return np.abs(np.maximum(np.minimum(chosen, 0.0), lowest))


def brier_score(
    candidate_probs: AnyFloats,
    no_click_probs: AnyFloats | None,
    display_offsets: AnyInts,
    choices: AnyInts,
) -> Float64Array:
    """Return each event's Brier score, sum of (probability - outcome)² over candidates and no
    click: 0 best, 2 worst.

    Brier 1950, in its original form over all outcomes. Raises NumericsError for a probability that
    is not finite.

    >>> brier_score(np.array([0.5, 0.25, 0.25]), None, np.array([0, 3]), np.array([0])).tolist()
    [0.375]
    """
    require_finite(candidate_probs, display_offsets, "probability")
    # sum (p - y)² = sum p² - 2 p_outcome + 1, because exactly one outcome has y = 1.
    squares = _sum_by_event(np.square(candidate_probs, dtype=np.float64), display_offsets)
    if no_click_probs is not None:
        _require_finite_events(no_click_probs)
        squares = squares + np.square(no_click_probs, dtype=np.float64)
    chosen = _of_outcome(candidate_probs, no_click_probs, display_offsets, choices)
    return np.asarray(squares - 2.0 * chosen + 1.0, dtype=np.float64)


def _of_outcome(
    candidate_values: AnyFloats,
    no_click_values: AnyFloats | None,
    display_offsets: AnyInts,
    choices: AnyInts,
) -> Float64Array:
    """The value that belongs to each event's outcome: the chosen candidate's, or the one of no
    click."""
    choices = np.asarray(choices)
    clicked = choices >= 0
    if no_click_values is None and not clicked.all():
        raise NumericsError(
            f"event {int(np.argmin(clicked))} ends without a click, but the model gives no click "
            "no probability:"
            " train it with no_click='auto' or 'always'"
        )
    values: npt.NDArray[np.float64] = np.empty(len(choices))
    if no_click_values is not None:
        values[~clicked] = np.asarray(no_click_values, dtype=np.float64)[~clicked]
    candidates = np.asarray(display_offsets)[:-1][clicked] + choices[clicked]
    values[clicked] = np.asarray(candidate_values, dtype=np.float64)[candidates]
    return values


def _sum_by_event(values: Float64Array, display_offsets: AnyInts) -> Float64Array:
    """Sum over each display set; display sets of a SessionLog are never empty, which reduceat
    needs."""
    if len(display_offsets) < 2:
        return np.zeros(0)
    return np.asarray(np.add.reduceat(values, np.asarray(display_offsets)[:-1]), dtype=np.float64)


def _require_finite_events(values: AnyFloats) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        event = int(np.argmin(finite))
        raise NumericsError(
            f"event {event} has the no-click probability {values[event]}, a finite number is "
            "required:"
            " the model has diverged"
        )

"""Segment reductions: one pass over each event's candidates, in a flat array cut by offsets.

A worked miniature: offsets [0, 3, 5] cut values [a, b, c, d, e] into the segments [a, b, c] and [d,
    e].

With `outside` each segment has one more entry of value 0 that is not in the array: the no-click
option, whose utility is pinned at 0. Sums are taken in float64 whatever the dtype of the arrays; a
NaN makes its whole segment NaN."""

from __future__ import annotations

import numpy as np

from ._jit import Array, jit, jit_fast


@jit
def shift_and_total(values: Array, start: int, stop: int, outside: bool) -> tuple[float, float]:
    """Return (shift, Σ exp(value − shift)), the two parts of a log-sum-exp that cannot overflow.

    The shift is the segment's maximum, or 0 where that is infinite: −inf − (−inf) would be NaN.
    """
    shift = 0.0 if outside else -np.inf
    for i in range(start, stop):
        shift = max(shift, np.float64(values[i]))
    if not np.isfinite(shift):
        shift = 0.0
    total = np.exp(-shift) if outside else 0.0
    for i in range(start, stop):
        total += np.exp(np.float64(values[i]) - shift)
    return shift, total


@jit
def logsumexp(values: Array, offsets: Array, outside: bool, result: Array) -> None:
    """Write log Σ exp(value) of each segment into result, shape (n_events,); −inf for a sum over
    nothing."""
    for event in range(len(offsets) - 1):
        shift, total = shift_and_total(values, offsets[event], offsets[event + 1], outside)
        result[event] = -np.inf if total == 0.0 else shift + np.log(total)


@jit
def logsumexp_backward(
    grad: Array, values: Array, result: Array, offsets: Array, grad_values: Array
) -> None:
    """Write grad · softmax into grad_values, shape (n_candidates,); 0 where the log-sum-exp is
    −inf."""
    for event in range(len(offsets) - 1):
        total = np.float64(result[event])
        for i in range(offsets[event], offsets[event + 1]):
            value = np.float64(values[i])
            grad_values[i] = 0.0 if value == -np.inf else grad[event] * np.exp(value - total)


@jit
def log_softmax(
    values: Array, offsets: Array, outside: bool, log_probs: Array, outside_log_prob: Array
) -> None:
    """Write log-probabilities, shapes (n_candidates,) and (n_events,).

    A segment with a +inf or a NaN, or of −inf alone, has no distribution and is NaN throughout, as
    in torch."""
    for event in range(len(offsets) - 1):
        start, stop = offsets[event], offsets[event + 1]
        shift, total = shift_and_total(values, start, stop, outside)
        log_total = np.log(total) if 0.0 < total < np.inf else np.nan
        outside_log_prob[event] = -shift - log_total if outside else -np.inf
        for i in range(start, stop):
            log_probs[i] = (np.float64(values[i]) - shift) - log_total


@jit
def log_softmax_backward(
    grad_log_probs: Array,
    grad_outside: Array,
    log_probs: Array,
    offsets: Array,
    outside: bool,
    grad_values: Array,
) -> None:
    """Write grad − softmax · Σ grad into grad_values, shape (n_candidates,); the sum includes the
    outside entry."""
    for event in range(len(offsets) - 1):
        start, stop = offsets[event], offsets[event + 1]
        total = np.float64(grad_outside[event]) if outside else 0.0
        for i in range(start, stop):
            total += grad_log_probs[i]
        for i in range(start, stop):
            grad_values[i] = grad_log_probs[i] - np.exp(np.float64(log_probs[i])) * total


@jit
def softmax(
    values: Array, offsets: Array, outside: bool, probs: Array, outside_prob: Array
) -> None:
    """Write probabilities, shapes (n_candidates,) and (n_events,); NaN where `log_softmax` is."""
    for event in range(len(offsets) - 1):
        start, stop = offsets[event], offsets[event + 1]
        shift, total = shift_and_total(values, start, stop, outside)
        scale = 1.0 / total if 0.0 < total < np.inf else np.nan
        outside_prob[event] = np.exp(-shift) * scale if outside else 0.0
        for i in range(start, stop):
            probs[i] = np.exp(np.float64(values[i]) - shift) * scale


@jit_fast
def segment_sum(values: Array, offsets: Array, result: Array) -> None:
    """Write the sum of each segment's rows, (n_candidates, d) → (n_events, d); zeros for an empty
    segment."""
    for event in range(len(offsets) - 1):
        for j in range(values.shape[1]):
            result[event, j] = 0.0
        for i in range(offsets[event], offsets[event + 1]):
            for j in range(values.shape[1]):
                result[event, j] += values[i, j]


@jit
def expand(per_event: Array, offsets: Array, result: Array) -> None:
    """Copy each event's row to its candidates, (n_events, d) → (n_candidates, d): [a, b] → [a, a,
    a, b, b]."""
    for event in range(len(offsets) - 1):
        for i in range(offsets[event], offsets[event + 1]):
            for j in range(per_event.shape[1]):
                result[i, j] = per_event[event, j]


@jit
def argmax(values: Array, offsets: Array, result: Array) -> None:
    """Write the position of each segment's first greatest value, shape (n_events,), int64; −1 for
    an empty segment.

    NaN counts as the greatest value, as in numpy and torch.
    """
    for event in range(len(offsets) - 1):
        start, stop = offsets[event], offsets[event + 1]
        best = start if start < stop else start - 1
        for i in range(start + 1, stop):
            if values[i] > values[best] or (np.isnan(values[i]) and not np.isnan(values[best])):
                best = i
        result[event] = best - start

"""Choice probabilities: softmax of ragged display sets, with the gradients of the game's losses,
and α-entmax of one set.

Every loss of the game has, with respect to a candidate's score, the gradient (probability − target)
/ n_events: the target is the logged choice, or another player's probability.

α-entmax is p = argmax_p ⟨p, v⟩ − Ω_α(p) over the simplex: p_i = [(α − 1) v_i − τ]₊^{1/(α−1)}, with
τ such that Σ p = 1. α = 2 is sparsemax, the Euclidean projection (Martins & Astudillo, ICML 2016);
α = 1.5 by sorting and every α by root finding are from Peters, Niculae & Martins (ACL 2019). α → 1
is softmax. Let z_i = (α − 1)(v_i − max v) ≤ 0. Then τ ∈ [−1, 0), so only entries with z_i > −1 can
have p_i > 0: they are gathered into `scratch` first, which also keeps every sum well-conditioned
however large the values are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._jit import Array, Real, jit, jit_fast, jit_leaf
from .activations import exp_nonpositive

SCORES, CHOICES, TARGETS, GIVEN = 0, 1, 2, 3
"""what a pass of a scorer does: only the scores; it learns the logged choices, or other
probabilities; or the gradient of its scores is given"""


class Loss(NamedTuple):
    """What a pass of a scorer learns, of softmax(eta · scores)."""

    kind: int
    """SCORES, CHOICES, TARGETS or GIVEN"""
    eta: Real
    outside: bool
    """whether no click, of score 0, is one more choice"""
    choices: Array
    """positions of the logged choices, −1 for no click, shape (n_events,)"""
    targets: Array
    """probabilities, shape (n_candidates,); read for TARGETS"""


class Softmax(NamedTuple):
    """What `choice_probs` writes."""

    probs: Array
    """shape (n_candidates,)"""
    log_totals: Array
    """log Σ exp(eta · score), shape (n_events,)"""


@jit_leaf
def softmax_of_events(
    first: int,
    last: int,
    scores: Array,
    eta: Real,
    offsets: Array,
    outside: bool,
    written: Softmax,
) -> None:
    """As `choice_probs`, within another kernel."""
    probs, log_totals = written
    for event in range(first, last):
        top = eta * scores[offsets[event]] * 0 if outside else eta * scores[offsets[event]]
        for i in range(offsets[event], offsets[event + 1]):
            top = max(top, eta * scores[i])
        log_totals[event] = top
        for i in range(offsets[event], offsets[event + 1]):
            probs[i] = eta * scores[i] - top
    # apart from the ragged loops: this one vectorises
    for i in range(offsets[first], offsets[last]):
        probs[i] = exp_nonpositive(probs[i])
    for event in range(first, last):
        total = np.exp(np.float64(-log_totals[event])) if outside else 0.0
        for i in range(offsets[event], offsets[event + 1]):
            total += probs[i]
        share = 1.0 / total
        for i in range(offsets[event], offsets[event + 1]):
            probs[i] *= share
        log_totals[event] += np.log(total)


@jit_fast
def choice_probs(
    first: int,
    last: int,
    scores: Array,
    eta: float,
    offsets: Array,
    outside: bool,
    written: Softmax,
) -> None:
    """Write softmax(eta · scores), scores (n_candidates,), of events first to last − 1.

    With `outside` no click, of score 0, is one more choice; its probability is what is missing to
    1."""
    softmax_of_events(first, last, scores, eta, offsets, outside, written)


@jit_leaf
def loss_gradient(
    first: int, last: int, scores: Array, offsets: Array, loss: Loss, written: Softmax
) -> None:
    """Write log Σ exp(eta · score) of events first to last − 1; `probs` gets
    (probability − target) / n_events."""
    softmax_of_events(first, last, scores, loss.eta, offsets, loss.outside, written)
    grad, targets = written.probs, loss.targets
    share = grad.dtype.type(1.0 / (len(offsets) - 1))
    if loss.kind == TARGETS:
        for i in range(offsets[first], offsets[last]):
            grad[i] = (grad[i] - targets[i]) * share
        return
    for i in range(offsets[first], offsets[last]):
        grad[i] *= share
    for event in range(first, last):
        if loss.choices[event] >= 0:
            grad[offsets[event] + loss.choices[event]] -= share


@jit
def logged_gradient(probs: Array, offsets: Array, choices: Array, grad: Array) -> None:
    """Write (probability − 1 for the logged choice) / n_events; choices are positions, −1 for no
    click."""
    n_events = len(offsets) - 1
    for i in range(len(probs)):
        grad[i] = probs[i] / n_events
    for event in range(n_events):
        if choices[event] >= 0:
            grad[offsets[event] + choices[event]] -= 1.0 / n_events


@jit
def target_gradient(probs: Array, targets: Array, n_events: int, grad: Array) -> None:
    """Write (probability − target) / n_events."""
    for i in range(len(probs)):
        grad[i] = (probs[i] - targets[i]) / n_events


@jit
def mean_exact_loss(
    scores: Array, eta: float, log_totals: Array, offsets: Array, choices: Array
) -> float:
    """Return the mean of log Σ exp(eta · score) / eta − score of the logged choice, in float64."""
    total = 0.0
    for event in range(len(choices)):
        total += log_totals[event] / eta
        if choices[event] >= 0:
            total -= scores[offsets[event] + choices[event]]
    return total / len(choices)


@jit
def expected_loss(scores: Array, probs: Array, offsets: Array, choices: Array) -> float:
    """Return the mean of ⟨probs, scores⟩ − score of the logged choice, in float64."""
    total = 0.0
    for i in range(len(scores)):
        total += np.float64(probs[i]) * np.float64(scores[i])
    for event in range(len(choices)):
        if choices[event] >= 0:
            total -= scores[offsets[event] + choices[event]]
    return total / len(choices)


@jit
def _sift_down(heap: Array, i: int, size: int) -> None:
    """Restore the max-heap property below entry i of heap[:size]."""
    moved = heap[i]
    while 2 * i + 1 < size:
        child = 2 * i + 1
        if child + 1 < size and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= moved:
            break
        heap[i] = heap[child]
        i = child
    heap[i] = moved


@jit
def _threshold_by_sorting(heap: Array, size: int, alpha: float) -> float:
    """Return τ exactly, for α = 2 or α = 1.5; heap[:size] holds the z in any order and is
    overwritten.

    An entry z belongs to the support iff the entries above it, thresholded at z, hold less than the
    whole mass. A heap yields the entries in descending order and only as many as the support has.
    """
    for i in range(size // 2 - 1, -1, -1):
        _sift_down(heap, i, size)
    count, total, squares = 0, 0.0, 0.0
    while size > 0:
        z = heap[0]
        mass = total - count * z if alpha == 2.0 else squares - 2.0 * z * total + count * z * z
        if mass >= 1.0:
            break
        count, total, squares = count + 1, total + z, squares + z * z
        size -= 1
        heap[0] = heap[size]
        _sift_down(heap, 0, size)
    if alpha == 2.0:
        return float((total - 1.0) / count)
    mean = total / count
    return float(mean - np.sqrt(max((1.0 - (squares - total * mean)) / count, 0.0)))


@jit
def _mass_and_slope(scratch: Array, size: int, tau: float, power: float) -> tuple[float, float]:
    """Return Σ [z − τ]₊^power and minus its derivative in τ."""
    mass, slope = 0.0, 0.0
    for i in range(size):
        excess = scratch[i] - tau
        if excess > 0.0:
            share = excess**power
            mass += share
            slope += power * share / excess
    return mass, slope


@jit
def _threshold_by_bisection(scratch: Array, size: int, alpha: float) -> float:
    """Return τ for any α > 1, to rounding; scratch[:size] holds the z in any order.

    The mass falls in τ from ≥ 1 at τ = −1 to ≤ 1 at τ = −size^(1−α). For α ≤ 2 it is convex, so
    Newton steps from the left never overshoot and replace some fifty halvings by about eight steps;
    above 2 the bracket is halved."""
    power = 1.0 / (alpha - 1.0)
    low, high = -1.0, -(float(size) ** (1.0 - alpha))
    for _ in range(64):
        tau = low if alpha <= 2.0 else 0.5 * (low + high)
        mass, slope = _mass_and_slope(scratch, size, tau, power)
        if alpha <= 2.0:
            step = (mass - 1.0) / slope
            if step <= 0.0 or low + step == low:
                break
            low += step
        elif tau in (low, high):
            break
        elif mass >= 1.0:
            low = tau
        else:
            high = tau
    return low


@jit
def _gather_near_maximum(
    values: Array, outside: bool, alpha: float, scratch: Array
) -> tuple[float, int]:
    """Return (maximum, size) and write the z > −1 to scratch[:size]; size 0 says that the values
    are not finite."""
    maximum = 0.0 if outside else -np.inf
    for i in range(len(values)):
        maximum = max(maximum, np.float64(values[i]))
        if np.isnan(values[i]):
            return np.nan, 0
    if not np.isfinite(maximum):
        return maximum, 0
    size = 0
    if outside and (1.0 - alpha) * maximum > -1.0:
        scratch[0] = (1.0 - alpha) * maximum
        size = 1
    for i in range(len(values)):
        z = (alpha - 1.0) * (np.float64(values[i]) - maximum)
        if z > -1.0:
            scratch[size] = z
            size += 1
    return maximum, size


@jit
def _thresholded(z: float, tau: float, alpha: float) -> float:
    """Return [z − τ]₊^{1/(α−1)}, without a power for the two common α."""
    excess = max(z - tau, 0.0)
    if alpha == 2.0:
        return excess
    if alpha == 1.5:
        return excess * excess
    return float(excess ** (1.0 / (alpha - 1.0)))


@jit
def entmax(values: Array, outside: bool, alpha: float, scratch: Array, probs: Array) -> float:
    """Write α-entmax of the values, as many to `probs`; return the no-click probability (value 0),
    0 if not offered.

    `scratch` is float64 and one longer than the values. All is NaN for values with a NaN, a +inf,
    or −inf alone."""
    maximum, size = _gather_near_maximum(values, outside, alpha, scratch)
    if size == 0:
        for i in range(len(values)):
            probs[i] = np.nan
        return np.nan if outside else 0.0
    if alpha in (1.5, 2.0):
        tau = _threshold_by_sorting(scratch, size, alpha)
    else:
        tau = _threshold_by_bisection(scratch, size, alpha)
    # The rounding left in τ is spread over the support, so that the probabilities sum to 1.
    none = _thresholded((1.0 - alpha) * maximum, tau, alpha) if outside else 0.0
    total = 0.0
    for i in range(len(values)):
        total += _thresholded((alpha - 1.0) * (np.float64(values[i]) - maximum), tau, alpha)
    total += none
    for i in range(len(values)):
        probs[i] = (
            _thresholded((alpha - 1.0) * (np.float64(values[i]) - maximum), tau, alpha) / total
        )
    return none / total

"""Choice probabilities: softmax of ragged display sets, with the gradients of the game's losses.

Every loss of the game has, with respect to a candidate's score, the gradient (probability − target)
/ n_events: the target is the logged choice, or another player's probability."""

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

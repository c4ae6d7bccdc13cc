"""Choice probabilities of ragged display sets, and gradients of the game's losses: each is, in a
candidate's score, (probability − target) · weight of the event / n_events."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._jit import Array, Real, jit_fast, jit_leaf
from .activations import exp_nonpositive

SCORES, CHOICES, TARGETS, GIVEN = 0, 1, 2, 3
"""a scorer's pass: scores alone; learns choices, or probabilities; gradient given"""


class Loss(NamedTuple):
    """The loss that a scorer's pass learns, of softmax(eta · scores)."""

    kind: int  # SCORES, CHOICES, TARGETS or GIVEN
    eta: Real
    no_click: bool  # whether no click, of score 0, is a choice
    choices: Array  # positions of the logged choices, −1 for no click, (n_events,)
    targets: Array  # probabilities, (n_candidates,); read for TARGETS
    weights: Array  # of the events, (n_events,); (0,): all are 1


@jit_leaf
def softmax_of_events(
    scores: Array, eta: Real, offsets: Array, no_click: bool, probs: Array, log_totals: Array
) -> None:
    """As `choice_probs`, within another kernel."""
    for event in range(len(log_totals)):
        top = eta * scores[offsets[event]] * 0 if no_click else eta * scores[offsets[event]]
        for i in range(offsets[event], offsets[event + 1]):
            top = max(top, eta * scores[i])
        log_totals[event] = top
        for i in range(offsets[event], offsets[event + 1]):
            probs[i] = eta * scores[i] - top
    # apart from the ragged loops: this one vectorises
    for i in range(offsets[0], offsets[len(log_totals)]):
        probs[i] = exp_nonpositive(probs[i])
    for event in range(len(log_totals)):
        total = np.exp(np.float64(-log_totals[event])) if no_click else 0.0
        for i in range(offsets[event], offsets[event + 1]):
            total += probs[i]
        share = 1.0 / total
        for i in range(offsets[event], offsets[event + 1]):
            probs[i] *= share
        log_totals[event] += np.log(total)


@jit_fast
def choice_probs(
    scores: Array, eta: Real, offsets: Array, no_click: bool, probs: Array, log_totals: Array
) -> None:
    """Write softmax(eta · scores) and log Σ exp(eta · score), (n_events,), of some events; scores
    and probs (n_candidates,) are of all. `no_click`: no click, of score 0, is one more choice."""
    softmax_of_events(scores, eta, offsets, no_click, probs, log_totals)


@jit_leaf
def loss_gradient(
    first: int, last: int, scores: Array, offsets: Array, loss: Loss, grad: Array, log_totals: Array
) -> None:
    """Write log Σ exp(eta · score) of events first to last − 1, and (probability − target) /
    n_events to `grad`."""
    own, totals = offsets[first : last + 1], log_totals[first:last]
    softmax_of_events(scores, loss.eta, own, loss.no_click, grad, totals)
    share = grad.dtype.type(1.0 / (len(offsets) - 1))
    if loss.kind == TARGETS:
        for i in range(offsets[first], offsets[last]):
            grad[i] = (grad[i] - loss.targets[i]) * share
    else:
        for i in range(offsets[first], offsets[last]):
            grad[i] *= share
        for event in range(first, last):
            if loss.choices[event] >= 0:
                grad[offsets[event] + loss.choices[event]] -= share
    if len(loss.weights):
        for event in range(first, last):
            for i in range(offsets[event], offsets[event + 1]):
                grad[i] *= loss.weights[event]

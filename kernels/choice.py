"""Choice probabilities of ragged display sets and the gradients of the game's losses, which have
closed forms.

Every loss of the game has, with respect to a candidate's score, the gradient (probability − target)
/ n_events: the target is the logged choice, or another player's probability."""

from __future__ import annotations

import numpy as np

from ._jit import Array, jit, jit_fast
from .activations import exp_nonpositive


@jit_fast
def choice_probs(
    first: int,
    last: int,
    scores: Array,
    eta: float,
    offsets: Array,
    outside: bool,
    probs: Array,
    log_totals: Array,
) -> None:
    """Write softmax(eta · scores) of events first to last − 1, (n_candidates,), and log Σ exp(eta ·
    score), (n_events,).

    With `outside` no click, of score 0, is one more choice; its probability is what is missing to
    1."""
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
def exact_loss(
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

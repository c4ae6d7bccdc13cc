"""Ranks: how many candidates score above the chosen one; ties are counted, never broken."""

from __future__ import annotations

import numpy as np

from ._jit import Array, jit


@jit
def best_of_sets(
    scores: Array, offsets: Array, choices: Array, n_best: Array, is_best: Array
) -> None:
    """Write how many candidates of each display set share its best score, and whether the chosen
    one does, or the first where none is chosen.

    scores: none is NaN, (n_candidates,); offsets: no set is empty; choices: -1 for none; n_best,
    is_best: (n_events,)."""
    for event in range(len(offsets) - 1):
        first, last = offsets[event], offsets[event + 1]
        best, n = scores[first], 1
        for candidate in range(first + 1, last):
            score = scores[candidate]
            if score > best:
                best, n = score, 1
            elif score == best:
                n += 1
        n_best[event] = n
        is_best[event] = scores[first + max(choices[event], 0)] == best


@jit
def _count(scores: Array, offsets: Array, choices: Array, n_better: Array, n_tied: Array) -> None:
    for event in range(len(offsets) - 1):
        if choices[event] < 0:
            n_better[event] = n_tied[event] = -1
            continue
        chosen = offsets[event] + choices[event]
        better, tied = 0, -1  # the loop meets the chosen candidate itself, which ties with itself
        for i in range(offsets[event], offsets[event + 1]):
            if scores[i] == scores[chosen] or i == chosen:
                tied += 1
            elif not scores[i] < scores[chosen]:
                better += 1
        n_better[event] = better
        n_tied[event] = tied


def rank_counts(scores: Array, offsets: Array, choices: Array) -> tuple[Array, Array]:
    """Count the other candidates that score above the chosen one, and those that tie with it.

    scores (n_candidates,) float; offsets (n_events + 1,) int32; choices (n_events,) int32, position
    or −1 for no click. Returns (n_better, n_tied), int32, shape (n_events,); events without a
    choice give (−1, −1). A comparison with NaN counts as better; +inf and −inf compare as usual.

    Raises ValueError when the shapes do not fit, or a choice lies outside its display set.

    >>> utility = np.array([1.0, 3.0, 1.0, 5.0])
    >>> offsets, choices = np.array([0, 3, 4], np.int32), np.array([0, -1], np.int32)
    >>> rank_counts(utility, offsets, choices)
    (array([ 1, -1], dtype=int32), array([ 1, -1], dtype=int32))
    """
    n_events = len(offsets) - 1
    if len(choices) != n_events or offsets[-1] != len(scores):
        raise ValueError(
            f"offsets name {n_events} events and {offsets[-1]} candidates, but there are "
            f"{len(choices)} choices "
            f"and {len(scores)} scores: pass the offsets that belong to them"
        )
    invalid = (choices < -1) | (choices >= np.diff(offsets))
    if invalid.any():
        event = int(np.argmax(invalid))
        size = offsets[event + 1] - offsets[event]
        raise ValueError(
            f"event {event} chooses position {choices[event]} of {size} candidates: use -1 for no "
            "click"
        )
    n_better = np.empty(n_events, np.int32)
    n_tied = np.empty(n_events, np.int32)
    _count(scores, offsets, choices, n_better, n_tied)
    return n_better, n_tied

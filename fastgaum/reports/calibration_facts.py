"""Does a probability come true: calibration curves of candidates and of no click, for each head of
a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastgaum.logs.log import IntArray
from fastgaum.metrics.calibration import candidate_outcomes
from fastgaum.metrics.intervals import bootstrap_mean
from fastgaum.reports.scored_split import Float64Array, Scored

DRAWS = 300
"""of the bootstrap over users, for each point of a curve"""
EDGES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""where the points of a candidates' curve are cut; an edge belongs to the point above it"""

Point = dict[str, Any]
Groups = npt.NDArray[np.int64]


def calibration_facts(scored: Scored) -> dict[str, Any]:
    """{head: {candidates: points, no_click: points or None}}; a point holds predicted, observed,
    ci, n; shares in [0, 1].

    Points of candidates are those of a probability between two EDGES, so that they spread over the
    axis whether displays hold two candidates or two hundred. Points of no click are tenths of the
    events, as its worst decile is."""
    part = scored.part
    users = scored.encoded.user_of_event
    outcomes = candidate_outcomes(part.display_offsets, part.choices)
    facts: dict[str, Any] = {}
    for name, head in scored.scores.heads.items():
        probs = np.exp(head.log_probs.astype(np.float64))
        facts[name] = {
            "candidates": _curve(
                probs,
                outcomes,
                np.repeat(users, scored.sizes),
                np.searchsorted(EDGES, probs, side="right"),
            ),
            "no_click": None,
        }
        if scored.outside:
            away = np.exp(head.outside_log_prob.astype(np.float64))
            no_click = (part.choices < 0).astype(np.float64)
            facts[name]["no_click"] = _curve(away, no_click, users, _tenths(away))
    return facts


def _tenths(probs: Float64Array) -> Groups:
    """Group of each case: tenths of the cases in order of probability, equal probabilities
    together."""
    _, level, sizes = np.unique(probs, return_inverse=True, return_counts=True)
    middle = np.cumsum(sizes) - 0.5 * sizes
    groups = np.minimum(middle * 10 / len(probs), 9).astype(np.int64)
    return groups[level]


def _curve(
    probs: Float64Array, outcomes: Float64Array, users: IntArray, bins: Groups
) -> list[Point]:
    points = []
    for group in np.unique(bins):
        cases = bins == group
        share = bootstrap_mean(outcomes[cases], users[cases], draws=DRAWS)
        points.append(
            {
                "predicted": float(probs[cases].mean()),
                "observed": share.mean,
                "ci": [share.low, share.high],
                "n": int(cases.sum()),
            }
        )
    return points

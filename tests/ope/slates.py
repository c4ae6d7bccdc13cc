"""Logs of every slate of a few items, under a law of displays that is known."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np

from fastgaum.logs.log import SessionLog
from fastgaum.ope.display_law import DisplayLaw
from fastgaum.ope.estimators import (
    WeightedEvents,
)
from fastgaum.ope.shown import replay_policy
from fastgaum.ope.targets import Target
from fastgaum.ope.weights import LoggedDisplays, LoggedEvents, weigh_events
from fastgaum.policies.heuristics import Popular
from tests.builders import log_of

ITEMS = 6
WEIGHTS = np.array([3.0, 0.5, 1.0, 2.0, 0.2, 1.5])
BEST = Popular(np.arange(ITEMS, 0, -1).astype(np.float32))
"""shows items 0, 1, 2, … always"""


def every_slate(k: int, ordered: bool = False) -> SessionLog:
    """A log that shows every slate of k items once, each to a user of its own."""
    slates = (permutations if ordered else combinations)(range(ITEMS), k)
    return log_of([[(list(slate), -1)] for slate in slates], ordered=ordered)


def weighed(log: SessionLog, target: Target, displays: LoggedDisplays) -> WeightedEvents:
    events = LoggedEvents(log, displays)
    if displays.law == "uniform" and displays.propensities is None:
        # a law that is known without being fitted: one display of each slate says nothing of it
        events.law = DisplayLaw(WEIGHTS)
    shown = replay_policy(log, target, None, events.pool)
    return weigh_events(events, target, shown, np.ones(log.n_candidates))


def chances(log: SessionLog, k: int) -> np.ndarray:
    """Probability of each event's slate under the law of `WEIGHTS`."""
    products = WEIGHTS[log.items.reshape(-1, k)].prod(axis=1)
    return products / products.sum()

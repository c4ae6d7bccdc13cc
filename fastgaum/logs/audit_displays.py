"""Whether a log's displays depend on what its users clicked: one number, one p.

Of each event after a click in its session it is counted whether it displays the item clicked last,
less the chance of that: the item's share of the places of all other users' displays, times the
places of this one. Displays drawn without regard to the user make the difference 0 on average."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastgaum.logs.clicks import is_successive
from fastgaum.logs.log import SessionLog

LEAST_P = 0.01
MARKS = 1 << 24


@dataclass(frozen=True)
class DisplayDependence:
    """Displays of the item clicked last, counted and expected by chance."""

    n_events: int
    """events after a click in their session"""
    shown: float
    """share of them that display the item clicked last"""
    expected: float
    """the same share if displays did not depend on the user"""
    z: float
    """the difference in standard errors, clustered by user, at least those of independent events"""
    p: float
    """two-sided"""

    @property
    def found(self) -> bool:
        """Whether displays depend on clicks."""
        return self.p < LEAST_P

    def to_text(self) -> str:
        """The test in a line."""
        says = "FLAG: displays depend on clicks" if self.found else "displays and clicks"
        end = "; off-policy values need logged propensities" if self.found else ""
        return (
            f"{says}: the item clicked last is displayed again in {100 * self.shown:.2f} % of "
            f"{self.n_events:,} events, {100 * self.expected:.2f} % expected by chance, "
            f"z = {self.z:.1f}, p = {max(self.p, 1e-300):.2g}{end}"
        )


def display_dependence(log: SessionLog) -> DisplayDependence | None:
    """Whether displays depend on clicks; None for one user, and for successive choices."""
    if log.n_events == 0 or is_successive(log.context):
        return None
    # events after a click in their session, and the item clicked last
    clicked = np.where(log.choices >= 0, np.arange(log.n_events), -1)
    before = np.append(-1, np.maximum.accumulate(clicked)[:-1])
    events = np.flatnonzero(before >= log.session_offsets[log.session_of_event])
    last = before[events]
    items = log.items[log.display_offsets[last] + log.choices[last]].astype(np.int64)
    users = log.users[log.session_of_event]
    sizes = np.diff(log.display_offsets).astype(np.float64)
    event_of = log.event_of_candidate()
    wanted = np.full(log.n_events, -1, np.int64)
    wanted[events] = items
    again = np.zeros(log.n_events, np.bool_)
    again[event_of[log.items == wanted[event_of]]] = True
    # places of each item in all displays and in the user's own, and of all items likewise
    places = np.bincount(log.items, minlength=log.n_items)
    own_of_all = np.bincount(users, weights=sizes)
    own_places = _count_own(
        users[event_of].astype(np.int64) * log.n_items + log.items,
        users[events].astype(np.int64) * log.n_items + items,
    )
    others = len(event_of) - own_of_all[users[events]]
    kept = others > 0
    events, others = events[kept], others[kept]
    chance = np.minimum(sizes[events] * (places[items] - own_places)[kept] / others, 1.0)
    by_user = np.bincount(users[events], weights=again[events] - chance)
    variance = max(float((by_user**2).sum()), float((chance * (1.0 - chance)).sum()))
    if len(np.unique(users[events])) < 2 or variance <= 0.0:
        return None
    n, shown, expected = len(events), float(again[events].sum()), float(chance.sum())
    z = (shown - expected) / math.sqrt(variance)
    return DisplayDependence(n, shown / n, expected / n, z, math.erfc(abs(z) / math.sqrt(2.0)))


def _count_own(keys: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Count how often each wanted key is among the keys, shape of `wanted`."""
    marked = np.zeros(MARKS, np.bool_)
    marked[wanted % MARKS] = True
    found, counts = np.unique(keys[marked[keys % MARKS]], return_counts=True)
    return np.asarray(counts[np.searchsorted(found, wanted)], np.int64)

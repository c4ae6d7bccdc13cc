"""What users did between displays: views, carts, plays; and what they had done before the log.

An action is told to the user's history before the event that follows it. It has no display and no
choice, and nothing is learned from it as a choice: the counts of an item's displays and choices do
not know it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

Codes = npt.NDArray[np.int32]
PAST = "past"
"""kind of the items that `ReadOptions.past` names"""
ACTED = "acted"
"""kind of all actions of a table that does not say it"""


@dataclass(frozen=True)
class Actions:
    """The actions of a log, those before an event one after the other in their order."""

    offsets: Codes
    """start of each event's actions, those since the session's event before it; shape (n_events +
    1,)"""
    items: Codes
    """item code of each action; the log need not display the item; shape (n_actions,)"""
    kinds: Codes
    """what was done, a row of `kind_names`, shape (n_actions,)"""
    kind_names: pl.Series
    """kinds of actions as text, sorted"""
    left_out: int = 0
    """actions that were read and that no event follows: of sessions that the log does not have, or
    after a session's last event"""

    @property
    def n_actions(self) -> int:
        """Number of actions."""
        return len(self.items)

    @property
    def in_words(self) -> str:
        """The number of each kind: 12 cart, 70 view."""
        counts = np.bincount(self.kinds, minlength=len(self.kind_names)).tolist()
        named = zip(counts, self.kind_names.to_list(), strict=True)
        return ", ".join(f"{n:,} {name}" for n, name in named)

    def picked(self, offsets: Codes, at: Codes) -> Actions:
        """The actions of some events; at: which they are, offsets: the start of each event's."""
        return dataclasses.replace(
            self, offsets=offsets, items=self.items[at], kinds=self.kinds[at]
        )

    def before(self, events: npt.NDArray[np.integer], n_events: int) -> Actions:
        """The same actions before other events, one for each of these here, ascending."""
        counts = np.zeros(n_events, np.int64)
        counts[events] = np.diff(self.offsets)
        offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
        return dataclasses.replace(self, offsets=offsets)

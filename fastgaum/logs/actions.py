"""What users did between displays, and had done before the log: views, carts, plays.

An action is told to the user's history before the event that follows it. It has no display and no
choice, and no count knows it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

Codes = npt.NDArray[np.int32]
PAST = "past"
ACTED = "acted"
"""kind of all actions of a table without kinds"""


@dataclass(frozen=True)
class Actions:
    """The actions of a log, those before an event in their order."""

    offsets: Codes
    """start of the actions before each event, shape (n_events + 1,)"""
    items: Codes
    """item code of each action, shape (n_actions,)"""
    kinds: Codes
    """what was done, a row of `kind_names`, shape (n_actions,)"""
    kind_names: pl.Series
    left_out: int = 0
    """actions that were read and that no event follows"""

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
        """The actions `at`, of events that begin at `offsets`."""
        return dataclasses.replace(
            self, offsets=offsets, items=self.items[at], kinds=self.kinds[at]
        )

    def before(self, events: npt.NDArray[np.integer], n_events: int) -> Actions:
        """The same actions before other events, one for each of these here, ascending."""
        counts = np.zeros(n_events, np.int64)
        counts[events] = np.diff(self.offsets)
        offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
        return dataclasses.replace(self, offsets=offsets)

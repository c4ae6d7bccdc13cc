"""Sessions for the race in next-item training: Zipf lengths, popular items, and something to
learn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sessions:
    """Clicked items, session after session."""

    items: NDArray[np.int32]
    """shape (n_events,)"""
    offsets: NDArray[np.int32]
    """start of each session, shape (n_sessions + 1,)"""
    n_items: int

    @property
    def n_targets(self) -> int:
        """Events that a session's earlier events predict."""
        return len(self.items) - len(self.offsets) + 1


def zipf_sessions(
    n_sessions: int, n_items: int = 10_000, shortest: int = 2, longest: int = 100, seed: int = 0
) -> Sessions:
    """Draw sessions: P(length) ∝ 1 / length from `shortest` to `longest` (2 to 100: mean 23.6),
    items ∝ 1 / (rank + 10).

    Half of the events follow their predecessor (item → a fixed other item), the rest are drawn by
    popularity."""
    rng = np.random.default_rng(seed)
    values = np.arange(shortest, longest + 1)
    lengths = rng.choice(values, size=n_sessions, p=(1 / values) / (1 / values).sum())
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    popularity = 1 / (np.arange(n_items) + 10)
    items = rng.choice(n_items, size=int(offsets[-1]), p=popularity / popularity.sum()).astype(
        np.int32
    )
    successor = rng.permutation(n_items).astype(np.int32)
    follows = rng.random(len(items)) < 0.5
    follows[offsets[:-1]] = False
    for event in np.flatnonzero(follows):
        items[event] = successor[items[event - 1]]
    return Sessions(items, offsets, n_items)

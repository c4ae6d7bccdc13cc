"""SharedSessions: sessions whose bags hold an item and nothing else, read out of the log's own
arrays when a batch needs them.

Encoding them would store each candidate a second time: its id is its item's, found in one array of
a number per item."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastgaum.logs.log import FloatArray, IntArray, SessionLog


@dataclass(frozen=True)
class SharedSessions:
    """Some sessions of a log under a space of items alone; `assemble` makes of them the batches
    that `EncodedSessions` give."""

    log: SessionLog
    """whose arrays are read; they are not copied"""
    rows: IntArray
    """row of each session in the log, shape (n_sessions,)"""
    id_of_item: IntArray
    """feature id of each of the log's items, shape (n_items,)"""
    n_events: int
    """events of all sessions together"""

    @property
    def n_sessions(self) -> int:
        """Number of sessions."""
        return len(self.rows)

    @cached_property
    def largest(self) -> int:
        """Candidates of the log's session that has most."""
        return int(
            np.diff(np.asarray(self.log.display_offsets)[self.log.session_offsets]).max(initial=0)
        )

    @property
    def packed(self) -> SessionLog:
        """What holds session_offsets, display_offsets and choices."""
        return self.log

    @property
    def numbers(self) -> FloatArray:
        """No candidate has a number: shape (0, 0)."""
        return np.empty((0, 0), np.float32)

    def places(self, sessions: IntArray) -> IntArray:
        """Rows of the given sessions in `packed`.

        Raises:
            IndexError: a position is not one of the sessions.
        """
        if len(sessions) and not (sessions.min() >= 0 and sessions.max() < self.n_sessions):
            raise IndexError(f"a session outside 0 … {self.n_sessions - 1} was asked for")
        return self.rows[sessions]

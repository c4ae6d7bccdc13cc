"""Whole sessions picked from a log, and what their own past and their own users say of their candidates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastgaum.kernels.context import counts_before as count_before
from fastgaum.kernels.context import counts_of_user
from fastgaum.sessions.packed import TRAIN, IntArray, SessionLog
from fastgaum.sessions.ragged import pick_rows


@dataclass(frozen=True)
class Selection:
    """Whole sessions picked from a log: their packed offsets and the flat rows of their candidates."""

    rows: IntArray
    session_offsets: IntArray
    display_offsets: IntArray
    choices: IntArray
    candidates: IntArray

    def users(self, log: SessionLog) -> IntArray:
        """User of each event, shape (n_events,)."""
        return np.repeat(np.asarray(log.users)[self.rows], np.diff(self.session_offsets))


def select_sessions(log: SessionLog, rows: IntArray) -> Selection:
    """Pick the sessions `rows` of a log."""
    session_offsets, events = pick_rows(log.session_offsets, rows)
    display_offsets, candidates = pick_rows(log.display_offsets, events)
    return Selection(rows, session_offsets, display_offsets, np.asarray(log.choices)[events], candidates)


def counts_before(log: SessionLog, part: Selection) -> tuple[IntArray, IntArray]:
    """Displays and choices of each candidate's item in earlier events of its session."""
    items = np.asarray(log.items)[part.candidates]
    scratch = np.zeros((2, log.n_items), dtype=np.int32)
    before = np.zeros((2, len(items)), dtype=np.int32)
    count_before(
        part.session_offsets, part.display_offsets, items, part.choices, scratch[0], scratch[1], before[0], before[1]
    )
    return before[0], before[1]


def own_counts(log: SessionLog, part: Selection) -> tuple[IntArray, IntArray, npt.NDArray[np.float64]]:
    """What each candidate's own user adds to its item's training counts: 0 for users without a training session."""
    counts = np.zeros((2, log.n_candidates), dtype=np.int32)
    expected = np.zeros(log.n_candidates)
    scratch = np.zeros((2, log.n_items), dtype=np.int32)
    train = np.flatnonzero(log.split == TRAIN)
    by_user = train[np.argsort(log.users[train], kind="stable")].astype(np.int32)
    packed = (log.users, log.session_offsets, log.display_offsets, log.items, log.choices)
    users, sessions, displays, items, choices = (np.asarray(part) for part in packed)
    counts_of_user(
        by_user, users, sessions, displays, items, choices,
        scratch[0], scratch[1], np.zeros(log.n_items), counts[0], counts[1], expected,
    )  # fmt: skip
    return counts[0][part.candidates], counts[1][part.candidates], expected[part.candidates]

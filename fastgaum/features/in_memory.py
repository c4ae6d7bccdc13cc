"""Sessions in memory that batches are made of: encoded as they are read, compact, or the log's own
arrays."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastgaum import threads
from fastgaum.features.context import ContextEncoder
from fastgaum.features.item_vectors import VectorReader
from fastgaum.features.numbers import SAME_FOR_SET, Moments, flag_names, varying_columns
from fastgaum.features.sessions import (
    BATCH_CANDIDATES,
    ActionBags,
    EncodedSessions,
    PickedSessions,
    Selection,
    VectorRows,
    chunks,
    cut_by_candidates,
    require_positions,
    work_of,
)
from fastgaum.kernels.batching import WaitingNumbers, fill_numbers, keep_numbers, picked_size
from fastgaum.logs.log import FloatArray, IntArray, SessionLog

if TYPE_CHECKING:
    from fastgaum.features.space import FeatureSpace


PART = 1 << 13
"""candidates whose numbers one thread makes at a time"""


class Place(NamedTuple):
    """Where a chunk's sessions, events and candidates stand among those that are encoded."""

    sessions: slice
    events: slice
    candidates: slice


def places(log: SessionLog, rows: IntArray, after: Place | None = None) -> Iterator[Place]:
    """Where each chunk of the sessions `rows` of a log goes: from the start on, or `after` a
    place."""
    session, event, candidate = (0, 0, 0) if after is None else (one.stop for one in after)
    events_of, displays = np.asarray(log.session_offsets), np.asarray(log.display_offsets)
    candidates_of = displays[events_of]
    for chunk in chunks(log, rows):
        sessions = slice(session, session + len(chunk))
        events = slice(event, event + picked_size(events_of, chunk))
        candidates = slice(candidate, candidate + picked_size(candidates_of, chunk))
        yield Place(sessions, events, candidates)
        session, event, candidate = sessions.stop, events.stop, candidates.stop


@dataclass(frozen=True, kw_only=True)
class CompactSessions(EncodedSessions):
    """Encoded sessions whose numbers are made when a batch is: `assemble` makes of them the batches
    that `EncodedSessions` give. Their own `numbers` are empty, of shape (n_candidates, 0).

    Of a candidate's numbers nearly half are others less their mean over the display set. Those are
    not stored; a flag is no float; and what a set shares is there once, not for each candidate."""

    waiting: WaitingNumbers

    def numbers_of(self, picked: PickedSessions) -> FloatArray:
        """Numbers of the picked sessions' candidates."""
        numbers = np.empty((picked.n_candidates, len(self.waiting.mean)), np.float32)
        first, first_events, offsets, displays = picked
        parts = cut_by_candidates(np.diff(displays[offsets]), PART)
        threads.run(
            fill_numbers,
            [
                (
                    self.waiting,
                    first[part],
                    first_events[part],
                    offsets[part.start : part.stop + 1],
                    displays,
                    numbers,
                )
                for part in parts
            ],
        )
        return numbers


class KeptNumbers:
    """Numbers of chunks, kept until a batch is made of them; chunks may come on several threads."""

    def __init__(
        self, space: FeatureSpace, n_candidates: int, n_events: int, moments: Moments | None
    ) -> None:
        """Room for the numbers of so many candidates and events. With `moments` they are counted
        there, and standardised by them, not by the space's own."""
        names, flags = space.number_names, flag_names(space.numbers_of_context)
        kind = np.array([1 if one in flags else 2 if one in SAME_FOR_SET else 0 for one in names])
        columns = np.flatnonzero(kind == 0), np.flatnonzero(kind == 1), np.flatnonzero(kind == 2)
        values, of_flags, of_sets = map(len, columns)
        self._waiting = WaitingNumbers(
            np.empty((n_candidates, values), np.float32),
            np.empty((n_candidates, of_flags), np.uint8),
            np.empty((n_events, of_sets), np.float32),
            columns,
            varying_columns(names, space.set_context),
            space.mean,
            space.scale,
        )
        self._n_numbers, self._moments = space.n_numbers, moments
        self._rooms = threading.local()

    def keep(
        self, write: Callable[[Selection, FloatArray], None], part: Selection, place: Place
    ) -> Moments:
        """Keep the numbers of a chunk, which `write` writes, not standardised; returns what there
        is to count of them."""
        n, room = len(part.candidates), getattr(self._rooms, "numbers", None)
        # the room of a thread's largest chunk until now serves all of its chunks
        if room is None or len(room) < n:
            room = self._rooms.numbers = np.empty((n, self._n_numbers), np.float32)
        numbers, block = room[:n], Moments()
        write(part, numbers)
        if self._moments is not None and n:
            block.add(numbers)
        values, flags, of_sets, columns, *_ = self._waiting
        kept = values[place.candidates], flags[place.candidates], of_sets[place.events]
        keep_numbers(part.display_offsets, numbers, columns, kept)
        return block

    def standardised_by(self, blocks: Sequence[Moments]) -> WaitingNumbers:
        """All numbers, after their chunks, of which `keep` returned the blocks."""
        if self._moments is None:
            return self._waiting
        for block in blocks:
            self._moments.combine(block)
        if self._moments.count == 0:
            return self._waiting
        mean, scale = self._moments.mean.astype(np.float32), self._moments.scale()
        return self._waiting._replace(mean=mean, scale=scale)


@dataclass(frozen=True)
class SharedSessions:
    """Some sessions of a log whose bags hold an item and nothing else; `assemble` makes of them the
    batches that `EncodedSessions` give.

    Encoding them would store each candidate a second time: its id is its item's, found in one array
    of a number per item."""

    log: SessionLog
    """whose arrays are read; they are not copied"""
    rows: IntArray
    """row of each session in the log, shape (n_sessions,)"""
    id_of_item: IntArray
    """feature id of each of the log's items, shape (n_items,)"""
    n_events: int
    """events of all sessions together"""
    context: ContextEncoder
    """reads the context of the log's events"""
    reader: VectorReader | None = None
    """reads the vectors of the log's items; None where no network reads them"""
    actions: ActionBags | None = None
    """what users did before each of the log's events"""

    @property
    def vectors(self) -> VectorRows | None:
        """The items whose vectors are read, if any are."""
        if self.reader is None:
            return None
        return VectorRows(self.reader, np.asarray(self.log.items), self.context.items)

    @property
    def n_sessions(self) -> int:
        """Number of sessions."""
        return len(self.rows)

    @cached_property
    def largest(self) -> int:
        """Candidates, and actions, of the log's session that has most."""
        return int(
            np.diff(work_of(self.log, self.actions)[self.log.session_offsets]).max(initial=0)
        )

    @property
    def packed(self) -> SessionLog:
        """What holds session_offsets, display_offsets and choices."""
        return self.log

    def numbers_of(self, picked: PickedSessions) -> FloatArray:
        """No candidate has a number: shape (n_candidates, 0)."""
        return np.empty((picked.n_candidates, 0), np.float32)

    def context_rows(self, events: IntArray) -> tuple[IntArray, FloatArray]:
        """Context ids and numbers of events of `packed`."""
        return self.context.ids(events), self.context.numbers(events)

    def places(self, sessions: IntArray) -> IntArray:
        """Rows of the given sessions in `packed`.

        Raises:
            IndexError: a position is not one of the sessions.
        """
        require_positions(sessions, self.n_sessions)
        return self.rows[sessions]


Sessions = EncodedSessions | SharedSessions
"""sessions in memory: what batches are made of"""


def blocks(encoded: Sessions, order: IntArray, batch_sessions: int) -> Iterator[IntArray]:
    """Cut sessions, positions in `encoded`, into those of each batch: by their number, and by their
    candidates where they are so long or so wide that a batch would hold more than
    BATCH_CANDIDATES."""
    moderate = encoded.largest * batch_sessions <= BATCH_CANDIDATES
    work = work_of(encoded.packed, encoded.actions)
    for start in range(0, len(order), batch_sessions):
        sessions = order[start : start + batch_sessions]
        if moderate:
            yield sessions
            continue
        packed, places = encoded.packed, encoded.places(sessions)
        ends = work[packed.session_offsets[np.stack([places, places + 1])]]
        yield from (sessions[part] for part in cut_by_candidates(ends[1] - ends[0]))

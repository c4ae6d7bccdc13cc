"""Whole sessions of a log: picked, and encoded as bags."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from fastgaum import threads
from fastgaum.arrays import BoolArray, FloatArray, IntArray, LongArray
from fastgaum.features.item_vectors import VectorReader
from fastgaum.features.standardise import NumberCode
from fastgaum.kernels import candidate_counts as kernels
from fastgaum.kernels.candidate_formulas import relate_to_sets
from fastgaum.logs.actions import Actions
from fastgaum.logs.cut import pick_rows
from fastgaum.logs.log import PackedArrays, SessionLog

CHUNK_EVENTS = 50_000
"""events that are worked on at once, within tens of megabytes"""
BATCH_CANDIDATES = 1 << 17
"""candidates of a batch at most, unless one session alone has more"""
ENCODED_AT_ONCE = 1 << 13
"""candidates whose numbers one thread makes at a time"""
CHUNK_BLOCK = 1024
"""chunks hold whole blocks of so many sessions"""
UNKNOWN_ITEM_ID = 1
"""feature id of every item that training did not display"""


def places_of(offsets: IntArray) -> IntArray:
    """Place of each candidate in its display, the first being 0, (n_candidates,)."""
    starts = np.repeat(offsets[:-1], np.diff(offsets))
    return np.arange(offsets[0], offsets[-1], dtype=np.int32) - starts.astype(np.int32)


def event_weights(log: SessionLog, events: IntArray) -> FloatArray | None:
    """Weights of some of a log's events, 1 on average over them; None if the log has none."""
    if log.weights is None:
        return None
    weights = log.weights[events].astype(np.float64)
    return (weights / weights.mean() if len(weights) else weights).astype(np.float32)


@dataclass(frozen=True)
class Selection(PackedArrays):
    """Whole sessions of a log: packed offsets, and flat rows of events and candidates."""

    rows: IntArray
    session_offsets: IntArray
    display_offsets: IntArray
    choices: IntArray
    events: IntArray
    candidates: IntArray

    @property
    def places(self) -> IntArray:
        """As `places_of`."""
        return places_of(self.display_offsets)

    def packed(self, items: IntArray) -> kernels.PackedSessions:
        """The sessions as kernels read them; items: of each candidate."""
        return kernels.PackedSessions(
            self.session_offsets, self.display_offsets, items, self.choices
        )


def select_sessions(log: PackedArrays, rows: IntArray) -> Selection:
    """Pick the sessions `rows` of a log, or of encoded sessions. Raises IndexError: a row does not
    exist."""
    session_offsets, events = pick_rows(log.session_offsets, rows)
    display_offsets, candidates = pick_rows(log.display_offsets, events)
    return Selection(
        rows, session_offsets, display_offsets, log.choices[events], events, candidates
    )


def chunks(log: SessionLog, rows: IntArray, block: int = CHUNK_BLOCK) -> Iterator[IntArray]:
    """Yield the sessions `rows`, whole blocks of about CHUNK_EVENTS events; a block of more than
    BATCH_CANDIDATES candidates is cut."""
    start, n_events = 0, 0
    offsets, displays = log.session_offsets, work_of(log, log.actions)
    for stop in range(block, len(rows) + block, block):
        latest = rows[stop - block : stop]
        first, last = offsets[latest], offsets[latest + 1]
        parts = cut_by_candidates(displays[last] - displays[first])
        n_events += int((last - first).sum())
        if len(parts) > 1:
            if start < stop - block:
                yield rows[start : stop - block]
            yield from (latest[part] for part in parts)
        elif n_events >= CHUNK_EVENTS or stop >= len(rows):
            yield rows[start:stop]
        else:
            continue
        start, n_events = stop, 0


def work_of(packed: PackedArrays, actions: Actions | ActionBags | None) -> IntArray:
    """Start of each event in its candidates and the actions before it, (n_events + 1,)."""
    displays = packed.display_offsets
    return displays if actions is None else displays + actions.offsets


def cut_by_candidates(sizes: IntArray, most: int | None = None) -> list[slice]:
    """Cut sessions of so many candidates into runs of at most `most` (BATCH_CANDIDATES); a larger
    session is a run of its own.

    With a limit of 9 the sizes [4, 5, 1, 20, 3] give the runs [4, 5], [1], [20], [3]."""
    most = BATCH_CANDIDATES if most is None else most
    if int(sizes.sum(dtype=np.int64)) <= most:
        return [slice(0, len(sizes))]
    runs, first, total = [], 0, 0
    for at, size in enumerate(sizes.tolist()):
        if at > first and total + size > most:
            runs.append(slice(first, at))
            first, total = at, 0
        total += size
    return [*runs, slice(first, len(sizes))]


def counts_before(log: SessionLog, part: Selection) -> IntArray:
    """The row of counts of each candidate's item in earlier events of its session, (n_candidates,
    N_COUNTS)."""
    before = np.empty((len(part.candidates), kernels.N_COUNTS), np.int32)
    kernels.count_before(part.packed(log.items[part.candidates]), log.n_items, before)
    return before


class ActionBags(NamedTuple):
    """The bags of the actions of packed events."""

    offsets: IntArray
    """start of each event's actions, shape (n_events + 1,)"""
    ids: IntArray
    """feature ids of each action, shape (n_actions, n_fields)"""

    def before(self, events: IntArray) -> ActionBags:
        """Those before the given events."""
        offsets, at = pick_rows(self.offsets, events)
        return ActionBags(offsets, self.ids[at])


@dataclass(frozen=True)
class EncodedSessions(PackedArrays):
    """Some sessions of one log as bags, packed; arrays as in SessionLog."""

    rows: IntArray
    session_offsets: IntArray
    display_offsets: IntArray
    choices: IntArray
    users: IntArray
    ids: IntArray
    """one id per candidate and categorical field, shape (n_candidates, n_categorical)"""
    base: FloatArray
    """base numbers as they are, shape (n_candidates, n_base)"""
    varying: LongArray
    """columns of `base` that also come less their mean over the display set, after all others"""
    code: NumberCode
    context_ids: IntArray
    """one id per event and categorical context field, shape (n_events, n_context_fields)"""
    context_numbers: FloatArray
    """numbers of the events as networks read them, shape (n_events, n_context_numbers)"""
    first_choices: BoolArray | None = None
    """whether an event is the first choice of its display, shape (n_events,); None: all are"""
    vectors: VectorReader | None = None
    actions: ActionBags | None = None
    weights: FloatArray | None = None
    """of each event, 1 on average over these sessions, shape (n_events,); None: all alike"""
    outcomes: FloatArray | None = None
    """what followed the choice of each event, as networks read it, (n_events, n_outcomes); None:
    nothing is read"""
    held_out: LongArray | None = None
    """the fold of each session that trained, which the fit of that fold left out, -1 of others,
    shape (n_sessions,); None: there are no folds, or none trained"""

    @cached_property
    def largest(self) -> int:
        """Candidates and actions of the largest session."""
        return int(np.diff(work_of(self, self.actions)[self.session_offsets]).max(initial=0))

    @property
    def numbers(self) -> FloatArray:
        """Numbers as networks read them, (n_candidates, n_numbers), made anew."""
        everything = np.arange(self.n_sessions, dtype=np.int32)
        return self.numbers_of(select_sessions(self, everything))

    def numbers_of(self, part: Selection) -> FloatArray:
        """Numbers of the candidates of some of the sessions."""
        code, n_base = self.code, self.base.shape[1]
        numbers = np.empty((len(part.candidates), code.n_numbers), np.float32)
        if not code.n_numbers:
            return numbers
        ends = part.display_offsets[part.session_offsets]

        def write(run: slice) -> None:
            first, last = ends[run.start], ends[run.stop]
            events = part.session_offsets[[run.start, run.stop]]
            displays = part.display_offsets[events[0] : events[1] + 1] - first
            raw = np.empty((last - first, n_base + len(self.varying)), np.float32)
            raw[:, :n_base] = self.base[part.candidates[first:last]]
            relate_to_sets(displays, self.varying, 0, raw)
            code.write(raw, numbers[first:last])

        threads.run(write, [(run,) for run in cut_by_candidates(np.diff(ends), ENCODED_AT_ONCE)])
        return numbers

    @property
    def user_of_event(self) -> IntArray:
        """User of each event, shape (n_events,)."""
        return np.repeat(self.users, np.diff(self.session_offsets))

    @property
    def unseen(self) -> BoolArray:
        """Whether training never displayed the item, shape (n_candidates,)."""
        unseen: BoolArray = self.ids[:, 0] == UNKNOWN_ITEM_ID
        return unseen

    @property
    def holds_unseen(self) -> BoolArray:
        """Whether an event displays such an item, shape (n_events,)."""
        return np.logical_or.reduceat(self.unseen, self.display_offsets[:-1])


def blocks(encoded: EncodedSessions, order: IntArray, batch_sessions: int) -> Iterator[IntArray]:
    """Cut sessions, positions in `encoded`, into those of each batch, of at most BATCH_CANDIDATES
    candidates."""
    moderate = encoded.largest * batch_sessions <= BATCH_CANDIDATES
    work = work_of(encoded, encoded.actions)[encoded.session_offsets]
    for start in range(0, len(order), batch_sessions):
        sessions = order[start : start + batch_sessions]
        if moderate:
            yield sessions
        else:
            runs = cut_by_candidates(work[sessions + 1] - work[sessions])
            yield from (sessions[run] for run in runs)

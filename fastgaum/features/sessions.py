"""Whole sessions of a log: picked and encoded as bags; and what their own past says of their
candidates."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastgaum.arrays import FloatArray, IntArray
from fastgaum.kernels import candidate_counts as kernels
from fastgaum.logs.cut import pick_rows
from fastgaum.logs.log import PackedArrays, SessionLog

if TYPE_CHECKING:
    from fastgaum.features.item_vectors import VectorReader
    from fastgaum.logs.actions import Actions

CHUNK_EVENTS = 50_000
"""events that are worked on at once: what a chunk needs besides its results stays within tens of
megabytes"""
BATCH_CANDIDATES = 1 << 17
"""candidates of a batch at most, unless one session alone has more: what a step holds grows with
them"""
CHUNK_BLOCK = 1024
"""chunks hold whole blocks of so many sessions"""
UNKNOWN_ITEM_ID = 1
"""feature id of every item that training did not display"""


@dataclass(frozen=True)
class Selection(PackedArrays):
    """Whole sessions picked from a log: their packed offsets and the flat rows of their
    events and candidates."""

    rows: IntArray
    session_offsets: IntArray
    display_offsets: IntArray
    choices: IntArray
    events: IntArray
    candidates: IntArray

    def users(self, log: SessionLog) -> IntArray:
        """User of each event, shape (n_events,)."""
        return np.repeat(log.users[self.rows], np.diff(self.session_offsets))

    @property
    def places(self) -> IntArray:
        """Place of each candidate in its display, the first being 0, shape (n_candidates,)."""
        starts = np.repeat(self.display_offsets[:-1], np.diff(self.display_offsets))
        return np.arange(len(self.candidates), dtype=np.int32) - starts.astype(np.int32)

    def packed(self, items: IntArray) -> kernels.PackedSessions:
        """The sessions as the kernels read them; items: what stands for each candidate's item,
        shape (n_candidates,)."""
        return kernels.PackedSessions(
            self.session_offsets, self.display_offsets, items, self.choices
        )


def select_sessions(log: PackedArrays, rows: IntArray) -> Selection:
    """Pick the sessions `rows` of a log, or of encoded sessions.

    Raises:
        IndexError: a row does not exist.
    """
    session_offsets, events = pick_rows(log.session_offsets, rows)
    display_offsets, candidates = pick_rows(log.display_offsets, events)
    return Selection(
        rows, session_offsets, display_offsets, log.choices[events], events, candidates
    )


def chunks(log: SessionLog, rows: IntArray, block: int = CHUNK_BLOCK) -> Iterator[IntArray]:
    """Yield the sessions `rows` in order, a run of whole blocks of sessions with about CHUNK_EVENTS
    events at a time.

    A block of more than BATCH_CANDIDATES candidates comes in the parts of `cut_by_candidates`.
    """
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
    """Start of each event in what a batch holds of it, its candidates and the actions before it;
    shape (n_events + 1,)."""
    displays = packed.display_offsets
    return displays if actions is None else displays + actions.offsets


def cut_by_candidates(sizes: IntArray, most: int | None = None) -> list[slice]:
    """Cut sessions of so many candidates into runs of at most `most` (BATCH_CANDIDATES unless
    given); a larger session is a run of its own.

    With a limit of 9 the sizes [4, 5, 1, 20, 3] give the runs [4, 5], [1], [20], [3].
    """
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
    """Displays and choices of each candidate's item in earlier events of its session, shape
    (n_candidates, 2)."""
    before = np.empty((len(part.candidates), kernels.N_COUNTS), np.int32)
    kernels.count_before(part.packed(log.items[part.candidates]), log.n_items, before)
    return before


class VectorRows(NamedTuple):
    """The items of encoded sessions whose vectors are read."""

    reader: VectorReader
    items: IntArray
    """code of each candidate's item, shape (n_candidates,)"""
    context_items: IntArray
    """item codes of the events' context fields that hold items, as `ContextEncoder.items`"""


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

    @classmethod
    def joined(cls, parts: Sequence[ActionBags | None]) -> ActionBags | None:
        """Those of consecutive parts; None where they have none."""
        bags = [part for part in parts if part is not None]
        if not bags:
            return None
        lengths = np.concatenate([np.diff(part.offsets) for part in bags])
        offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
        return cls(offsets, np.concatenate([part.ids for part in bags]))


@dataclass(frozen=True)
class EncodedSessions(PackedArrays):
    """Some sessions of one log as bags, packed; arrays as in SessionLog."""

    rows: IntArray
    """row of each session in the log, shape (n_sessions,)"""
    session_offsets: IntArray
    display_offsets: IntArray
    choices: IntArray
    users: IntArray
    ids: IntArray
    """one id per candidate and categorical field, shape (n_candidates, n_categorical)"""
    numbers: FloatArray
    """standardised numbers, shape (n_candidates, n_numbers)"""
    context_ids: IntArray
    """one id per event and categorical context field, shape (n_events, n_context_fields)"""
    context_numbers: FloatArray
    """standardised numbers of the events, shape (n_events, n_context_numbers)"""
    first_choices: npt.NDArray[np.bool_] | None = None
    """whether an event is the first choice of its display, shape (n_events,); None: all are"""
    vectors: VectorRows | None = None
    """the items whose vectors are read, if any are"""
    actions: ActionBags | None = None
    """what users did before each event"""

    @cached_property
    def largest(self) -> int:
        """Candidates, and actions, of the session that has most."""
        return int(np.diff(work_of(self, self.actions)[self.session_offsets]).max(initial=0))

    def numbers_of(self, part: Selection) -> FloatArray:
        """Numbers of the candidates of some of the sessions."""
        return self.numbers[part.candidates]

    def whole(self) -> EncodedSessions:
        """The same sessions with all of their numbers."""
        return self

    @property
    def user_of_event(self) -> IntArray:
        """User of each event, shape (n_events,)."""
        return np.repeat(self.users, np.diff(self.session_offsets))

    @property
    def unseen(self) -> npt.NDArray[np.bool_]:
        """Whether training never displayed a candidate's item, shape (n_candidates,)."""
        unseen: npt.NDArray[np.bool_] = self.ids[:, 0] == UNKNOWN_ITEM_ID
        return unseen

    @property
    def holds_unseen(self) -> npt.NDArray[np.bool_]:
        """Whether an event displays such an item, shape (n_events,)."""
        return np.logical_or.reduceat(self.unseen, self.display_offsets[:-1])

    def without_bags(self) -> EncodedSessions:
        """The same sessions without numbers and vectors, and of ids with the items' alone: what
        metrics read."""
        n, n_events = len(self.ids), self.n_events
        return dataclasses.replace(
            self,
            ids=self.ids[:, :1].copy(),
            numbers=np.empty((n, 0), np.float32),
            context_ids=np.empty((n_events, 0), np.int32),
            context_numbers=np.empty((n_events, 0), np.float32),
            vectors=None,
            actions=None,
        )

    @classmethod
    def joined(cls, parts: Sequence[EncodedSessions]) -> EncodedSessions:
        """The sessions of all parts, in order, without vectors; at least one part."""

        def offsets(name: str) -> IntArray:
            each = [getattr(part, name) for part in parts]
            ends = np.cumsum([0, *(one[-1] for one in each)])
            steps = [one[1:] + end for one, end in zip(each, ends[:-1], strict=True)]
            return np.concatenate([np.zeros(1, np.int32), *steps]).astype(np.int32)

        def values(name: str) -> npt.NDArray[Any]:
            return np.concatenate([getattr(part, name) for part in parts])

        return cls(
            session_offsets=offsets("session_offsets"),
            display_offsets=offsets("display_offsets"),
            rows=values("rows"),
            choices=values("choices"),
            users=values("users"),
            ids=values("ids"),
            numbers=values("numbers"),
            context_ids=values("context_ids"),
            context_numbers=values("context_numbers"),
            first_choices=None if parts[0].first_choices is None else values("first_choices"),
            actions=ActionBags.joined([part.actions for part in parts]),
        )


def blocks(encoded: EncodedSessions, order: IntArray, batch_sessions: int) -> Iterator[IntArray]:
    """Cut sessions, positions in `encoded`, into those of each batch: by their number, and by their
    candidates where they are so long or so wide that a batch would hold more than
    BATCH_CANDIDATES."""
    moderate = encoded.largest * batch_sessions <= BATCH_CANDIDATES
    work = work_of(encoded, encoded.actions)[encoded.session_offsets]
    for start in range(0, len(order), batch_sessions):
        sessions = order[start : start + batch_sessions]
        if moderate:
            yield sessions
        else:
            runs = cut_by_candidates(work[sessions + 1] - work[sessions])
            yield from (sessions[run] for run in runs)

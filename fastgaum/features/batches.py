"""Batches of whole sessions: packed arrays and the history tokens that the encoder reads.

The sessions are in memory, or those of a log in shards a few shards at a time (StreamedSessions).
Training goes through the shards in a drawn order, a window of them at a time; the sessions of a
window are shuffled together, and while they are trained on, a thread reads the next window. Which
batch comes when is a function of the random generator alone, so that training can begin anew at any
batch without reading what came before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from fastgaum.errors import ConfigError
from fastgaum.features.encoder import Encoder
from fastgaum.features.sessions import (
    BATCH_CANDIDATES,
    WHOLE,
    Sessions,
    Share,
    SharedSessions,
    blocks,
    within,
)
from fastgaum.kernels.batching import (
    PickedEvents,
    count_sessions,
    fill_bags,
    fill_events,
    fill_ids,
    fill_rows,
    history_tokens,
)
from fastgaum.logs.cut import join_logs, slice_sessions
from fastgaum.logs.log import SPLITS, FloatArray, IntArray, PackedArrays, SessionLog, SplitName
from fastgaum.logs.shards import ShardedLog

RowArray = npt.NDArray[np.int64]
Loaded = tuple[Sessions, RowArray]
"""sessions, and their rows in the whole log"""
ShardIterator = Callable[[], Iterable[int]]
_Part = tuple[list[int], tuple[int, int] | None, int]


@dataclass(frozen=True)
class Window:
    """Sessions that are in memory together."""

    n_sessions: int
    largest: int
    """candidates of the session that has most, or more"""
    load: Callable[[], tuple[Sessions, IntArray | RowArray]]
    """reads them, or waits until they are read; gives them and their rows in the whole log"""
    span: tuple[int, int] | None = None
    """first and last + 1 of the positions that a process takes, where it holds a part of the
    window; None: it holds the whole"""
    first: int = 0
    """position in the window of the first session that `load` gives"""

    def part_of(self, positions: IntArray, share: Share) -> IntArray:
        """A share of a batch: positions in the window in, positions in what `load` gives out."""
        if self.span is None:
            return share.of(positions)
        return within(positions, *self.span) - np.int32(self.first)


def _of_log(numbers: Iterable[int], n_shards: int) -> RowArray:
    """The numbers as an array. Raises ConfigError for one that is no shard's."""
    found = np.fromiter(map(int, numbers), np.int64)
    wrong = found[(found < 0) | (found >= n_shards)]
    if len(wrong):
        raise ConfigError(
            f"shard {wrong[0]} was given to train on, the log has the shards 0 to {n_shards - 1}"
        )
    return found


class StreamedSessions:
    """The sessions of one split; `batches` makes batches of them as of sessions in memory.

    encoder: of the whole log's space; log: in shards; window: shards whose sessions are shuffled
        together;
    given: the numbers of the shards that this process trains on, in order, for each call an
        epoch's; None: all, drawn.

    Attributes:
        present: the window in memory: its sessions and their rows in the whole log; None before the
            first is read.
    """

    def __init__(
        self,
        encoder: Encoder,
        log: ShardedLog,
        split: SplitName,
        window: int,
        given: ShardIterator | None = None,
    ) -> None:
        self.encoder, self.log, self.split, self.window, self.given = (
            encoder,
            log,
            split,
            window,
            given,
        )
        self.present: Loaded | None = None
        column = SPLITS.index(split) if split != "all" else None
        self._sizes = [
            sum(s.sessions) if column is None else s.sessions[column] for s in log.shards
        ]

    @property
    def n_sessions(self) -> int:
        """Number of sessions of the split."""
        return sum(self._sizes)

    @property
    def n_events(self) -> int:
        """Number of events of the split."""
        return self.log.count("events", self.split)

    @property
    def n_windows(self) -> int:
        """Number of windows of an epoch."""
        return -(-sum(size > 0 for size in self._sizes) // self.window)

    def windows(
        self,
        generator: np.random.Generator | None = None,
        share: Share = WHOLE,
        batch_sessions: int = 1,
    ) -> Iterator[Window]:
        """Yield the windows of one pass: single shards in order, or with a generator drawn ones,
        `window` at a time.

        Of several processes that shuffle, each reads only the shards that hold its share of a
        window's sessions, unless the sessions are so long that batches of `batch_sessions` are cut
        by their candidates. A window is read when it is first asked for, the next one
        beside it, in a thread that ends with the iterator."""
        filled, width = np.flatnonzero(np.array(self._sizes) > 0), 1
        if generator is not None:
            width = self.window
            if self.given is None:
                generator.shuffle(filled)
            else:
                numbers = _of_log(self.given(), len(self.log.shards))
                filled = numbers[np.isin(numbers, filled)]
        groups = [filled[start : start + width].tolist() for start in range(0, len(filled), width)]
        parts = [
            self._part_of(group, WHOLE if generator is None else share, batch_sessions)
            for group in groups
        ]
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="shards") as reader:
            waiting: dict[int, Future[Loaded]] = {}

            def ask(number: int) -> Future[Loaded]:
                if number not in waiting:
                    waiting[number] = reader.submit(self._read, parts[number][0])
                return waiting[number]

            def load(number: int) -> Loaded:
                self.present = None
                read: Loaded = ask(number).result()
                # or the window would stay in memory as long as its future
                del waiting[number]
                if number + 1 < len(groups):
                    ask(number + 1)
                self.present = read
                return read

            try:
                for number, group in enumerate(groups):
                    largest = max(self.log.shards[shard].largest for shard in group)
                    n_sessions = sum(self._sizes[shard] for shard in group)
                    yield Window(n_sessions, largest, partial(load, number), *parts[number][1:])
            finally:
                self.present = None
                reader.shutdown(cancel_futures=True)

    def _part_of(self, group: list[int], share: Share, batch_sessions: int) -> _Part:
        """What one process reads of a window: shards, and `span` and `first` as in `Window`."""
        largest = max(self.log.shards[shard].largest for shard in group)
        if share.size == 1 or largest * batch_sessions > BATCH_CANDIDATES:
            # a process that cuts batches by their candidates needs all of them
            return group, None, 0
        ends = np.cumsum([0, *(self._sizes[shard] for shard in group)])
        first, last = share.span(int(ends[-1]))
        # a process without sessions reads the shard of one: its batch must not be empty
        low = int(np.searchsorted(ends, first, side="right")) - 1
        high = int(np.searchsorted(ends, max(last, first + 1)))
        return group[low:high], (first, last), int(ends[low])

    def _read(self, shards: list[int]) -> Loaded:
        parts = [self._part(shard) for shard in shards]
        log = join_logs([part for part, _ in parts])
        rows = np.concatenate([rows for _, rows in parts])
        del parts
        wanted = log.sessions_in(self.split)
        read = self.encoder.on(log).for_training(wanted)
        return read, rows[wanted]

    def _part(self, shard: int) -> tuple[SessionLog, RowArray]:
        """A shard's sessions, and their rows in the whole log; for training those of other splits
        are left behind."""
        # an error about a number that is out of range names its event
        space = self.encoder.space
        log = self.log.read(shard, ids=bool(space.number_names or space.context_number_names))
        rows = self.log.first_sessions()[shard] + np.arange(log.n_sessions)
        if self.split == "train":
            train = log.sessions_in("train")
            log, rows = slice_sessions(log, train), rows[train]
        return log, rows


@dataclass(frozen=True)
class Batch(PackedArrays):
    """Whole sessions, packed; nothing is padded."""

    rows: IntArray | RowArray
    """row of each session in the log, shape (n_sessions,)"""
    session_offsets: IntArray
    """start of each session in events, shape (n_sessions + 1,)"""
    display_offsets: IntArray
    """start of each display set in candidates, shape (n_events + 1,)"""
    choices: IntArray
    """position of the choice, -1 for no click, shape (n_events,)"""
    ids: IntArray
    """candidates' ids, shape (n_candidates, n_categorical)"""
    numbers: FloatArray
    """candidates' numbers, shape (n_candidates, n_numbers)"""
    token_offsets: IntArray
    """start of each session in tokens, shape (n_sessions + 1,)"""
    token_candidates: IntArray
    """candidate chosen at each token, -1 for no click, shape (n_tokens,)"""
    token_ids: IntArray
    """the tokens' bags: a choice's are its candidate's ids, no click has the one id 0; shape (nnz,)
    """
    token_id_offsets: IntArray
    """start of each token's bag in token_ids, shape (n_tokens + 1,)"""
    token_numbers: FloatArray
    """the tokens' numbers, zeros for no click, shape (n_tokens, n_numbers)"""
    context_ids: IntArray
    """ids of the events' context fields, shape (n_events, n_context_fields)"""
    context_numbers: FloatArray
    """the events' numbers, shape (n_events, n_context_numbers)"""
    later_events: RowArray
    """events that are not the first of their session, in order, int64"""
    clicked: RowArray
    """events with a choice, int64, shape (n_clicked,)"""
    chosen: RowArray
    """chosen candidate of each of those events, int64, shape (n_clicked,)"""
    is_filler: bool = False
    """whether it stands for a process's share of a batch that has no session: nothing in it counts
    """


def assemble(encoded: Sessions, sessions: IntArray, keep_last: bool = False) -> Batch:
    """Make a batch of the given sessions (positions in `encoded`), in the given order.

    `keep_last` keeps each session's last choice as a token, which only a state after the session
    reads.

    Raises:
        IndexError: a position is not a session of `encoded`.
    """
    n, packed, places = len(sessions), encoded.packed, encoded.places(sessions)
    offsets, token_offsets = np.empty(n + 1, np.int32), np.empty(n + 1, np.int32)
    first_events, first = np.empty(n, np.int32), np.empty(n, np.int32)
    n_candidates = count_sessions(
        packed.session_offsets, packed.display_offsets, places, offsets, first_events, first
    )
    n_events = int(offsets[n])
    displays, choices = np.empty(n_events + 1, np.int32), np.empty(n_events, np.int32)
    later, clicked, chosen = (np.empty(n_events, np.int64) for _ in range(3))
    picked = PickedEvents(displays, choices, later, clicked, chosen)
    n_later, n_clicked = fill_events(
        packed.display_offsets, packed.choices, offsets, first_events, picked
    )
    tokens = np.empty(n_events, np.int32)
    tokens = tokens[: history_tokens(offsets, displays, choices, keep_last, token_offsets, tokens)]
    if isinstance(encoded, SharedSessions):
        ids = np.empty((n_candidates, 1), np.int32)
        fill_ids(encoded.log.items, encoded.id_of_item, first, offsets, displays, ids.reshape(-1))
    else:
        ids = _picked(encoded.ids, n_candidates, first, offsets, displays)
    numbers = _picked(encoded.numbers, n_candidates, first, offsets, displays)
    token_ids, token_id_offsets, token_numbers = bags_of_candidates(ids, numbers, tokens)
    events = np.arange(n_events) + np.repeat(first_events - offsets[:-1], np.diff(offsets))
    context_ids, context_numbers = encoded.context_rows(events.astype(np.int32))
    return Batch(
        encoded.rows[sessions],
        offsets,
        displays,
        choices,
        ids,
        numbers,
        token_offsets,
        tokens,
        token_ids,
        token_id_offsets,
        token_numbers,
        context_ids,
        context_numbers,
        later[:n_later],
        clicked[:n_clicked],
        chosen[:n_clicked],
    )


def _picked(
    values: Any, n_candidates: int, first: IntArray, offsets: IntArray, displays: IntArray
) -> Any:
    """The picked sessions' rows of a block of one row per candidate."""
    width = values.shape[1]
    picked = np.empty((n_candidates, width), values.dtype)
    fill_rows(values.reshape(-1), width, first, offsets, displays, picked.reshape(-1))
    return picked


def bags_of_candidates(
    ids: IntArray, numbers: FloatArray, candidates: IntArray
) -> tuple[IntArray, IntArray, FloatArray]:
    """Bags of any candidates of those with `ids` and `numbers`, -1 being no click, whose bag is the
    id 0 and zeros: ids (nnz,), their offsets (n + 1,), numbers (n, n_numbers)."""
    n, width = len(candidates), ids.shape[1]
    bag_ids, offsets = np.empty(n * width, np.int32), np.empty(n + 1, np.int32)
    bag_numbers = np.empty((n, numbers.shape[1]), np.float32)
    n_ids = fill_bags(ids, numbers, candidates, bag_ids, offsets, bag_numbers)
    return bag_ids[:n_ids], offsets, bag_numbers


def batches(
    encoded: Sessions | StreamedSessions,
    batch_sessions: int,
    generator: np.random.Generator | None = None,
    skip: int = 0,
    share: Share = WHOLE,
) -> Iterator[Batch]:
    """Yield batches of whole sessions: shuffled when a random generator is given, else in order;
    the first ones skipped.

    With a `share`, one process's part of each batch: the batches do not depend on how many share
    them."""
    for window in windows(encoded, generator, share, batch_sessions):
        order = np.arange(window.n_sessions, dtype=np.int32)
        if generator is not None:
            generator.shuffle(order)
        n_batches = -(-len(order) // batch_sessions)
        if skip >= n_batches and window.largest * batch_sessions <= BATCH_CANDIDATES:
            # as many batches as it would make: it need not be read
            skip -= n_batches
            continue
        sessions, rows = window.load()
        for picked in blocks(sessions, order, batch_sessions):
            if skip:
                skip -= 1
                continue
            own = window.part_of(picked, share)
            filler = len(own) == 0
            own = own if not filler else np.zeros(1, np.int32)
            yield replace(assemble(sessions, own), rows=rows[own], is_filler=filler)
        # let go before the next is asked for
        del sessions, rows


def windows(
    encoded: Sessions | StreamedSessions,
    generator: np.random.Generator | None = None,
    share: Share = WHOLE,
    batch_sessions: int = 1,
) -> Iterator[Window]:
    """Sessions that are in memory together, one set after the other: all at once, or those of a few
    shards."""
    if isinstance(encoded, StreamedSessions):
        return encoded.windows(generator, share, batch_sessions)
    return iter([Window(encoded.n_sessions, encoded.largest, lambda: (encoded, encoded.rows))])


def in_memory(encoded: Sessions | StreamedSessions) -> tuple[Sessions, RowArray]:
    """The sessions that the last batch was made of, and their rows in the log."""
    if isinstance(encoded, StreamedSessions):
        assert encoded.present is not None
        return encoded.present
    return encoded, encoded.rows.astype(np.int64)


def count_batches(encoded: Sessions | StreamedSessions, batch_sessions: int) -> int:
    """How many batches a pass has at least; of sessions in shards each window ends on a batch of
    its own."""
    more = encoded.n_windows - 1 if isinstance(encoded, StreamedSessions) else 0
    return -(-encoded.n_sessions // batch_sessions) + more

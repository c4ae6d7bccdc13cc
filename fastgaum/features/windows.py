"""Windows: sessions that are in memory together, of a log in memory or of one in shards.

Training goes through the shards in a drawn order, a window of them at a time; the sessions of a
window are shuffled together, and while they are trained on, a thread reads the next window. Which
window comes when is a function of the random generator alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from fastgaum.errors import ConfigError
from fastgaum.features.encoder import Encoder
from fastgaum.features.in_memory import Sessions
from fastgaum.features.sessions import BATCH_CANDIDATES
from fastgaum.logs.cut import join_logs, slice_sessions
from fastgaum.logs.log import SPLITS, IntArray, SessionLog, SplitName
from fastgaum.logs.shards import ShardedLog

RowArray = npt.NDArray[np.int64]
Loaded = tuple[Sessions, RowArray]
"""sessions, and their rows in the whole log"""
ShardIterator = Callable[[], Iterable[int]]
_Part = tuple[list[int], tuple[int, int] | None, int]


@dataclass(frozen=True)
class Share:
    """The share of process `rank` of `size`; shares of one whole are ranges side by side, as equal
    as they can be."""

    rank: int = 0
    size: int = 1

    def span(self, n: int) -> tuple[int, int]:
        """First and last + 1 of this share of n things.

        >>> [Share(rank, 3).span(7) for rank in range(3)]
        [(0, 2), (2, 4), (4, 7)]
        """
        return n * self.rank // self.size, n * (self.rank + 1) // self.size

    def of(self, things: IntArray) -> IntArray:
        """This share of an array."""
        first, last = self.span(len(things))
        return things[first:last]


WHOLE = Share()


def within(positions: IntArray, first: int, last: int) -> IntArray:
    """The positions that are in a range, in their order."""
    return positions[np.logical_and(positions >= first, positions < last)]


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

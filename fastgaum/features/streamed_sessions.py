"""StreamedSessions: sessions of one split of a log in shards, in memory a few shards at a time.

Training goes through the shards in a drawn order, a window of them at a time; the sessions of a
window are shuffled together, and while they are trained on, a thread reads the next window. Which
batch comes when is a function of the random generator alone, so that training can begin anew at any
batch without reading what came before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from fastgaum.errors import ConfigError
from fastgaum.features.encoder import EncodedSessions, Encoder
from fastgaum.features.selection import BATCH_CANDIDATES, SharedSessions
from fastgaum.logs.log import SPLITS, IntArray, SessionLog, SplitName
from fastgaum.logs.shards import ShardedLog
from fastgaum.logs.split import join_logs, slice_sessions

InMemory = EncodedSessions | SharedSessions
Loaded = tuple[InMemory, npt.NDArray[np.int64]]
"""sessions, and their rows in the whole log"""
ShardIterator = Callable[[], Iterable[int]]


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
    load: Callable[[], tuple[InMemory, IntArray | npt.NDArray[np.int64]]]
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


@dataclass(frozen=True)
class _Part:
    """What one process holds of a window; `span` and `first` as in `Window`."""

    shards: list[int]
    span: tuple[int, int] | None = None
    first: int = 0


def _of_log(numbers: Iterable[int], n_shards: int) -> npt.NDArray[np.int64]:
    """The numbers as an array. Raises ConfigError for one that is no shard's."""
    found = np.fromiter(map(int, numbers), np.int64)
    wrong = found[(found < 0) | (found >= n_shards)]
    if len(wrong):
        raise ConfigError(
            f"shard {wrong[0]} was given to train on, the log has the shards 0 to {n_shards - 1}"
        )
    return found


class StreamedSessions:
    """The sessions of one split; `sessions.batches` makes batches of them as of sessions in memory.

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
            self._part_of(group, share, batch_sessions) if generator is not None else _Part(group)
            for group in groups
        ]
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="shards") as reader:
            waiting: dict[int, Future[Loaded]] = {}

            def ask(number: int) -> Future[Loaded]:
                if number not in waiting:
                    waiting[number] = reader.submit(self._read, parts[number].shards)
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
                    yield Window(
                        n_sessions,
                        largest,
                        partial(load, number),
                        parts[number].span,
                        parts[number].first,
                    )
            finally:
                self.present = None
                reader.shutdown(cancel_futures=True)

    def _part_of(self, group: list[int], share: Share, batch_sessions: int) -> _Part:
        """What one process reads of a window."""
        largest = max(self.log.shards[shard].largest for shard in group)
        if share.size == 1 or largest * batch_sessions > BATCH_CANDIDATES:
            # a process that cuts batches by their candidates needs all of them
            return _Part(group)
        ends = np.cumsum([0, *(self._sizes[shard] for shard in group)])
        first, last = share.span(int(ends[-1]))
        # a process without sessions reads the shard of one: its batch must not be empty
        low = int(np.searchsorted(ends, first, side="right")) - 1
        high = int(np.searchsorted(ends, max(last, first + 1)))
        return _Part(group[low:high], (first, last), int(ends[low]))

    def _read(self, shards: list[int]) -> Loaded:
        parts = [self._part(shard) for shard in shards]
        log = join_logs([part for part, _ in parts])
        rows = np.concatenate([rows for _, rows in parts])
        del parts
        wanted = log.sessions_in(self.split)
        read = self.encoder.on(log).for_training(wanted)
        return read, rows[wanted]

    def _part(self, shard: int) -> tuple[SessionLog, npt.NDArray[np.int64]]:
        """A shard's sessions, and their rows in the whole log; for training those of other splits
        are left behind."""
        # an error about a number that is out of range names its event
        log = self.log.read(shard, ids=bool(self.encoder.space.number_names))
        rows = self.log.first_sessions()[shard] + np.arange(log.n_sessions)
        if self.split == "train":
            train = log.sessions_in("train")
            log, rows = slice_sessions(log, train), rows[train]
        return log, rows

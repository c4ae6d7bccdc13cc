"""A feature space of a log in parts, counted part by part, and its training sessions in windows of
parts.

Parts belong to GROUPS groups. A training session reads what the other groups say, in counts of the
size of the whole log: no user reads its own choices, as in blocks of a log in memory
(`training_order`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import chain
from typing import Any, Protocol, TypeVar

import numpy as np

from fastgaum.errors import FastgaumError, LogFormatError
from fastgaum.features.coded_log import CodedLog
from fastgaum.features.encoder import Encoder
from fastgaum.features.fields import TrainingValues
from fastgaum.features.fitting import (
    ContextNumbers,
    SpaceChoices,
    blank_space,
    with_code,
    with_displays,
    with_names,
)
from fastgaum.features.number_columns import PlaceCounts
from fastgaum.features.sessions import EncodedSessions
from fastgaum.features.space import FeatureSpace
from fastgaum.features.standardise import Moments
from fastgaum.features.training_counts import (
    StatisticsCounter,
    add_counts,
    place_counts,
    subtract_counts,
)
from fastgaum.features.training_order import Hiding, resized, share_to_hide
from fastgaum.logs.hashes import Hashes, find_shared
from fastgaum.logs.log import SessionLog
from fastgaum.logs.store import StoredLog
from fastgaum.logs.trained_users import TrainedUsers

GROUPS = 8
"""of parts: a training session reads the counts of seven of them"""
WINDOW_CANDIDATES = 2_000_000
"""training candidates that are encoded at once, in the mean"""
EPOCH_EVENTS = 2_000_000
"""training events of an epoch, about; a smaller log is read whole"""
VALIDATION_EVENTS = 200_000
"""events of validation that are kept in memory, about"""
CONTEXT_EVENTS = 200_000
"""training events whose numbers of context say where these are cut"""


_T = TypeVar("_T")


class Peers(Protocol):
    """Processes that count a log together."""

    @property
    def rank(self) -> int:
        """Number of this one, from 0."""

    @property
    def size(self) -> int:
        """How many they are."""

    def gather(self, value: _T) -> list[_T]:
        """Every process's value, in order of rank; the same in all of them."""


class _Noted:
    """What a first pass notes of parts."""

    def __init__(self, log: SessionLog) -> None:
        """Begin with nothing. log: any part."""
        self.values, self.of_context, self.places = (
            TrainingValues(log),
            ContextNumbers(log),
            PlaceCounts(),
        )
        self.users, self.trained = dict[int, Hashes](), list[Hashes]()

    def add(self, number: int, part: SessionLog, n_kept: int, places: bool) -> None:
        self.values.add(part)
        self.of_context.add(part, n_kept)
        self.users[number] = np.unique(part.user_hashes)
        self.trained.append(np.unique(part.user_hashes[part.sessions_in("train")]))
        if places:
            self.places.add(part)

    def combine(self, other: _Noted) -> None:
        self.values.combine(other.values)
        self.of_context.combine(other.of_context)
        self.places.combine(other.places)
        self.users |= other.users
        self.trained += other.trained


class PartsOfLog:
    """A log in parts under one feature space."""

    def __init__(
        self, stored: StoredLog, choices: SpaceChoices, examination: bool, peers: Peers
    ) -> None:
        """Count the training split: two passes over the parts, of which each process reads whole
        groups. Raises LogFormatError for a damaged part, in all processes, and as
        `fit_training`."""
        self.stored, self.choices, self._peers = stored, choices, peers
        self.n_groups = min(GROUPS, stored.n_parts)
        first = stored.first
        noted, *others = self._gathered(lambda: self._noted(examination and stored.ordered))
        for other in others:
            noted.combine(other)
        blank = blank_space(first, noted.values, choices, noted.places.rates(), noted.of_context)
        users = [noted.users[number] for number in range(stored.n_parts)]
        if (shared := find_shared(users)) is not None:
            raise LogFormatError(
                f"parts {shared[0]} and {shared[1]} of the log hold the same user, a part holds "
                "all sessions of its users: convert the log again"
            )
        blank = dataclasses.replace(
            blank,
            fingerprint=stored.fingerprint,
            trained=TrainedUsers(np.unique(np.concatenate(noted.trained)), np.zeros(0, np.uint64)),
        )
        self.coded = CodedLog(blank, first)
        space = with_displays(blank, self.coded, noted.values)
        counted: dict[int, dict[str, Any]] = {}
        for found in self._gathered(lambda: self._counted(space)):
            counted |= found
        of_groups = [dataclasses.replace(space, **counted[group]) for group in range(self.n_groups)]
        self.space = with_names(add_counts(of_groups), first)
        self._of_groups = [place_counts(self.space, one) for one in of_groups]
        self.sample = self._sample()
        self.space = with_code(self.space, self.sample, self._moments, choices)
        self.sample = dataclasses.replace(self.sample, code=self.space.code)
        self.coded.space = self.space

    def _gathered(self, read: Callable[[], _T]) -> list[_T]:
        """What each process reads, in all of them. Raises the first process's error."""
        own: _T | FastgaumError
        try:
            own = read()
        except FastgaumError as error:
            own = error
        gathered = self._peers.gather(own)
        for one in gathered:
            if isinstance(one, FastgaumError):
                raise one
        return [one for one in gathered if not isinstance(one, FastgaumError)]

    def _own_groups(self) -> Iterator[tuple[int, range]]:
        """This process's groups, and the parts of each."""
        for group in range(self._peers.rank, self.n_groups, self._peers.size):
            yield group, range(group, self.stored.n_parts, GROUPS)

    def _noted(self, places: bool) -> _Noted:
        noted = _Noted(self.stored.first)
        for number in chain.from_iterable(parts for _, parts in self._own_groups()):
            noted.add(number, self._read(number), -(-CONTEXT_EVENTS // self.stored.n_parts), places)
        return noted

    def _counted(self, space: FeatureSpace) -> dict[int, dict[str, Any]]:
        """The counts of this process's groups, as fields of a space."""
        relations, counts = self.choices.relations, self.choices.protocol != "identity"
        found = {}
        for group, parts in self._own_groups():
            counter = StatisticsCounter(self.coded, space, relations, counts, self.n_groups)
            for number in parts:
                part = self._read(number)
                counter.add(part.sessions_in("train"), self.coded.of_part(part))
            counted = counter.counted(read=False)
            names = ("item_counts", "relations", "crossed")
            found[group] = {name: getattr(counted, name) for name in names}
        return found

    def _read(self, number: int) -> SessionLog:
        return self.stored.read([number])

    def _sample(self) -> EncodedSessions:
        """Training sessions of about a window, as they are read, and the moments of their
        numbers."""
        self._moments = Moments()
        return self.encode_training([0], self._moments)

    @cached_property
    def share_hidden(self) -> float:
        """Share of items that a window does not know."""
        return share_to_hide(self.space.item_counts.displays, 0.0)

    def encode_training(
        self, numbers: Sequence[int], moments: Moments | None = None
    ) -> EncodedSessions:
        """The training sessions of parts of one group, as they are read."""
        log = self.stored.read(numbers)
        rows = log.sessions_in("train")
        encoder = Encoder(self.space, log, self.coded.of_part(log))
        hiding = Hiding(self.share_hidden, numbers[0])
        encoder = encoder.with_space(self._space_without(numbers[0] % GROUPS), hiding)
        encoded = encoder.make_room(rows)
        encoder.fill(encoded, rows, moments)
        return encoded

    def _space_without(self, group: int) -> FeatureSpace:
        """The space with the counts of the other groups, in counts of the size of them all; the
        last one is kept."""
        if not self.space.has_statistics or len(self._of_groups) == 1:
            return self.space
        if self._last is None or self._last[0] != group:
            self._last = None
            other = subtract_counts(self.space, self._of_groups[group])
            counts = other.item_counts
            rate = float(counts.choices.sum() / max(counts.displays.sum(), 1))
            other = dataclasses.replace(other, prior_rate=rate, code=self.space.code)
            self._last = group, resized(other, self.space)
        return self._last[1].with_changes(code=self.space.code)

    _last: tuple[int, FeatureSpace] | None = None

    @cached_property
    def validation(self) -> EncodedSessions:
        """Validation sessions, of about VALIDATION_EVENTS events, by hashes of their users."""
        log = self.stored.read_split("validation", VALIDATION_EVENTS)
        encoder = Encoder(self.space, log, self.coded.of_part(log))
        return encoder.encode(np.arange(log.n_sessions, dtype=np.int32))


class Windows:
    """The training sessions of a log in parts, a window of parts of one group at a time."""

    def __init__(self, parts: PartsOfLog, seed: int, rank: int = 0, size: int = 1) -> None:
        """rank, size: of the process, which reads each size-th part of a group."""
        self.parts, self.seed = parts, seed
        stored = parts.stored
        n = stored.count("candidates", "train") / stored.n_parts
        self.length = max(1, round(WINDOW_CANDIDATES / max(n, 1)))
        groups = [
            np.arange(group, stored.n_parts, GROUPS)[rank::size]
            for group in range(min(GROUPS, stored.n_parts))
        ]
        self.groups = [group for group in groups if len(group)]
        every = sum(-(-len(group) // self.length) for group in self.groups)
        of_log = stored.count("events", "train") / EPOCH_EVENTS
        self.of_pass = every
        self.of_epoch = every if of_log <= 1 else max(1, round(every / of_log))

    def numbers(self, epoch: int) -> list[list[int]]:
        """The parts of each window of an epoch, from 0."""
        first = epoch * self.of_epoch
        places = (divmod(at, self.of_pass) for at in range(first, first + self.of_epoch))
        return [self._of_pass(number)[at] for number, at in places]

    def _of_pass(self, number: int) -> list[list[int]]:
        rng = np.random.default_rng([self.seed, number])
        windows = []
        for group in self.groups:
            order = rng.permutation(group)
            windows += np.array_split(order, -(-len(order) // self.length))
        return [windows[at].tolist() for at in rng.permutation(len(windows))]

    def n_sessions(self, numbers: Sequence[int]) -> int:
        """Training sessions of a window."""
        parts = self.parts.stored.about.parts
        return sum(parts[number].counts.sessions[0] for number in numbers)

    def read(self, epoch: int) -> Iterator[EncodedSessions]:
        """The windows of an epoch, each decoded while the one before is trained on."""
        waiting = self.numbers(epoch)
        ahead = ThreadPoolExecutor(1, "window")
        try:
            next_one = ahead.submit(self.parts.encode_training, waiting[0])
            for numbers in [*waiting[1:], None]:
                window = next_one.result()
                if numbers is not None:
                    next_one = ahead.submit(self.parts.encode_training, numbers)
                yield window
        finally:
            # without waiting: a reader that is left is closed by whichever thread collects it, and
            # that may be the thread of the pool, which cannot wait for its own end
            ahead.shutdown(wait=False, cancel_futures=True)

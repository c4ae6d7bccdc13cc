"""A feature space of a log in parts, counted part by part, and its training sessions in windows of
parts.

Parts belong to GROUPS groups. A training session reads what the other groups say, in counts of the
size of the whole log: no user reads its own choices, as in blocks of a log in memory
(`training_order`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np

from fastgaum.errors import LogFormatError
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
from fastgaum.features.training_counts import StatisticsCounter, add_counts, subtract_counts
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


class PartsOfLog:
    """A log in parts under one feature space."""

    def __init__(self, stored: StoredLog, choices: SpaceChoices, examination: bool) -> None:
        """Count the training split: two passes over the parts. Raises LogFormatError for a damaged
        part, and as `fit_training`."""
        self.stored, self.choices = stored, choices
        numbers = range(stored.n_parts)
        first = stored.first
        values, of_context, places = TrainingValues(first), ContextNumbers(first), PlaceCounts()
        users, trained = list[Hashes](), list[Hashes]()
        n_kept = -(-CONTEXT_EVENTS // stored.n_parts)
        for part in map(self._read, numbers):
            values.add(part)
            of_context.add(part, n_kept)
            users.append(np.unique(part.user_hashes))
            trained.append(np.unique(part.user_hashes[part.sessions_in("train")]))
            if examination and stored.ordered:
                places.add(part)
        blank = blank_space(first, values, choices, places.rates(), of_context)
        if (shared := find_shared(users)) is not None:
            raise LogFormatError(
                f"parts {shared[0]} and {shared[1]} of the log hold the same user, a part holds "
                "all sessions of its users: convert the log again"
            )
        blank = dataclasses.replace(
            blank,
            fingerprint=stored.fingerprint,
            trained=TrainedUsers(np.unique(np.concatenate(trained)), np.zeros(0, np.uint64)),
        )
        self.coded = CodedLog(blank, first)
        space = with_displays(blank, self.coded, values)
        relations, counts = choices.relations, choices.protocol != "identity"
        n_groups = min(GROUPS, stored.n_parts)
        each = [
            StatisticsCounter(self.coded, space, relations, counts, n_groups)
            for _ in range(n_groups)
        ]
        for number in numbers:
            part = self._read(number)
            each[number % GROUPS].add(part.sessions_in("train"), self.coded.of_part(part))
        self._of_groups = [counter.counted() for counter in each]
        self.space = with_names(add_counts(self._of_groups), first)
        self.sample = self._sample()
        self.space = with_code(self.space, self.sample, self._moments, choices)
        self.sample = dataclasses.replace(self.sample, code=self.space.code)
        self.coded.space = self.space

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
        with ThreadPoolExecutor(1, "window") as ahead:
            next_one = ahead.submit(self.parts.encode_training, waiting[0])
            for numbers in [*waiting[1:], None]:
                window = next_one.result()
                if numbers is not None:
                    next_one = ahead.submit(self.parts.encode_training, numbers)
                yield window

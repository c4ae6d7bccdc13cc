"""Encoder: a feature space applied to one log."""

from __future__ import annotations

import dataclasses
import threading
from functools import cached_property

import numpy as np

from fastgaum import threads
from fastgaum.arrays import BoolArray, FloatArray, IntArray, LongArray
from fastgaum.features.coded_log import CodedLog
from fastgaum.features.event_numbers import DisplayedEvents, EventNumbers
from fastgaum.features.item_vectors import component_names
from fastgaum.features.number_columns import (
    LOG_VIEWS,
    number_columns,
    require_moderate,
    totals_of,
    varying_columns,
)
from fastgaum.features.outcomes import OutcomeNumbers
from fastgaum.features.relations import NO_CHOICES, latest_choices
from fastgaum.features.sessions import (
    EncodedSessions,
    Selection,
    chunks,
    counts_before,
    event_weights,
    select_sessions,
)
from fastgaum.features.space import FeatureSpace
from fastgaum.features.standardise import Moments, standardised
from fastgaum.features.training_order import (
    ONCE,
    Hiding,
    folds_of,
    spaces_before,
    spaces_without,
    with_all_training,
)
from fastgaum.kernels.candidate_counts import N_COUNTS
from fastgaum.kernels.candidate_formulas import (
    TRAINING_NUMBERS,
    relate_to_sets,
    training_numbers,
)
from fastgaum.kernels.given import PastChoices, sum_ranks
from fastgaum.logs.clicks import is_successive
from fastgaum.logs.log import TRAIN, SessionLog
from fastgaum.logs.trained_users import TrainedUsers

N_RESERVED = 2
"""feature ids before the first item's: the item of row r has the feature id r + N_RESERVED"""
_COUNTING = threading.RLock()


class Encoder:
    """Turns sessions of `log` into bags of `space`."""

    def __init__(
        self,
        space: FeatureSpace,
        log: SessionLog,
        coded: CodedLog | None = None,
        hiding: Hiding | None = None,
    ) -> None:
        """Take a space and a log, coded if it is already, and the items that are encoded as
        unknown. Raises FeatureMismatchError: the log's columns are not those of the training
        log."""
        self.space, self.log, self.hiding = space, log, hiding
        self.coded = CodedLog(space, log) if coded is None else coded
        self.event_numbers = EventNumbers(space)
        self.outcome_numbers = OutcomeNumbers(space.outcomes, space.categorical, space.number_names)

    def with_space(self, space: FeatureSpace, hiding: Hiding | None) -> Encoder:
        """The encoder of the same log under a space of the same ids that has counted less."""
        other = Encoder(space, self.log, self.coded, hiding)
        other.__dict__["_spaces_before"] = None
        return other

    @cached_property
    def _counted(self) -> SessionLog:
        """The log, its training split being all sessions that a space of such folds counts."""
        return with_all_training(self.log, self.space.folds)

    @cached_property
    def reads_training_log(self) -> bool:
        """Whether the log is the one that the space counted, in any order of its sessions."""
        space, log = self.space, self._counted
        if self.log.fingerprint == space.fingerprint:
            return True
        # quick for a log that is much smaller, as those that are predicted are
        trained = space.trained.sessions
        if log.count("sessions", "train") < len(trained):
            return False
        rows, displays = self.coded.space_rows, log.training_counts().displays
        known, counted = rows >= 0, space.item_counts.displays
        return np.array_equal(
            np.bincount(rows[known], displays[known], len(counted)), counted
        ) and np.array_equal(TrainedUsers.of(log).sessions, trained)

    @cached_property
    def _spaces_before(self) -> list[FeatureSpace] | None:
        """For training sessions of the training log the space before each block of `ONCE`, or
        without each fold; else None."""
        space = self.space
        if not space.has_statistics or not self.reads_training_log:
            return None
        if space.folds:
            return self.spaces_without_folds()
        return list(spaces_before(self.coded, space, ONCE, 0))

    def spaces_without_folds(self) -> list[FeatureSpace]:
        """For each fold of the space, whose training log this is, the space with the counts of the
        other folds."""
        if not self.space.has_statistics:
            return [self.space] * self.space.folds
        return spaces_without(self.coded, self._counted, self.space)

    def encode(self, rows: IntArray, *, numbers: bool = True) -> EncodedSessions:
        """The sessions `rows` as bags; candidates may have no numbers. Raises IndexError: a row
        does not exist. Raises LogFormatError: a number is not finite, or too large."""
        encoded = self.make_room(rows, numbers)
        self.fill(encoded, encoded.rows)
        return encoded

    def encode_items(self, rows: IntArray) -> EncodedSessions:
        """The sessions `rows` with the ids of their items alone."""
        encoded = self.make_room(rows, numbers=False)
        part = select_sessions(self.log, encoded.rows)
        return dataclasses.replace(
            encoded,
            ids=self.known_rows(part)[:, None] + np.int32(N_RESERVED),
            context_ids=np.empty((part.n_events, 0), np.int32),
            context_numbers=np.empty((part.n_events, 0), np.float32),
            vectors=None,
            actions=None,
        )

    def make_room(self, rows: IntArray, numbers: bool = True) -> EncodedSessions:
        """The sessions `rows` with room for what `fill` writes."""
        space, log, coded = self.space, self.log, self.coded
        part = select_sessions(log, np.asarray(rows, np.int32))
        names, n = space.number_names if numbers else (), len(part.candidates)
        return EncodedSessions(
            rows=part.rows,
            session_offsets=part.session_offsets,
            display_offsets=part.display_offsets,
            choices=part.choices,
            users=log.users[part.rows],
            ids=np.empty((n, len(space.categorical)), np.int32),
            base=np.empty((n, len(names)), np.float32),
            varying=varying_columns(names, space.relative_numbers, space.unread),
            code=space.code if numbers else standardised(Moments(), 0),
            context_ids=coded.context_ids(part.events),
            context_numbers=coded.context_numbers(part.events),
            first_choices=log.first_choices[part.events] if is_successive(log.context) else None,
            vectors=coded.vectors_of(part),
            actions=coded.actions_before(part.events),
            outcomes=space.encode_outcomes(coded.outcomes[part.events]) if space.outcomes else None,
            weights=event_weights(log, part.events),
            held_out=self.held_out(part.rows),
        )

    def held_out(self, rows: IntArray) -> LongArray | None:
        """Fold of each of the sessions `rows`, -1 for one that did not train, shape (n_rows,); None
        where none did, as of another log."""
        folds, trained = self.space.folds, self._counted.split[rows] == TRAIN
        if not folds or not trained.any() or not self.reads_training_log:
            return None
        return np.where(trained, folds_of(self.log.user_hashes[rows], folds), -1)

    def fill(
        self,
        encoded: EncodedSessions,
        rows: IntArray,
        moments: Moments | None = None,
        first: int = 0,
    ) -> None:
        """Write ids and base numbers of the sessions `rows`, in `encoded` from `first` on; count
        numbers in `moments`."""
        # made once, not once a thread
        _ = self.coded.rows_of_codes, self.coded.space_rows, self.space.crossed_tables
        _ = self.coded.outcomes
        ends = encoded.display_offsets[encoded.session_offsets]
        parts = []
        for chunk in chunks(self.log, rows):
            parts.append((chunk, slice(ends[first], ends[first + len(chunk)])))
            first += len(chunk)

        def write(chunk: tuple[IntArray, slice]) -> Moments:
            part, block = select_sessions(self.log, chunk[0]), Moments()
            base = encoded.base[chunk[1]]
            self.coded.write_ids(part, self.known_rows(part), encoded.ids[chunk[1]])
            if base.shape[1]:
                self._write_base(part, base)
                if moments is not None:
                    n_raw = base.shape[1] + len(encoded.varying)
                    numbers = np.empty((len(base), n_raw), np.float32)
                    numbers[:, : base.shape[1]] = base
                    relate_to_sets(part.display_offsets, encoded.varying, 0, numbers)
                    block.add(numbers)
            return block

        for block in threads.in_order(write, parts):
            if moments is not None:
                moments.combine(block)

    def known_rows(self, part: Selection) -> IntArray:
        """Space row of each candidate's item, -1 if unknown or hidden; shape (n_candidates,)."""
        items = self.log.items[part.candidates]
        rows: IntArray = self.coded.space_rows[items]
        if self.hiding is not None:
            rows[self.hiding.hides(part, items)] = -1
        return rows

    def _write_base(self, part: Selection, numbers: FloatArray) -> None:
        """Write the base numbers of candidates as they are, (n_candidates, n_base)."""
        log, space = self.log, self.space
        train = self._counted.split[part.rows] == TRAIN
        earlier = None
        if train.any():
            # threads that ask at once wait
            with _COUNTING:
                earlier = self._spaces_before
        if earlier is not None:
            self._write_by_blocks(earlier, part, train, numbers)
            return
        names, items, rows = space.number_names, log.items[part.candidates], self.known_rows(part)
        if space.protocol != "identity":
            totals = totals_of(space.item_counts, rows)
            columns = number_columns(TRAINING_NUMBERS, names)
            training_numbers(totals, space.prior_rate, columns, numbers)
        reads, no_counts = self.event_numbers, np.empty((0, N_COUNTS), np.int32)
        events = DisplayedEvents(
            part.display_offsets,
            items,
            rows,
            part.event_number,
            counts_before(log, part) if reads.reads_counts else no_counts,
            latest_choices(part.packed(rows)) if reads.reads_choices else NO_CHOICES,
            self.coded.context_items(part.events),
            self.coded.context_rows(part.events),
        )
        reads.write(events, numbers)
        if space.vectors.n_components:
            first = names.index(component_names(space.vectors)[0])
            numbers[:, first : first + space.vectors.n_components] = self.coded.components[items]
        for column, name in enumerate(names):
            if name in log.columns:
                numbers[:, column] = log.values_at(name, part.candidates)
            elif name == LOG_VIEWS:
                assert log.views is not None
                numbers[:, column] = np.log(log.views[part.candidates])
        reads.write_products(part.display_offsets, self.coded.factors(part.events), numbers)
        if space.outcomes:
            self._write_outcomes(part, rows, numbers)
        require_moderate(log, names, numbers, part.events, part.display_offsets)

    def _write_outcomes(self, part: Selection, rows: IntArray, numbers: FloatArray) -> None:
        """Write what earlier choices have given, and by it and all that was written before how
        choices were ranked."""
        reads, starts = self.outcome_numbers, part.session_offsets
        ids = np.empty((len(rows), len(self.space.categorical)), np.int32)
        self.coded.write_ids(part, rows, ids)
        keys = reads.keys_of(self.log.items[part.candidates], ids)
        chosen = np.full((part.n_events, keys.shape[1]), -1, np.int32)
        chosen[part.choices >= 0] = keys[part.chosen_candidates]
        past = PastChoices(chosen, self.coded.outcomes[part.events].astype(np.float64))
        first = np.repeat(starts[:-1], np.diff(starts)).astype(np.int64)
        last = np.arange(part.n_events, dtype=np.int64)
        reads.write_given(part.display_offsets, keys, first, last, past, numbers)
        ranks = reads.ranks_of(part.display_offsets, numbers)
        sums, n = np.empty((part.n_events, ranks.shape[1])), np.empty(part.n_events, np.int64)
        sum_ranks(starts, part.display_offsets, part.choices, ranks, sums, n)
        reads.write_habits(part.display_offsets, sums, n, ranks, numbers)

    def _write_by_blocks(
        self, earlier: list[FeatureSpace], part: Selection, train: BoolArray, numbers: FloatArray
    ) -> None:
        """Write numbers, of training sessions by what the blocks before, or the other folds,
        said."""
        folds, log = self.space.folds, self.log
        blocks = (
            folds_of(log.user_hashes[part.rows], folds)
            if folds
            else ONCE.blocks(log.users[part.rows], 0)
        )
        blocks[~train] = len(earlier)
        starts = part.display_offsets[part.session_offsets]
        of_candidate = np.repeat(blocks, np.diff(starts))
        for block in np.unique(blocks):
            encoder = self.with_space([*earlier, self.space][block], self.hiding)
            found = np.empty(((of_candidate == block).sum(), numbers.shape[1]), np.float32)
            encoder._write_base(select_sessions(self.log, part.rows[blocks == block]), found)
            numbers[of_candidate == block] = found

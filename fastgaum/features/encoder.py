"""Encoder: a feature space applied to one log, a chunk of sessions at a time.

What all chunks share is made once. A session's bags do not depend on the others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from fastgaum import threads
from fastgaum.arrays import FloatArray, IntArray
from fastgaum.features.actions import action_bags
from fastgaum.features.context import ContextEncoder
from fastgaum.features.event_numbers import DisplayedEvents, EventNumbers
from fastgaum.features.in_memory import (
    CompactSessions,
    write_base,
)
from fastgaum.features.item_vectors import VectorReader, component_names
from fastgaum.features.numbers import (
    LOG_VIEWS,
    Moments,
    log_views,
    number_columns,
    require_moderate,
    totals_of,
)
from fastgaum.features.ordered import ONCE, Hiding, spaces_before
from fastgaum.features.relations import NO_CHOICES, latest_choices
from fastgaum.features.sessions import (
    EncodedSessions,
    Selection,
    VectorRows,
    chunks,
    counts_before,
    select_sessions,
)
from fastgaum.features.vocabulary import OF_PLACE, rows_of_places
from fastgaum.kernels import candidate_formulas as kernels
from fastgaum.kernels.candidate_counts import N_COUNTS
from fastgaum.kernels.candidate_formulas import TRAINING_NUMBERS
from fastgaum.kernels.crossed import CrossedEvents
from fastgaum.logs.clicks import is_successive
from fastgaum.logs.columns import Vocabulary
from fastgaum.logs.log import TRAIN, SessionLog

if TYPE_CHECKING:
    from fastgaum.features.space import FeatureSpace

NO_CLICK_ID = 0
"""feature id of "no click" in a history"""
N_RESERVED = 2
"""feature ids before the first item's: the item of row r has the feature id r + N_RESERVED"""
_T = TypeVar("_T")
_COUNTING = threading.RLock()


class Encoder:
    """Turns sessions of `log` into bags of `space`."""

    def __init__(self, space: FeatureSpace, log: SessionLog) -> None:
        self.space, self.log = space, log
        self.hiding: Hiding | None = None

    def under(self, space: FeatureSpace, hiding: Hiding | None) -> Encoder:
        """The encoder of the same log under a space of the same ids that has counted less."""
        other = Encoder(space, self.log)
        other.hiding = hiding
        for name in ("space_rows", "_code_rows", "_components", "context"):
            other.__dict__[name] = getattr(self, name)
        other.__dict__["_spaces_before"] = None
        return other

    @cached_property
    def context(self) -> ContextEncoder:
        """What reads the context of the log's events."""
        return ContextEncoder.of(self.space, self.log)

    @cached_property
    def _components(self) -> FloatArray:
        """Components of the vectors of the log's items, (n_items, n_components)."""
        return self.space.vectors.components(self.log)

    def encode(self, rows: IntArray) -> EncodedSessions:
        """The sessions `rows` as bags. Arrays are made once, at their size, and filled chunk by
        chunk.

        Raises:
            IndexError: a row does not exist.
        """
        encoded = self.without_bags(rows, self.space.n_numbers)

        def write(part: Selection, candidates: slice) -> None:
            numbers = encoded.numbers[candidates]
            self.write_numbers(part, numbers)
            kernels.standardise_rows(self.space.mean, self.space.scale, numbers)

        self.fill(encoded, encoded.rows, write)
        return encoded

    def for_training(self, rows: IntArray, moments: Moments | None = None) -> EncodedSessions:
        """The sessions `rows` to make batches of, their numbers in fewer bytes.

        With `moments` numbers are counted there, and standardised by them, not by the space's own.

        Raises:
            IndexError: a row does not exist.
        """
        if not self.space.n_numbers:
            return self.encode(rows)
        encoded = self.without_bags(rows, len(self.space.number_names))
        blocks = self.fill(encoded, encoded.rows, partial(write_base, encoded, self))
        return CompactSessions.of(encoded, self.space, blocks, moments)

    def ids_of(self, rows: IntArray) -> EncodedSessions:
        """The sessions `rows` with their ids alone: no candidate has a number."""
        encoded = self.without_bags(rows, 0)
        self.fill(encoded, encoded.rows, lambda part, candidates: None)
        return encoded

    def without_bags(self, rows: IntArray, n_numbers: int) -> EncodedSessions:
        """The sessions `rows` with room for the ids and so many numbers of each candidate, which
        `fill` fills in."""
        space, log = self.space, self.log
        part = select_sessions(log, np.asarray(rows, np.int32))
        n, vectors, reader = len(part.candidates), None, VectorReader.of(space, log)
        if reader is not None:
            context_items = self.context.items(part.events)
            vectors = VectorRows(reader, log.items[part.candidates], context_items)
        return EncodedSessions(
            rows=part.rows,
            session_offsets=part.session_offsets,
            display_offsets=part.display_offsets,
            choices=part.choices,
            users=log.users[part.rows],
            ids=np.empty((n, len(space.categorical)), np.int32),
            numbers=np.empty((n, n_numbers), np.float32),
            context_ids=self.context.ids(part.events),
            context_numbers=self.context.numbers(part.events),
            first_choices=log.first_choices[part.events] if is_successive(log.context) else None,
            vectors=vectors,
            actions=action_bags(space, log, part.events),
        )

    def fill(
        self,
        encoded: EncodedSessions,
        rows: IntArray,
        finish: Callable[[Selection, slice], _T],
        first: int = 0,
    ) -> list[_T]:
        """Fill in the ids of the sessions `rows`, which stand in `encoded` from `first` on, chunk
        by chunk on all threads, and call `finish` with each chunk and where its candidates stand;
        returns what it returned, in the order of the chunks."""
        # made once, not once a thread
        _ = self._code_rows, self.space_rows, self.space.crossed_tables
        ends = encoded.display_offsets[encoded.session_offsets]
        parts = []
        for chunk in chunks(self.log, rows):
            parts.append((chunk, slice(ends[first], ends[first + len(chunk)])))
            first += len(chunk)

        def fill(chunk: tuple[IntArray, slice]) -> _T:
            part, candidates = select_sessions(self.log, chunk[0]), chunk[1]
            self._write_ids(part, encoded.ids[candidates])
            return finish(part, candidates)

        return threads.in_order(fill, parts)

    @cached_property
    def space_rows(self) -> IntArray:
        """Space row of each of the log's items, -1 for an unknown one, shape (n_items,)."""
        return Vocabulary(self.space.categorical[0].values).codes(self.log.item_ids)

    @cached_property
    def _code_rows(self) -> dict[str, IntArray]:
        """Row of each code of the other categorical fields; the last entry is that of code -1, a
        missing value."""
        return {
            part.name: Vocabulary(part.values).codes_from(
                Vocabulary(self.log.columns[part.name].categories)
            )
            for part in self.space.categorical
            if part.source.endswith("_field")
        }

    @cached_property
    def _spaces_before(self) -> list[FeatureSpace] | None:
        """For each block of `ONCE` the space before it, by which the training log's training
        sessions are encoded; None for another log."""
        space = self.space
        if not space.has_statistics or self.log.fingerprint != space.fingerprint:
            return None
        return list(spaces_before(self.under(space, None), ONCE, 0))

    def moments(self) -> Moments:
        """Mean, standard deviation, least and most of each number over training candidates."""
        moments = Moments()
        train = self.log.sessions_in("train")
        # without numbers nothing is read
        for chunk in chunks(self.log, train) if self.space.number_names and len(train) else ():
            picked = select_sessions(self.log, chunk)
            numbers = np.empty((len(picked.candidates), self.space.n_numbers), np.float32)
            self.write_numbers(picked, numbers)
            moments.add(numbers)
        return moments

    def _write_ids(self, part: Selection, ids: IntArray) -> None:
        of_places = rows_of_places(self.space.categorical, self.space.grid, part.places)
        for column, categorical in enumerate(self.space.categorical):
            if column == 0:
                ids[:, column] = self.known_rows(part)
            elif categorical.source in OF_PLACE:
                ids[:, column] = of_places[categorical.source]
            else:
                codes = self.log.values_at(categorical.name, part.candidates)
                ids[:, column] = self._code_rows[categorical.name][codes]
            ids[:, column] += np.int32(categorical.start + 1)

    def known_rows(self, part: Selection) -> IntArray:
        """Space row of each candidate's item, -1 for one that training does not know, or that is
        hidden; shape (n_candidates,)."""
        items = self.log.items[part.candidates]
        rows: IntArray = self.space_rows[items]
        if self.hiding is not None:
            rows[self.hiding.hides(part, items)] = -1
        return rows

    def write_numbers(self, part: Selection, numbers: FloatArray) -> None:
        """Write the numbers of each candidate, not standardised, to (n_candidates, n_numbers).

        Raises:
            LogFormatError: a number is not finite, or too large.
        """
        log, space = self.log, self.space
        names = space.number_names
        if not names:
            return
        train = log.split[part.rows] == TRAIN
        earlier = None
        if train.any():
            # threads that ask at once wait
            with _COUNTING:
                earlier = self._spaces_before
        if earlier is not None:
            self._write_by_blocks(earlier, part, train, numbers)
            return
        items = log.items[part.candidates]
        rows = self.known_rows(part)
        if space.protocol != "identity":
            totals = totals_of(space.item_counts, rows)
            columns = number_columns(TRAINING_NUMBERS, names)
            kernels.training_numbers(totals, space.prior_rate, columns, numbers)
        self._event_numbers.write(self._displayed(part, items, rows), numbers)
        if space.vectors.n_components:
            first = names.index(component_names(space.vectors)[0])
            numbers[:, first : first + space.vectors.n_components] = self._components[items]
        for column, name in enumerate(names):
            if name in log.columns:
                numbers[:, column] = log.values_at(name, part.candidates)
            elif name == LOG_VIEWS:
                assert log.views is not None
                numbers[:, column] = log_views(log.views[part.candidates])
        require_moderate(log, part, names, numbers[:, : len(names)])
        self._event_numbers.relate(part.display_offsets, numbers)

    @cached_property
    def _event_numbers(self) -> EventNumbers:
        return EventNumbers(self.space)

    def _displayed(self, part: Selection, items: IntArray, rows: IntArray) -> DisplayedEvents:
        """A part's events; items: code of each candidate's item, rows: its training row."""
        numbers, n = self._event_numbers, len(part.events)
        before = np.empty((0, N_COUNTS), np.int32)
        if numbers.reads_counts:
            before = counts_before(self.log, part)
        choices = latest_choices(part.packed(rows)) if numbers.reads_choices else NO_CHOICES
        starts = np.repeat(part.session_offsets[:-1], np.diff(part.session_offsets))
        return DisplayedEvents(
            part.display_offsets,
            items,
            rows,
            (np.arange(n) - starts).astype(np.int32),
            before,
            choices,
            self.context.items(part.events),
            self._context_values(part),
        )

    def _context_values(self, part: Selection) -> IntArray:
        """Row of the value of each context field of categories, (n_events, n_fields)."""
        starts = np.array([one.start + 1 for one in self.space.context], np.int32)
        return self.context.ids(part.events) - starts

    def _write_by_blocks(
        self,
        earlier: list[FeatureSpace],
        part: Selection,
        train: npt.NDArray[np.bool_],
        numbers: FloatArray,
    ) -> None:
        """Write numbers, training sessions by what the blocks before theirs said."""
        blocks = ONCE.blocks(self.log.users[part.rows], 0)
        blocks[~train] = len(earlier)
        starts = part.display_offsets[part.session_offsets]
        of_candidate = np.repeat(blocks, np.diff(starts))
        for block in np.unique(blocks):
            space = [*earlier, self.space][block]
            encoder = self.under(space, self.hiding)
            found = np.empty(((of_candidate == block).sum(), space.n_numbers), np.float32)
            encoder.write_numbers(select_sessions(self.log, part.rows[blocks == block]), found)
            numbers[of_candidate == block] = found

    def crossed_events(self, part: Selection) -> list[CrossedEvents]:
        """The events of a part under each context field of categories."""
        rows, values = self.known_rows(part), np.ascontiguousarray(self._context_values(part).T)
        return [
            CrossedEvents(part.display_offsets, rows, part.choices, of_field) for of_field in values
        ]

"""Encoder: a feature space applied to one log, a chunk of sessions at a time; and the numbers of a
candidate by name: which there are, and in which columns they stand.

Each formula is written once, in kernels/candidate_formulas.py. `Encoder` applies it to all
candidates of a log at once, for training and evaluation; a world applies it to the slate that it
shows, step by step. tests/features/test_numbers.py holds both to the same numbers.

What all chunks share (rows of items, the training sessions of each user) is made once, on first
use. A session's bags are the same whatever other sessions are encoded beside it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fastgaum.features.context import ContextEncoder, Moments, out_of_range
from fastgaum.features.relations import Relations, UsersOwn
from fastgaum.features.sessions import (
    EncodedSessions,
    Selection,
    SharedSessions,
    TrainingSessions,
    chunks,
    counts_before,
    own_totals,
    select_sessions,
)
from fastgaum.kernels import candidate_formulas as kernels
from fastgaum.kernels.batching import picked_size
from fastgaum.kernels.candidate_counts import TrainingTotals
from fastgaum.kernels.candidate_formulas import (
    RELATION_NUMBERS,
    SESSION_NUMBERS,
    TRAINING_NUMBERS,
    training_numbers,
)
from fastgaum.logs.columns import MOST_NUMBER, Vocabulary
from fastgaum.logs.log import FloatArray, IntArray, ItemCounts, SessionLog

if TYPE_CHECKING:
    from fastgaum.features.space import CategoricalField, FeatureSpace
    from fastgaum.logs.shards import AnyLog

NO_CLICK_ID = 0
"""feature id of "no click" in a history"""
UNKNOWN_ITEM_ID = 1
"""feature id of every item that training did not display"""
N_RESERVED = 2
"""feature ids before the first item's: the item of row r has the feature id r + N_RESERVED"""


class Encoder:
    """Turns sessions of `log` into bags of `space`."""

    def __init__(self, space: FeatureSpace, log: AnyLog) -> None:
        self.space = space
        self.whole = log
        # a log in shards is encoded part by part: `on` gives each part's encoder
        self.log = log if isinstance(log, SessionLog) else log.head

    def on(self, part: SessionLog) -> Encoder:
        """The encoder of a part of the log (of its items, all sessions of its users): what parts
        share is made once."""
        if part is self.log:
            return self
        other = Encoder(self.space, part)
        other.whole = self.whole
        for name in ("space_rows", "_code_rows"):
            other.__dict__[name] = getattr(self, name)
        other.__dict__["context"] = self.context.on(part)
        return other

    @cached_property
    def context(self) -> ContextEncoder:
        """What reads the context of the log's events."""
        return ContextEncoder.of(self.space, self.log)

    def encode(self, rows: IntArray) -> EncodedSessions:
        """The sessions `rows` as bags. Arrays are made once, at their size, and filled chunk by
        chunk.

        Raises:
            IndexError: a row does not exist.
        """
        log, space = self.log, self.space
        rows = np.asarray(rows, dtype=np.int32)
        n_events = picked_size(np.asarray(log.session_offsets), rows)
        n_candidates = picked_size(self._candidate_offsets, rows)
        if n_events < 0:
            raise IndexError(f"a session outside 0 … {log.n_sessions - 1} was asked for")
        encoded = EncodedSessions(
            rows=rows,
            session_offsets=np.zeros(len(rows) + 1, dtype=np.int32),
            display_offsets=np.zeros(n_events + 1, dtype=np.int32),
            choices=np.empty(n_events, dtype=np.int32),
            users=np.asarray(log.users)[rows],
            ids=np.empty((n_candidates, len(space.categorical)), dtype=np.int32),
            numbers=np.empty((n_candidates, space.n_numbers), dtype=np.float32),
            context_ids=np.empty((n_events, len(space.context)), dtype=np.int32),
            context_numbers=np.empty((n_events, len(space.context_number_names)), np.float32),
        )
        session = event = candidate = 0
        for chunk in chunks(log, rows):
            part = select_sessions(log, chunk)
            sessions = slice(session + 1, session + 1 + len(chunk))
            events = slice(event, event + len(part.choices))
            candidates = slice(candidate, candidate + len(part.candidates))
            encoded.session_offsets[sessions] = part.session_offsets[1:] + event
            encoded.display_offsets[event + 1 : events.stop + 1] = (
                part.display_offsets[1:] + candidate
            )
            encoded.choices[events] = part.choices
            encoded.context_ids[events] = self.context.ids(part.events)
            encoded.context_numbers[events] = self.context.numbers(part.events)
            self._write_ids(part, encoded.ids[candidates])
            if space.n_numbers:
                numbers = encoded.numbers[candidates]
                self.write_numbers(part, numbers)
                kernels.standardise_rows(space.mean, space.scale, numbers)
            session, event, candidate = sessions.stop - 1, events.stop, candidates.stop
        return encoded

    def for_training(self, rows: IntArray) -> EncodedSessions | SharedSessions:
        """The sessions `rows` to make batches of: as `encode`, or from the log's own arrays where
        bags hold items alone.

        Raises:
            IndexError: a row does not exist.
        """
        if len(self.space.categorical) > 1 or self.space.n_numbers:
            return self.encode(rows)
        rows = np.asarray(rows, dtype=np.int32)
        n_events = picked_size(np.asarray(self.log.session_offsets), rows)
        if n_events < 0:
            raise IndexError(f"a session outside 0 … {self.log.n_sessions - 1} was asked for")
        return SharedSessions(self.log, rows, self._id_of_item, n_events, self.context)

    @cached_property
    def _id_of_item(self) -> IntArray:
        """Feature id of each of the log's items, unknown ones included, shape (n_items,)."""
        return self.space_rows + np.int32(N_RESERVED)

    @cached_property
    def _candidate_offsets(self) -> IntArray:
        """Start of each session of the log in candidates."""
        return np.asarray(self.log.display_offsets)[np.asarray(self.log.session_offsets)]

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
                Vocabulary(self.log.categories[part.name])
            )
            for part in self.space.categorical
            if part.source.endswith("_field")
        }

    @cached_property
    def _training(self) -> TrainingSessions | None:
        """The training log's training sessions, which are left out of their own users' counts; None
        for another log."""
        return (
            TrainingSessions.of(self.log)
            if self.whole.fingerprint == self.space.fingerprint
            else None
        )

    def moments(self) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Mean, standard deviation, least and most of each number over training candidates."""
        moments = Moments()
        # without numbers nothing is read
        for part in self.whole.parts() if self.space.number_names else ():
            of_part, train = self.on(part), part.sessions_in("train")
            for chunk in chunks(part, train) if len(train) else ():
                moments.add(of_part.numbers(select_sessions(part, chunk)))
        return moments.mean.astype(np.float32), moments.scale(), moments.least, moments.most

    def _write_ids(self, part: Selection, ids: IntArray) -> None:
        items = np.asarray(self.log.items)[part.candidates]
        for column, categorical in enumerate(self.space.categorical):
            ids[:, column] = self._field_rows(categorical, part, items)
            ids[:, column] += np.int32(categorical.start + 1)

    def _field_rows(
        self, categorical: CategoricalField, part: Selection, items: IntArray
    ) -> IntArray:
        """Row of each candidate's value in a field, -1 for an unknown one."""
        if categorical.source == "item":
            return self.space_rows[items]
        if categorical.source == "position":
            position = np.arange(len(items)) - np.repeat(
                part.display_offsets[:-1], np.diff(part.display_offsets)
            )
            return np.where(position < len(categorical.values), position, -1).astype(np.int32)
        name = categorical.name
        of_items = categorical.source == "item_field"
        codes = (
            self.log.item_fields[name][items]
            if of_items
            else self.log.candidate_fields[name][part.candidates]
        )
        rows: IntArray = self._code_rows[name][codes]
        return rows

    def numbers(self, part: Selection) -> FloatArray:
        """Numbers of each candidate, not standardised, shape (n_candidates, n_numbers)."""
        numbers = np.empty((len(part.candidates), self.space.n_numbers), np.float32)
        self.write_numbers(part, numbers)
        return numbers

    def write_numbers(self, part: Selection, numbers: FloatArray) -> None:
        """Write the numbers of each candidate, not standardised, to (n_candidates, n_numbers).

        Raises:
            LogFormatError: a number is not finite, or too large.
        """
        log, space = self.log, self.space
        names = space.number_names
        if not names:
            return
        items = np.asarray(log.items)[part.candidates]
        if space.protocol != "identity":
            self._write_counts(part, items, numbers)
            self._write_same(part, items, numbers)
        if space.relations is not None:
            self._write_relations(space.relations, part, items, numbers)
        for column, name in enumerate(names):
            if name in log.item_fields:
                numbers[:, column] = log.item_fields[name][items]
            elif name in log.candidate_fields:
                numbers[:, column] = log.candidate_fields[name][part.candidates]
            elif name == LOG_VIEWS:
                assert log.views is not None
                numbers[:, column] = log_views(log.views[part.candidates])
        self._require_moderate(numbers[:, : len(names)], part)
        kernels.relate_to_sets(
            part.display_offsets, varying_columns(names, space.set_context), numbers
        )

    def _require_moderate(self, numbers: FloatArray, part: Selection) -> None:
        """Raise LogFormatError where a number is not finite or so large that sums of it overflow,
        naming the event."""
        if numbers.size == 0 or (numbers.min() >= -MOST_NUMBER and numbers.max() <= MOST_NUMBER):
            return
        candidate, column = np.argwhere(~(np.abs(numbers) <= MOST_NUMBER))[0].tolist()
        event = int(np.searchsorted(part.display_offsets, candidate, "right")) - 1
        name, value = self.space.number_names[column], float(numbers[candidate, column])
        raise out_of_range(self.log, int(part.events[event]), name, value)

    def _write_same(self, part: Selection, items: IntArray, numbers: FloatArray) -> None:
        """Whether each candidate is an item of its event's context; items: code of each candidate's
        item."""
        fields = self.space.fields_of_items
        if fields:
            values = self.context.items(part.events)
            columns = number_columns([SAME_AS + name for name in fields], self.space.number_names)
            kernels.context_numbers(part.display_offsets, items, values, columns, numbers)

    def _write_counts(self, part: Selection, items: IntArray, numbers: FloatArray) -> None:
        """What the session until the event, and the training split without this user, say of each
        candidate; items: code of each candidate's item."""
        space, training = self.space, self._training
        kernels.session_numbers(
            part.session_offsets,
            part.display_offsets,
            counts_before(self.log, part),
            number_columns(SESSION_NUMBERS, space.number_names),
            numbers,
        )
        totals = totals_of(space.item_counts, self.space_rows[items])
        if training is not None:
            own = own_totals(self.log, part, training)
            totals = totals._replace(
                displays=totals.displays - own.displays,
                choices=totals.choices - own.choices,
                # not below 0 by rounding
                expected=np.maximum(totals.expected - own.expected, 0.0),
            )
        columns = number_columns(TRAINING_NUMBERS, space.number_names)
        kernels.training_numbers(totals, space.prior_rate, columns, numbers)

    def _write_relations(
        self, relations: Relations, part: Selection, items: IntArray, numbers: FloatArray
    ) -> None:
        """What training pairs say of each candidate; items: code of each candidate's item."""
        log, own = self.log, None
        if self._training is not None:
            train = select_sessions(
                log, self._training.of_users(np.asarray(log.users)[part.rows]).rows
            )
            coded = np.unique(
                np.concatenate([train.users(log), part.users(log)]), return_inverse=True
            )[1]
            users, part_users = np.split(coded.astype(np.int32), [len(train.choices)])
            train_items = np.asarray(log.items)[train.candidates]
            own = UsersOwn(train.packed(self.space_rows[train_items]), users, part_users)
        relations.write_numbers(
            part.packed(self.space_rows[items]),
            own,
            number_columns(RELATION_NUMBERS, self.space.number_names),
            numbers,
        )


COUNTED_NUMBERS = (
    *("displayed_before", "chosen_before", "log_displays", "log_choices", "choice_rate"),
    *("choice_lift", "never_seen", "never_chosen", "log_set_size", "event_number"),
)
"""SESSION_NUMBERS and TRAINING_NUMBERS in the order in which a candidate has them"""
SAME_FOR_SET = ("log_set_size", "event_number")
"""numbers that all candidates of a display set share: relative to their mean they are nothing"""
LOG_VIEWS = "log_views"
SAME_AS = "same_as_"
"""a number of this name and a context field's: whether the candidate is the item that the field
holds"""


def made_numbers(protocol: str, relations: bool) -> tuple[str, ...]:
    """Names of the numbers that are made, in order; `same_as_` numbers and a log's own numeric
    fields follow them."""
    return (
        *(COUNTED_NUMBERS if protocol != "identity" else ()),
        *(RELATION_NUMBERS if relations else ()),
        *((LOG_VIEWS,) if protocol == "views" else ()),
    )


def number_columns(wanted: Sequence[str], number_names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Column of each wanted number, -1 for one that is not there, shape (len(wanted),)."""
    at = {name: column for column, name in enumerate(number_names)}
    return np.array([at.get(name, -1) for name in wanted], np.int64)


def varying_columns(number_names: Sequence[str], set_context: bool) -> npt.NDArray[np.int64]:
    """Columns of the numbers that also come less their mean over the display set, in the order of
    those copies."""
    names = number_names if set_context else ()
    return np.array([at for at, name in enumerate(names) if _varies(name)], np.int64)


def _varies(name: str) -> bool:
    # one candidate at most is the context's item: its copy would say the same
    return name not in SAME_FOR_SET and not name.startswith(SAME_AS)


def totals_of(counts: ItemCounts, space_rows: IntArray) -> TrainingTotals:
    """Training counts of the items in those rows, (n,) each; zeros for an unknown item, row -1."""
    known = space_rows >= 0
    return TrainingTotals(
        np.where(known, counts.displays[space_rows], 0),
        np.where(known, counts.choices[space_rows], 0),
        np.where(known, counts.expected[space_rows], 0.0),
    )


def item_numbers(totals: TrainingTotals, prior_rate: float) -> FloatArray:
    """TRAINING_NUMBERS of n items, shape (n, 6)."""
    numbers = np.empty((len(totals.displays), len(TRAINING_NUMBERS)), np.float32)
    training_numbers(totals, prior_rate, np.arange(len(TRAINING_NUMBERS)), numbers)
    return numbers


def log_views(views: npt.NDArray[np.number]) -> npt.NDArray[np.floating]:
    """The number that protocol `views` makes of view counts (each at least 1), shape (n,)."""
    numbers: npt.NDArray[np.floating] = np.log(views)
    return numbers

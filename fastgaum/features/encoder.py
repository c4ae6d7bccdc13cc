"""Encoder: a feature space applied to one log, a chunk of sessions at a time.

What all chunks share (rows of items, the training sessions of each user, scratch) is made once, on
first use. A session's bags are the same whatever other sessions are encoded beside it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.errors import LogFormatError
from fastgaum.features.relations import Relations
from fastgaum.features.selection import (
    ItemScratch,
    Selection,
    TrainingSessions,
    chunks,
    counts_before,
    own_counts,
    select_sessions,
)
from fastgaum.features.shared_sessions import SharedSessions
from fastgaum.kernels.batching import picked_size
from fastgaum.kernels.context import less_set_means
from fastgaum.logs.columns import MOST_NUMBER, show
from fastgaum.logs.log import FloatArray, IntArray, SessionLog

if TYPE_CHECKING:
    from fastgaum.features.space import CategoricalField, EncodedSessions, FeatureSpace
    from fastgaum.logs.shards import AnyLog

CONTEXT_NUMBERS = (
    "displayed_before",
    "chosen_before",
    "log_displays",
    "log_choices",
    "choice_rate",
    "choice_lift",
    "never_seen",
    "never_chosen",
    "log_set_size",
    "event_number",
)
SAME_FOR_SET = ("log_set_size", "event_number")
"""numbers that all candidates of a display set share: relative to their mean they are nothing"""


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
        for name in ("item_rows", "_code_rows"):
            other.__dict__[name] = getattr(self, name)
        return other

    def encode(self, rows: IntArray) -> EncodedSessions:
        """The sessions `rows` as bags. Arrays are made once, at their size, and filled chunk by
        chunk.

        Raises:
            IndexError: a row does not exist.
        """
        from fastgaum.features.space import EncodedSessions

        log, space = self.log, self.space
        rows = np.asarray(rows, dtype=np.int32)
        n_events = picked_size(np.asarray(log.session_offsets), rows)
        n_candidates = picked_size(self._candidate_offsets, rows)
        if n_events < 0:
            raise IndexError(f"a session outside 0 … {log.n_sessions - 1} was asked for")
        out = EncodedSessions(
            rows=rows,
            session_offsets=np.zeros(len(rows) + 1, dtype=np.int32),
            display_offsets=np.zeros(n_events + 1, dtype=np.int32),
            choices=np.empty(n_events, dtype=np.int32),
            users=np.asarray(log.users)[rows],
            ids=np.empty((n_candidates, len(space.categorical)), dtype=np.int32),
            numbers=np.empty((n_candidates, space.n_numbers), dtype=np.float32),
        )
        session = event = candidate = 0
        for chunk in chunks(log, rows):
            part = select_sessions(log, chunk)
            sessions = slice(session + 1, session + 1 + len(chunk))
            events = slice(event, event + len(part.choices))
            candidates = slice(candidate, candidate + len(part.candidates))
            out.session_offsets[sessions] = part.session_offsets[1:] + event
            out.display_offsets[event + 1 : events.stop + 1] = part.display_offsets[1:] + candidate
            out.choices[events] = part.choices
            self._write_ids(part, out.ids[candidates])
            if space.n_numbers:
                numbers = out.numbers[candidates]
                np.divide(
                    np.subtract(self.numbers(part), space.mean, out=numbers),
                    space.scale,
                    out=numbers,
                )
            session, event, candidate = sessions.stop - 1, events.stop, candidates.stop
        return out

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
        return SharedSessions(self.log, rows, self._id_of_item, n_events)

    @cached_property
    def _id_of_item(self) -> IntArray:
        """Feature id of each of the log's items, unknown ones included, shape (n_items,)."""
        return self.item_rows + np.int32(self.space.categorical[0].start + 1)

    @cached_property
    def _candidate_offsets(self) -> IntArray:
        """Start of each session of the log in candidates."""
        return np.asarray(self.log.display_offsets)[np.asarray(self.log.session_offsets)]

    @cached_property
    def item_rows(self) -> IntArray:
        """Row of each of the log's items among the training items, or -1 for an unknown one, shape
        (n_items,)."""
        return rows_of(self.log.item_ids, self.space.categorical[0].values)

    @cached_property
    def _code_rows(self) -> dict[str, IntArray]:
        """Row of each code of the other categorical fields; the last entry stands for code -1, a
        missing value."""
        return {
            part.name: np.append(rows_of(self.log.categories[part.name], part.values), np.int32(-1))
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

    @cached_property
    def _scratch(self) -> ItemScratch:
        return ItemScratch(self.log.n_items)

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
            return self.item_rows[items]
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
        """Numbers of each candidate before they are standardised, set-relative copies included."""
        log, space = self.log, self.space
        if not space.number_names:
            return np.zeros((len(part.candidates), 0), dtype=np.float32)
        columns: dict[str, npt.NDArray[Any]] = {}
        if space.protocol != "identity":
            columns |= self._context_numbers(part)
        if space.relations is not None:
            columns |= self._relation_numbers(space.relations, part)
        items = np.asarray(log.items)[part.candidates]
        if space.protocol == "views":
            assert log.views is not None
            columns["log_views"] = np.log(log.views[part.candidates])
        for name in space.number_names:
            if name in log.item_fields:
                columns[name] = log.item_fields[name][items]
            elif name in log.candidate_fields:
                columns[name] = log.candidate_fields[name][part.candidates]
        varying = [
            column for column, name in enumerate(space.number_names) if name not in SAME_FOR_SET
        ]
        n_base = len(space.number_names)
        numbers = np.empty(
            (len(items), n_base + (len(varying) if space.set_context else 0)), dtype=np.float32
        )
        for column, name in enumerate(space.number_names):
            numbers[:, column] = columns[name]
        self._require_moderate(numbers[:, :n_base], part)
        if space.set_context:
            sums = np.add.reduceat(numbers[:, varying], part.display_offsets[:-1], axis=0)
            less_set_means(numbers, np.array(varying), part.display_offsets, sums, n_base)
        return numbers

    def _require_moderate(self, numbers: FloatArray, part: Selection) -> None:
        """Raise LogFormatError where a number is not finite or so large that sums of it overflow,
        naming the event."""
        if numbers.size == 0 or (numbers.min() >= -MOST_NUMBER and numbers.max() <= MOST_NUMBER):
            return
        candidate, column = np.argwhere(~(np.abs(numbers) <= MOST_NUMBER))[0].tolist()
        event = int(np.searchsorted(part.display_offsets, candidate, "right")) - 1
        session = int(np.searchsorted(part.session_offsets, event, "right")) - 1
        row = int(part.rows[session])
        label = self.log.event_ids[
            int(self.log.session_offsets[row]) + event - int(part.session_offsets[session])
        ]
        raise LogFormatError(
            f"event {show(label)} of session {show(self.log.session_ids[row])} has "
            f"{numbers[candidate, column]:g} in"
            f" '{self.space.number_names[column]}', a number between -{MOST_NUMBER:g} and "
            f"{MOST_NUMBER:g} is required:"
            " correct it, drop the event, or leave the column out"
        )

    def _relation_numbers(
        self, relations: Relations, part: Selection
    ) -> dict[str, npt.NDArray[Any]]:
        log, own = self.log, None
        if self._training is not None:
            train = select_sessions(
                log, self._training.of_users(np.asarray(log.users)[part.rows]).rows
            )
            coded = np.unique(
                np.concatenate([train.users(log), part.users(log)]), return_inverse=True
            )[1]
            train_users, users = np.split(coded.astype(np.int32), [len(train.choices)])
            own = (
                train,
                self.item_rows[np.asarray(log.items)[train.candidates]],
                train_users,
                users,
            )
        return relations.numbers(part, self.item_rows[np.asarray(log.items)[part.candidates]], own)

    def _context_numbers(self, part: Selection) -> dict[str, npt.NDArray[Any]]:
        """What the session so far, and the training split without this user, say of each
        candidate."""
        log, space = self.log, self.space
        displayed_before, chosen_before = counts_before(log, part, self._scratch)
        rows = self.item_rows[np.asarray(log.items)[part.candidates]]
        known = rows >= 0
        displays = np.where(known, space.item_displays[rows], 0)
        choices = np.where(known, space.item_choices[rows], 0)
        expected = np.where(known, space.item_expected[rows], 0.0)
        if self._training is not None:
            own_displays, own_choices, own_expected = own_counts(
                log, part, self._training, self._scratch
            )
            displays -= own_displays
            choices -= own_choices
            expected = np.maximum(expected - own_expected, 0.0)
        size = np.diff(part.display_offsets)
        n_events = np.diff(part.session_offsets)
        event_number = np.arange(len(size)) - np.repeat(part.session_offsets[:-1], n_events)
        return {
            "displayed_before": np.log1p(displayed_before),
            "chosen_before": np.log1p(chosen_before),
            "log_displays": np.log1p(displays),
            "log_choices": np.log1p(choices),
            "choice_rate": (choices + 2 * space.prior_rate) / (displays + 2),
            "choice_lift": np.log((choices + 0.5) / (expected + 0.5)),
            "never_seen": displays == 0,
            "never_chosen": choices == 0,
            "log_set_size": np.repeat(np.log(size), size),
            "event_number": np.repeat(np.log1p(event_number), size),
        }


def rows_of(values: pl.Series, vocabulary: pl.Series) -> IntArray:
    """Row of each value in a vocabulary of distinct values, -1 for one that is not there."""
    known = pl.DataFrame(
        {"value": vocabulary, "row": pl.Series(np.arange(len(vocabulary), dtype=np.int32))}
    )
    joined = pl.DataFrame({"value": values}).join(
        known, on="value", how="left", maintain_order="left"
    )
    return joined["row"].fill_null(-1).to_numpy().astype(np.int32)

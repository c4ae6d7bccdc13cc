"""FeatureSpace: what the training split says of items and fields, and how a log becomes bags under it.

A candidate's bag holds one id per categorical field (its item, its category …) and one weighted entry per number.
Every candidate has every number, so that part of the bag is kept as a dense block `numbers`; both parts together are
the sparse multi-hot vector whose linear map is the scorers' first layer.

Ids share one space: 0 is "no click" (only histories use it), then per field one unknown row and its values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.errors import ConfigError, FeatureMismatchError, LogFormatError
from fastgaum.sessions.packed import NO_CLICK, FloatArray, IntArray, SessionLog
from fastgaum.sessions.relations import NUMBERS as RELATION_NUMBERS
from fastgaum.sessions.relations import Relations
from fastgaum.sessions.selection import Selection, counts_before, own_counts, select_sessions

NO_CLICK_ID = 0
_CONTEXT_NUMBERS = (
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
_SAME_FOR_SET = ("log_set_size", "event_number")
"""numbers that all candidates of a display set share: relative to their mean they are nothing"""


@dataclass(frozen=True)
class CategoricalField:
    """A family of ids: `start` is its unknown row, `start + 1 + i` the i-th value of `values`."""

    name: str
    source: str
    """"item" (identity), "item_field", "candidate_field" or "position" """
    start: int
    values: pl.Series

    @property
    def stop(self) -> int:
        """One past the field's last id."""
        return self.start + 1 + len(self.values)


@dataclass(frozen=True)
class EncodedSessions:
    """Sessions of one log as bags, packed; arrays as in SessionLog but for the chosen sessions only."""

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

    @property
    def n_sessions(self) -> int:
        """Number of sessions."""
        return len(self.session_offsets) - 1

    @property
    def n_events(self) -> int:
        """Number of events."""
        return len(self.display_offsets) - 1

    @property
    def user_of_event(self) -> IntArray:
        """User of each event, shape (n_events,)."""
        return np.repeat(self.users, np.diff(self.session_offsets))


@dataclass(frozen=True)
class FeatureSpace:
    """Built once from the training split; then maps any log with the same fields to bags."""

    protocol: str
    set_context: bool
    categorical: tuple[CategoricalField, ...]
    number_names: tuple[str, ...]
    """base numbers, before the set-relative copies"""
    mean: FloatArray
    """training mean of each number, shape (n_numbers,)"""
    scale: FloatArray
    """training standard deviation of each number (1 where it is 0), shape (n_numbers,)"""
    item_displays: npt.NDArray[np.int64]
    """displays of each item of the identity field in the training split"""
    item_choices: npt.NDArray[np.int64]
    item_expected: npt.NDArray[np.float64]
    """choices of each item had every training choice been uniform: the sum of 1/k over its displays among k"""
    prior_rate: float
    """choices per display in the training split"""
    no_click: bool
    """whether the training split holds an event without a choice"""
    ordered: bool
    fingerprint: str
    """of the training log: its training sessions are left out of their own users' counts, other logs' are not"""
    field_names: tuple[str, ...] = field(default=())
    """declared candidate and item columns, sorted"""
    relations: Relations | None = None
    """what pairs of items have been to each other in training; None where numbers about them are not asked for"""

    @property
    def n_ids(self) -> int:
        """Number of ids, no click and unknown rows included."""
        return self.categorical[-1].stop

    @property
    def n_numbers(self) -> int:
        """Width of the number block."""
        return len(self.mean)

    @property
    def unknown_of_id(self) -> IntArray:
        """Unknown row of each id's field, shape (n_ids,): what id dropout puts in its place."""
        unknown = np.zeros(self.n_ids, dtype=np.int32)
        for part in self.categorical:
            unknown[part.start : part.stop] = part.start
        return unknown

    @classmethod
    def fit(
        cls, log: SessionLog, protocol: str = "bags", set_context: bool = True, relations: bool = False
    ) -> FeatureSpace:
        """Build the space from the training split of `log`; `relations` adds the numbers of `sessions.relations`.

        Raises:
            ConfigError: protocol `views` on a log without view counts, or too many pairs for relations.
            LogFormatError: the log has no training session.
        """
        train = log.sessions_in("train")
        if len(train) == 0:
            raise LogFormatError(f"log '{log.name}' has no training session: give a split column or --split user")
        if protocol == "views" and log.views is None:
            raise ConfigError(f"protocol 'views' needs repeated view rows, log '{log.name}' has none: use 'bags'")
        part = select_sessions(log, train)
        items = log.items[part.candidates]
        displays = np.bincount(items, minlength=log.n_items)
        clicked = part.choices != NO_CLICK
        chosen = items[part.display_offsets[:-1][clicked] + part.choices[clicked]]
        choices = np.bincount(chosen, minlength=log.n_items)
        size = np.diff(part.display_offsets)
        expected = np.bincount(items, weights=np.repeat(1 / size, size), minlength=log.n_items).astype(np.float64)
        known = np.flatnonzero(displays)
        row_of_item = (np.cumsum(displays > 0) - 1).astype(np.int32)
        space = cls(
            protocol=protocol,
            set_context=set_context,
            categorical=_categorical_fields(log, known, part),
            number_names=_number_names(log, protocol, relations),
            mean=np.zeros(0, np.float32),
            scale=np.zeros(0, np.float32),
            item_displays=displays[known],
            item_choices=choices[known],
            item_expected=expected[known],
            prior_rate=len(chosen) / len(items),
            no_click=bool((~clicked).any()),
            ordered=log.ordered,
            fingerprint=log.fingerprint,
            field_names=tuple(sorted([*log.candidate_fields, *log.item_fields])),
            relations=Relations.fit(part, row_of_item[items], len(known)) if relations else None,
        )
        numbers = space._numbers(log, part)
        mean = numbers.mean(axis=0, dtype=np.float64).astype(np.float32)
        scale = numbers.std(axis=0, dtype=np.float64).astype(np.float32)
        object.__setattr__(space, "mean", mean)
        object.__setattr__(space, "scale", np.where(scale > 1e-6, scale, np.float32(1)))
        return space

    def check_fields(self, log: SessionLog) -> None:
        """Raise FeatureMismatchError when a log's declared fields, order or views differ from the training log's."""
        fields = tuple(sorted([*log.candidate_fields, *log.item_fields]))
        if fields != self.field_names:
            missing = sorted(set(self.field_names) - set(fields))
            extra = sorted(set(fields) - set(self.field_names))
            raise FeatureMismatchError(
                f"the model was trained on fields {list(self.field_names)}, log '{log.name}' declares {list(fields)}"
                f" (missing {missing}, extra {extra}): declare the same fields"
            )
        if self.ordered and not log.ordered:
            raise FeatureMismatchError(
                f"the model was trained on displays whose order is real, log '{log.name}' is unordered: read it with --ordered"
            )
        if self.protocol == "views" and log.views is None:
            raise FeatureMismatchError(f"the model reads view counts, log '{log.name}' has none")
        for part in self.categorical:
            if part.source.endswith("_field") and part.name not in log.categories:
                raise FeatureMismatchError(
                    f"field '{part.name}' holds categories in the training log, numbers in '{log.name}'"
                )
        for name in self.number_names:
            if name in log.categories:
                raise FeatureMismatchError(
                    f"field '{name}' holds numbers in the training log, categories in '{log.name}'"
                )

    def encode(self, log: SessionLog, rows: IntArray) -> EncodedSessions:
        """Turn the sessions `rows` of `log` into bags.

        Raises:
            FeatureMismatchError: the log's fields are not those of the training log.
        """
        self.check_fields(log)
        part = select_sessions(log, rows)
        numbers = (self._numbers(log, part) - self.mean) / self.scale
        return EncodedSessions(
            rows=rows,
            session_offsets=part.session_offsets,
            display_offsets=part.display_offsets,
            choices=part.choices,
            users=log.users[rows],
            ids=self._ids(log, part),
            numbers=numbers.astype(np.float32, copy=False),
        )

    def _ids(self, log: SessionLog, part: Selection) -> IntArray:
        ids = np.empty((len(part.candidates), len(self.categorical)), dtype=np.int32)
        items = log.items[part.candidates]
        for column, categorical in enumerate(self.categorical):
            if categorical.source == "position":
                position = np.arange(len(items)) - np.repeat(part.display_offsets[:-1], np.diff(part.display_offsets))
                known = position < len(categorical.values)
                ids[:, column] = categorical.start + np.where(known, position + 1, 0)
                continue
            if categorical.source == "item":
                ids[:, column] = self.item_rows(log)[items] + categorical.start + 1
                continue
            name = categorical.name
            codes = (
                log.item_fields[name][items]
                if categorical.source == "item_field"
                else log.candidate_fields[name][part.candidates]
            )
            code_to_row = np.append(_rows_of(log.categories[name], categorical.values), -1)
            ids[:, column] = code_to_row[codes] + categorical.start + 1
        return ids

    def item_rows(self, log: SessionLog) -> IntArray:
        """Row of each of the log's items among the training items, or -1 for an unknown one, shape (n_items,)."""
        return _rows_of(log.item_ids, self.categorical[0].values)

    def _numbers(self, log: SessionLog, part: Selection) -> FloatArray:
        if not self.number_names:
            return np.zeros((len(part.candidates), 0), dtype=np.float32)
        columns: dict[str, npt.NDArray[Any]] = {}
        if self.protocol != "identity":
            columns |= self._context_numbers(log, part)
        if self.relations is not None:
            columns |= self._relation_numbers(self.relations, log, part)
        items = log.items[part.candidates]
        if self.protocol == "views":
            assert log.views is not None
            columns["log_views"] = np.log(log.views[part.candidates])
        for name in self.number_names:
            if name in log.item_fields:
                columns[name] = log.item_fields[name][items]
            elif name in log.candidate_fields:
                columns[name] = log.candidate_fields[name][part.candidates]
        base = np.stack([columns[name] for name in self.number_names], axis=1).astype(np.float32)
        if not self.set_context:
            return base
        varying = [column for column, name in enumerate(self.number_names) if name not in _SAME_FOR_SET]
        return np.concatenate([base, _relative_to_set(base[:, varying], part)], axis=1)

    def _relation_numbers(self, relations: Relations, log: SessionLog, part: Selection) -> dict[str, npt.NDArray[Any]]:
        row_of_item = self.item_rows(log)
        own = None
        if log.fingerprint == self.fingerprint:
            train = select_sessions(log, log.sessions_in("train"))
            coded = np.unique(np.concatenate([train.users(log), part.users(log)]), return_inverse=True)[1]
            train_users, users = np.split(coded.astype(np.int32), [len(train.choices)])
            own = (train, row_of_item[log.items[train.candidates]], train_users, users)
        return relations.numbers(part, row_of_item[log.items[part.candidates]], own)

    def _context_numbers(self, log: SessionLog, part: Selection) -> dict[str, npt.NDArray[Any]]:
        """What the session so far, and the training split without this user, say of each candidate."""
        displayed_before, chosen_before = counts_before(log, part)
        rows = self.item_rows(log)[log.items[part.candidates]]
        displays = np.append(self.item_displays, 0)[rows]
        choices = np.append(self.item_choices, 0)[rows]
        expected = np.append(self.item_expected, 0.0)[rows]
        if log.fingerprint == self.fingerprint:
            own_displays, own_choices, own_expected = own_counts(log, part)
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
            "choice_rate": (choices + 2 * self.prior_rate) / (displays + 2),
            "choice_lift": np.log((choices + 0.5) / (expected + 0.5)),
            "never_seen": displays == 0,
            "never_chosen": choices == 0,
            "log_set_size": np.repeat(np.log(size), size),
            "event_number": np.repeat(np.log1p(event_number), size),
        }


def _rows_of(values: pl.Series, vocabulary: pl.Series) -> IntArray:
    known = pl.DataFrame({"value": vocabulary, "row": pl.Series(np.arange(len(vocabulary), dtype=np.int32))})
    joined = pl.DataFrame({"value": values}).join(known, on="value", how="left", maintain_order="left")
    return joined["row"].fill_null(-1).to_numpy().astype(np.int32)


def _categorical_fields(
    log: SessionLog, known_items: npt.NDArray[Any], part: Selection
) -> tuple[CategoricalField, ...]:
    fields = [
        CategoricalField(
            "item", "item", 1, log.item_ids[known_items.tolist()] if len(known_items) < log.n_items else log.item_ids
        )
    ]

    def add(name: str, source: str, values: pl.Series) -> None:
        fields.append(CategoricalField(name, source, fields[-1].stop, values))

    for name in sorted(log.item_fields):
        if name in log.categories:
            codes = np.unique(log.item_fields[name][known_items])
            add(name, "item_field", log.categories[name][codes[codes >= 0].tolist()])
    for name in sorted(log.candidate_fields):
        if name in log.categories:
            codes = np.unique(log.candidate_fields[name][part.candidates])
            add(name, "candidate_field", log.categories[name][codes[codes >= 0].tolist()])
    if log.ordered:
        longest = int(np.diff(part.display_offsets).max())
        add("position", "position", pl.Series([str(position) for position in range(longest)]))
    return tuple(fields)


def _number_names(log: SessionLog, protocol: str, relations: bool) -> tuple[str, ...]:
    names = [] if protocol == "identity" else list(_CONTEXT_NUMBERS)
    names += RELATION_NUMBERS if relations else ()
    if protocol == "views":
        names.append("log_views")
    declared = [*log.item_fields, *log.candidate_fields]
    clash = sorted(set(names) & set(declared) | ({"item", "position"} & set(declared)))
    if clash:
        raise LogFormatError(f"field name '{clash[0]}' is one of the built-in fields: rename the column")
    return (*names, *sorted(name for name in declared if name not in log.categories))


def _relative_to_set(base: FloatArray, part: Selection) -> FloatArray:
    size = np.diff(part.display_offsets)
    mean = np.add.reduceat(base, part.display_offsets[:-1], axis=0) / size[:, None]
    return (base - np.repeat(mean, size, axis=0)).astype(np.float32)

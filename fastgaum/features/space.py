"""FeatureSpace: what the training split says of items and fields, and how a log becomes bags under
it.

A candidate's bag holds one id per categorical field (its item, its category …) and one weighted
entry per number. Every candidate has every number, so that part of the bag is kept as a dense block
`numbers`; both parts together are the sparse multi-hot vector whose linear map is the scorers'
first layer.

Ids share one space: 0 is "no click" (only histories use it), then per field one unknown row and its
values."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.errors import ConfigError, FeatureMismatchError, LogFormatError
from fastgaum.features.context import context_moments
from fastgaum.features.crossed import CrossedField, crossed_names, displayers
from fastgaum.features.encoder import Encoder
from fastgaum.features.numbers import (
    SAME_AS,
    Moments,
    counts_by_places,
    crossed_fields,
    names_of_numbers,
    place_rates,
    varying_columns,
)
from fastgaum.features.relations import Relations
from fastgaum.features.sessions import EncodedSessions, Sessions, chunks, select_sessions
from fastgaum.kernels.candidate_counts import PackedSessions
from fastgaum.kernels.crossed import CrossedCounts, Displayers
from fastgaum.logs.context import ContextField, context_names, context_of, training_values
from fastgaum.logs.log import ALIKE, TRAIN, FloatArray, IntArray, ItemCounts, SessionLog
from fastgaum.logs.shards import AnyLog


@dataclass(frozen=True)
class CategoricalField:
    """A family of ids: `start` is its unknown row, `start + 1 + i` the i-th value of `values`."""

    name: str
    source: str
    """"item" (identity), "item_field", "candidate_field" or "position"; of an event "context", or
    "context_item", whose ids are the items' own"""
    start: int
    values: pl.Series

    @property
    def stop(self) -> int:
        """One past the field's last id."""
        return self.start + 1 + len(self.values)


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
    least: FloatArray
    """smallest value of each number in training, not standardised, shape (n_numbers,)"""
    most: FloatArray
    """largest value of each number in training, likewise"""
    item_counts: ItemCounts
    """what the training split says of each item of the identity field, by space row"""
    prior_rate: float
    """choices per display in the training split"""
    no_click: bool
    """whether the training split holds an event without a choice"""
    ordered: bool
    fingerprint: str
    """of the training log: its training sessions are left out of their own users' counts, other
    logs' are not"""
    field_names: tuple[str, ...] = field(default=())
    """declared candidate and item columns, sorted"""
    relations: Relations | None = None
    """what pairs of items have been to each other in training; None where numbers about them are
    not asked for"""
    context: tuple[CategoricalField, ...] = ()
    """what is known of an event beside its candidates: fields of categories, by name"""
    context_number_names: tuple[str, ...] = ()
    """and those of numbers, sorted"""
    crossed: tuple[CrossedCounts, ...] = ()
    """what training says of items under each value of a context field of categories"""
    context_mean: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))
    """training mean of each of those numbers"""
    context_scale: FloatArray = field(default_factory=lambda: np.ones(0, np.float32))
    """training standard deviation of each (1 where it is 0)"""
    place_rates: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))
    """choices per display at each place that is kept apart from the bags (`nets.examination`), the
    first being 1, shape (n_places,); empty where order means nothing, or is a field of the bags"""

    @cached_property
    def crossed_tables(self) -> tuple[tuple[CrossedCounts, Displayers], ...]:
        """The crossed counts by value, and by item."""
        n_items = len(self.item_counts.displays)
        return tuple((table, displayers(table, n_items)) for table in self.crossed)

    @cached_property
    def crossed_fields(self) -> list[CrossedField]:
        """The context fields that are crossed with items."""
        return crossed_fields(self.context, self.crossed_tables)

    @property
    def numbers_of_context(self) -> tuple[str, ...]:
        """Names of the numbers that a candidate has because of its event's context."""
        return (
            *(SAME_AS + name for name in self.fields_of_items),
            *crossed_names(self.crossed_fields),
        )

    @property
    def fields_of_items(self) -> tuple[str, ...]:
        """Names of the context fields that hold items."""
        return tuple(part.name for part in self.context if part.source == "context_item")

    @property
    def context_holds(self) -> dict[str, str]:
        """What each context field holds, by name: items, categories or numbers."""
        kinds = dict.fromkeys(self.context_number_names, "numbers")
        for part in self.context:
            kinds[part.name] = "items" if part.source == "context_item" else "categories"
        return dict(sorted(kinds.items()))

    @property
    def reads_columns(self) -> bool:
        """Whether it reads more of a log than items and choices: fields, context or view counts."""
        return bool(self.field_names or self.context_holds or self.protocol == "views")

    @property
    def n_ids(self) -> int:
        """Number of ids, no click and unknown rows included."""
        return max(part.stop for part in (*self.categorical, *self.context))

    @property
    def rates(self) -> npt.NDArray[np.floating]:
        """What choices are expected by, place by place: as in `ItemCounts.add`."""
        return self.place_rates if len(self.place_rates) else ALIKE

    @property
    def n_numbers(self) -> int:
        """Width of the number block."""
        return len(self.number_names) + len(varying_columns(self.number_names, self.set_context))

    @property
    def unknown_of_id(self) -> IntArray:
        """Unknown row of each id's field, shape (n_ids,): what id dropout puts in its place."""
        unknown = np.zeros(self.n_ids, dtype=np.int32)
        for part in (*self.categorical, *self.context):
            unknown[part.start : part.stop] = part.start
        return unknown

    @classmethod
    def fit(
        cls,
        log: AnyLog,
        protocol: str = "bags",
        set_context: bool = True,
        relations: bool = False,
        examination: bool = False,
    ) -> FeatureSpace:
        """Build the space from the training split of `log`; `relations` adds the numbers of
        `Relations`, `examination` keeps the places of an ordered log apart from the bags.

        Raises:
            ConfigError: protocol `views` on a log without view counts.
            LogFormatError: the log has no training session.
        """
        space = cls._counted(log, protocol, set_context, relations, examination)
        return space._standardised(space.encoder(log).moments())

    @classmethod
    def fit_training(
        cls,
        log: SessionLog,
        protocol: str = "bags",
        set_context: bool = True,
        relations: bool = False,
        examination: bool = False,
    ) -> tuple[FeatureSpace, Sessions]:
        """As `fit`, and the training sessions to make batches of: their numbers are made once."""
        space = cls._counted(log, protocol, set_context, relations, examination)
        if not space.number_names:
            space = space._standardised(Moments())
            return space, space.encoder(log).for_training(log.sessions_in("train"))
        moments = Moments()
        train = space.encoder(log).encode(log.sessions_in("train"), moments)
        return space._standardised(moments), train

    @classmethod
    def _counted(
        cls, log: AnyLog, protocol: str, set_context: bool, relations: bool, examination: bool
    ) -> FeatureSpace:
        """All but the moments of the numbers."""
        of_split = {what: of_splits[TRAIN] for what, of_splits in log.counts().items()}
        if of_split["sessions"] == 0:
            raise LogFormatError(
                f"log '{log.name}' has no training session: give a split column or --split user"
            )
        if protocol == "views" and log.views is None:
            raise ConfigError(
                f"protocol 'views' needs repeated view rows, log '{log.name}' has none: use 'bags'"
            )
        counts, rates = log.training_counts(), place_rates(log) if examination else _NO_PLACES
        if len(rates):
            # an item at the top is chosen more often for its place: its lift is held against it,
            # counts of pairs are not
            counts = counts_by_places(log, rates)
        known = np.flatnonzero(counts.displays)
        categorical = _categorical_fields(log, known, len(rates) > 0)
        found = context_of(log)
        context = _context_fields(log, found, categorical)
        numbers_of_events = [part.name for part in found if part.holds == "numbers"]
        context_mean, context_scale = context_moments(log, numbers_of_events)
        space = cls(
            protocol=protocol,
            set_context=set_context,
            categorical=categorical,
            number_names=(),
            mean=np.zeros(0, np.float32),
            scale=np.zeros(0, np.float32),
            least=np.zeros(0, np.float32),
            most=np.zeros(0, np.float32),
            item_counts=ItemCounts(
                counts.displays[known], counts.choices[known], counts.expected[known]
            ),
            prior_rate=of_split["choices"] / of_split["candidates"],
            no_click=of_split["choices"] < of_split["events"],
            ordered=log.ordered,
            fingerprint=log.fingerprint,
            field_names=tuple(sorted([*log.candidate_fields, *log.item_fields])),
            relations=_relations(log, counts.displays) if relations else None,
            context=context,
            context_number_names=tuple(numbers_of_events),
            context_mean=context_mean,
            context_scale=context_scale,
            place_rates=rates,
        )
        if protocol != "identity":
            space = dataclasses.replace(space, crossed=space.encoder(log).crossed())
        names = names_of_numbers(log, space.numbers_of_context, protocol, relations)
        return space._with(number_names=names)

    def _with(self, **changes: Any) -> FeatureSpace:
        """The space with other fields than the crossed counts."""
        other = dataclasses.replace(self, **changes)
        for name in ("crossed_tables", "crossed_fields"):
            other.__dict__[name] = getattr(self, name)
        return other

    def _standardised(self, moments: Moments) -> FeatureSpace:
        return self._with(
            mean=moments.mean.astype(np.float32),
            scale=moments.scale(),
            least=moments.least,
            most=moments.most,
        )

    def check_fields(self, log: AnyLog) -> None:
        """Raise FeatureMismatchError when a log's declared fields, order or views differ from the
        training log's."""
        fields = tuple(sorted([*log.candidate_fields, *log.item_fields]))
        if fields != self.field_names:
            missing = sorted(set(self.field_names) - set(fields))
            extra = sorted(set(fields) - set(self.field_names))
            raise FeatureMismatchError(
                f"the model was trained on fields {list(self.field_names)}, log '{log.name}' "
                f"declares {list(fields)}"
                f" (missing {missing}, extra {extra}): declare the same fields"
            )
        trained, given = list(self.context_holds), context_names(log)
        if given != trained:
            raise FeatureMismatchError(
                f"the model was trained on context fields {trained}, log '{log.name}' declares "
                f"{given}: declare the same context fields"
            )
        if self.ordered and not log.ordered:
            raise FeatureMismatchError(
                f"the model was trained on displays whose order is real, log '{log.name}' is "
                "unordered: read it with --ordered"
            )
        if self.protocol == "views" and log.views is None:
            raise FeatureMismatchError(f"the model reads view counts, log '{log.name}' has none")
        for part in (*self.categorical, *self.context):
            if part.source not in ("item", "position") and part.name not in log.categories:
                raise FeatureMismatchError(
                    f"field '{part.name}' holds categories in the training log, numbers in "
                    f"'{log.name}'"
                )
        for name in (*self.number_names, *self.context_number_names):
            if name in log.categories:
                raise FeatureMismatchError(
                    f"field '{name}' holds numbers in the training log, categories in '{log.name}'"
                )

    def encoder(self, log: AnyLog) -> Encoder:
        """What turns sessions of `log` into bags, chunk by chunk; of a log in shards, `Encoder.on`
        each part. Raises FeatureMismatchError if its fields are not those of the training log."""
        self.check_fields(log)
        return Encoder(self, log)

    def encode(self, log: SessionLog, rows: IntArray) -> EncodedSessions:
        """Turn the sessions `rows` of `log` into bags. Raises FeatureMismatchError as `encoder`."""
        return self.encoder(log).encode(rows)


_NO_PLACES: FloatArray = np.zeros(0, np.float32)


def _relations(log: AnyLog, displays: npt.NDArray[np.int64]) -> Relations:
    space_rows = np.where(displays > 0, np.cumsum(displays > 0) - 1, -1).astype(np.int32)

    def parts() -> Iterator[PackedSessions]:
        for part in log.parts(ids=False):
            picked = select_sessions(part, part.sessions_in("train"))
            yield picked.packed(space_rows[np.asarray(part.items)[picked.candidates]])

    return Relations.fit(parts(), displays[displays > 0])


def _categorical_fields(
    log: AnyLog, known_items: npt.NDArray[np.integer], places_apart: bool
) -> tuple[CategoricalField, ...]:
    every = len(known_items) == log.n_items
    fields = [
        CategoricalField(
            "item", "item", 1, log.item_ids if every else log.item_ids.gather(known_items)
        )
    ]

    def add(name: str, source: str, values: pl.Series) -> None:
        fields.append(CategoricalField(name, source, fields[-1].stop, values))

    for name in sorted(log.item_fields):
        if name in log.categories:
            codes = np.unique(log.item_fields[name][known_items])
            add(name, "item_field", log.categories[name].gather(codes[codes >= 0]))
    shown, longest = _shown_codes(log)
    for name, codes in shown.items():
        add(name, "candidate_field", log.categories[name].gather(codes))
    if log.ordered and not places_apart:
        add("position", "position", pl.Series([str(position) for position in range(longest)]))
    return tuple(fields)


def _context_fields(
    log: AnyLog, found: Sequence[ContextField], categorical: Sequence[CategoricalField]
) -> tuple[CategoricalField, ...]:
    """The fields of events that hold categories or items; ids of their own follow the
    candidates'."""
    items, stop = categorical[0], categorical[-1].stop
    names = [part.name for part in found if part.holds == "categories"]
    # one entry more: code -1, a missing value, writes to the last
    seen = {name: np.zeros(len(log.categories[name]) + 1, dtype=bool) for name in names}
    for part in log.parts(ids=False) if names else ():
        for name in names:
            seen[name][training_values(part, name)] = True
    fields = []
    for one in found:
        if one.holds == "items":
            fields.append(CategoricalField(one.name, "context_item", items.start, items.values))
        elif one.holds == "categories":
            values = log.categories[one.name].gather(np.flatnonzero(seen[one.name][:-1]))
            fields.append(CategoricalField(one.name, "context", stop, values))
            stop = fields[-1].stop
    return tuple(fields)


def _shown_codes(log: AnyLog) -> tuple[dict[str, npt.NDArray[np.integer]], int]:
    """Codes that training candidates have in each categorical candidate field, and the longest
    display set."""
    names = sorted(name for name in log.candidate_fields if name in log.categories)
    # one entry more: code -1, a missing value, writes to the last
    seen = {name: np.zeros(len(log.categories[name]) + 1, dtype=bool) for name in names}
    longest = 0
    for part in log.parts(ids=False) if names or log.ordered else ():
        for chunk in chunks(part, part.sessions_in("train")):
            picked = select_sessions(part, chunk)
            longest = max(longest, int(np.diff(picked.display_offsets).max(initial=0)))
            for name in names:
                seen[name][part.candidate_fields[name][picked.candidates]] = True
    return {name: np.flatnonzero(flags[:-1]) for name, flags in seen.items()}, longest

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
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fastgaum.arrays import FloatArray, IntArray
from fastgaum.errors import ConfigError, FeatureMismatchError, LogFormatError
from fastgaum.features.actions import action_fields
from fastgaum.features.compatibility import check_columns
from fastgaum.features.context import context_moments
from fastgaum.features.crossed import CrossedField, crossed_names, displayers
from fastgaum.features.encoder import Encoder
from fastgaum.features.item_vectors import NO_VECTORS, ItemVectors, component_names
from fastgaum.features.numbers import (
    PLACE_NUMBERS,
    SAME_AS,
    Moments,
    crossed_fields,
    names_of_numbers,
    place_rates,
    varying_columns,
)
from fastgaum.features.ordered import (
    TrainingOrder,
    encode_training,
    training_order,
)
from fastgaum.features.relations import Relations
from fastgaum.features.sessions import EncodedSessions
from fastgaum.features.statistics import count_training
from fastgaum.features.vocabulary import (
    CategoricalField,
    categorical_fields,
    context_fields,
    former_ids,
    training_counts,
)
from fastgaum.kernels.crossed import CrossedCounts, Displayers
from fastgaum.logs.context import ContextField, Holds, context_of
from fastgaum.logs.log import ALIKE, ItemCounts, SessionLog
from fastgaum.logs.trained_users import TrainedUsers


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
    """of the training log: its training sessions read what the users before them said, other logs'
    sessions what all said"""
    trained: TrainedUsers
    """who trained"""
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
    actions: tuple[CategoricalField, ...] = ()
    """fields of the tokens that are actions (`features.actions`); empty where none are read"""

    vectors: ItemVectors = NO_VECTORS
    """how the vectors of items are read"""
    grid: int = 0
    """columns of the grid whose rows and columns are fields of the bags; 0: none are"""

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
    def context_holds(self) -> dict[str, Holds]:
        """What each context field holds, by name: items, categories or numbers."""
        kinds: dict[str, Holds] = dict.fromkeys(self.context_number_names, "numbers")
        for part in self.context:
            kinds[part.name] = "items" if part.source == "context_item" else "categories"
        return dict(sorted(kinds.items()))

    @property
    def reads_columns(self) -> bool:
        """Whether it reads more of a log than items and choices: fields, vectors, context or view
        counts."""
        columns = self.field_names or self.context_holds or self.vectors.dim
        return bool(columns or self.protocol == "views")

    @property
    def has_statistics(self) -> bool:
        """Whether numbers of a candidate say what training chose."""
        return self.protocol != "identity" or self.relations is not None

    @property
    def n_ids(self) -> int:
        """Number of ids, no click and unknown rows included."""
        return max(part.stop for part in self.fields)

    @property
    def fields(self) -> tuple[CategoricalField, ...]:
        """All fields of ids: of candidates, of the context, of actions."""
        return (*self.categorical, *self.context, *self.actions)

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
        for part in self.fields:
            unknown[part.start : part.stop] = part.start
        return unknown

    @classmethod
    def fit(
        cls,
        log: SessionLog,
        protocol: str = "bags",
        set_context: bool = True,
        relations: bool = False,
        examination: bool = False,
        towers: bool = False,
    ) -> FeatureSpace:
        """Build the space from the training split of `log`; `relations` adds the numbers of
        `Relations`, `examination` keeps the places of an ordered log apart from the bags, `towers`
        has vectors of items read whole, not as components.

        Raises:
            ConfigError: protocol `views` on a log without view counts.
            LogFormatError: the log has no training session.
        """
        space = cls._counted(log, protocol, set_context, relations, examination, towers)
        return space._standardised(space.encoder(log).moments())

    @classmethod
    def fit_training(
        cls,
        log: SessionLog,
        protocol: str = "bags",
        set_context: bool = True,
        relations: bool = False,
        examination: bool = False,
        towers: bool = False,
    ) -> tuple[FeatureSpace, EncodedSessions]:
        """As `fit`, and the training sessions to make batches of: their numbers are made once."""
        space = cls._counted(log, protocol, set_context, relations, examination, towers)
        moments = Moments()
        train = encode_training(space.encoder(log), training_order(log), moments)
        return space._standardised(moments), train

    @classmethod
    def fit_encoded(
        cls,
        log: SessionLog,
        order: TrainingOrder,
        protocol: str = "bags",
        set_context: bool = True,
        relations: bool = False,
    ) -> tuple[FeatureSpace, EncodedSessions]:
        """As `fit` without actions, and the training sessions as they are read in an order, for
        models that hold all of their numbers."""
        space = cls._counted(log, protocol, set_context, relations, False, False)
        space = space._with(actions=())
        moments = Moments()
        train = encode_training(space.encoder(log), order, moments, always=True)
        return space._standardised(moments), train.whole()

    @classmethod
    def _counted(
        cls,
        log: SessionLog,
        protocol: str,
        set_context: bool,
        relations: bool,
        examination: bool,
        towers: bool,
    ) -> FeatureSpace:
        """All but the moments of the numbers."""
        of_split = training_counts(log)
        if protocol == "views" and log.views is None:
            raise ConfigError(
                f"protocol 'views' needs repeated view rows, log '{log.name}' has none: use 'bags'"
            )
        counts, rates = log.training_counts(), place_rates(log) if examination else _NO_PLACES
        if len(rates):
            # an item at the top is chosen more often for its place: its lift is held against it,
            # counts of pairs are not (clicks over expected clicks, Zhang and Jones, 2007)
            counts = log.training_counts(rates)
        known = np.flatnonzero(counts.displays)
        categorical = categorical_fields(log, known, len(rates) > 0)
        found = context_of(log)
        context = context_fields(log, found, categorical)
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
            field_names=tuple(sorted(log.columns_of("candidate", "item"))),
            context=context,
            context_number_names=tuple(numbers_of_events),
            context_mean=context_mean,
            context_scale=context_scale,
            place_rates=rates,
            vectors=ItemVectors.of(log, known, components=not towers),
            grid=0 if len(rates) else log.grid,
            actions=action_fields(log, (*categorical, *context)),
            trained=TrainedUsers.of(log),
        )
        space = count_training(space.encoder(log), relations, protocol != "identity")
        return space._with(number_names=space._names_of_numbers(log))

    def grown(self, log: SessionLog) -> FeatureSpace:
        """The space of this one's log and a further one, for weights that go on with the further
        one.

        Ids keep their order, new items and values follow those of their field. What training said
        of items, pairs and context is added up over both logs. Numbers are standardised as before,
        and places have the rates that they had: weights have learned both.

        Raises:
            FeatureMismatchError: the log's fields are others.
            LogFormatError: the log has no training session, or is the very log of this space.
        """
        self.check_fields(log)
        if log.fingerprint == self.fingerprint:
            raise LogFormatError(
                f"log '{log.name}' is the one that the model was trained on, its counts would "
                "double: give what is new (train --resume gives a run more epochs on its log)"
            )
        of_split = training_counts(log)
        counts = log.training_counts(self.rates)
        known = np.flatnonzero(counts.displays)
        has_places = any(field.source == "position" for field in self.categorical)
        categorical = categorical_fields(log, known, not has_places, self.categorical)
        found = [ContextField(name, holds) for name, holds in self.context_holds.items()]
        context = context_fields(log, found, categorical, self.context)
        space = dataclasses.replace(
            self,
            categorical=categorical,
            context=context,
            actions=(
                action_fields(log, (*categorical, *context), self.actions) if self.actions else ()
            ),
            no_click=self.no_click or of_split["choices"] < of_split["events"],
            fingerprint=log.fingerprint,
            trained=self.trained.plus(TrainedUsers.of(log)),
        )
        space_rows = Encoder(space, log).space_rows
        item_counts = ItemCounts.zeros(len(categorical[0].values))
        for name, total in vars(item_counts).items():
            before = getattr(self.item_counts, name)
            total[: len(before)] = before
            total[space_rows[known]] += getattr(counts, name)[known]
        space = dataclasses.replace(
            space,
            item_counts=item_counts,
            prior_rate=float(item_counts.choices.sum() / item_counts.displays.sum()),
        )
        wanted = self.relations is not None, bool(self.crossed)
        space = count_training(space.encoder(log), *wanted, self)
        names = space._names_of_numbers(log)
        if names != self.number_names:
            differ = sorted(set(names) ^ set(self.number_names))
            raise FeatureMismatchError(
                f"with log '{log.name}' the context makes other numbers of a candidate "
                f"({', '.join(differ)}), which the model's weights do not know: train anew"
            )
        moments = space.encoder(log).moments()
        if not moments.count:
            return space
        return space._with(
            least=np.minimum(self.least, moments.least), most=np.maximum(self.most, moments.most)
        )

    def _names_of_numbers(self, log: SessionLog) -> tuple[str, ...]:
        return names_of_numbers(
            log,
            self.numbers_of_context,
            (*(PLACE_NUMBERS if self.grid else ()), *component_names(self.vectors)),
            self.protocol,
            self.relations is not None,
        )

    def former_ids(self, former: FeatureSpace) -> IntArray:
        """The id in the space that this one is `grown` from of each id; of a value that is new, its
        field's unknown row. Shape (n_ids,)."""
        return former_ids(self.fields, former.fields)

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

    def check_fields(self, log: SessionLog) -> None:
        """Raise FeatureMismatchError when a log's declared fields, order or views differ from the
        training log's."""
        check_columns(self, log)

    def encoder(self, log: SessionLog) -> Encoder:
        """Make what turns sessions of `log` into bags, chunk by chunk. Raises
        FeatureMismatchError if its fields are not those of the training log."""
        self.check_fields(log)
        return Encoder(self, log)

    def encode(self, log: SessionLog, rows: IntArray) -> EncodedSessions:
        """Turn the sessions `rows` of `log` into bags. Raises FeatureMismatchError as `encoder`."""
        return self.encoder(log).encode(rows)


_NO_PLACES: FloatArray = np.zeros(0, np.float32)

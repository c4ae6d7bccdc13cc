"""FeatureSpace: what the training split says of items and fields.

A bag holds one id per categorical field and a dense block of numbers. Ids share one space: 0 is "no
click" (only in histories), then per field one unknown row and its values."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import polars as pl

from fastgaum.arrays import FloatArray, IntArray
from fastgaum.features.crossed import crossed_names, displayers, fixes_display
from fastgaum.features.fields import CategoricalField
from fastgaum.features.item_vectors import ItemVectors
from fastgaum.features.number_columns import SAME_AS, varying_columns
from fastgaum.features.outcomes import OutcomeField
from fastgaum.features.relations import Relations
from fastgaum.features.standardise import NumberCode
from fastgaum.kernels.crossed import CrossedCounts, Displayers
from fastgaum.logs.context import Holds
from fastgaum.logs.log import ItemCounts
from fastgaum.logs.trained_users import TrainedUsers
from fastgaum.logs.vocabulary import Vocabulary

Sign = Literal["+", "-"]


def factors_of(product: str) -> tuple[str, str]:
    """The two names in "field*number"."""
    field, _, number = product.partition("*")
    return field, number


def unread_numbers(signs: Collection[str], fields: Collection[str]) -> frozenset[str]:
    """As `FeatureSpace.unread`; fields: a log's columns of candidates and items."""
    products = [factors_of(name)[1] for name in signs if name not in fields]
    return frozenset((*signs, *products))


@dataclass(frozen=True)
class FeatureSpace:
    """What `features.fitting` counts in the training split; `features.encoder` applies it.

    No field but the last has a default: a file that lacks one is refused."""

    protocol: str
    relative_numbers: bool
    """whether numbers also come less their mean over the display set"""
    ordered: bool
    """whether the order of displays is real"""
    field_names: tuple[str, ...]
    """declared candidate and item columns, sorted"""
    fingerprint: str
    """of the training log"""
    trained: TrainedUsers
    folds: int
    """folds of users over training and validation, by `ordered_counts.folds_of`; each user is
    scored by counts, and by the fit, that left its fold out. 0: a fit on the log's own split"""
    categorical: tuple[CategoricalField, ...]
    """fields of ids of candidates, the items first"""
    context: tuple[CategoricalField, ...]
    """fields of categories of events, by name"""
    actions: tuple[CategoricalField, ...]
    """fields of the tokens that are actions; empty where none are read"""
    vectors: ItemVectors
    grid: int
    """columns of the grid whose rows and columns are fields; 0: none are"""
    number_names: tuple[str, ...]
    """base numbers, before the set-relative copies"""
    code: NumberCode
    """how numbers are read: base numbers, then those relative to the display set"""
    least: FloatArray
    """smallest value of each number in training, shape (n_raw,)"""
    most: FloatArray
    """largest, likewise"""
    context_number_names: tuple[str, ...]
    """sorted"""
    context_code: NumberCode
    item_counts: ItemCounts
    """counts of each item of the identity field, by space row"""
    relations: Relations | None
    """counts of pairs of items; None where numbers about them are not asked for"""
    crossed: tuple[CrossedCounts, ...]
    """counts of items under each value of a context field of categories"""
    prior_rate: float
    """choices per display in training"""
    no_click: bool
    """whether training holds an event without a choice"""
    outcomes: tuple[OutcomeField, ...]
    """what may follow a choice, by name"""
    signs: dict[str, Sign]
    """numbers of candidates by which utilities only rise (+) or fall (-), and that nothing else of
    a scorer reads; they stand last among `number_names`, and theirs among what `code` makes.
    "field*number" is a number of the context times one of candidates, which is then not read
    either"""
    place_rates: FloatArray
    """choices per display at each place that is kept apart from the bags (`nets.examination`), the
    first being 1, shape (n_places,); else empty"""
    reading: dict[str, Any] | None = None
    """how the training log was read, as `ReadOptions.to_json`; None: not known"""

    def counts_of(self, item_ids: pl.Series) -> ItemCounts:
        """Training counts of items, 0 of those that no training display held."""
        rows = Vocabulary(self.categorical[0].values).codes(item_ids)
        counts = vars(self.item_counts).values()
        return ItemCounts(*(np.where(rows >= 0, one[rows], 0) for one in counts))

    @cached_property
    def crossed_tables(self) -> tuple[tuple[CrossedCounts, Displayers], ...]:
        """The crossed counts by value, and by item."""
        n_items = len(self.item_counts.displays)
        return tuple((table, displayers(table, n_items)) for table in self.crossed)

    @cached_property
    def fixing_fields(self) -> frozenset[str]:
        """Names of the context fields of items whose values fix the display."""
        return frozenset(
            field.name
            for field, tables in zip(self.context, self.crossed_tables, strict=False)
            if field.source == "context_item" and fixes_display(*tables)
        )

    @property
    def numbers_of_context(self) -> tuple[str, ...]:
        """Names of the numbers that the context decides."""
        return (
            *(SAME_AS + name for name in self.fields_of_items),
            *crossed_names(self.context, self.fixing_fields),
        )

    @property
    def fields_of_items(self) -> tuple[str, ...]:
        """Names of the context fields that hold items."""
        return tuple(part.name for part in self.context if part.source == "context_item")

    @property
    def context_holds(self) -> dict[str, Holds]:
        """Content of each context field (items, categories, numbers), by name."""
        kinds: dict[str, Holds] = dict.fromkeys(self.context_number_names, "numbers")
        for part in self.context:
            kinds[part.name] = "items" if part.source == "context_item" else "categories"
        return dict(sorted(kinds.items()))

    @property
    def reads_columns(self) -> bool:
        """Whether it reads more of a log than items and choices."""
        columns = self.field_names or self.context_holds or self.vectors.dim
        return bool(columns or self.protocol == "views")

    @property
    def has_statistics(self) -> bool:
        """Whether numbers say what training chose."""
        return self.protocol != "identity" or self.relations is not None

    @property
    def n_ids(self) -> int:
        """Number of ids, no click and unknown rows included."""
        return max(part.stop for part in self.fields)

    @property
    def fields(self) -> tuple[CategoricalField, ...]:
        """All fields of ids."""
        return (*self.categorical, *self.context, *self.actions)

    @property
    def n_raw(self) -> int:
        """Numbers of a candidate before they are encoded."""
        return len(self.number_names) + len(
            varying_columns(self.number_names, self.relative_numbers, self.unread)
        )

    @property
    def n_outcomes(self) -> int:
        """Columns of outcomes that the token of a choice has beside its candidate's numbers."""
        return sum(one.width for one in self.outcomes)

    def encode_outcomes(self, raw: FloatArray) -> FloatArray:
        """Columns of outcomes, (n, n_outcomes), as networks read them: 0 where nothing is known."""
        if not self.outcomes:
            return raw
        mean = np.concatenate([one.mean for one in self.outcomes])
        scale = np.concatenate([one.scale for one in self.outcomes])
        found: FloatArray = np.nan_to_num((raw - mean) / scale, nan=0.0).astype(np.float32)
        return found

    @property
    def n_numbers(self) -> int:
        """Numbers of a candidate that networks read."""
        return self.code.n_numbers

    @property
    def signed(self) -> tuple[tuple[int, int], ...]:
        """The direction (1 or -1) of each number with a sign, and how many numbers networks read of
        it."""
        columns = self.code.columns
        return tuple(
            (1 if sign == "+" else -1, int((columns == self.number_names.index(name)).sum()))
            for name, sign in self.signs.items()
        )

    @property
    def products(self) -> tuple[tuple[str, str], ...]:
        """The field of the context and the number of each product among the numbers with a sign."""
        return tuple(factors_of(name) for name in self.signs if name not in self.field_names)

    @property
    def unread(self) -> frozenset[str]:
        """Base numbers that scorers read in no other way than with their sign."""
        return unread_numbers(self.signs, self.field_names)

    def encode_context(self, raw: FloatArray) -> FloatArray:
        """Numbers of events, (n_events, n_names), as networks read them."""
        numbers = np.empty((len(raw), self.context_code.n_numbers), np.float32)
        self.context_code.write(raw, numbers)
        return numbers

    @property
    def unknown_of_id(self) -> IntArray:
        """Unknown row of each id's field, shape (n_ids,)."""
        unknown = np.zeros(self.n_ids, dtype=np.int32)
        for part in self.fields:
            unknown[part.start : part.stop] = part.start
        return unknown

    def with_changes(self, **changes: Any) -> FeatureSpace:
        """The space with other fields than the crossed counts."""
        other = dataclasses.replace(self, **changes)
        for name in ("crossed_tables", "fixing_fields"):
            other.__dict__[name] = getattr(self, name)
        return other

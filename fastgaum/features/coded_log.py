"""A log in the ids of a feature space: what all chunks of its sessions share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

import numpy as np

from fastgaum.arrays import FloatArray, IntArray
from fastgaum.errors import FeatureMismatchError
from fastgaum.features.fields import ids_of_context, ids_of_items, ids_of_places
from fastgaum.features.item_vectors import VectorReader
from fastgaum.features.number_columns import require_moderate
from fastgaum.features.outcomes import outcomes_of
from fastgaum.features.sessions import ActionBags, Selection
from fastgaum.features.space import FeatureSpace
from fastgaum.logs.clicks import CLICKS_SO_FAR
from fastgaum.logs.context import item_of_codes
from fastgaum.logs.cut import pick_rows
from fastgaum.logs.log import SessionLog
from fastgaum.logs.vocabulary import Vocabulary


class CodedLog:
    """Reads a log's items, categories, context and actions as ids of a space."""

    def __init__(self, space: FeatureSpace, log: SessionLog) -> None:
        """Raises FeatureMismatchError: the log's columns are not the training log's."""
        check_columns(space, log)
        self.space, self.log = space, log

    def of_part(self, log: SessionLog) -> CodedLog:
        """The coding of another part, which has the same items and categories: these are looked up
        once."""
        other = CodedLog(self.space, log)
        for name in ("space_rows", "rows_of_codes", "_items_of_codes", "components"):
            if name in vars(self):
                vars(other)[name] = vars(self)[name]
        return other

    @cached_property
    def space_rows(self) -> IntArray:
        """Space row of each of the log's items, -1 for an unknown one, (n_items,)."""
        return Vocabulary(self.space.categorical[0].values).codes(self.log.item_ids)

    @cached_property
    def rows_of_codes(self) -> dict[str, IntArray]:
        """Row of each code of a field that is a column, by name; last, that of a missing value."""
        return {
            part.name: Vocabulary(part.values).codes_from(
                Vocabulary(self.log.columns[part.name].categories)
            )
            for part in (*self.space.categorical, *self.space.context)
            if part.is_column
        }

    @cached_property
    def _items_of_codes(self) -> list[IntArray]:
        """Item code of each code of each context field of items, -1 for none, and last."""
        return [item_of_codes(self.log, name) for name in self.space.fields_of_items]

    @cached_property
    def components(self) -> FloatArray:
        """Components of items' vectors, (n_items, n_components)."""
        return self.space.vectors.components(self.log)

    def write_ids(self, part: Selection, rows: IntArray, ids: IntArray) -> None:
        """Write the ids of candidates, whose items have these space rows, (n_candidates,
        n_categorical)."""
        fields = self.space.categorical
        ids[:, 0] = fields[0].ids(rows)
        for column, field in enumerate(fields):
            if field.is_column:
                codes = self.log.values_at(field.name, part.candidates)
                ids[:, column] = field.ids(self.rows_of_codes[field.name][codes])
        columns, of_places = ids_of_places(fields, self.space.grid)
        if columns.stop:
            ids[:, columns] = of_places.take(part.places, 0, mode="clip")

    @cached_property
    def outcomes(self) -> FloatArray:
        """Columns of the events' outcomes, NaN for what is not known, (n_events, n_outcomes)."""
        return outcomes_of(self.space.outcomes, self.log)

    def context_rows(self, events: IntArray) -> IntArray:
        """Row of each context category, -1 for an unknown one, (n_events, n_fields)."""
        rows = np.empty((len(events), len(self.space.context)), np.int32)
        for column, part in enumerate(self.space.context):
            codes = self.log.values_at(part.name, events)
            rows[:, column] = self.rows_of_codes[part.name][codes]
        return rows

    def context_ids(self, events: IntArray) -> IntArray:
        """Feature ids of the same fields; items have their own ids."""
        return ids_of_context(self.space.context, self.context_rows(events))

    def context_items(self, events: IntArray) -> IntArray:
        """Item codes of the fields that hold items, -1 for none, (n_events, ·)."""
        items = np.empty((len(events), len(self._items_of_codes)), np.int32)
        for column, name in enumerate(self.space.fields_of_items):
            items[:, column] = self._items_of_codes[column][self.log.values_at(name, events)]
        return items

    def context_numbers(self, events: IntArray) -> FloatArray:
        """The events' numbers as networks read them, (n_events, n_numbers). Raises LogFormatError:
        a number is not finite, or too large."""
        names = self.space.context_number_names
        numbers = np.empty((len(events), len(names)), np.float32)
        for column, name in enumerate(names):
            numbers[:, column] = self.log.values_at(name, events)
        require_moderate(self.log, names, numbers, events)
        return self.space.encode_context(numbers)

    def factors(self, events: IntArray) -> FloatArray:
        """The number of the context in each product with a sign, (n_events, n_products)."""
        columns = [self.log.values_at(field, events) for field, _ in self.space.products]
        found = np.empty((len(events), len(columns)), np.float32)
        for at, values in enumerate(columns):
            found[:, at] = values
        return found

    def vectors_of(self, part: Selection) -> VectorReader | None:
        """Reader of a part's item vectors; None where no network reads them."""
        if not self.space.vectors.are_read:
            return None
        context = np.full((len(part.events), len(self.space.context)), -1, np.int32)
        of_items = [part.source == "context_item" for part in self.space.context]
        context[:, of_items] = self.context_items(part.events)
        items = self.log.items[part.candidates]
        return VectorReader(self.space.vectors, self.log, items, context)

    def actions_before(self, events: IntArray) -> ActionBags | None:
        """Bags of the actions before these events, of item, its categories and what was done; None
        without."""
        actions, space = self.log.actions, self.space
        if not space.actions or actions is None:
            return None
        actions = actions.picked(*pick_rows(actions.offsets, events))
        kinds, others = space.actions
        columns = [ids_of_items(space.categorical[0], others, self.log.item_ids)[actions.items]]
        for part in space.categorical:
            if part.source == "item_field":
                codes = self.log.columns[part.name].values[actions.items]
                columns.append(part.ids(self.rows_of_codes[part.name][codes]))
        of_kind = Vocabulary(kinds.values).codes(actions.kind_names) + kinds.start + 1
        columns.append(of_kind[actions.kinds])
        return ActionBags(np.asarray(actions.offsets), np.stack(columns, 1).astype(np.int32))


def check_columns(space: FeatureSpace, log: SessionLog) -> None:
    """Raise FeatureMismatchError when a log's columns, order, views or actions are not the training
    log's."""
    for fault in _faults(space, log):
        raise FeatureMismatchError(fault)


def _faults(space: FeatureSpace, log: SessionLog) -> Iterator[str]:
    trained, given = list(space.field_names), sorted(log.columns_of("candidate", "item"))
    if trained != given:
        missing, extra = sorted({*trained} - {*given}), sorted({*given} - {*trained})
        yield (
            f"the model was trained on fields {trained}, log '{log.name}' declares {given}"
            f" (missing {missing}, extra {extra}): declare the same fields"
        )
    trained, given = list(space.context_holds), sorted(log.context)
    if CLICKS_SO_FAR in trained and CLICKS_SO_FAR not in given:
        yield (
            f"the model was trained on successive choices of a display, log '{log.name}' has one "
            "choice of each: read it with --clicks each"
        )
    # a model of displays may be judged on successive choices
    if trained != [name for name in given if name in trained or name != CLICKS_SO_FAR]:
        yield (
            f"the model was trained on context fields {trained}, log '{log.name}' declares "
            f"{given}: declare the same context fields"
        )
    of_vectors = dict(space.vectors.widths)
    widths = {name: vectors.shape[1] for name, vectors in log.vectors.items()}
    if of_vectors != widths:
        yield (
            f"the model was trained on the item vectors {_in_words(of_vectors)}, log '{log.name}' "
            f"has {_in_words(widths)}: read it with the same columns of an item table "
            "(--item-table, --item-vectors)"
        )
    of_space, of_log = [one.name for one in space.outcomes], [*log.outcomes]
    # of displays without a choice yet nothing is known
    if of_space != of_log and (of_log or (log.choices >= 0).any()):
        yield (
            f"the model was trained on outcomes {of_space}, log '{log.name}' declares {of_log}: "
            "declare the same outcomes"
        )
    for one in space.outcomes:
        if one.name in log.outcomes and (one.categories is None) != (
            log.outcomes[one.name].texts is None
        ):
            kinds = ("categories", "numbers")
            yield (
                f"outcome '{one.name}' holds {kinds[one.categories is None]} in the training log, "
                f"{kinds[one.categories is not None]} in '{log.name}'"
            )
    if space.grid and space.grid != log.grid:
        yield (
            f"the model reads places of a grid of {space.grid} columns, log '{log.name}' has "
            f"{log.grid or 'no grid'}: read it with --grid {space.grid}"
        )
    if space.actions and log.actions is None:
        yield (
            f"the model was trained on actions ({', '.join(space.actions[0].values.head(10))}), "
            f"log '{log.name}' has none: read it with --actions FILE, or --past COLUMN"
        )
    if space.ordered and not log.ordered:
        yield (
            f"the model was trained on displays whose order is real, log '{log.name}' is "
            "unordered: read it with --ordered"
        )
    if space.protocol == "views" and log.views is None:
        yield f"the model reads view counts, log '{log.name}' has none"
    for part in (*space.categorical, *space.context):
        if part.is_column and log.columns[part.name].texts is None:
            yield (
                f"field '{part.name}' holds categories in the training log, numbers in '{log.name}'"
            )
    for name in (*space.number_names, *space.context_number_names):
        if name in log.columns and log.columns[name].texts is not None:
            yield f"field '{name}' holds numbers in the training log, categories in '{log.name}'"


def _in_words(widths: Mapping[str, int]) -> str:
    said = [f"{name} of {width} numbers" for name, width in sorted(widths.items())]
    return ", ".join(said) or "none"

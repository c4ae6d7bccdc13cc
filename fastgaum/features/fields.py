"""The vocabulary of a feature space: fields of ids, their training values, how they grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.arrays import IntArray
from fastgaum.logs.context import ContextField, training_events
from fastgaum.logs.log import SessionLog
from fastgaum.logs.vocabulary import NO_CODE, Vocabulary


@dataclass(frozen=True)
class CategoricalField:
    """A family of ids: `start` is its unknown row, `start + 1 + i` the i-th value."""

    name: str
    source: str
    """item (identity), item_field, candidate_field, or one of OF_PLACE; of an event context, or
    context_item, whose ids are the items' own; of an action action, or acted_item"""
    start: int
    values: pl.Series

    @property
    def stop(self) -> int:
        """One past the field's last id."""
        return self.start + 1 + len(self.values)

    @property
    def is_column(self) -> bool:
        """Whether it is a column of a log."""
        return self.source in ("item_field", "candidate_field", "context", "context_item")


def categorical_fields(
    log: SessionLog,
    known_items: npt.NDArray[np.integer],
    places: bool,
    former: Sequence[CategoricalField] = (),
) -> tuple[CategoricalField, ...]:
    """The candidates' fields of ids.

    Args:
        log: the log, of which training counts.
        known_items: codes of the items that training displays.
        places: whether the place in the display is a field.
        former: the same fields of a former log, whose values come first.
    """
    before = {field.name: field.values for field in former}
    fields: list[CategoricalField] = []

    def add(name: str, source: str, values: pl.Series) -> None:
        start = fields[-1].stop if fields else 1
        fields.append(CategoricalField(name, source, start, _add_new(before.get(name), values)))

    every = len(known_items) == log.n_items
    add("item", "item", log.item_ids if every else log.item_ids.gather(known_items))
    for name, column in sorted(log.columns_of("item").items()):
        if column.texts is not None:
            add(name, "item_field", _values_at(column.texts, column.values[known_items]))
    training, sizes = training_events(log), np.diff(log.display_offsets)
    for name, column in sorted(log.columns_of("candidate").items()):
        if column.texts is not None:
            codes = column.values[np.repeat(training, sizes)]
            add(name, "candidate_field", _values_at(column.texts, codes))
    if places:
        longest = int(sizes[training].max(initial=0))
        numbers = {"position": longest}
        if log.grid:
            numbers |= {
                "place_row": -(-longest // log.grid),
                "place_column": min(longest, log.grid),
            }
        for name, n in numbers.items():
            add(name, name, pl.int_range(n, eager=True).cast(pl.String))
    return tuple(fields)


OF_PLACE = ("position", "place_row", "place_column")
"""sources of fields that the place decides"""


def ids_of_places(fields: Sequence[CategoricalField], grid: int) -> tuple[slice, IntArray]:
    """Columns of the fields of the place, and their ids at each place, (n_places + 1, ·); the last
    are those of a place that no training display has."""
    at = [column for column, part in enumerate(fields) if part.source in OF_PLACE]
    if not at:
        return slice(0, 0), np.zeros((1, 0), np.int32)
    places = np.arange(len(fields[at[0]].values))
    rows = dict(zip(OF_PLACE, (places, *np.divmod(places, max(grid, 1))), strict=True))
    ids = [np.append(rows[fields[one].source], -1) + fields[one].start + 1 for one in at]
    return slice(at[0], at[-1] + 1), np.stack(ids, 1).astype(np.int32)


def context_fields(
    log: SessionLog,
    found: Sequence[ContextField],
    categorical: Sequence[CategoricalField],
    former: Sequence[CategoricalField] = (),
) -> tuple[CategoricalField, ...]:
    """The fields of events that hold categories (`found`) or items; own ids follow the
    candidates'."""
    before = {field.name: field.values for field in former}
    items, stop = categorical[0], categorical[-1].stop
    training = training_events(log)
    fields = []
    for one in found:
        if one.holds == "items":
            fields.append(CategoricalField(one.name, "context_item", items.start, items.values))
        elif one.holds == "categories":
            texts = log.columns[one.name].categories
            values = _values_at(texts, log.values_at(one.name, training))
            values = _add_new(before.get(one.name), values)
            fields.append(CategoricalField(one.name, "context", stop, values))
            stop = fields[-1].stop
    return tuple(fields)


def former_ids(fields: Sequence[CategoricalField], former: Sequence[CategoricalField]) -> IntArray:
    """The id of each id in a former space, or its field's unknown row, shape (n_ids,)."""
    ids = np.zeros(max(field.stop for field in fields), dtype=np.int32)
    for field, was in zip(fields, former, strict=True):
        ids[field.start : field.stop] = was.start
        n = len(was.values) + 1
        ids[field.start : field.start + n] = was.start + np.arange(n)
    return ids


def _add_new(former: pl.Series | None, values: pl.Series) -> pl.Series:
    if former is None:
        return values
    is_new = Vocabulary(former).codes(values) < 0
    return pl.concat([former, values.filter(pl.Series(is_new))])


def _values_at(texts: pl.Series, codes: npt.NDArray[np.integer]) -> pl.Series:
    """The texts that some codes name, in order; -1 names none."""
    # one entry more: code -1 writes to the last
    named = np.zeros(len(texts) + 1, np.bool_)
    named[codes] = True
    return texts.filter(pl.Series(named[:-1]))


def action_fields(
    log: SessionLog, others: Sequence[CategoricalField], former: Sequence[CategoricalField] = ()
) -> tuple[CategoricalField, ...]:
    """The fields of ids that actions alone have: what was done, and items that training does not
    display; none without actions. others: fields of candidates and of the context, that of items
    first."""
    actions = log.actions
    if actions is None:
        return ()
    training = np.repeat(training_events(log), np.diff(actions.offsets))
    items = _values_at(log.item_ids, actions.items[training])
    found = {
        "action": _values_at(actions.kind_names, actions.kinds[training]),
        "acted_item": items.filter(pl.Series(Vocabulary(others[0].values).codes(items) == NO_CODE)),
    }
    before = {field.name: field.values for field in former}
    stop = max(field.stop for field in others)
    fields: list[CategoricalField] = []
    for name, values in found.items():
        fields.append(CategoricalField(name, name, stop, _add_new(before.get(name), values)))
        stop = fields[-1].stop
    return tuple(fields)


def ids_of_items(items: CategoricalField, others: CategoricalField, texts: pl.Series) -> IntArray:
    """Feature id of each item, displayed or of actions alone; shape (n,)."""
    displayed, acted = (Vocabulary(part.values).codes(texts) for part in (items, others))
    ids = np.where(displayed >= 0, displayed + items.start + 1, acted + others.start + 1)
    return ids.astype(np.int32)

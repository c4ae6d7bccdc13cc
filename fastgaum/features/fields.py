"""The vocabulary of a feature space: fields of ids, and their training values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.arrays import BoolArray, IntArray, LongArray
from fastgaum.features.outcomes import OutcomeMoments
from fastgaum.logs.context import ContextField, training_events
from fastgaum.logs.hashes import hash_texts
from fastgaum.logs.log import NO_CLICK, SessionLog
from fastgaum.logs.vocabulary import MISSING, NO_CODE, Vocabulary

OWN_ROWS, SHARED_ROWS = 1 << 17, 1 << 16
"""items that have a row of tables of weights each, those displayed most, and rows that all other
items share by hash (Weinberger et al., "Feature hashing", ICML 2009)"""


@dataclass(frozen=True)
class CategoricalField:
    """A family of ids: `start` is its unknown row, `start + 1 + i` the i-th value, unless values
    share rows."""

    name: str
    source: str
    """item (identity), item_field, candidate_field, or one of OF_PLACE; of an event context, or
    context_item, whose ids are the items' own; of an action action, or acted_item"""
    start: int
    values: pl.Series
    rows: IntArray | None = None
    """row of each value behind the unknown one, from 0, (n_values,); None: one each"""

    @cached_property
    def stop(self) -> int:
        """One past the field's last id."""
        n_rows = len(self.values) if self.rows is None else int(self.rows.max(initial=-1)) + 1
        return self.start + 1 + n_rows

    def ids(self, codes: npt.NDArray[np.integer]) -> IntArray:
        """Feature id of each value by its number, -1 for an unknown one; same shape."""
        if self.rows is None:
            return codes.astype(np.int32, copy=False) + np.int32(self.start + 1)
        ids: IntArray = self._id_of_code[codes]
        return ids

    @cached_property
    def _id_of_code(self) -> IntArray:
        rows = np.arange(len(self.values)) if self.rows is None else self.rows
        return (np.append(rows, -1) + self.start + 1).astype(np.int32)

    @property
    def is_column(self) -> bool:
        """Whether it is a column of a log."""
        return self.source in ("item_field", "candidate_field", "context", "context_item")


class TrainingValues:
    """Which items and values the training events of a log display, noted part by part."""

    def __init__(self, log: SessionLog) -> None:
        """Begin with nothing. log: any part; all have the same items and categories."""
        self.displays = np.zeros(log.n_items, np.int64)
        """training displays of each item"""
        columns = log.columns_of("candidate", "event", "user").items()
        texts = {name: one.texts for name, one in columns if one.texts is not None}
        # one entry more: code -1 writes to the last
        self.named = {name: np.zeros(len(one) + 1, np.bool_) for name, one in texts.items()}
        """whether a value occurs, and last whether a missing one does"""
        self.longest, self.no_click = 0, False
        self.outcomes = OutcomeMoments(log)

    def add(self, log: SessionLog) -> None:
        """Note a part's training events."""
        training, sizes = training_events(log), np.diff(log.display_offsets)
        self.displays += log.training_counts().displays
        of_candidates = np.repeat(training, sizes)
        for name, named in self.named.items():
            is_field = log.columns[name].of == "candidate"
            named[log.values_at(name, of_candidates if is_field else training)] = True
        self.longest = max(self.longest, int(sizes[training].max(initial=0)))
        self.no_click |= bool((log.choices[training] == NO_CLICK).any())
        self.outcomes.add(log, training)

    def combine(self, other: TrainingValues) -> None:
        """Note what another has noted."""
        self.displays += other.displays
        for name, named in self.named.items():
            named |= other.named[name]
        self.longest = max(self.longest, other.longest)
        self.no_click |= other.no_click
        self.outcomes.combine(other.outcomes)

    @property
    def items(self) -> LongArray:
        """Codes of the items that training displays."""
        return np.flatnonzero(self.displays)


def categorical_fields(
    log: SessionLog, values: TrainingValues, places: bool, shared_rows: bool
) -> tuple[CategoricalField, ...]:
    """The candidates' fields of ids. places: whether the place is a field; shared_rows: whether
    items may share rows."""
    known_items = values.items
    every = len(known_items) == log.n_items
    items = log.item_ids if every else log.item_ids.gather(known_items)
    rows = share_rows(items, values.displays[known_items]) if shared_rows else None
    found = [("item", "item", items)]
    for name, column in sorted(log.columns_of("item").items()):
        if column.texts is not None:
            of_items = _values_at(column.texts, column.values[known_items])
            found.append((name, "item_field", of_items))
    for name, column in sorted(log.columns_of("candidate").items()):
        if column.texts is not None:
            found.append((name, "candidate_field", _named(column.texts, values.named[name])))
    if places:
        longest = values.longest
        # places, and the rows and columns of the grid
        of_grid = (-(-longest // log.grid), min(longest, log.grid)) if log.grid else ()
        for name, n in zip(OF_PLACE, (longest, *of_grid), strict=False):
            found.append((name, name, pl.int_range(n, eager=True).cast(pl.String)))
    return _numbered(found, 1, rows)


def share_rows(items: pl.Series, displays: LongArray) -> IntArray | None:
    """Row of each item in tables of weights, (n_items,), where they are more than OWN_ROWS +
    SHARED_ROWS: the others share rows by hashes of their ids. None: one each."""
    n_items = len(items)
    if n_items <= OWN_ROWS + SHARED_ROWS:
        return None
    order = np.argsort(-displays, kind="stable")
    rows = np.empty(n_items, np.int32)
    rows[order[:OWN_ROWS]] = np.arange(OWN_ROWS)
    others = order[OWN_ROWS:]
    hashes = hash_texts(items.gather(others).cast(pl.String)) % np.uint64(SHARED_ROWS)
    rows[others] = OWN_ROWS + hashes.astype(np.int32)
    return rows


def _numbered(
    found: Sequence[tuple[str, str, pl.Series]], start: int, rows: IntArray | None = None
) -> tuple[CategoricalField, ...]:
    """Fields of these names, sources and values, with ids from `start` on; rows: those of the
    first."""
    fields = list[CategoricalField]()
    for name, source, values in found:
        fields.append(CategoricalField(name, source, start, values, rows))
        start, rows = fields[-1].stop, None
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
    values: TrainingValues,
    found: Sequence[ContextField],
    categorical: Sequence[CategoricalField],
) -> tuple[CategoricalField, ...]:
    """The fields of events that hold categories (`found`) or items; own ids follow the
    candidates'."""
    items = categorical[0]
    own = []
    for one in found:
        if one.holds == "categories":
            texts = log.columns[one.name].categories
            own.append((one.name, "context", _named(texts, values.named[one.name])))
    fields = {field.name: field for field in _numbered(own, categorical[-1].stop)}
    for one in found:
        if one.holds == "items":
            fields[one.name] = replace(items, name=one.name, source="context_item")
    return tuple(fields[one.name] for one in found if one.name in fields)


def ids_of_context(fields: Sequence[CategoricalField], rows: IntArray) -> IntArray:
    """Feature ids of the values of context fields by their numbers, -1 for an unknown one,
    (n_events, n_fields)."""
    ids = np.empty_like(rows)
    for column, field in enumerate(fields):
        ids[:, column] = field.ids(rows[:, column])
    return ids


def ids_elsewhere(
    fields: Sequence[CategoricalField], others: Sequence[CategoricalField]
) -> LongArray:
    """The id of each id in another space, whose fields are the same, or -1; shape (n_ids,)."""
    ids = np.full(max(field.stop for field in fields), -1, np.int64)
    ids[0] = 0
    for field, other in zip(fields, others, strict=True):
        codes = Vocabulary(other.values).codes(field.values)
        ids[field.start] = other.start
        known = np.flatnonzero(codes >= 0)
        ids[field.ids(known)] = other.ids(codes[known])
    return ids


def _values_at(texts: pl.Series, codes: npt.NDArray[np.integer]) -> pl.Series:
    """The texts that some codes name, in order, and last `MISSING`, if -1 is among them."""
    # one entry more: code -1 writes to the last
    named = np.zeros(len(texts) + 1, np.bool_)
    named[codes] = True
    return _named(texts, named)


def _named(texts: pl.Series, named: BoolArray) -> pl.Series:
    return pl.concat([texts, pl.Series([MISSING], dtype=texts.dtype)]).filter(pl.Series(named))


def action_fields(
    log: SessionLog, others: Sequence[CategoricalField]
) -> tuple[CategoricalField, ...]:
    """The fields of ids that actions alone have: what was done, and items that training does not
    display; none without actions. others: fields of candidates and of the context, that of items
    first."""
    actions = log.actions
    if actions is None:
        return ()
    training = np.repeat(training_events(log), np.diff(actions.offsets))
    items = _values_at(log.item_ids, actions.items[training])
    kinds = _values_at(actions.kind_names, actions.kinds[training])
    items = items.filter(pl.Series(Vocabulary(others[0].values).codes(items) == NO_CODE))
    found = [("action", "action", kinds), ("acted_item", "acted_item", items)]
    return _numbered(found, max(field.stop for field in others))


def ids_of_items(items: CategoricalField, others: CategoricalField, texts: pl.Series) -> IntArray:
    """Feature id of each item, displayed or of actions alone; shape (n,)."""
    displayed, acted = (Vocabulary(part.values).codes(texts) for part in (items, others))
    return np.where(displayed >= 0, items.ids(displayed), others.ids(acted))

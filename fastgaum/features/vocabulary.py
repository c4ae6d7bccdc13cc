"""The vocabulary of a feature space: fields of ids, their values as training shows them, and how
they grow with a further log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.arrays import IntArray
from fastgaum.errors import LogFormatError
from fastgaum.features.sessions import chunks, select_sessions
from fastgaum.logs.columns import Vocabulary
from fastgaum.logs.context import ContextField, training_events
from fastgaum.logs.log import TRAIN, SessionLog


@dataclass(frozen=True)
class CategoricalField:
    """A family of ids: `start` is its unknown row, `start + 1 + i` the i-th value of `values`."""

    name: str
    source: str
    """"item" (identity), "item_field", "candidate_field", or one of OF_PLACE; of an event
    "context", or "context_item", whose ids are the items' own; of an action "action", or
    "acted_item" for items of actions alone"""
    start: int
    values: pl.Series

    @property
    def stop(self) -> int:
        """One past the field's last id."""
        return self.start + 1 + len(self.values)


def categorical_fields(
    log: SessionLog,
    known_items: npt.NDArray[np.integer],
    places_apart: bool,
    former: Sequence[CategoricalField] = (),
) -> tuple[CategoricalField, ...]:
    """The candidates' fields of ids.

    Args:
        log: the log, of which training counts.
        known_items: codes of the items that training displays.
        places_apart: whether the place in the display is no field.
        former: the same fields of a former log: their values come first, in their order.
    """
    before = {field.name: field.values for field in former}
    fields: list[CategoricalField] = []

    def add(name: str, source: str, values: pl.Series) -> None:
        start = fields[-1].stop if fields else 1
        fields.append(CategoricalField(name, source, start, after(before.get(name), values)))

    every = len(known_items) == log.n_items
    add("item", "item", log.item_ids if every else log.item_ids.gather(known_items))
    for name, column in sorted(log.columns_of("item").items()):
        if column.texts is not None:
            codes = np.unique(column.values[known_items])
            add(name, "item_field", column.texts.gather(codes[codes >= 0]))
    shown, longest = _shown_codes(log)
    for name, codes in shown.items():
        add(name, "candidate_field", log.columns[name].categories.gather(codes))
    if log.ordered and not places_apart:
        add("position", "position", _numbered(longest))
        if log.grid:
            add("place_row", "place_row", _numbered(-(-longest // log.grid)))
            add("place_column", "place_column", _numbered(min(longest, log.grid)))
    return tuple(fields)


OF_PLACE = ("position", "place_row", "place_column")
"""sources of fields that the place decides"""


def _numbered(n: int) -> pl.Series:
    return pl.Series([str(number) for number in range(n)], dtype=pl.String)


def rows_of_places(
    fields: Sequence[CategoricalField], grid: int, places: IntArray
) -> dict[str, IntArray]:
    """Row of the value of each field that the place decides, by source, of places from 0 on; -1 for
    a place that no training display has."""
    n_places = next((len(part.values) for part in fields if part.source == "position"), 0)
    values = {
        "position": places,
        "place_row": places // max(grid, 1),
        "place_column": places % max(grid, 1),
    }
    return {
        part.source: np.where(places < n_places, values[part.source], -1).astype(np.int32)
        for part in fields
        if part.source in OF_PLACE
    }


def context_fields(
    log: SessionLog,
    found: Sequence[ContextField],
    categorical: Sequence[CategoricalField],
    former: Sequence[CategoricalField] = (),
) -> tuple[CategoricalField, ...]:
    """The fields of events that hold categories or items; ids of their own follow the
    candidates'.

    Args:
        log: the log, of which training counts.
        found: its context fields, and what each holds.
        categorical: the candidates' fields.
        former: as in `categorical_fields`.
    """
    before = {field.name: field.values for field in former}
    items, stop = categorical[0], categorical[-1].stop
    training = training_events(log)
    fields = []
    for one in found:
        if one.holds == "items":
            fields.append(CategoricalField(one.name, "context_item", items.start, items.values))
        elif one.holds == "categories":
            codes = np.unique(log.values_at(one.name, training))
            values = log.columns[one.name].categories.gather(codes[codes >= 0])
            values = after(before.get(one.name), values)
            fields.append(CategoricalField(one.name, "context", stop, values))
            stop = fields[-1].stop
    return tuple(fields)


def former_ids(fields: Sequence[CategoricalField], former: Sequence[CategoricalField]) -> IntArray:
    """The id that each id had in a former space, whose values come first in each field; of a value
    that it did not know, its field's unknown row. Shape (n_ids,)."""
    ids = np.zeros(max(field.stop for field in fields), dtype=np.int32)
    for field, was in zip(fields, former, strict=True):
        ids[field.start : field.stop] = was.start
        n = len(was.values) + 1
        ids[field.start : field.start + n] = was.start + np.arange(n)
    return ids


def after(former: pl.Series | None, values: pl.Series) -> pl.Series:
    """The values, after those that a former log had."""
    if former is None:
        return values
    is_new = Vocabulary(former).codes(values) < 0
    return pl.concat([former, values.filter(pl.Series(is_new))])


def _shown_codes(log: SessionLog) -> tuple[dict[str, npt.NDArray[np.integer]], int]:
    """Codes that training candidates have in each categorical candidate field, and the longest
    display set."""
    columns = sorted(log.columns_of("candidate").items())
    # one entry more: code -1, a missing value, writes to the last
    seen = {
        name: np.zeros(len(column.texts) + 1, dtype=bool)
        for name, column in columns
        if column.texts is not None
    }
    longest = 0
    for chunk in chunks(log, log.sessions_in("train")) if seen or log.ordered else ():
        picked = select_sessions(log, chunk)
        longest = max(longest, int(np.diff(picked.display_offsets).max(initial=0)))
        for name, flags in seen.items():
            flags[log.columns[name].values[picked.candidates]] = True
    return {name: np.flatnonzero(flags[:-1]) for name, flags in seen.items()}, longest


def training_counts(log: SessionLog) -> dict[str, int]:
    """How much the training split holds. Raises LogFormatError where it has no session."""
    of_split = {what: of_splits[TRAIN] for what, of_splits in log.counts().items()}
    if of_split["sessions"] == 0:
        raise LogFormatError(
            f"log '{log.name}' has no training session: give a split column or --split user"
        )
    return of_split

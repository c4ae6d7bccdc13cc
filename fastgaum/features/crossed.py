"""Context crossed with items: what training says of a candidate under the context of its event.

For each context field of categories `odds_given_` and `displays_given_` it. For two fields of
items, whether the candidate, as a value of the one, displayed the other's item (`leads_`), and how
often it was such a value (`known_as_`). Where values fix the display, as a page fixes its links,
the log probability to walk to the other's item in two and three steps (`walk2_`, `walk3_`), whether
two can (`within2_`), and whether the item displays the candidate (`back_`)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import permutations

import numpy as np
import numpy.typing as npt

from fastgaum.arrays import FloatArray, IntArray, LongArray
from fastgaum.features.fields import CategoricalField
from fastgaum.kernels.crossed import (
    CrossedCounts,
    CrossedEvents,
    Displayers,
    count_pairs,
    crossed_numbers,
    lead_numbers,
)
from fastgaum.kernels.walks import walk_numbers
from fastgaum.logs.cut import stable_order

ODDS, DISPLAYS, LEADS, KNOWN = "odds_given_", "displays_given_", "leads_", "known_as_"
WALKS = ("walk2_", "walk3_", "within2_", "back_")
"""numbers of two fields of items, the first of which fixes the display"""
MOST_STEPS = 1e6
"""additions that a walk to an event's item may take in the mean"""
MOST_CROSSED = 1 << 25
"""pairs of a field that are kept at most, whatever was chosen"""


def crossed_names(fields: Sequence[CategoricalField], fixing: Collection[str]) -> tuple[str, ...]:
    """Names of the numbers; fixing: fields whose values fix the display."""
    names = [prefix + field.name for field in fields for prefix in (ODDS, DISPLAYS)]
    for one, other in _pairs(fields):
        prefixes = (LEADS, KNOWN, *(WALKS if one.name in fixing else ()))
        names += [f"{prefix}{one.name}_{other.name}" for prefix in prefixes]
    return tuple(names)


def _pairs(fields: Sequence[CategoricalField]) -> Iterator[tuple[CategoricalField, ...]]:
    return permutations([field for field in fields if field.source == "context_item"], 2)


def events_by_field(
    offsets: IntArray, items: IntArray, choices: IntArray, context_rows: IntArray
) -> list[CrossedEvents]:
    """The events under each context field; context_rows: row of each value, (n_events, ·)."""
    # a copy: kernels read each field's rows as one run of memory
    return [CrossedEvents(offsets, items, choices, rows) for rows in context_rows.T.copy()]


def count_crossed(events: CrossedEvents, n_values: int, n_items: int) -> CrossedCounts:
    """Count the pairs of training events; values and items are rows."""
    order = stable_order(events.values + 1)
    n = len(events.items)
    keys, expected = np.empty(n, np.int64), np.empty(n, np.float32)
    counts = np.empty((n, 2), np.int32)
    n_pairs = count_pairs(events, order, n_items, keys, counts, expected)
    order = stable_order(keys[:n_pairs])
    known = events.values[events.values >= 0]
    of_values = np.bincount(known, minlength=n_values).astype(np.int32)
    parts = [part[order] for part in (*counts.T, expected)]
    return _table(keys[order], parts, of_values, n_items)


def add_crossed(one: CrossedCounts, other: CrossedCounts, n_items: int) -> CrossedCounts:
    """The counts of two parts of a log."""
    events = one.events + other.events
    keys = np.concatenate([_keys(one, n_items), _keys(other, n_items)])
    order = stable_order(keys)
    keys = keys[order]
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    counts = [np.concatenate(pair)[order] for pair in zip(one[3:], other[3:], strict=True)]
    if len(first):
        counts = [np.add.reduceat(part, first).astype(part.dtype) for part in counts]
    return _table(keys[first], counts, events, n_items)


def subtract_crossed(whole: CrossedCounts, part: CrossedCounts, n_items: int) -> CrossedCounts:
    """The counts of a log less those of a part of it; pairs of the part that the whole's table has
    dropped stay out."""
    keys, own = _keys(whole, n_items), _keys(part, n_items)
    known = np.isin(own, keys, assume_unique=True)
    at, counts = np.searchsorted(keys, own[known]), [one.copy() for one in whole[3:]]
    for total, less in zip(counts, part[3:], strict=True):
        total[at] -= less[known]
    left = counts[0] > 0
    # a sum of roundings may fall below 0 where nothing is left
    counts[2] = np.maximum(counts[2], 0)
    events = whole.events - part.events
    return _table(keys[left], [one[left] for one in counts], events, n_items)


def no_crossed(n_values: int) -> CrossedCounts:
    """The counts of a field of n_values before anything is counted."""
    events, starts = np.zeros(n_values, np.int32), np.zeros(n_values + 1, np.int64)
    kinds = (np.int32, np.int32, np.int32, np.float32)
    return CrossedCounts(events, starts, *(np.zeros(0, kind) for kind in kinds))


def check_crossed(table: CrossedCounts, n_values: int, n_items: int) -> None:
    """Raise ValueError unless loops may trust a file's table."""
    n = len(table.items)
    right = (
        len(table.events) == n_values
        and len(table.starts) == n_values + 1
        and table.starts[0] == 0
        and table.starts[-1] == n
        and not (np.diff(table.starts) < 0).any()
        and all(len(counts) == n for counts in table[3:])
        and (n == 0 or (table.items.min() >= 0 and table.items.max() < n_items))
        and (np.diff(_keys(table, n_items)) > 0).all()
        and (table.displays >= 1).all()
        and (table.choices >= 0).all()
        and (table.displays >= table.choices).all()
        and bool((table.expected >= 0).all())
    )
    if not right:
        raise ValueError("a table of context and items does not fit its fields")


def _keys(table: CrossedCounts, n_items: int) -> LongArray:
    values = np.repeat(np.arange(len(table.events)), np.diff(table.starts))
    return values * n_items + table.items


def most_displayed(table: CrossedCounts, n_items: int) -> CrossedCounts:
    """A whole log's table, of the MOST_CROSSED pairs displayed most."""
    displays = table.displays
    if len(displays) <= MOST_CROSSED:
        return table
    kept = displays > np.sort(displays)[-MOST_CROSSED - 1]
    counts = [values[kept] for values in table[3:]]
    return _table(_keys(table, n_items)[kept], counts, table.events, n_items)


def _table(
    keys: LongArray,
    counts: Sequence[npt.NDArray[np.number]],
    events: IntArray,
    n_items: int,
) -> CrossedCounts:
    """The counts of pairs whose keys ascend."""
    starts = np.searchsorted(keys, np.arange(len(events) + 1) * n_items)
    items = (keys % n_items).astype(np.int32)
    return CrossedCounts(events, starts.astype(np.int64), items, *counts)


def displayers(table: CrossedCounts, n_items: int) -> Displayers:
    """A table's pairs by item."""
    order = stable_order(table.items.astype(np.int64))
    values = np.repeat(np.arange(len(table.events), dtype=np.int32), np.diff(table.starts))
    starts = np.searchsorted(table.items[order], np.arange(n_items + 1))
    return Displayers(starts.astype(np.int64), values[order])


def fixes_display(table: CrossedCounts, by_item: Displayers) -> bool:
    """Whether nearly the same items are displayed in all events of a value, and walks take moderate
    time.

    "Nearly": over values of two events and more, at most twice as many distinct items as one
    display has."""
    known, sizes = table.events >= 2, np.diff(table.starts)
    shown = np.add.reduceat(np.append(table.displays, 0), table.starts[:-1]) * (sizes > 0)
    per_event = shown[known] / table.events[known]
    displayers_of = np.diff(by_item.starts)
    values = np.minimum(by_item.values, len(displayers_of) - 1)
    items = np.repeat(np.arange(len(displayers_of)), displayers_of)
    steps = np.bincount(items, displayers_of[values], len(displayers_of))
    displays = np.bincount(table.items, table.displays, len(displayers_of))
    return bool(
        known.any()
        and sizes[known].sum() <= 2 * per_event.sum()
        and (steps * displays).sum() <= MOST_STEPS * displays.sum()
    )


def write_crossed(
    fields: Sequence[CategoricalField],
    fixing: Collection[str],
    tables: Sequence[tuple[CrossedCounts, Displayers]],
    events: Sequence[CrossedEvents],
    columns: LongArray,
    numbers: FloatArray,
) -> None:
    """Write the numbers of `crossed_names` to `columns` of numbers (n_candidates, ·), by each
    field's tables (by value and by item) and events; `fixing` names the fields that fix the
    display."""
    at = 0
    for (table, _), of_field in zip(tables, events, strict=True):
        crossed_numbers(of_field, table, columns[at : at + 2], numbers)
        at += 2
    place = {field.name: i for i, field in enumerate(fields)}
    for one, other in _pairs(fields):
        of_other, tables_of = events[place[other.name]], tables[place[one.name]]
        turns = stable_order(of_other.values + 1)
        lead_numbers(of_other, *tables_of, turns, columns[at : at + 2], numbers)
        at += 2
        if one.name in fixing:
            walk_numbers(of_other, *tables_of, turns, columns[at : at + 4], numbers)
            at += 4

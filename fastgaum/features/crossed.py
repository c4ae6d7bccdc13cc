"""Context crossed with items: what training says of a candidate under the context of its event.

For each context field of categories a candidate has two numbers, `odds_given_` and
`displays_given_` the field. Where two fields hold items, a candidate is also looked at as a value
of the one: whether the other's item was displayed there (`leads_`), and how often it was such a
value (`known_as_`). Everything that the event's own user said is left out, or the label comes back
in."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastgaum.kernels.crossed import (
    CrossedCounts,
    CrossedEvents,
    OwnPairs,
    add_own,
    crossed_numbers,
    lead_numbers,
)
from fastgaum.logs.log import FloatArray, IntArray

ODDS, DISPLAYS, LEADS, KNOWN = "odds_given_", "displays_given_", "leads_", "known_as_"
MOST_PAIRS = 1 << 25
"""pairs of a field that are kept at most; of a log with more, those displayed seldom are dropped.
Which are kept never depends on a choice: it would tell the event's own label"""


class CrossedField(NamedTuple):
    """A context field of categories."""

    name: str
    n_values: int
    holds_items: bool
    """whether its values are the items' rows"""


def crossed_names(fields: Sequence[CrossedField]) -> tuple[str, ...]:
    """Names of the numbers, in order."""
    names = [prefix + field.name for field in fields for prefix in (ODDS, DISPLAYS)]
    for one, other in _pairs(fields):
        names += [f"{LEADS}{one.name}_{other.name}", f"{KNOWN}{one.name}_{other.name}"]
    return tuple(names)


def _pairs(fields: Sequence[CrossedField]) -> list[tuple[CrossedField, CrossedField]]:
    return list(permutations([field for field in fields if field.holds_items], 2))


def count_crossed(events: CrossedEvents, n_values: int, n_items: int) -> CrossedCounts:
    """Count the pairs of training events; their values and items are rows."""
    offsets, items, choices, values, _ = events
    sizes = np.diff(offsets)
    known = np.repeat(values >= 0, sizes) & (items >= 0)
    event = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)[known]
    keys = values[event].astype(np.int64) * n_items + items[known]
    chosen = np.zeros(len(items), np.int32)
    clicked = choices >= 0
    chosen[offsets[:-1][clicked] + choices[clicked]] = 1
    expected = np.where(clicked, 1 / np.maximum(sizes, 1), 0)[event].astype(np.float32)
    counted = np.bincount(values[values >= 0], minlength=n_values).astype(np.int32)
    ones = np.ones(len(keys), np.int32)
    return _summed(keys, (ones, chosen[known], expected), counted, n_items)


def add_crossed(one: CrossedCounts, other: CrossedCounts, n_items: int) -> CrossedCounts:
    """The counts of two parts of a log together."""
    keys = np.concatenate([_keys(one, n_items), _keys(other, n_items)])
    counts = tuple(np.concatenate(pair) for pair in zip(one[3:], other[3:], strict=True))
    return _summed(keys, counts, one.events + other.events, n_items)


def check_crossed(table: CrossedCounts, n_values: int, n_items: int) -> None:
    """Raise ValueError unless loops may trust a table: what a file holds is not known to be what
    was written."""
    n = len(table.items)
    right = (
        len(table.events) == n_values
        and len(table.starts) == n_values + 1
        and table.starts[0] == 0
        and table.starts[-1] == n
        and not (np.diff(table.starts) < 0).any()
        and all(len(counts) == n for counts in table[3:])
        and (n == 0 or (table.items.min() >= 0 and table.items.max() < n_items))
        and (table.choices >= 0).all()
        and (table.displays >= table.choices).all()
        and bool((table.expected >= 0).all())
    )
    if not right:
        raise ValueError("a table of context and items does not fit its fields")


def _keys(table: CrossedCounts, n_items: int) -> npt.NDArray[np.int64]:
    values = np.repeat(np.arange(len(table.events)), np.diff(table.starts))
    return values * n_items + table.items


def _summed(
    keys: npt.NDArray[np.int64],
    counts: Sequence[npt.NDArray[np.number]],
    events: IntArray,
    n_items: int,
) -> CrossedCounts:
    """Sum the counts of equal pairs."""
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    first = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]][: len(keys)])
    sums = [
        np.add.reduceat(values[order], first).astype(values.dtype) if len(first) else values[:0]
        for values in counts
    ]
    keys = keys[first]
    if len(keys) > MOST_PAIRS:
        kept = sums[0] > np.sort(sums[0])[-MOST_PAIRS - 1]
        keys, sums = keys[kept], [values[kept] for values in sums]
    starts = np.searchsorted(keys, np.arange(len(events) + 1) * n_items)
    items = (keys % n_items).astype(np.int32)
    return CrossedCounts(events, starts.astype(np.int64), items, *sums)


def write_crossed(
    fields: Sequence[CrossedField],
    tables: Sequence[CrossedCounts],
    events: Sequence[CrossedEvents],
    own: Sequence[OwnPairs],
    columns: npt.NDArray[np.int64],
    numbers: FloatArray,
) -> None:
    """Write the numbers of `crossed_names`.

    Args:
        fields: the context fields of categories.
        tables: training counts of each.
        events: the part's events under each field.
        own: what each field's own users said, to be left out.
        columns: where each number stands in `numbers`.
        numbers: shape (n_candidates, ·).
    """
    at = 0
    for table, of_field, left_out in zip(tables, events, own, strict=True):
        crossed_numbers(of_field, table, left_out, columns[at : at + 2], numbers)
        at += 2
    place = {field.name: i for i, field in enumerate(fields)}
    for one, other in _pairs(fields):
        i, targets = place[one.name], events[place[other.name]].values
        lead_numbers(events[i], targets, tables[i], own[i], columns[at : at + 2], numbers)
        at += 2


def own_pairs(events: CrossedEvents, n_values: int, n_items: int) -> OwnPairs:
    """The pairs of the events' users."""
    n_slots = 1 << (2 * (len(events.items) + len(events.values)) + 1).bit_length()
    own = OwnPairs(
        n_values, n_items, np.full(n_slots, -1, np.int64), np.zeros((n_slots, 3), np.float32)
    )
    add_own(events, own)
    return own

"""Training counts of items, of pairs of items, and of items under a context."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastgaum import threads
from fastgaum.arrays import BoolArray, IntArray
from fastgaum.features.coded_log import CodedLog
from fastgaum.features.crossed import (
    add_crossed,
    count_crossed,
    crossed_names,
    events_by_field,
    most_displayed,
    no_crossed,
    subtract_crossed,
)
from fastgaum.features.number_columns import varying_columns
from fastgaum.features.relations import (
    PairCounter,
    PlacedPairs,
    Relations,
    add_pairs,
    place_pairs,
    rule_of,
    subtract_pairs,
    with_entries,
)
from fastgaum.features.sessions import select_sessions
from fastgaum.features.space import FeatureSpace
from fastgaum.kernels.candidate_counts import TrainingTotals, count_items
from fastgaum.kernels.candidate_formulas import RELATION_NUMBERS, TRAINING_NUMBERS
from fastgaum.kernels.crossed import CrossedCounts
from fastgaum.logs.log import ALIKE, ItemCounts

SCALED_AT_ONCE = 1 << 16
"""rows of counts"""


class StatisticsCounter:
    """Counts training sessions under the ids of a space: items, and if asked for pairs (relations)
    and items under each context (crossed)."""

    def __init__(
        self,
        coded: CodedLog,
        space: FeatureSpace,
        relations: bool,
        crossed: bool,
        n_counters: int = 1,
    ) -> None:
        """Begin with nothing; `space` has the displays of all training sessions, n_counters share
        them."""
        self.coded, self.space, displays = coded, space, space.item_counts.displays
        self.n_items = len(displays)
        # unknown items are counted in a last place, and left there
        self.items = ItemCounts.zeros(self.n_items + 1)
        self.pairs = list[PairCounter]()
        if relations:
            rule = rule_of(displays)
            self.pairs = [PairCounter(width, rule, n_counters) for width in (3, 2)]
        self.fields = space.context if crossed else ()
        self.crossed = [no_crossed(len(field.values)) for field in self.fields]

    def add(self, rows: IntArray, coded: CodedLog | None = None) -> None:
        """Count the sessions `rows` of the log, or of another one of the same fields."""
        coded = coded or self.coded
        log = coded.log
        picked = select_sessions(log, rows)
        packed = picked.packed(coded.space_rows[log.items[picked.candidates]])
        items = np.where(packed.items < 0, np.int32(self.n_items), packed.items)
        totals = TrainingTotals(self.items.displays, self.items.choices, self.items.expected)
        whole = np.arange(len(rows), dtype=np.int32)
        # an item at the top is chosen more often for its place: its lift is held against it, counts
        # of pairs are not (clicks over expected clicks, Zhang and Jones, 2007)
        rates = self.space.place_rates if len(self.space.place_rates) else ALIKE
        count_items(whole, packed._replace(items=items), rates, totals)
        for pairs in self.pairs:
            pairs.add(packed)
        if self.crossed:
            of_sessions = packed.display_offsets, packed.items, packed.choices
            events = events_by_field(*of_sessions, coded.context_rows(picked.events))

            def add(at: int) -> CrossedCounts:
                more = count_crossed(events[at], len(self.fields[at].values), self.n_items)
                return add_crossed(self.crossed[at], more, self.n_items)

            self.crossed = threads.in_order(add, list(range(len(self.fields))))

    def counted(self, read: bool = True) -> FeatureSpace:
        """The space with what has been counted. read: whether encoders read it; else it is of a
        part, for `add_counts`."""
        items = (total[: self.n_items].copy() for total in vars(self.items).values())
        relations = None
        if self.pairs:
            tables = (pairs.table() for pairs in self.pairs)
            rivals, follows = map(with_entries, tables) if read else tables
            relations = Relations(rivals, follows, self.pairs[0].rule)
        return dataclasses.replace(
            self.space,
            item_counts=ItemCounts(*items),
            relations=relations,
            crossed=tuple(most_displayed(one, self.n_items) for one in self.crossed),
        )


def add_counts(spaces: Sequence[FeatureSpace]) -> FeatureSpace:
    """The space with the counts of parts of a log, each counted under the same fields."""
    first, n_items = spaces[0], len(spaces[0].item_counts.displays)
    each = zip(*(vars(one.item_counts).values() for one in spaces), strict=True)
    crossed = first.crossed
    for one in spaces[1:]:
        pairs = zip(crossed, one.crossed, strict=True)
        crossed = tuple(add_crossed(left, right, n_items) for left, right in pairs)
    relations = None
    if first.relations is not None:
        of_parts = [one.relations for one in spaces if one.relations is not None]
        rule = first.relations.rule
        rivals = with_entries(add_pairs([one.rivals for one in of_parts], rule))
        follows = with_entries(add_pairs([one.follows for one in of_parts], rule))
        relations = Relations(rivals, follows, rule)
    return dataclasses.replace(
        first,
        item_counts=ItemCounts(*(sum(parts) for parts in each)),
        relations=relations,
        crossed=tuple(most_displayed(one, n_items) for one in crossed),
    )


class CountsOfPart(NamedTuple):
    """What a part of a log has counted, to be taken from the counts of the whole log."""

    items: ItemCounts
    pairs: tuple[PlacedPairs, ...]
    """of rivals, and of what follows what; empty without relations"""
    crossed: tuple[CrossedCounts, ...]


def place_counts(whole: FeatureSpace, part: FeatureSpace) -> CountsOfPart:
    """The counts of a part of a log beside those of the whole."""
    pairs: tuple[PlacedPairs, ...] = ()
    if whole.relations is not None and part.relations is not None:
        tables = zip(part.relations[:2], whole.relations[:2], strict=True)
        pairs = tuple(place_pairs(*each) for each in tables)
    return CountsOfPart(part.item_counts, pairs, part.crossed)


def subtract_counts(whole: FeatureSpace, part: CountsOfPart) -> FeatureSpace:
    """The space with the counts of a log less those of a part of it."""
    relations = whole.relations
    if relations is not None:
        rivals, follows = map(subtract_pairs, relations[:2], part.pairs)
        relations = Relations(rivals, follows, relations.rule)
    totals, own = vars(whole.item_counts).values(), vars(part.items).values()
    n_items = len(whole.item_counts.displays)
    pairs = zip(whole.crossed, part.crossed, strict=True)
    return dataclasses.replace(
        whole,
        item_counts=ItemCounts(*(one - other for one, other in zip(totals, own, strict=True))),
        relations=relations,
        crossed=tuple(subtract_crossed(one, other, n_items) for one, other in pairs),
    )


def scale_counts(space: FeatureSpace, factor: float) -> FeatureSpace:
    """The space with all counts times a factor, whole counts rounded."""

    def scale(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        scaled = np.empty_like(values)
        # a piece at a time, for products take twice the room of counts
        for piece in range(0, len(values), SCALED_AT_ONCE):
            at = slice(piece, piece + SCALED_AT_ONCE)
            product = values[at] * factor
            scaled[at] = product if values.dtype.kind == "f" else np.rint(product)
        return scaled

    pairs = space.relations
    if pairs is not None:
        rivals, follows = (
            table._replace(counts=scale(table.counts)) for table in (pairs.rivals, pairs.follows)
        )
        pairs = pairs._replace(rivals=rivals, follows=follows)
    names = ("events", "displays", "choices", "expected")
    return dataclasses.replace(
        space,
        item_counts=ItemCounts(*map(scale, vars(space.item_counts).values())),
        relations=pairs,
        crossed=tuple(
            table._replace(**{name: scale(getattr(table, name)) for name in names})
            for table in space.crossed
        ),
    )


def of_statistics(space: FeatureSpace) -> BoolArray:
    """Whether each number of networks says what training chose, shape (n_numbers,)."""
    crossed = crossed_names(space.context, space.fixing_fields)
    return _made_of(space, {*TRAINING_NUMBERS, *RELATION_NUMBERS, *crossed})


def of_relations(space: FeatureSpace) -> BoolArray:
    """Whether each number of networks is one of pairs of items, shape (n_numbers,)."""
    return _made_of(space, {*RELATION_NUMBERS})


def _made_of(space: FeatureSpace, made: set[str]) -> BoolArray:
    names = space.number_names
    base = np.array([name in made for name in names], bool)
    raw = np.concatenate([base, base[varying_columns(names, space.relative_numbers, space.unread)]])
    return raw[space.code.columns]

"""What training says of items, of pairs of items, and of items under a context: counted session by
session, for a whole training split or for a first part of it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastgaum import threads
from fastgaum.arrays import IntArray
from fastgaum.features.crossed import (
    CrossedField,
    add_crossed,
    count_crossed,
    crossed_names,
    most_displayed,
    no_crossed,
    with_values,
)
from fastgaum.features.numbers import crossed_fields, varying_columns
from fastgaum.features.relations import RelationCounter
from fastgaum.features.sessions import select_sessions
from fastgaum.kernels.candidate_counts import TrainingTotals, count_items
from fastgaum.kernels.candidate_formulas import RELATION_NUMBERS, TRAINING_NUMBERS
from fastgaum.kernels.crossed import CrossedCounts, CrossedEvents
from fastgaum.logs.log import ItemCounts

if TYPE_CHECKING:
    from fastgaum.features.encoder import Encoder
    from fastgaum.features.space import FeatureSpace


class StatisticsCounter:
    """Counts training sessions under the ids of a space: items, and where they are asked for pairs
    of items (relations) and items under each context (crossed)."""

    def __init__(
        self,
        encoder: Encoder,
        relations: bool,
        crossed: bool,
        former: FeatureSpace | None = None,
    ) -> None:
        """Begin with nothing, or with what a former space has counted of the first ids. The space
        of the encoder has the displays of each item over all training sessions."""
        space = encoder.space
        self.space, self.encoder = space, encoder
        self.n_items = len(space.item_counts.displays)
        # unknown items are counted in a last place, and left there
        self.items = ItemCounts.zeros(self.n_items + 1)
        if former is not None:
            for name, total in vars(self.items).items():
                before = getattr(former.item_counts, name)
                total[: len(before)] = before
        displays = space.item_counts.displays
        self.relations = (
            None
            if not relations
            else RelationCounter(displays, None if former is None else former.relations)
        )
        self.fields = crossed_fields(space.context) if crossed else []
        tables = [no_crossed(0)] * len(self.fields) if former is None else former.crossed
        self.crossed = [
            with_values(table, field.n_values)
            for table, field in zip(tables, self.fields, strict=True)
        ]

    def add(self, rows: IntArray) -> None:
        """Count the sessions `rows` of the log."""
        encoder = self.encoder
        picked = select_sessions(encoder.log, rows)
        packed = picked.packed(encoder.known_rows(picked))
        items = np.where(packed.items < 0, np.int32(self.n_items), packed.items)
        totals = TrainingTotals(self.items.displays, self.items.choices, self.items.expected)
        whole = np.arange(len(rows), dtype=np.int32)
        count_items(whole, packed._replace(items=items), self.space.rates, totals)
        if self.relations is not None:
            self.relations.add(packed)
        if self.crossed:
            events = encoder.crossed_events(picked)
            self.crossed = threads.in_order(
                self._with, list(zip(self.crossed, events, self.fields, strict=True))
            )

    def _with(self, of_field: tuple[CrossedCounts, CrossedEvents, CrossedField]) -> CrossedCounts:
        counted, events, field = of_field
        more = count_crossed(events, field.n_values, self.n_items)
        return add_crossed(counted, more, self.n_items)

    def counted(self) -> FeatureSpace:
        """The space with what has been counted until now."""
        items = (total[: self.n_items].copy() for total in vars(self.items).values())
        return dataclasses.replace(
            self.space,
            item_counts=ItemCounts(*items),
            relations=None if self.relations is None else self.relations.relations(),
            crossed=tuple(most_displayed(one, self.n_items) for one in self.crossed),
        )


def scale_counts(space: FeatureSpace, factor: float) -> FeatureSpace:
    """The space with all counts times a factor, whole counts rounded."""

    def scale(counts: npt.NDArray[Any]) -> npt.NDArray[Any]:
        scaled = counts * factor
        return (scaled if counts.dtype.kind == "f" else np.rint(scaled)).astype(counts.dtype)

    pairs = space.relations
    return dataclasses.replace(
        space,
        item_counts=ItemCounts(*(scale(counts) for counts in vars(space.item_counts).values())),
        relations=None
        if pairs is None
        else pairs._replace(
            rivals=pairs.rivals._replace(counts=scale(pairs.rivals.counts)),
            follows=pairs.follows._replace(counts=scale(pairs.follows.counts)),
        ),
        crossed=tuple(
            table._replace(
                events=scale(table.events),
                displays=scale(table.displays),
                choices=scale(table.choices),
                expected=scale(table.expected),
            )
            for table in space.crossed
        ),
    )


def count_training(
    encoder: Encoder, relations: bool, crossed: bool, former: FeatureSpace | None = None
) -> FeatureSpace:
    """The space with what the whole training split says, after what a former space has counted."""
    counter = StatisticsCounter(encoder, relations, crossed, former)
    counter.add(encoder.log.sessions_in("train"))
    return counter.counted()


def of_statistics(space: FeatureSpace) -> npt.NDArray[np.bool_]:
    """Whether each number of a candidate says what training chose, shape (n_numbers,)."""
    names = space.number_names
    made = {*TRAINING_NUMBERS, *RELATION_NUMBERS, *crossed_names(space.crossed_fields)}
    base = np.array([name in made for name in names], bool)
    return np.concatenate([base, base[varying_columns(names, space.set_context)]])

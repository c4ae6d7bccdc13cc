"""Numbers that candidates have because of their event: its session, the display, the context."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastgaum.arrays import FloatArray, IntArray
from fastgaum.features.crossed import crossed_names, events_by_field, write_crossed
from fastgaum.features.number_columns import (
    PLACE_NUMBERS,
    SAME_AS,
    number_columns,
    varying_columns,
)
from fastgaum.features.sessions import places_of
from fastgaum.features.space import FeatureSpace
from fastgaum.kernels import candidate_formulas as kernels
from fastgaum.kernels.relations import LatestChoices


class DisplayedEvents(NamedTuple):
    """Events before a choice is known, as their candidates' numbers are made of them."""

    offsets: IntArray
    """start of each display in candidates, shape (n_events + 1,)"""
    items: IntArray
    """number of each candidate's item, shape (n_candidates,)"""
    rows: IntArray
    """its training row, -1 for an unknown item, likewise"""
    n_before: IntArray
    """events of its session before each event, shape (n_events,)"""
    before: IntArray
    """row of counts of each candidate's item before, shape (n_candidates, N_COUNTS)"""
    choices: LatestChoices
    """of training rows"""
    context_items: IntArray
    """item of each context field of items, as in `items`, -1 for none, shape (n_events, ·)"""
    context_rows: IntArray
    """row of the value of each context field of categories, -1 for an unknown one, likewise"""


class EventNumbers:
    """Writes the numbers of a space that events decide."""

    def __init__(self, space: FeatureSpace) -> None:
        self.space, names = space, space.number_names
        self.of_session = number_columns(kernels.SESSION_NUMBERS, names)
        self.of_relations = number_columns(kernels.RELATION_NUMBERS, names)
        # protocol identity has none of them
        same = [SAME_AS + name for name in space.fields_of_items]
        self.same = number_columns([name for name in same if name in names], names)
        self.crossed_fields = space.context if space.crossed else ()
        crossed = crossed_names(self.crossed_fields, space.fixing_fields)
        self.of_crossed = number_columns(crossed, names)
        self.of_places = number_columns(PLACE_NUMBERS, names)
        products = space.products
        self.of_products = number_columns(
            [name for name in space.signs if name not in space.field_names], names
        )
        self.multiplied = number_columns([number for _, number in products], names)
        self.varying = varying_columns(names, space.relative_numbers, space.unread)
        self.reads_counts = bool((self.of_session >= 0).any())
        self.reads_choices = space.relations is not None

    def write(self, events: DisplayedEvents, numbers: FloatArray, set_size: int = 0) -> None:
        """Write them to numbers (n_candidates, ·), not standardised.

        set_size: k where candidates are a pool, each meant as the first of an average set of k."""
        space, offsets = self.space, events.offsets
        if self.reads_counts:
            of_session = (events.n_before, events.before, set_size, self.of_session)
            kernels.session_numbers(offsets, *of_session, numbers)
        if len(self.same):
            of_context = events.context_items.repeat(np.diff(offsets), 0)
            same = (events.items[:, None] == of_context) & (of_context >= 0)
            numbers[:, self.same] = same
        if self.crossed_fields:
            none = np.full(len(offsets) - 1, -1, np.int32)
            crossed = events_by_field(offsets, events.rows, none, events.context_rows)
            fixing, tables = space.fixing_fields, space.crossed_tables
            write_crossed(self.crossed_fields, fixing, tables, crossed, self.of_crossed, numbers)
        if space.relations is not None:
            of_pairs = (events.rows, events.choices, space.relations, set_size, self.of_relations)
            kernels.relation_numbers(offsets, *of_pairs, numbers)
        if space.grid:
            places = np.zeros_like(events.items) if set_size else places_of(offsets)
            numbers[:, self.of_places] = np.stack(np.divmod(places, space.grid), -1)

    def write_products(self, offsets: IntArray, factors: FloatArray, numbers: FloatArray) -> None:
        """Write the numbers of the context times those of candidates that stand in `numbers`;
        factors: `CodedLog.factors` of each event, (n_events, n_products)."""
        if len(self.of_products):
            by = factors.repeat(np.diff(offsets), 0)
            numbers[:, self.of_products] = by * numbers[:, self.multiplied]

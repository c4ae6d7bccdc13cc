"""SessionCounts: what the sessions of users hold until now, and the numbers that candidates have by
it.

The encoder counts a log's sessions whole; here they grow event by event, in a world and online."""

from __future__ import annotations

from copy import copy

import numpy as np
import numpy.typing as npt

from fastgaum.features.crossed import crossed_names, write_crossed
from fastgaum.features.numbers import (
    PLACE_NUMBERS,
    SAME_AS,
    number_columns,
    places_in_grid,
    varying_columns,
)
from fastgaum.features.relations import WINDOW
from fastgaum.features.space import FeatureSpace
from fastgaum.kernels import candidate_counts as counting
from fastgaum.kernels import slate_numbers as kernels
from fastgaum.kernels.candidate_formulas import RELATION_NUMBERS, SESSION_NUMBERS, Slates
from fastgaum.kernels.crossed import CrossedEvents
from fastgaum.logs.log import FloatArray, IntArray

ROOM = 64
"""entries that a user's table starts with"""


class SessionTables:
    """What n users were shown and chose in their sessions until now.

    Attributes:
        users: the users' tables.
        counting: whether anything is counted.
    """

    def __init__(self, n: int, counts: bool = True) -> None:
        """Make room for n users; without `counts` nothing is kept."""
        self.n, self.counting = n, counts
        n = n if self.counting else 0
        self.users = counting.UserTables(
            np.full((n, ROOM), -1, np.int32),
            np.zeros((n, ROOM, counting.N_COUNTS), np.int32),
            np.zeros(n, np.int32),
            np.zeros((n, WINDOW), np.int32),
            np.zeros(n, np.int32),
        )
        self.most = 0
        """what no user's table holds more than"""

    def reset(self, rows: IntArray | slice) -> None:
        """Forget those users' sessions."""
        if self.counting:
            self.users.keys[rows] = -1
            self.users.events[rows] = 0
            self.users.n_chosen[rows] = 0

    def make_room(self, k: int, n: int | None = None) -> None:
        """Have room for k more items of each of the first n users (None: of all); called before a
        step that counts."""
        if not self.counting:
            return
        room = self.users.keys.shape[1]
        self.most += k
        if 2 * self.most <= room:
            return
        self.most = k + int(counting.fullest(self.users.keys[:n]))
        while 2 * self.most > room:
            room *= 2
        if room == self.users.keys.shape[1]:
            return
        keys = np.full((self.n, room), -1, np.int32)
        counts = np.zeros((self.n, room, counting.N_COUNTS), np.int32)
        counting.move_counts(self.users.keys, self.users.counts, keys, counts)
        self.users = self.users._replace(keys=keys, counts=counts)

    def count(
        self, first: int, last: int, active: npt.NDArray[np.bool_], rows: IntArray, items: IntArray
    ) -> None:
        """Move the active users' counts on: what they were shown, and chose."""
        if self.counting:
            counting.count_slates(first, last, active, rows, items, self.users)


class SessionCounts(SessionTables):
    """Counts of n users' sessions; nothing is kept where the model asks for no number of them.

    Attributes:
        training_rows: training row of each item, one from n_items on for an unknown one; None where
            items are numbered as in training, and unknown ones after them.
        context_items: item of each of the context's fields of items, -1 for none, shape (n, ·);
            `UserContexts` writes them.
        context_values: row of the value of each of its fields of categories, -1 for an unknown
            one, shape (n, ·); likewise.
    """

    def __init__(self, space: FeatureSpace, fixed: FloatArray, n: int) -> None:
        """Make room for n users.

        fixed: base numbers of each item before they are standardised, 0 where a session decides,
        shape (·, n_base)."""
        self.space = space
        self.training_rows: IntArray | None = None
        fields = self.space.fields_of_items
        self.context_items: IntArray = np.full((n, len(fields)), -1, np.int32)
        self.context_values: IntArray = np.full((n, len(self.space.context)), -1, np.int32)
        names, self.n_trained = self.space.number_names, len(space.item_counts.displays)
        self.crossed_fields = self.space.crossed_fields if self.space.crossed else []
        self.crossed_columns = number_columns(crossed_names(self.crossed_fields), names)
        session_columns = number_columns(SESSION_NUMBERS, names)
        self.items = kernels.ItemNumbers(fixed, session_columns, space.least, space.most)
        self.relation_columns = number_columns(RELATION_NUMBERS, names)
        same = (SAME_AS + name for name in fields)
        # protocol identity has none of them
        self.same_columns = number_columns([name for name in same if name in names], names)
        self.place_columns = number_columns(PLACE_NUMBERS, names)
        self.varying = varying_columns(names, self.space.set_context)
        counts = bool((session_columns >= 0).any() or (self.relation_columns >= 0).any())
        super().__init__(n, counts)

    def of_users(self, first: int, last: int) -> SessionCounts:
        """The same counts of users first to last − 1 alone."""
        part = copy(self)
        part.users = counting.UserTables(*(values[first:last] for values in self.users))
        part.context_items = self.context_items[first:last]
        part.context_values = self.context_values[first:last]
        return part

    def write(self, first: int, last: int, slates: Slates, numbers: FloatArray) -> None:
        """Write the standardised numbers of displayed places.

        What the session and the display decide stays within what training has seen.

        Args:
            first: the first user.
            last: the last user + 1.
            slates: of all n users; an item of a pool has the numbers of an average slate that
                holds it.
            numbers: shape (n, k, n_numbers).
        """
        space = self.space
        # the space would have to count its names
        if not numbers.shape[2]:
            return
        kernels.slate_numbers(first, last, slates, self.users, self.items, numbers)
        if len(self.same_columns):
            kernels.slate_context_numbers(
                first, last, slates, self.context_items, self.same_columns, numbers
            )
        trained, users = slates, self.users
        if self.training_rows is not None:
            trained = Slates(self.training_rows[slates.rows], slates.set_size)
            users = users._replace(latest=self.training_rows[users.latest])
        if self.crossed_fields:
            self._write_crossed(
                trained.rows[first:last, :, 0], self.context_values[first:last], numbers[first:last]
            )
        if space.relations is not None:
            kernels.slate_relations(
                first, last, trained, users, space.relations, self.relation_columns, numbers
            )
        if space.grid:
            # a pool's items are all taken to be first, so that none is ahead by its place
            shown = slates.rows[first:last, :, 0] >= 0
            places = np.cumsum(shown, axis=1) - 1 if not slates.set_size else 0 * shown
            in_grid = places_in_grid(places.astype(np.int32), space.grid)
            numbers[first:last, :, self.place_columns] = in_grid
        kernels.standardise_slates(
            first, last, slates, self.varying, space.mean, space.scale, numbers
        )

    def _write_crossed(self, items: IntArray, values: IntArray, numbers: FloatArray) -> None:
        """What training says of each displayed item, (n, k), under its user's context."""
        n, k = items.shape
        known = np.where(items < self.n_trained, items, -1).reshape(-1)
        offsets, none = np.arange(n + 1, dtype=np.int32) * np.int32(k), np.full(n, -1, np.int32)
        by_field = np.ascontiguousarray(values.T)
        events = [CrossedEvents(offsets, known, none, rows) for rows in by_field]
        flat = numbers.reshape(n * k, numbers.shape[-1])
        crossed = self.crossed_fields, self.space.crossed_tables, events
        write_crossed(*crossed, self.crossed_columns, flat)
        empty = np.flatnonzero(items.reshape(-1) < 0)
        flat[empty[:, None], self.crossed_columns] = 0

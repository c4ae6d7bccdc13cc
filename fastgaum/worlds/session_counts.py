"""SessionCounts: what the sessions of a world's users hold until now, as far as the numbers of
candidates read it."""

from __future__ import annotations

from copy import copy

import numpy as np
import numpy.typing as npt

from fastgaum.features.encoder import number_columns, varying_columns
from fastgaum.features.space import WINDOW
from fastgaum.kernels import candidate_counts as counting
from fastgaum.kernels import candidate_formulas as kernels
from fastgaum.kernels.candidate_formulas import RELATION_NUMBERS, SESSION_NUMBERS
from fastgaum.worlds.catalogue import Catalogue
from fastgaum.worlds.world import FloatArray, IntArray

ROOM = 64
"""entries that a user's table starts with"""


class SessionCounts:
    """Counts of n users' sessions; nothing is kept where the model asks for no number of them.

    Attributes:
        users: the users' tables.
    """

    def __init__(self, catalogue: Catalogue, n: int) -> None:
        self.space, self.n = catalogue.space, n
        names, self.n_trained = self.space.number_names, catalogue.n_trained
        session_columns = number_columns(SESSION_NUMBERS, names)
        self.items = kernels.ItemNumbers(
            catalogue.fixed, session_columns, self.space.least, self.space.most
        )
        self.relation_columns = number_columns(RELATION_NUMBERS, names)
        self.varying = varying_columns(names, self.space.set_context)
        self.counting = bool((session_columns >= 0).any() or (self.relation_columns >= 0).any())
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

    def of_users(self, first: int, last: int) -> SessionCounts:
        """The same counts of users first to last − 1 alone."""
        part = copy(self)
        part.users = counting.UserTables(*(values[first:last] for values in self.users))
        return part

    def make_room(self, k: int) -> None:
        """Have room for k more items of each user; called before a step that counts."""
        if not self.counting:
            return
        room = self.users.keys.shape[1]
        self.most += k
        if 2 * self.most <= room:
            return
        self.most = k + int(counting.fullest(self.users.keys))
        while 2 * self.most > room:
            room *= 2
        if room == self.users.keys.shape[1]:
            return
        keys = np.full((self.n, room), -1, np.int32)
        counts = np.zeros((self.n, room, counting.N_COUNTS), np.int32)
        counting.move_counts(self.users.keys, self.users.counts, keys, counts)
        self.users = self.users._replace(keys=keys, counts=counts)

    def write(
        self, first: int, last: int, rows: IntArray, numbers: FloatArray, set_size: int = 0
    ) -> None:
        """Write the standardised numbers of displayed places.

        What the session and the display decide stays within what training has seen.

        Args:
            first: the first user.
            last: the last user + 1.
            rows: catalogue row of each place first, -1 for an empty place, shape (n, k, ·).
            numbers: shape (n, k, n_numbers).
            set_size: 0: the places are the display set. Otherwise they are a pool, and an item's
                numbers are those of an average slate of that size that holds it.
        """
        space = self.space
        if not space.n_numbers:
            return
        slates = kernels.Slates(rows, set_size)
        kernels.slate_numbers(first, last, slates, self.users, self.items, numbers)
        if space.relations is not None:
            kernels.slate_relations(
                first, last, slates, self.users, space.relations, self.relation_columns, numbers
            )
        kernels.standardise_slates(
            first, last, slates, self.varying, space.mean, space.scale, numbers
        )

    def count(
        self, first: int, last: int, active: npt.NDArray[np.bool_], rows: IntArray, items: IntArray
    ) -> None:
        """Move the active users' counts on: what they were shown, and chose."""
        if self.counting:
            counting.count_slates(first, last, active, rows, items, self.users)

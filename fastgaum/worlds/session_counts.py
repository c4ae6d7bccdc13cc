"""SessionCounts: what the sessions of a world's users hold until now, as far as the numbers of
candidates read it."""

from __future__ import annotations

from copy import copy

import numpy as np
import numpy.typing as npt

from fastgaum.features.relations import WINDOW, PairTable
from fastgaum.kernels import slate_numbers as kernels
from fastgaum.worlds.catalogue import Catalogue
from fastgaum.worlds.world import FloatArray, IntArray

ROOM = 64
"""entries that a user's table starts with"""


class SessionCounts:
    """Counts of n users' sessions; nothing is kept where the protocol asks for no numbers."""

    def __init__(self, catalogue: Catalogue, n: int) -> None:
        self.catalogue, self.n = catalogue, n
        space = catalogue.space
        self.n_numbers = space.n_numbers
        self.counts = bool(self.n_numbers) and (
            catalogue.counted[0] >= 0 or catalogue.relations_column >= 0
        )
        users = n if self.counts else 0
        self.keys: IntArray = np.full((users, ROOM), -1, np.int32)
        self.displayed, self.picked = np.zeros((2, users, ROOM), np.int32)
        self.events, self.n_chosen = np.zeros((2, users), np.int32)
        self.latest: IntArray = np.zeros((users, WINDOW), np.int32)
        self.most = 0
        """what no user's table holds more than"""
        relations = space.relations
        self.tables: tuple[PairTable, PairTable] | None = None
        if relations is not None:
            self.tables = relations.rivals, relations.follows

    def reset(self, rows: IntArray | slice) -> None:
        """Forget those users' sessions."""
        if self.counts:
            self.keys[rows] = -1
            self.events[rows] = 0
            self.n_chosen[rows] = 0

    def users(self, first: int, last: int) -> SessionCounts:
        """The same counts of users first to last − 1 alone."""
        part = copy(self)
        for name in ("keys", "displayed", "picked", "events", "n_chosen", "latest"):
            setattr(part, name, getattr(self, name)[first:last])
        return part

    def make_room(self, k: int) -> None:
        """Have room for k more items of each user; called before a step that counts."""
        if not self.counts:
            return
        self.most += k
        if 2 * self.most <= self.keys.shape[1]:
            return
        self.most = k + int(kernels.fullest(self.keys))
        room = self.keys.shape[1]
        while 2 * self.most > room:
            room *= 2
        if room == self.keys.shape[1]:
            return
        keys = np.full((self.n, room), -1, np.int32)
        displayed, picked = np.zeros((2, self.n, room), np.int32)
        kernels.move_counts(self.keys, self.displayed, self.picked, keys, displayed, picked)
        self.keys, self.displayed, self.picked = keys, displayed, picked

    def write(
        self, first: int, last: int, rows: IntArray, numbers: FloatArray, set_size: int = 0
    ) -> None:
        """Write the numbers of displayed places, (n, k, n_numbers), standardised; `rows` (n, k, ·).

        What the session and the display decide stays within what training has seen. With `set_size`
        the places are a pool, and an item's numbers are those of an average slate of that size that
        holds it; with 0 they are the display set."""
        if not self.n_numbers:
            return
        catalogue, space = self.catalogue, self.catalogue.space
        kernels.slate_numbers(
            first,
            last,
            rows,
            catalogue.fixed,
            catalogue.counted,
            space.least,
            space.most,
            set_size,
            self.keys,
            self.displayed,
            self.picked,
            self.events,
            numbers,
        )
        if self.tables is not None:
            rivals, follows = self.tables
            kernels.relation_numbers(
                first,
                last,
                rows,
                catalogue.n_trained,
                set_size,
                rivals.starts,
                rivals.keys,
                rivals.counts,
                follows.starts,
                follows.keys,
                follows.counts,
                self.latest,
                self.n_chosen,
                catalogue.relations_column,
                numbers,
            )
        n_base = len(space.number_names)
        kernels.standardise_slates(
            first, last, rows, n_base, set_size, catalogue.varying, space.mean, space.scale, numbers
        )

    def count(
        self, first: int, last: int, active: npt.NDArray[np.bool_], rows: IntArray, items: IntArray
    ) -> None:
        """Move the active users' counts on: what they were shown, and chose."""
        if self.counts:
            kernels.count_slates(
                first,
                last,
                active,
                rows,
                items,
                self.keys,
                self.displayed,
                self.picked,
                self.events,
                self.latest,
                self.n_chosen,
            )

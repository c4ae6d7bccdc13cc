"""UserSessions: what users were shown and chose, as an observation says it.

A user's utilities depend on the state and on counts of the session: how often an item was displayed
and chosen, how many events there were, and which choices were the last. The state alone does not
hold them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fastgaum.features.relations import WINDOW
from fastgaum.features.session_counts import SessionTables
from fastgaum.kernels.candidate_counts import CHOSEN, DISPLAYED, N_COUNTS, counts_of_pools
from fastgaum.kernels.slates import displayed_rows
from fastgaum.worlds.context import BoolArray
from fastgaum.worlds.world import NO_ITEM, IntArray, Past


class UserSessions:
    """The sessions of n users until now."""

    def __init__(self, n_items: int, n: int) -> None:
        """Take n users who have seen nothing of a catalogue."""
        self.n_items, self.n, self.tables = n_items, n, SessionTables(n)

    def reset(self, rows: IntArray, past: Iterable[Past] = ()) -> None:
        """Begin the sessions of some users anew, with what these have behind them."""
        self.tables.reset(rows)
        for event in past:
            slates = np.full((self.n, event.slates.shape[1]), NO_ITEM, np.int32)
            items, active = np.full(self.n, NO_ITEM, np.int32), np.zeros(self.n, np.bool_)
            clicked = np.flatnonzero(event.places >= 0)
            shown = event.slates.copy()
            chosen = shown[clicked, event.places[clicked]]
            # what a world does not know was chosen all the same
            chosen[chosen < 0] = self.n_items
            shown[clicked, event.places[clicked]] = chosen
            slates[rows], active[rows], items[rows[clicked]] = shown, event.active, chosen
            self.see(slates, items, active)

    def see(self, slates: IntArray, items: IntArray, active: BoolArray) -> None:
        """Count an event of the active users: slates (n, k), and the items chosen, (n,), `NO_ITEM`
        for none."""
        rows = np.empty((*slates.shape, 1), np.int32)
        displayed_rows(0, self.n, slates, active, self.n_items + 1, 0, rows)
        self.tables.make_room(slates.shape[1])
        self.tables.count(0, self.n, active, rows, items)

    def of(self, pools: IntArray) -> dict[str, IntArray]:
        """What the sessions hold, of users whose pools are (n, m): `shown` and `chosen`, how often
        each item of the pool was, (n, m); `events` until now, (n, 1); `latest`, the items of the
        last choices, the last one first, (n, 20), −1 where there were fewer, and the number of
        items for one that the world does not know."""
        counts = np.empty((*pools.shape, N_COUNTS), np.int32)
        users = self.tables.users
        counts_of_pools(0, self.n, np.ascontiguousarray(pools), users, counts)
        ago = np.arange(WINDOW)
        at = (users.n_chosen[:, None] - 1 - ago) % WINDOW
        latest = np.take_along_axis(users.latest, at, axis=1)
        return {
            "shown": counts[:, :, DISPLAYED].copy(),
            "chosen": counts[:, :, CHOSEN].copy(),
            "events": users.events[:, None].copy(),
            "latest": np.where(ago < users.n_chosen[:, None], latest, NO_ITEM).astype(np.int32),
        }

"""SessionCounts: what the sessions of users hold until now, event by event, in a world and
online."""

from __future__ import annotations

import numpy as np

from fastgaum import threads
from fastgaum.arrays import FloatArray, IntArray
from fastgaum.features.event_numbers import DisplayedEvents, EventNumbers
from fastgaum.features.outcomes import OutcomeNumbers, SessionOutcomes
from fastgaum.features.relations import WINDOW
from fastgaum.features.space import FeatureSpace
from fastgaum.kernels import candidate_counts as kernels
from fastgaum.kernels.candidate_counts import N_COUNTS, UserDisplays
from fastgaum.kernels.candidate_formulas import relate_to_sets
from fastgaum.kernels.relations import LatestChoices

ROOM = 64
Parts = list[tuple[int, int]]
"""ranges of events that threads share"""


class SessionTables:
    """Displays and choices of n users in their sessions until now."""

    def __init__(self, n: int, counts: bool = True) -> None:
        """Make room for n users; without `counts` nothing is kept."""
        self.n, self.counting = n, counts
        n = n if self.counting else 0
        self.users = kernels.UserTables(
            np.full((n, ROOM), -1, np.int32),
            np.zeros((n, ROOM, N_COUNTS), np.int32),
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

    def count(self, shown: UserDisplays, chosen: IntArray, parts: Parts | None = None) -> None:
        """Count what users were shown, and each one's choice, (n_events,), -1 for none, after
        `make_room`; threads share `parts`."""
        if not self.counting or not len(shown.users):
            return
        offsets = shown.offsets
        for_threads = [
            (UserDisplays(shown.users[a:b], offsets[a : b + 1], shown.items), chosen[a:b])
            for a, b in parts or [(0, len(shown.users))]
        ]
        threads.run(kernels.count_displays, [(*part, self.users) for part in for_threads])

    def make_room(self, largest: int) -> None:
        """Make room for one more display of each user, of so many candidates at most; only where
        anything is counted."""
        room, k = self.users.keys.shape[1], largest
        self.most += k
        if 2 * self.most <= room:
            return
        self.most = k + int((self.users.keys >= 0).sum(1).max(initial=0))
        while 2 * self.most > room:
            room *= 2
        if room == self.users.keys.shape[1]:
            return
        keys = np.full((self.n, room), -1, np.int32)
        counts = np.zeros((self.n, room, N_COUNTS), np.int32)
        kernels.move_counts(self.users.keys, self.users.counts, keys, counts)
        self.users = self.users._replace(keys=keys, counts=counts)


class SessionCounts(SessionTables):
    """Counts of n users' sessions. Items are numbered by training rows, then unknown ones.

    Attributes:
        context_items: item of each context field of items, -1 for none, (n, ·); others write it.
        context_rows: row of the value of each context category, -1 for an unknown one, (n, ·).
        factors: number of the context in each product with a sign, likewise.
    """

    def __init__(self, space: FeatureSpace, n: int, within: bool) -> None:
        """Make room for n users; `within`: numbers of a session stay within training's."""
        self.space, self.numbers = space, EventNumbers(space)
        self.n_trained, self.n_numbers = len(space.item_counts.displays), space.n_numbers
        self.context_items: IntArray = np.full((n, len(space.fields_of_items)), -1, np.int32)
        self.context_rows: IntArray = np.full((n, len(space.context)), -1, np.int32)
        self.factors: FloatArray = np.zeros((n, len(space.products)), np.float32)
        columns = self.numbers.of_session
        self.kept = columns[columns >= 0] if within else columns[:0]
        self.outcomes: SessionOutcomes | None = None
        if space.outcomes:
            names = space.number_names
            reads = OutcomeNumbers(space.outcomes, space.categorical, names)
            self.outcomes = SessionOutcomes(reads, n)
        super().__init__(n, self.numbers.reads_counts or self.numbers.reads_choices)

    def reset(self, rows: IntArray | slice) -> None:
        """Forget those users' sessions."""
        super().reset(rows)
        if self.outcomes is not None:
            self.outcomes.reset(rows)

    def encode(
        self,
        shown: UserDisplays,
        ids: IntArray,
        base: FloatArray,
        parts: Parts,
        set_size: int = 0,
    ) -> tuple[FloatArray, FloatArray]:
        """Numbers of displayed candidates as networks read them, (n_candidates, n_numbers), and
        their ranks, which `SessionOutcomes.add` reads, (n_candidates, n_habits).

        ids: feature ids, (n_candidates, n_fields); base: base numbers, (n_candidates, n_base),
        those that sessions decide open; set_size: k where candidates are a pool, of which an
        average slate of k is meant; threads share `parts`."""
        numbers = np.empty((len(base), self.n_numbers), np.float32)
        n_habits = 0 if self.outcomes is None else len(self.outcomes.numbers.ranked)
        ranks = np.empty((len(base), n_habits), np.float32)
        if not self.n_numbers:
            return numbers, ranks
        if len(parts) == 1:
            self._encode(shown, ids, base, set_size, numbers, ranks)
            return numbers, ranks
        # made once, not once a thread
        _ = self.space.crossed_tables

        def encode(first: int, last: int) -> None:
            users, offsets = shown.users[first:last], shown.offsets[first : last + 1]
            part = slice(offsets[0], offsets[-1])
            of_part = UserDisplays(users, offsets - offsets[0], shown.items[part])
            self._encode(of_part, ids[part], base[part], set_size, numbers[part], ranks[part])

        threads.run(encode, parts)
        return numbers, ranks

    def _encode(
        self,
        shown: UserDisplays,
        ids: IntArray,
        base: FloatArray,
        set_size: int,
        numbers: FloatArray,
        ranks: FloatArray,
    ) -> None:
        users, offsets, items = shown
        tables, space, counting = self.users, self.space, self.counting
        before = np.empty((len(items) if counting else 0, N_COUNTS), np.int32)
        latest, count, n_before = tables.latest, tables.n_chosen, tables.events
        if counting:
            kernels.find_counts(shown, tables, before)
            latest, count, n_before = latest[users], count[users], n_before[users]
        events = DisplayedEvents(
            offsets,
            items,
            np.where(items < self.n_trained, items, np.int32(-1)),
            n_before,
            before,
            LatestChoices(latest, count),
            self.context_items[users],
            self.context_rows[users],
        )
        # not space.n_raw, which reads every name again
        n_raw = base.shape[1] + len(self.numbers.varying)
        raw = np.empty((len(base), n_raw), np.float32)
        raw[:, : base.shape[1]] = base
        self.numbers.write(events, raw, set_size)
        self.numbers.write_products(offsets, self.factors[users], raw)
        if len(kept := self.kept):
            within = np.maximum(raw[:, kept], space.least[kept])
            raw[:, kept] = np.minimum(within, space.most[kept])
        if self.outcomes is not None:
            self.outcomes.write(shown, ids, raw, ranks)
        relate_to_sets(offsets, self.numbers.varying, set_size, raw)
        space.code.write(raw, numbers)

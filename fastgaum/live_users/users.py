"""Users of a fitted model who are shown one display after another, in a world or online."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from fastgaum import threads
from fastgaum.arrays import FloatArray, IntArray
from fastgaum.features.session_counts import SessionCounts
from fastgaum.features.sessions import places_of
from fastgaum.kernels.bag_linear import BagArrays
from fastgaum.kernels.candidate_counts import UserDisplays
from fastgaum.kernels.scorer import scorer_pass
from fastgaum.live_users.context import EncodedContext
from fastgaum.live_users.fixed_networks import FixedNetworks
from fastgaum.live_users.histories import RecurrentHistories, ReplayedHistories, rows_of
from fastgaum.nets.batches import bags_of_candidates
from fastgaum.ops.displays import DisplayBatch, parts_of
from fastgaum.ops.history import HistorySteps
from fastgaum.ops.scorer import calls_that_score


class ShownDisplays(NamedTuple):
    """A display of each of some users, and what networks read of it."""

    users: IntArray
    """each once, shape (n_events,)"""
    items: IntArray
    """training row of each candidate's item, further items after these, (n_candidates,)"""
    batch: DisplayBatch
    ranks: FloatArray | None = None
    """where candidates stand in their displays, as `SessionOutcomes.write`; None: nothing is read
    of outcomes, or of these displays"""

    @property
    def counted(self) -> UserDisplays:
        """What counts read."""
        return UserDisplays(self.users, self.batch.offsets, self.items)


Move = tuple[ShownDisplays, IntArray, FloatArray | None]
"""of some users: what each is shown, the candidate that it chose, -1 for no click, and what
followed, (n_events, n_outcomes), NaN for what is not known; None: nothing is"""


class UserStates:
    """What networks make of n users: their histories, and the states of these and of contexts.

    Attributes:
        states: state of each user's history, then its context, shape (n, state_dim).
    """

    def __init__(self, networks: FixedNetworks, n: int) -> None:
        self.networks = networks
        self.histories = (
            RecurrentHistories(networks.history, n)
            if isinstance(networks.history, HistorySteps)
            else ReplayedHistories(networks.history, n)
        )
        self.states: FloatArray = np.zeros((n, networks.state_dim), np.float32)

    def reset(self, users: IntArray | slice) -> None:
        """Forget those users' sessions; their contexts stay."""
        self.histories.reset(users)
        self.states[users, : self.networks.history_dim] = 0

    def scores(
        self,
        head: Literal["chooser", "reward"],
        users: IntArray,
        shown: DisplayBatch,
        examined: bool,
    ) -> FloatArray:
        """A scorer's scores of the candidates shown to these users, (n_candidates,)."""
        scores: FloatArray = np.zeros(len(shown.ids), np.float32)
        threads.run(scorer_pass, self.scoring(head, users, shown, examined, scores))
        return scores

    def scoring(
        self,
        head: Literal["chooser", "reward"],
        users: IntArray,
        shown: DisplayBatch,
        examined: bool,
        scores: FloatArray,
    ) -> list[tuple[object, ...]]:
        """What `scorer_pass` is called with to write these scores over zeros."""
        networks, states = self.networks, self.states[rows_of(users)]
        scorer = networks.chooser if head == "chooser" else networks.reward
        return calls_that_score(scorer, shown, states, examined, scores)

    def tell(self, users: IntArray, tokens: BagArrays) -> None:
        """Move the histories of users on by a token each."""
        if len(users):
            rows, dim = rows_of(users), self.networks.history_dim
            self.states[rows, :dim] = self.histories.advance(users, tokens)

    def give_context(self, users: npt.NDArray[np.integer], context: EncodedContext) -> None:
        """Give users the context of their event."""
        networks, rows = self.networks, self.networks.items[context.ids]
        if networks.reads_vectors and networks.fields_of_items:
            # the last row of vectors is that of no item
            last = networks.n_vectors - 1
            known = (context.items >= 0) & (context.items < last)
            vectors = networks.n_ids + np.where(known, context.items, last)
            rows[:, networks.fields_of_items] += networks.items[vectors]
        rows = rows.reshape(len(rows), rows.shape[1] * rows.shape[2])
        self.states[users, networks.history_dim :] = np.concatenate([rows, context.numbers], 1)


class Users:
    """n users with their histories, who choose by the networks of one of some fits each.

    Fits of one model read the same of a display: it is counted and encoded once for all. Where
    there are several, users come ordered by their fit (`member_of`).

    Attributes:
        members: what each fit makes of the users; the first `n_following` follow all of them.
        member_of: the fit of each user, shape (n,).
    """

    def __init__(
        self, fits: Sequence[FixedNetworks], n: int, within: bool, n_following: int = 1
    ) -> None:
        """Make n users without history, in the first fit; `within` as in `SessionCounts`."""
        self.networks, self.n, self.n_following = fits[0], n, n_following
        self.everyone: IntArray = np.arange(n, dtype=np.int32)
        self.counts = SessionCounts(self.networks.space, n, within)
        self.members = [UserStates(one, n) for one in fits]
        self.member_of: IntArray = np.zeros(n, np.int32)

    @property
    def states(self) -> FloatArray:
        """States by the first fit, (n, state_dim)."""
        return self.members[0].states

    def seen_by_first(self) -> Users:
        """The same users as the first fit takes them to be, whose states these are."""
        other = copy(self)
        other.members, other.member_of = self.members[:1], np.zeros(self.n, np.int32)
        return other

    def reset(self, users: IntArray | slice) -> None:
        """Forget those users' sessions; their contexts stay."""
        self.counts.reset(users)
        for member in self.members:
            member.reset(users)

    @property
    def may_part(self) -> bool:
        """Whether groups of users can be shown displays, and be moved on, at the same time."""
        recurrent = all(isinstance(one.histories, RecurrentHistories) for one in self.members)
        return recurrent and self.counts.outcomes is None

    def show(
        self,
        shown: UserDisplays,
        ids: IntArray,
        numbers: FloatArray,
        parts: list[tuple[int, int]],
        vectors: IntArray | None = None,
        set_size: int = 0,
    ) -> ShownDisplays:
        """Show some users a display each.

        Args:
            shown: the displays.
            ids: feature ids, (n_candidates, n_fields); those of places are written here.
            numbers: base numbers, (n_candidates, n_base), 0 where a session decides.
            parts: ranges of events that threads share.
            vectors: row of each candidate's vector, where networks read vectors.
            set_size: k where candidates are a pool, of which an average slate of k is meant.
        """
        networks, offsets = self.networks, shown.offsets
        if len(networks.ids_of_places) > 1:
            places = np.zeros_like(shown.items) if set_size else places_of(offsets)
            ids[:, networks.place_columns] = networks.ids_of_places.take(places, 0, mode="clip")
        encoded, ranks = self.counts.encode(shown, ids, numbers, parts, set_size)
        vector_ids = None
        if networks.reads_vectors:
            assert vectors is not None
            vector_ids = np.column_stack([ids, vectors + np.int32(networks.n_ids)])
        batch = DisplayBatch(offsets, ids, encoded, parts, vector_ids=vector_ids)
        return ShownDisplays(shown.users, shown.items, batch, ranks)

    def pass_by(self, shown: UserDisplays) -> ShownDisplays:
        """Show displays that no network reads and of which nothing is chosen."""
        ids, numbers = (
            np.zeros((0, 1), np.int32),
            np.zeros((0, self.networks.n_numbers), np.float32),
        )
        parts = parts_of(shown.offsets)
        batch = DisplayBatch(shown.offsets, ids, numbers, parts, vector_ids=ids)
        return ShownDisplays(shown.users, shown.items, batch)

    def scores(
        self, head: Literal["chooser", "reward"], shown: ShownDisplays, examined: bool = True
    ) -> FloatArray:
        """Scores of candidates, (n_candidates,), by each user's own fit; examined: whether places
        add to them."""
        users, batch = shown.users, shown.batch
        if len(self.members) == 1:
            return self.members[0].scores(head, users, batch, examined)
        found: FloatArray = np.zeros(len(batch.ids), np.float32)
        calls: list[tuple[object, ...]] = []
        for member, first, last in self._ranges(users):
            part = found[batch.offsets[first] : batch.offsets[last]]
            own, of_member = batch.slice(first, last), self.members[member]
            calls += of_member.scoring(head, users[first:last], own, examined, part)
        # all fits' calls at once: threads wait for each other once, not once a fit
        threads.run(scorer_pass, calls)
        return found

    def utilities(self, shown: ShownDisplays, chosen: IntArray) -> FloatArray:
        """The reward's utility of each chosen candidate, without the examination of its place,
        (n_events,), 0 for -1."""
        utilities = np.zeros(len(chosen), np.float32)
        (clicked,) = (chosen >= 0).nonzero()
        at, batch = chosen[clicked], shown.batch
        if len(at):
            offsets = np.arange(len(at) + 1, dtype=np.int32)
            further = None if batch.vector_ids is None else batch.vector_ids[at]
            ids, numbers, parts = batch.ids[at], batch.numbers[at], parts_of(offsets)
            alone = DisplayBatch(offsets, ids, numbers, parts, vector_ids=further)
            of_clicked = ShownDisplays(shown.users[clicked], shown.items[at], alone)
            utilities[clicked] = self.scores("reward", of_clicked, examined=False)
        return utilities

    def move(self, moves: Sequence[Move]) -> None:
        """Move groups of users on; several only where they `may_part`: threads share them."""
        if self.counts.counting:
            widest = [np.diff(shown.batch.offsets).max(initial=0) for shown, *_ in moves]
            self.counts.make_room(int(max(widest)))
        threads.run(self._move, moves)

    def _move(self, shown: ShownDisplays, chosen: IntArray, outcomes: FloatArray | None) -> None:
        batch, n_outcomes = shown.batch, self.networks.n_outcomes
        if n_outcomes and outcomes is None:
            outcomes = np.full((len(chosen), n_outcomes), np.nan, np.float32)
        if outcomes is not None and self.counts.outcomes is not None:
            ranks = np.empty((0, 0), np.float32) if shown.ranks is None else shown.ranks
            self.counts.outcomes.add(shown.counted, batch.ids, ranks, chosen, outcomes)
        self.counts.count(shown.counted, chosen, batch.parts)
        ids = batch.ids
        if self.networks.history_reads_vectors:
            assert batch.vector_ids is not None
            ids = batch.vector_ids
        tokens = BagArrays(*bags_of_candidates(ids, batch.numbers, chosen))
        if outcomes is not None:
            followed = self.networks.space.encode_outcomes(outcomes)
            tokens = tokens._replace(numbers=np.concatenate([tokens.numbers, followed], 1))
        self.tell(shown.users, tokens)

    def act(self, users: IntArray, ids: IntArray) -> None:
        """Move users on by an action each, feature ids (n_users, ·)."""
        offsets = np.arange(len(ids) + 1, dtype=np.int32) * np.int32(ids.shape[1])
        n_numbers = self.networks.n_numbers + self.networks.n_outcomes
        numbers = np.zeros((len(ids), n_numbers), np.float32)
        self.tell(users, BagArrays(np.ascontiguousarray(ids).ravel(), offsets, numbers))

    def tell(self, users: IntArray, tokens: BagArrays) -> None:
        """Move the histories of users on by a token each."""
        for follower in self.members[: self.n_following]:
            follower.tell(users, tokens)
        if len(self.members) == self.n_following:
            return
        ids, offsets, numbers = tokens
        for member, first, last in self._ranges(users):
            if member >= self.n_following:
                start, stop = offsets[first], offsets[last]
                own = BagArrays(
                    ids[start:stop], offsets[first : last + 1] - start, numbers[first:last]
                )
                self.members[member].tell(users[first:last], own)

    def give_context(self, users: npt.NDArray[np.integer], context: EncodedContext) -> None:
        """Give users the context of their event."""
        for member in self.members:
            member.give_context(users, context)
        self.counts.context_items[users] = context.items
        rows = context.ids - self.networks.context_starts
        # items may share ids
        trained = context.items < self.counts.n_trained
        rows[:, self.networks.fields_of_items] = np.where(trained, context.items, -1)
        self.counts.context_rows[users] = rows
        self.counts.factors[users] = context.factors

    def _ranges(self, users: IntArray) -> Iterator[tuple[int, int, int]]:
        """Each fit that some of these users have, its first user, and the one after its last."""
        fits = self.member_of[users]
        assert (fits[1:] >= fits[:-1]).all(), "users come ordered by their fit"
        bounds = np.searchsorted(fits, np.arange(len(self.members) + 1)).tolist()
        for member, (first, last) in enumerate(pairwise(bounds)):
            if first < last:
                yield member, first, last

"""Sessions of a log, in which users of a learned world begin, and whose contexts they have: those
of the events of a session that the user's key draws, in order, then the last one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from fastgaum.arrays import BoolArray, IntArray, KeyArray, LongArray
from fastgaum.errors import ConfigError, LogFormatError
from fastgaum.features.encoder import Encoder
from fastgaum.features.sessions import select_sessions
from fastgaum.kernels.draws import uniforms
from fastgaum.live_users.context import ContextRows, EncodedContext
from fastgaum.live_users.item_catalogue import Catalogue
from fastgaum.live_users.users import ShownDisplays, Users
from fastgaum.logs.cut import pick_rows
from fastgaum.logs.log import SessionLog, SplitName
from fastgaum.ops.displays import DisplayBatch, parts_of
from fastgaum.worlds.world import NO_ITEM, Past

_SESSION, _LENGTH = np.uint64(1), np.uint64(2)
"""streams of a reset's key"""


class LoggedContexts:
    """The contexts of some sessions of a log, event by event; `session_offsets` has their starts,
    shape (n_sessions + 1,)."""

    def __init__(self, rows: ContextRows, log: SessionLog, sessions: IntArray) -> None:
        """Read them. Raises as `ContextRows.of_log`."""
        offsets, events = pick_rows(log.session_offsets, sessions)
        self.session_offsets: LongArray = offsets.astype(np.int64)
        self.contexts = rows.of_log(log, events)


def drawn_sessions(keys: KeyArray, session_offsets: npt.NDArray[np.integer]) -> LongArray:
    """A session for each key, and how many of its events go before a logged start; shape (2, n)."""
    keys, draws = np.ascontiguousarray(keys, np.uint64), np.empty((2, len(keys)))
    uniforms(keys, _SESSION, draws[0])
    uniforms(keys, _LENGTH, draws[1])
    sessions = (draws[0] * (len(session_offsets) - 1)).astype(np.int64)
    return np.stack([sessions, (draws[1] * np.diff(session_offsets)[sessions]).astype(np.int64)])


class UserContexts:
    """The contexts of the users of a learned world now."""

    def __init__(
        self, rows: ContextRows, logged: LoggedContexts | None, starts: bool, users: Users
    ) -> None:
        self.rows, self.logged, self.starts, self.users = rows, logged, starts, users
        self.known: BoolArray = np.zeros(users.n, np.bool_)
        self.events: LongArray = np.full(users.n, -1, np.int64)
        """logged event that each user is at, -1: none"""
        self.last_events = self.events.copy()

    def reset(self, users: IntArray, keys: KeyArray) -> None:
        """Forget those users' contexts, and draw their sessions if there is a log."""
        self.known[users] = False
        if self.logged is None:
            return
        offsets = self.logged.session_offsets
        sessions, before = drawn_sessions(keys, offsets)
        self.events[users] = offsets[sessions] + (before if self.starts else 0)
        self.last_events[users] = offsets[sessions + 1] - 1
        self.put(self.logged.contexts.of(self.events[users]), users)

    def put(self, context: EncodedContext, users: IntArray) -> None:
        """Take the contexts of those users, in that order; nothing is checked."""
        self.users.give_context(users, context)
        self.known[users] = True

    def require(self, users: IntArray) -> None:
        """Raise ConfigError unless every one of these users has a context."""
        known = self.known[users]
        if known.all():
            return
        user = users[known.argmin()]
        if self.logged is not None:
            raise ConfigError(
                f"user {user} has no context yet: call reset with keys first, which draws each "
                "user's logged session"
            )
        raise ConfigError(
            f"user {user} has no context, and the model reads the context fields "
            f"{', '.join(self.rows.space.context_holds)}: make the world with a log, "
            "--log LOG (log=…), so that reset draws each user's contexts from a logged "
            "session, or give a step its context (context=world.context_of(…))"
        )

    def move_on(self, users: IntArray) -> None:
        """After a step take the context of the users' next logged events."""
        users = users[self.events[users] >= 0]
        if self.logged is not None and len(users):
            self.events[users] = np.minimum(self.events[users] + 1, self.last_events[users])
            self.put(self.logged.contexts.of(self.events[users]), users)


class LoggedStarts:
    """Prefixes of the sessions of one split of a log; items that training never displayed are
    one."""

    def __init__(
        self, catalogue: Catalogue, log: SessionLog, split: SplitName, no_click: bool
    ) -> None:
        """Read them; `no_click`: whether no click is a choice. Raises LogFormatError for a split
        without a session, and for events without a choice where that is none."""
        rows = log.sessions_in(split)
        if len(rows) == 0:
            raise LogFormatError(
                f"log '{log.name}' has no session in split '{split}' to start users from"
            )
        encoder = Encoder(catalogue.space, log)
        encoded = encoder.encode(rows)
        if not no_click and (encoded.choices < 0).any():
            raise LogFormatError(
                f"log '{log.name}' has events without a choice, and the model's users always "
                "choose: train it with no_click='auto' or 'always'"
            )
        self.session_offsets = encoded.session_offsets
        self.display_offsets = encoded.display_offsets
        self.choices, self.ids, self.numbers = encoded.choices, encoded.ids, encoded.numbers
        # a further item is unknown here: space rows do not tell one from another
        self.n_known = catalogue.n_items
        known = encoder.known_rows(select_sessions(log, encoded.rows))
        self.items = np.where(known < 0, np.int32(self.n_known), known)
        self.actions = encoded.actions
        self.outcomes = self.ranks = None
        if catalogue.space.outcomes:
            reads = encoder.outcome_numbers
            self.ranks = reads.ranks_of(encoded.display_offsets, encoded.base)
            self.outcomes = encoder.coded.outcomes[select_sessions(log, encoded.rows).events]

    def past(self, keys: KeyArray) -> Iterator[Past]:
        """The prefixes that these keys draw, event by event, as items of the catalogue."""
        sessions, lengths = drawn_sessions(keys, self.session_offsets)
        for t in range(int(lengths.max(initial=0))):
            now = np.flatnonzero(lengths > t)
            events = self.session_offsets[sessions[now]] + t
            starts = self.display_offsets[events]
            sizes = self.display_offsets[events + 1] - starts
            places = np.arange(int(sizes.max()))
            items = self.items[np.minimum(starts[:, None] + places, len(self.items) - 1)]
            slates = np.full((len(keys), len(places)), NO_ITEM, np.int32)
            choices = np.full(len(keys), -1, np.int32)
            slates[now] = np.where(
                (places < sizes[:, None]) & (items < self.n_known), items, NO_ITEM
            )
            choices[now] = self.choices[events]
            yield Past(slates, choices, lengths > t)

    def play(self, users: Users, who: IntArray, keys: KeyArray) -> None:
        """Let the users `who`, who have no history, see and choose what is in their prefixes."""
        sessions, lengths = drawn_sessions(keys, self.session_offsets)
        first_events, networks = self.session_offsets[sessions], users.networks
        for t in range(int(lengths.max(initial=-1)) + 1):
            if self.actions is not None:
                # those before the event that users stand at are done too
                there = np.flatnonzero(lengths >= t)
                offsets, actions = pick_rows(self.actions.offsets, first_events[there] + t)
                n_done = np.diff(offsets)
                for number in range(int(n_done.max(initial=0))):
                    some = np.flatnonzero(n_done > number)
                    ids = self.actions.ids[actions[offsets[some] + number]]
                    users.act(who[there[some]], ids)
            now = np.flatnonzero(lengths > t)
            if not len(now):
                break
            events = first_events[now] + t
            offsets, at = pick_rows(self.display_offsets, events)
            choices, items, ids = self.choices[events], self.items[at], self.ids[at]
            vector_ids = None
            if networks.reads_vectors:
                vector_ids = np.column_stack([ids, items + np.int32(networks.n_ids)])
            numbers, parts = self.numbers[at], parts_of(offsets)
            batch = DisplayBatch(offsets, ids, numbers, parts, vector_ids=vector_ids)
            chosen = np.where(choices >= 0, offsets[:-1] + choices, np.int32(-1))
            ranks = None if self.ranks is None else self.ranks[at]
            outcomes = None if self.outcomes is None else self.outcomes[events]
            users.move([(ShownDisplays(who[now], items, batch, ranks), chosen, outcomes)])

"""The context of a learned world's events: what is known of an event beside the slate.

A user's state is what the history says, then what the context of the event now says. A context is
given with a step. In a world with a log none has to be given: each user draws a logged session by
its key and takes the contexts of that session's events in order; after the last event it keeps the
last one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.arrays import BoolArray, FloatArray, IntArray, KeyArray
from fastgaum.errors import ConfigError, did_you_mean
from fastgaum.kernels.draws import uniforms
from fastgaum.logs.columns import MOST_NUMBER, Vocabulary
from fastgaum.logs.log import SessionLog
from fastgaum.models.users import Users
from fastgaum.worlds.catalogue import Catalogue

_SESSION, _LENGTH = np.uint64(1), np.uint64(2)
"""streams of a reset's key"""
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class EncodedContext:
    """The context of one event of each of n users; `LearnedWorld.context_of` makes it of values."""

    ids: IntArray
    """feature id of each field of categories or items, shape (n, n_fields)"""
    items: IntArray
    """the world's item in each field of items, -1 for none, shape (n, n_fields_of_items)"""
    numbers: FloatArray
    """each field of numbers, standardised, shape (n, n_numbers)"""

    def of(self, rows: npt.NDArray[np.integer]) -> EncodedContext:
        """The contexts of those users or events, in that order."""
        return EncodedContext(self.ids[rows], self.items[rows], self.numbers[rows])


@dataclass(frozen=True)
class SetContext:
    """The context of one event of each of n users, as each member of a set of worlds encodes it;
    `WorldSet.context_of` makes it of values."""

    members: tuple[EncodedContext | None, ...]
    """None for a member whose model reads no context"""


Context = EncodedContext | SetContext


class ContextRows:
    """Encodes the context of events."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue, self.space = catalogue, catalogue.space
        self.starts = np.array([part.start for part in self.space.context], np.int32)
        self.stops = np.array([part.stop for part in self.space.context], np.int32)

    def of(
        self, values: Mapping[str, Sequence[object] | npt.NDArray[np.generic]]
    ) -> EncodedContext:
        """The context of values by field, one value for each user.

        Raises:
            ConfigError: a field is missing or unknown, has values of another kind or number than
                the others, or a number is not finite.
        """
        names = tuple(self.space.context_holds)
        for name in values:
            if name not in names:
                raise ConfigError(
                    f"the model's context fields are {', '.join(names)}, got '{name}'"
                    f"{did_you_mean(name, names)}"
                )
        if missing := [name for name in names if name not in values]:
            raise ConfigError(
                f"the context has no field '{missing[0]}': give each of {', '.join(names)}"
            )
        columns = {name: _column(name, values[name]) for name in names}
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ConfigError(
                "the fields of a context have one value for each user, got "
                + ", ".join(f"{length} in '{name}'" for name, length in lengths.items())
            )
        space, n = self.space, lengths[names[0]]
        ids = np.empty((n, len(space.context)), np.int32)
        for at, part in enumerate(space.context):
            ids[:, at] = Vocabulary(part.values).codes(_texts(columns[part.name]))
            ids[:, at] += np.int32(part.start + 1)
        items, known = np.empty((n, len(space.fields_of_items)), np.int32), self.catalogue.item_ids
        for at, name in enumerate(space.fields_of_items):
            items[:, at] = Vocabulary(known).codes(_texts(columns[name]))
        numbers = np.empty((n, len(space.context_number_names)), np.float32)
        for at, name in enumerate(space.context_number_names):
            numbers[:, at] = _numbers(columns[name])
        return EncodedContext(ids, items, (numbers - space.context_mean) / space.context_scale)

    def checked(self, context: Context, n: int) -> EncodedContext:
        """A context of n users, as it is read without looking at bounds.

        Raises:
            ConfigError: it has another shape, an id or item that there is not, or a number that is
                not finite.
        """
        space = self.space
        if not isinstance(context, EncodedContext):
            raise ConfigError(
                "a step takes the context that the world's context_of makes of values, got a "
                f"{type(context).__name__}: pass context=world.context_of(…)"
            )
        shapes = len(space.context), len(space.fields_of_items), len(space.context_number_names)
        parts = context.ids, context.items, context.numbers
        for what, part, width in zip(("ids", "items", "numbers"), parts, shapes, strict=True):
            if np.shape(part) != (n, width):
                raise ConfigError(
                    f"the {what} of a context have the shape ({n}, {width}) for {n} users, got "
                    f"{np.shape(part)}: make it with the world's context_of"
                )
        ids, items = context.ids, context.items
        outside = (ids < self.starts) | (ids >= self.stops)
        if outside.any():
            field = space.context[int(outside.any(axis=0).argmax())]
            raise ConfigError(
                f"the context has the id {ids[outside][0]}, those of '{field.name}' are "
                f"{field.start} … {field.stop - 1}: make it with the world's context_of"
            )
        if items.size and not -1 <= items.min() <= items.max() < self.catalogue.n_items:
            raise ConfigError(
                f"the context has the items {items.min()} … {items.max()}, the world's are 0 … "
                f"{self.catalogue.n_items - 1}, and -1 for none: make it with the world's "
                "context_of"
            )
        if not np.isfinite(context.numbers).all():
            raise ConfigError(
                "the context has a number that is not finite: make it with the world's context_of"
            )
        return context


class LoggedContexts:
    """The contexts of some sessions of a log, event by event.

    Attributes:
        session_offsets: start of each session in events, shape (n_sessions + 1,).
    """

    def __init__(self, rows: ContextRows, log: SessionLog, sessions: IntArray) -> None:
        """Read the sessions' contexts. Raises FeatureMismatchError if the log's fields are not
        those of the training log, LogFormatError for a number that is not finite."""
        starts, lengths = log.session_offsets[sessions], np.diff(log.session_offsets)[sessions]
        self.session_offsets: Int64Array = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        events = np.repeat(starts - self.session_offsets[:-1], lengths)
        events = (events + np.arange(len(events))).astype(np.int32)
        encoder = rows.space.encoder(log).context
        item_of_code = Vocabulary(rows.catalogue.item_ids).codes(log.item_ids)
        # one entry more: a value that is no item of the log
        items = np.append(item_of_code, np.int32(-1))[encoder.items(events)]
        self.contexts = EncodedContext(encoder.ids(events), items, encoder.numbers(events))

    def at(self, events: Int64Array) -> EncodedContext:
        """The contexts of those events."""
        return self.contexts.of(events)


def drawn_sessions(keys: KeyArray, session_offsets: npt.NDArray[np.integer]) -> Int64Array:
    """A session for each key, and how many of its events went before where users do not start
    empty: 0 … all but one; shape (2, n)."""
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
        """Make room.

        Args:
            rows: the world's.
            logged: where contexts come from if none is given.
            starts: whether users begin within a logged session.
            users: whose states and counts the contexts are written to.
        """
        self.rows, self.logged, self.starts, self.users = rows, logged, starts, users
        self.known: BoolArray = np.zeros(users.n, np.bool_)
        self.events: Int64Array = np.full(users.n, -1, np.int64)
        """logged event whose context each user has, -1 where none is drawn"""
        self.last_events = self.events.copy()

    def reset(self, users: IntArray | slice, keys: KeyArray) -> None:
        """Forget those users' contexts, and draw the session that theirs come from, if there is a
        log."""
        self.known[users] = False
        if self.logged is None:
            return
        offsets = self.logged.session_offsets
        sessions, before = drawn_sessions(keys, offsets)
        self.events[users] = offsets[sessions] + (before if self.starts else 0)
        self.last_events[users] = offsets[sessions + 1] - 1
        self.put(self.logged.at(self.events[users]), users)

    def give(self, context: Context, active: BoolArray) -> None:
        """Take the context of an event of all users, for the active ones. Raises ConfigError for a
        wrong shape, id or item."""
        encoded, users = self.rows.checked(context, len(self.known)), np.flatnonzero(active)
        self.put(encoded.of(users), users.astype(np.int32))

    def put(self, context: EncodedContext, users: IntArray | slice) -> None:
        """Take the contexts of those users, in that order; nothing is checked."""
        # the last row of vectors is that of no item
        n = self.rows.catalogue.n_items
        vectors = np.where(context.items < 0, n, context.items)
        given = vectors if self.users.networks.reads_vectors else None
        self.users.give_context(users, context.ids, context.items, context.numbers, given)
        self.known[users] = True

    def require(self, active: BoolArray) -> None:
        """Raise ConfigError unless every active user has a context."""
        if (lacking := active & ~self.known).any() and self.logged is not None:
            raise ConfigError(
                f"user {lacking.argmax()} has no context yet: call reset with keys first, which "
                "draws each user's logged session"
            )
        if lacking.any():
            raise ConfigError(
                f"user {lacking.argmax()} has no context, and the model reads the context fields "
                f"{', '.join(self.rows.space.context_holds)}: make the world with a log, "
                "--log LOG (log=…), so that reset draws each user's contexts from a logged "
                "session, or give a step its context (context=world.context_of(…))"
            )

    def move_on(self, active: BoolArray) -> None:
        """After a step take the context of the active users' next logged events."""
        users = np.flatnonzero(active & (self.events >= 0)).astype(np.int32)
        if self.logged is not None and len(users):
            self.events[users] = np.minimum(self.events[users] + 1, self.last_events[users])
            self.put(self.logged.at(self.events[users]), users)


def _column(name: str, values: object) -> pl.Series:
    """The values of a field, one for each user."""
    column: pl.Series | None = None
    with suppress(TypeError, ValueError, pl.exceptions.PolarsError):
        column = pl.Series(name, _of_one_type(values))
    # polars makes a column of the characters of a text
    if (
        column is None
        or isinstance(values, str)
        or column.dtype.is_nested()
        or column.dtype == pl.Object
    ):
        raise ConfigError(
            f"the context field '{name}' takes a row of values of one kind, one for each user, got "
            f"{values!r}"
        )
    return column


def _of_one_type(values: Any) -> Any:
    """Whole numbers beside others as floats: polars takes no such list."""
    if isinstance(values, list | tuple) and {type(value) for value in values} == {int, float}:
        return np.array(values, np.float64)
    return values


def _texts(column: pl.Series) -> pl.Series:
    """The values of a field of categories or items, as a log has them."""
    if column.dtype.is_float() or column.dtype == pl.Boolean:
        raise ConfigError(
            f"the context field '{column.name}' holds categories, got {column.dtype}: give text or "
            "whole numbers, as the training log has"
        )
    return column.cast(pl.String)


def _numbers(column: pl.Series) -> FloatArray:
    """The values of a field of numbers."""
    if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        raise ConfigError(
            f"the context field '{column.name}' holds numbers in the training log, got "
            f"{column.dtype}: give numbers"
        )
    values = column.cast(pl.Float32).fill_null(np.nan).to_numpy()
    # a NaN fails the comparison
    if not (allowed := np.abs(values) <= MOST_NUMBER).all():
        raise ConfigError(
            f"the context field '{column.name}' has {values[~allowed][0]:g} for user "
            f"{(~allowed).argmax()}, a number between -{MOST_NUMBER:g} and {MOST_NUMBER:g} is "
            "required"
        )
    return values

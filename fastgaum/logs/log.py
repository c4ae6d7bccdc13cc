"""SessionLog: a log as a ragged two-level structure, session → event → candidate, without padding.

Two sessions, the first of two events (3 and 2 candidates), the second of one:

    session_offsets [0, 2, 3]               session 0 holds events 0 and 1
    display_offsets [0, 3, 5, 7]            event 0 displays candidates 0, 1, 2
    items           [4, 0, 2, 0, 1, 3, 4]
    choices         [2, 0, -1]              events 0 and 1 chose items 2 and 0; event 2 none
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.arrays import BoolArray, Float64Array, FloatArray, IntArray
from fastgaum.errors import LogFormatError, as_given, no_log, require_known
from fastgaum.forks import require_threads
from fastgaum.html_view import html_view
from fastgaum.logs.actions import Actions
from fastgaum.logs.clicks import CLICKS_SO_FAR, ClickFacts, is_successive
from fastgaum.logs.hashes import Hashes, hash_texts
from fastgaum.logs.options import MOST_GRID, ReadOptions

if TYPE_CHECKING:
    from fastgaum.kernels.candidate_counts import PackedSessions

SPLITS: tuple[str, ...] = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = 0, 1, 2
NO_CLICK = -1
SplitName = Literal["train", "validation", "test", "all"]
Counted = Literal["sessions", "events", "choices", "candidates", "actions"]
Of = Literal["session", "user", "event", "candidate", "item", "outcome"]
"""what an array of a log has an entry of; one of users has an entry for each session, one of
outcomes for each event"""
Kind = Literal["number", "category", "vector"]

MOST_USERS = 2**31 - 1
ALIKE: npt.NDArray[np.float64] = np.ones(1)
"""rates of choices of places whose order says nothing"""


def effective_events(weights: npt.NDArray[np.floating] | None) -> float | None:
    """How many events of one weight say as much as events of these weights, (Σw)²/Σw²; None where
    all weights are equal, shape (n_events,).

    >>> effective_events(np.array([1.0, 1.0, 1.0, 3.0]))
    3.0
    """
    if weights is None or len(weights) == 0 or (weights == weights[0]).all():
        return None
    shares = weights.astype(np.float64) / weights.max()
    return float(shares.sum() ** 2 / (shares**2).sum())


def worth_text(n_events: int, effective: float) -> str:
    """A number of effective events in words."""
    return (
        f"weights differ: {n_events:,} events are worth {effective:,.1f} events of one weight, "
        "(Σw)²/Σw²"
    )


class PackedArrays:
    """Base of packed sessions: a log's, encoded ones, a batch's."""

    session_offsets: IntArray
    display_offsets: IntArray
    choices: IntArray
    weights: FloatArray | None = None

    @property
    def weight_of_event(self) -> Float64Array:
        """Weight of each event, 1 without any, shape (n_events,)."""
        weights = self.weights
        return np.ones(self.n_events) if weights is None else weights.astype(np.float64)

    @property
    def n_sessions(self) -> int:
        """Number of sessions."""
        return len(self.session_offsets) - 1

    @property
    def n_events(self) -> int:
        """Number of events (display sets)."""
        return len(self.display_offsets) - 1

    @property
    def event_number(self) -> IntArray:
        """Events before an event in its session, shape (n_events,): [0, 2, 3] → [0, 1, 0]."""
        starts = self.session_offsets
        return (np.arange(starts[-1]) - np.repeat(starts[:-1], np.diff(starts))).astype(np.int32)

    def event_of_candidate(self) -> IntArray:
        """Event of each candidate, shape (n_candidates,)."""
        return np.repeat(np.arange(self.n_events, dtype=np.int32), np.diff(self.display_offsets))

    @property
    def chosen_candidates(self) -> npt.NDArray[np.int64]:
        """Row of each click's candidate, shape (n_clicks,)."""
        choices = self.choices
        clicked = choices >= 0
        starts = self.display_offsets[:-1]
        return (starts[clicked] + choices[clicked]).astype(np.int64)


@dataclass(frozen=True)
class Column:
    """A further column of a log."""

    of: Of
    values: npt.NDArray[Any]
    """float32 numbers or int32 codes, shape (n,); or float32 vectors, shape (n, d). NaN and code -1
    of an outcome: there was no choice, or nobody knows what followed"""
    texts: pl.Series | None = None
    """the text of each code, distinct; code -1 is a missing value"""

    @property
    def holds(self) -> Kind:
        """Whether values are numbers, codes of categories, or vectors."""
        if self.values.ndim == 2:
            return "vector"
        return "number" if self.texts is None else "category"

    @property
    def categories(self) -> pl.Series:
        """The texts of a column of categories."""
        assert self.texts is not None
        return self.texts

    def with_values(self, values: npt.NDArray[Any]) -> Column:
        """The column with other values of its kind."""
        return dataclasses.replace(self, values=values)


@dataclass(frozen=True)
class SessionLog(PackedArrays):
    """Sessions of events, each one display set and one choice, packed in read-only arrays.

    The order within a display set means nothing unless `ordered` is true. Raises LogFormatError if
    arrays disagree: their types, lengths, offsets, codes or choices."""

    session_offsets: IntArray
    """start of each session in events, shape (n_sessions + 1,)"""
    display_offsets: IntArray
    """start of each display set in candidates, shape (n_events + 1,)"""
    items: IntArray = field(metadata={"of": "candidate"})
    """item code of each candidate, distinct within a display set, shape (n_candidates,)"""
    choices: IntArray = field(metadata={"of": "event"})
    """position of the choice in its display set, -1 for no click, shape (n_events,)"""
    split: npt.NDArray[np.int8] = field(metadata={"of": "session"})
    """0 train, 1 validation, 2 test, shape (n_sessions,)"""
    users: IntArray = field(metadata={"of": "session"})
    """user of each session, shape (n_sessions,)"""
    session_ids: pl.Series = field(metadata={"of": "session"})
    """the log's own ids, length n_sessions"""
    event_ids: pl.Series = field(metadata={"of": "event"})
    """the log's own event labels (order, time), length n_events"""
    item_ids: pl.Series = field(metadata={"of": "item"})
    """the log's own ids, of items that only actions name too, length n_items"""
    views: npt.NDArray[np.uint16] | None = field(default=None, metadata={"of": "candidate"})
    """rows without a click of each candidate, at least 1, shape (n_candidates,)"""
    weights: FloatArray | None = field(default=None, metadata={"of": "event"})
    """of each event in fits and figures, finite and above 0, shape (n_events,); None: all alike"""
    weighted_by: str = ""
    """column that weights were read from; empty: unknown"""
    columns: Mapping[str, Column] = field(default_factory=dict)
    """further columns by name: of items and candidates their fields, of events and users context,
    of outcomes what followed the choice of an event"""
    ordered: bool = False
    grid: int = 0
    """columns of the grid that a display fills row by row; 0: none"""
    name: str = "log"
    clicks: ClickFacts = field(default_factory=ClickFacts)
    """how several clicks and clicks outside a display were read"""
    actions: Actions | None = None
    """None: nothing is logged"""
    user_ids: pl.Series | None = field(default=None, metadata={"of": "user"})
    """the log's own id of each session's user, length n_sessions; None: `users` are the ids"""
    reading: ReadOptions | None = None
    """the options it was read with; None for a log that was saved, or made otherwise"""

    def __post_init__(self) -> None:
        try:
            _check_arrays(self)
        except ValueError as error:
            raise LogFormatError(
                f"log '{self.name}': {error}; correct the arrays, or let fastgaum.read_log make a "
                "log of a frame"
            ) from error
        _make_read_only(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # arrays that were pickled come back as ones that can be written to
        self.__dict__.update(state)
        self.__post_init__()

    @classmethod
    def empty(cls, item_ids: pl.Series) -> SessionLog:
        """A log of these items without a session."""
        none, start = np.zeros(0, np.int32), np.zeros(1, np.int32)
        return cls(
            session_offsets=start,
            display_offsets=start,
            items=none,
            choices=none,
            split=np.zeros(0, np.int8),
            users=none,
            session_ids=pl.Series("session", [], dtype=pl.String),
            event_ids=pl.Series("event", []),
            item_ids=item_ids.rename("item"),
        )

    def __repr__(self) -> str:
        sizes = ("sessions", "events", "candidates", "items")
        parts = [f"{getattr(self, f'n_{what}'):,} {what}" for what in sizes]
        parts += [] if self.actions is None else [f"{self.n_actions:,} actions"]
        parts += [] if self.weights is None else ["event weights"]
        for of in ("candidate", "event", "user", "item"):
            names = ", ".join(self.columns_of(of))
            parts += [f"{of} fields {names}"] if names else []
        parts += [f"outcomes {', '.join(self.outcomes)}"] if self.outcomes else []
        parts += [f"item vectors {', '.join(self.vectors)}"] if self.vectors else []
        return f"SessionLog('{self.name}', {', '.join(parts)})"

    def _repr_html_(self) -> str:
        """Text of a notebook: the sizes of each split, and the columns."""
        counts = self.counts().items()
        rows = [[what, *(f"{n:,}" for n in (*ns, sum(ns)))] for what, ns in counts if any(ns)]
        notes = [f"{self.n_items:,} items"]
        notes += [f"{name}: {one.holds}, of the {one.of}" for name, one in self.columns.items()]
        return html_view(f"Log '{self.name}'", ["", *SPLITS, "all"], rows, notes)

    def arrays(self) -> dict[str, tuple[Of, Any]]:
        """All arrays and texts but the offsets, by name: what each has an entry of, and its
        values."""
        own = {role: (of, getattr(self, role)) for role, of in ROLES.items()}
        given = {role: one for role, one in own.items() if one[1] is not None}
        columns = self.columns.items()
        return given | {f"{one.of}.{name}": (one.of, one.values) for name, one in columns}

    def columns_of(self, *kinds: Of) -> dict[str, Column]:
        """The columns of numbers and categories that are of one of these."""
        return {
            name: column
            for name, column in self.columns.items()
            if column.of in kinds and column.holds != "vector"
        }

    @property
    def context(self) -> dict[str, Column]:
        """The columns of events and of their users."""
        return self.columns_of("event", "user")

    @property
    def outcomes(self) -> dict[str, Column]:
        """What followed choices, by name, in the order of names."""
        return dict(sorted(self.columns_of("outcome").items()))

    @property
    def vectors(self) -> dict[str, FloatArray]:
        """Vectors of the items by name, each of shape (n_items, d)."""
        columns = self.columns.items()
        return {name: column.values for name, column in columns if column.holds == "vector"}

    def values_at(
        self, name: str, rows: IntArray | BoolArray | slice = slice(None)
    ) -> npt.NDArray[Any]:
        """A column at some candidates, or at some events."""
        column = self.columns[name]
        of_row = {"item": self.items, "user": self.session_of_event}.get(column.of)
        return column.values[rows if of_row is None else of_row[rows]]

    def picked(self, **rows: npt.NDArray[np.integer]) -> dict[str, Any]:
        """Arrays and columns at rows of `candidate=`, `event=` or `session=`, for
        `dataclasses.replace`."""
        if "session" in rows:
            rows["user"] = rows["session"]
        if "event" in rows:
            rows["outcome"] = rows["event"]
        changes: dict[str, Any] = {
            role: values.gather(rows[of]) if isinstance(values, pl.Series) else values[rows[of]]
            for role, of in ROLES.items()
            if of in rows and (values := getattr(self, role)) is not None
        }
        columns = {
            name: one.with_values(one.values[rows[one.of]]) if one.of in rows else one
            for name, one in self.columns.items()
        }
        return changes | {"columns": columns}

    @property
    def n_candidates(self) -> int:
        """Number of displayed candidates."""
        return len(self.items)

    @property
    def n_items(self) -> int:
        """Number of items in the vocabulary."""
        return len(self.item_ids)

    @property
    def n_actions(self) -> int:
        """Number of actions."""
        return 0 if self.actions is None else self.actions.n_actions

    @property
    def has_no_click(self) -> bool:
        """Whether any event ends without a choice."""
        return bool((self.choices == NO_CLICK).any())

    @cached_property
    def session_of_event(self) -> IntArray:
        """Session of each event, shape (n_events,)."""
        return np.repeat(np.arange(self.n_sessions, dtype=np.int32), np.diff(self.session_offsets))

    @property
    def first_choices(self) -> BoolArray:
        """Whether an event is the first choice of its display, shape (n_events,); with
        `clicks="each"` some are not."""
        if not is_successive(self.context):
            return np.ones(self.n_events, np.bool_)
        first: BoolArray = self.columns[CLICKS_SO_FAR].values == 0
        return first

    def sessions_in(self, split: SplitName) -> IntArray:
        """Rows of the sessions of one split, ascending."""
        if split == "all":
            return np.arange(self.n_sessions, dtype=np.int32)
        return np.flatnonzero(self.split == SPLITS.index(split)).astype(np.int32)

    @cached_property
    def user_hashes(self) -> Hashes:
        """64-bit hash of the id of each session's user, shape (n_sessions,)."""
        ids = self.user_ids
        return hash_texts(pl.Series(self.users).cast(pl.String) if ids is None else ids)

    def with_split(self, split: npt.NDArray[np.int8]) -> SessionLog:
        """The same log with another split, shape (n_sessions,)."""
        return dataclasses.replace(self, split=split)

    def counts(self) -> dict[str, tuple[int, ...]]:
        """Sessions, events, choices, candidates and actions of each split."""
        starts, n = self.session_offsets, self.n_sessions
        clicked = self.session_of_event[self.choices >= 0]
        acted = np.zeros(self.n_events + 1) if self.actions is None else self.actions.offsets
        of_sessions = {
            "sessions": np.ones(n),
            "events": np.diff(starts),
            "choices": np.bincount(clicked, minlength=n),
            "candidates": np.diff(self.display_offsets[starts]),
            "actions": np.diff(acted[starts]),
        }
        return {
            what: tuple(int(m) for m in np.bincount(self.split, weights=numbers, minlength=3))
            for what, numbers in of_sessions.items()
        }

    def count(self, what: Counted, split: SplitName = "all") -> int:
        """Number of sessions, events, choices, candidates or actions of a split."""
        of_splits = self.counts()[what]
        return sum(of_splits) if split == "all" else of_splits[SPLITS.index(split)]

    def packed_sessions(self) -> PackedSessions:
        """The sessions as the kernels read them."""
        from fastgaum.kernels.candidate_counts import PackedSessions

        arrays = (self.session_offsets, self.display_offsets, self.items, self.choices)
        return PackedSessions(*(np.asarray(array) for array in arrays))

    def training_counts(self, rates: npt.NDArray[np.floating] = ALIKE) -> ItemCounts:
        """Count the training split's displays and choices of each item.

        rates: of choices by place, the last for all further places, shape (n_places,)."""
        # numba takes half a second to import, and most users of a log count nothing
        from fastgaum.kernels.candidate_counts import TrainingTotals, count_items

        counts = ItemCounts.zeros(self.n_items)
        totals = TrainingTotals(counts.displays, counts.choices, counts.expected)
        count_items(self.sessions_in("train"), self.packed_sessions(), rates, totals)
        return counts

    @cached_property
    def fingerprint(self) -> str:
        """A sha256 over the packed arrays, columns, split and ids."""
        parts: dict[str, Any] = {name: values for name, (_, values) in self.arrays().items()}
        for name in ("event_ids", "user_ids"):
            parts.pop(name, None)
        parts |= {"sessions": self.session_offsets, "displays": self.display_offsets}
        parts |= {f"texts of {name}": column.texts for name, column in self.columns.items()}
        if self.actions is not None:
            parts |= {f"actions: {name}": part for name, part in vars(self.actions).items()}
        parts["grid"] = np.array([self.grid])
        whole = hashlib.sha256()
        for name, values in sorted(parts.items()):
            if isinstance(values, pl.Series):
                whole.update(f"{name} {len(values)}\n".encode())
                ended = values.cast(pl.String).fill_null("None") + "\0"
                whole.update((ended.str.join().item() or "").encode())
            elif isinstance(values, np.ndarray):
                whole.update(f"{name} {values.dtype} {values.shape}\n".encode())
                whole.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
        return whole.hexdigest()


ROLES: dict[str, Of] = {
    part.name: part.metadata["of"]
    for part in dataclasses.fields(SessionLog)
    if "of" in part.metadata
}
"""what each array and text of a log has an entry of"""


def require_log(log: object) -> None:
    """Raise ConfigError for what is no log, or in a forked process."""
    require_threads()
    if not isinstance(log, SessionLog):
        raise no_log(log)


def require_split(log: SessionLog, split: SplitName) -> None:
    """Raise ConfigError for what is no log or no split, LogFormatError for an empty split."""
    require_log(log)
    require_known("split", split, (*SPLITS, "all"))
    if log.count("sessions", split) == 0:
        raise LogFormatError(
            f"log '{log.name}' has no session in split '{split}': choose another split"
        )


@dataclass(frozen=True)
class ItemCounts:
    """Counts of each item over training events, shape (n_items,) each."""

    displays: npt.NDArray[np.int64]
    choices: npt.NDArray[np.int64]
    expected: npt.NDArray[np.float64]
    """choices had every training choice followed the place alone: the sum over the item's displays
    of its place's rate among those of the display; where order says nothing 1/k among k"""

    @classmethod
    def zeros(cls, n_items: int) -> ItemCounts:
        """Nothing counted yet."""
        return cls(np.zeros(n_items, np.int64), np.zeros(n_items, np.int64), np.zeros(n_items))


def _check_arrays(log: SessionLog) -> None:
    if not 0 <= log.grid <= MOST_GRID:
        raise ValueError(f"grid is {log.grid}, 0 (none) to {MOST_GRID} columns are required")
    _check_codes("items", log.items, np.int32, log.n_items, "items")
    _check_offsets("display_offsets", log.display_offsets, 1, len(log.items), "candidates")
    _check_offsets("session_offsets", log.session_offsets, 0, log.n_events, "events")
    _check_codes("split", log.split, np.int8, 3, "parts")
    _check_codes("users", log.users, np.int32, MOST_USERS, "users at most")
    sizes = {"candidate": len(log.items), "event": log.n_events, "item": log.n_items}
    sizes["outcome"] = log.n_events
    for name, (of, values) in log.arrays().items():
        # what is of users has an entry for each session
        n, of = (sizes[of], of) if of in sizes else (log.n_sessions, "session")
        _check_length(name, values, n, f"{of}s")
    _check_kind("choices", log.choices, np.int32)
    outside = (log.choices < -1) | (log.choices >= np.diff(log.display_offsets))
    rule = "a place in the event's display from 0, or -1 for no click, is required"
    _check_where("choices", log.choices, outside, rule)
    if log.views is not None:
        _check_kind("views", log.views, np.uint16)
        _check_where("views", log.views, log.views < 1, "at least 1 is required")
    if log.weights is not None:
        _check_kind("weights", log.weights, np.float32)
        wrong = ~((log.weights > 0) & np.isfinite(log.weights))
        _check_where("weights", log.weights, wrong, "a finite number above 0 is required")
    for name, column in log.columns.items():
        _check_column(f"{column.of}.{name}", column)
    if log.actions is not None:
        actions = log.actions
        _check_codes("actions.items", actions.items, np.int32, log.n_items, "items")
        _check_offsets("actions.offsets", actions.offsets, 0, len(actions.items), "actions")
        _check_length("actions.offsets", actions.offsets, log.n_events + 1, "events and one more")
        _check_codes("actions.kinds", actions.kinds, np.int32, len(actions.kind_names), "kinds")
        _check_length("actions.kinds", actions.kinds, len(actions.items), "actions")


def check_displays(log: SessionLog) -> None:
    """Raise ValueError unless the candidates of each display set are distinct."""
    starts = log.display_offsets[1:-1]

    def falls(items: npt.NDArray[Any], compare: np.ufunc) -> bool:
        found = compare(items[1:], items[:-1])
        found[starts - 1] = False
        return bool(found.any())

    if falls(log.items, np.less_equal):
        order = np.lexsort((log.items, log.event_of_candidate()))
        if falls(log.items[order], np.equal):
            raise ValueError("a display set holds an item twice")


def _make_read_only(log: SessionLog) -> None:
    for part in dataclasses.fields(log):
        value = getattr(log, part.name)
        if isinstance(value, np.ndarray):
            object.__setattr__(log, part.name, _read_only(value))
    columns = {name: one.with_values(_read_only(one.values)) for name, one in log.columns.items()}
    # a mapping of a log that was checked stays the one that it is
    if any(columns[name].values is not one.values for name, one in log.columns.items()):
        object.__setattr__(log, "columns", columns)
    if log.actions is not None:
        own = {
            name: _read_only(getattr(log.actions, name)) for name in ("offsets", "items", "kinds")
        }
        object.__setattr__(log, "actions", dataclasses.replace(log.actions, **own))


def _read_only(value: Any) -> Any:
    if not isinstance(value, np.ndarray) or not value.flags.writeable:
        return value
    view = value.view()
    view.flags.writeable = False
    return view


def _check_kind(what: str, values: Any, dtype: type[np.generic], dims: int = 1) -> None:
    if not isinstance(values, np.ndarray):
        raise ValueError(f"{what} is {as_given(values)}, an array is required")
    if values.dtype != dtype or values.ndim != dims:
        raise ValueError(
            f"{what} is {values.dtype} of shape {list(values.shape)}, {np.dtype(dtype)} with "
            f"{dims} dimension{'s' * (dims > 1)} is required"
        )


def _check_length(what: str, values: Any, n: int, of: str) -> None:
    if not hasattr(values, "__len__"):
        raise ValueError(f"{what} is {as_given(values)}, {n:,} entries are required")
    if len(values) != n:
        raise ValueError(f"{what} has {len(values):,} entries, the log has {n:,} {of}")


def _check_where(what: str, values: npt.NDArray[Any], broken: BoolArray, rule: str) -> None:
    if broken.any():
        at = int(broken.argmax())
        raise ValueError(f"{what} holds {values[at]} at {at}, {rule}")


def _check_offsets(what: str, values: Any, least: int, n: int, of: str) -> None:
    _check_kind(what, values, np.int32)
    if not len(values) or values[0] != 0:
        raise ValueError(f"{what} begins with {values[:1].tolist()}, 0 is required")
    falls = np.append(False, values[1:] < values[:-1] if least == 0 else values[1:] <= values[:-1])
    rule = f"at least {least} more than the entry before it is required"
    _check_where(what, values, falls, rule)
    if values[-1] != n:
        raise ValueError(f"{what} ends with {values[-1]}, the log has {n:,} {of}")


def _check_codes(
    what: str, values: Any, dtype: type[np.generic], n: int, of: str, least: int = 0
) -> None:
    """Each is a row of a table of n rows, or `least`."""
    _check_kind(what, values, dtype)
    # the least and the largest are found at the speed of memory; where one is wrong, each is
    # looked at
    if len(values) and (values.min() < least or values.max() >= n):
        rule = f"codes from {least} to {n - 1} are required, for the log has {n:,} {of}"
        _check_where(what, values, (values < least) | (values >= n), rule)


def _check_column(what: str, column: Column) -> None:
    values = column.values
    if column.texts is not None:
        _check_codes(what, values, np.int32, len(column.texts), "categories", -1)
        return
    if isinstance(values, np.ndarray) and values.dtype == np.int32:
        raise ValueError(f"{what} holds codes, and has no texts for them")
    _check_kind(what, values, np.float32, 2 if column.of == "item" and values.ndim == 2 else 1)
    values = values.reshape(-1)
    if column.of == "outcome":
        values = values[~np.isnan(values)]
    # a NaN is the least and the largest of its array
    if len(values) and not (np.isfinite(values.min()) and np.isfinite(values.max())):
        _check_where(what, values, ~np.isfinite(values), "finite numbers are required")

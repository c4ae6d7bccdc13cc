"""Choices without display sets, and the rules that make up a display set for each of them: pure
functions of a table of choices and a seed.

`nearest`           the chosen item and the items that other users chose nearest in time
`nearest-unseen`    the same, without items that this user chose in an earlier event
`released-before`   items released in the calendar month (or year) before the choice, the chosen
item appended

All rules work on chunks of events, user by user, so that what they hold does not grow with the size
of the displays."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.errors import ConfigError, LogFormatError, did_you_mean
from fastgaum.kernels.nearest import TimedChoices, WalkState, nearest_others
from fastgaum.logs.columns import Vocabulary, first_true, row_number, show
from fastgaum.logs.layouts import ItemKind, Period, Source
from fastgaum.logs.log import IntArray
from fastgaum.logs.number_text import parse_numbers
from fastgaum.untrusted_parquet import READ_ERRORS, one_line

RuleName = Literal["nearest", "nearest-unseen", "released-before"]
RULES: tuple[RuleName, ...] = get_args(RuleName)
CHUNK = 1 << 22
"""candidates that are made at a time"""


@dataclass(frozen=True)
class DisplayRule:
    """How displays are made up. Raises ConfigError for an unknown rule, a display of fewer than 2,
    a negative seed."""

    name: RuleName = "nearest"
    displayed: int = 10
    """candidates of a display set, the chosen one among them; fewer only where no more exist"""
    seed: int = 0
    """breaks every tie in time and draws every sample"""

    def __post_init__(self) -> None:
        if self.name not in RULES:
            raise ConfigError(
                f"no rule is called '{self.name}'{did_you_mean(str(self.name), RULES)}; known are "
                f"{', '.join(RULES)}"
            )
        if self.displayed < 2:
            raise ConfigError(
                f"displayed is {self.displayed}, at least 2 candidates make a choice: give a "
                "larger number"
            )
        if self.seed < 0:
            raise ConfigError(
                f"seed is {self.seed}, a whole number from 0 is required: give another"
            )


UNKNOWN_RELEASE = -1
"""period of an item whose release is not known"""
LATEST = 2**31 - 1
"""times are int32 seconds since 1970: 2038-01-19"""


@dataclass(frozen=True)
class ChoiceTable:
    """Choices sorted by time, then user, then item: the order of the file's rows leaves no
    trace."""

    users: IntArray
    """who chose, a row of `user_ids`, shape (n_choices,)"""
    times: IntArray
    """seconds since 1970, ascending, shape (n_choices,)"""
    items: IntArray
    """what was chosen, a row of `item_ids`, shape (n_choices,)"""
    user_ids: pl.Series
    """the file's own ids as text, sorted (as numbers if they are), length n_users; each has a
    choice"""
    item_ids: pl.Series
    """the file's own ids as text, sorted as text, length n_items; each was chosen"""
    released: IntArray | None = None
    """month or year of each item's release as in `layouts.Releases`, UNKNOWN_RELEASE (-1), shape
    (n_items,); None: not read"""
    period: Period = "year"
    """what `released` counts"""

    @property
    def n_choices(self) -> int:
        """Number of choices."""
        return len(self.items)

    def periods(self) -> IntArray:
        """The month or year of each choice in the units of `released`, shape (n_choices,)."""
        unit = self.times.astype("datetime64[s]").astype(
            "datetime64[M]" if self.period == "month" else "datetime64[Y]"
        )
        return (unit.astype(np.int64) + 1970 * (12 if self.period == "month" else 1)).astype(
            np.int32
        )

    def with_known_release(self) -> ChoiceTable:
        """Only choices of items whose release is known; users and items without any choice left are
        dropped."""
        assert self.released is not None
        kept = self.released[self.items] != UNKNOWN_RELEASE
        if kept.all():
            return self
        users, new_users = np.unique(self.users[kept], return_inverse=True)
        items, new_items = np.unique(self.items[kept], return_inverse=True)
        return dataclasses.replace(
            self,
            users=new_users.astype(np.int32),
            times=self.times[kept],
            items=new_items.astype(np.int32),
            user_ids=self.user_ids.gather(users),
            item_ids=self.item_ids.gather(items),
            released=self.released[items],
        )


def read_choices(
    source: Source, *, item: ItemKind = "artist", releases: bool = False
) -> ChoiceTable:
    """Read a file of choices; `item` says what an item is in LastFM-1K, `releases` asks for release
    dates as well.

    The file is read in a stream, twice: its ids, then its rows as codes, 12 bytes each.

    Raises LogFormatError for a file that cannot be read, a row without user or item, a time that is
    not one or lies outside 1970 to 2038, and a file with fewer than two users; DatasetError where
    there are no release dates."""
    known = source.releases() if releases else None
    rows = source.layout.scan(source.path, item).filter(~pl.all_horizontal(pl.all().is_null()))
    try:
        user_ids, item_ids = (_ids(rows, role) for role in ("user", "item"))
        table = rows.select(
            pl.col("user").cast(pl.Enum(user_ids)).to_physical().cast(pl.Int32),
            pl.col("time").cast(pl.Int64),
            pl.col("item").cast(pl.Enum(item_ids)).to_physical().cast(pl.Int32),
        ).collect(engine="streaming")
    except READ_ERRORS as error:
        raise LogFormatError(
            f"'{source.path.name}' is no well-formed {source.layout.name} file "
            f"({one_line(error)}): copy it again"
        ) from None
    _check(table, rows, source)
    if len(user_ids) < 2:
        raise LogFormatError(
            f"'{source.path.name}' has choices of {len(user_ids)} user, at least two are required: "
            "display sets are made of what others chose"
        )
    table = table.with_columns(pl.col("time").cast(pl.Int32)).sort("time", "user", "item")
    users, times, items = (table[column].to_numpy() for column in ("user", "time", "item"))
    if known is None:
        return ChoiceTable(users, times, items, user_ids, item_ids)
    released = (
        known.frame["released"]
        .fill_null(UNKNOWN_RELEASE)
        .append(pl.Series([UNKNOWN_RELEASE], dtype=pl.Int32))
        .to_numpy()
    )
    # Items that the file of releases does not have get code -1: the row appended for them.
    rows_of_items = Vocabulary(_distinct(known.frame["item"])).codes(item_ids)
    return ChoiceTable(
        users, times, items, user_ids, item_ids, released[rows_of_items], known.period
    )


def _ids(rows: pl.LazyFrame, role: str) -> pl.Series:
    """The distinct ids of a role: items sorted as text, as in any log, users by number where they
    are numbers."""
    ids = rows.select(pl.col(role).unique()).collect(engine="streaming")[role].drop_nulls().sort()
    numbers = parse_numbers(ids) if role == "user" else None
    return (
        ids
        if numbers is None
        else pl.DataFrame({"number": numbers, "id": ids}).sort("number", "id")["id"]
    )


def _distinct(ids: pl.Series) -> pl.Series:
    if ids.null_count():
        raise LogFormatError(
            f"{row_number(first_true(ids.is_null()) or 0)} of the items has no id: fill it in or "
            "drop the row"
        )
    twice = first_true(ids.is_duplicated())
    if twice is not None:
        raise LogFormatError(
            f"item {show(ids[twice])} has several release dates, one is required: drop a row"
        )
    return ids


def _check(table: pl.DataFrame, rows: pl.LazyFrame, source: Source) -> None:
    """Refuse a row that lacks something, with its number (blank lines and header not counted) and
    what it holds."""
    name = source.path.name
    if table.height == 0:
        raise LogFormatError(f"'{name}' is empty (no rows): at least one choice is required")
    for role in ("user", "item"):
        row = first_true(table[role].is_null())
        if row is not None:
            raise LogFormatError(
                f"'{name}': {row_number(row)} has no {role}: fill it in or drop the row"
            )
    row = first_true(
        table["time"].is_null() | ~table["time"].is_between(0, LATEST).fill_null(False)
    )
    if row is not None:
        found = table["time"][row]
        user = show(rows.slice(row, 1).collect()["user"][0])
        raise LogFormatError(
            f"'{name}': {row_number(row)} (user {user}) has "
            f"{'no time' if found is None else f'the time {found}'},"
            f" seconds from 1970 to 2038 (0 to {LATEST}) are required: correct it or drop the row"
        )


@dataclass(frozen=True)
class Events:
    """The choices as events, user by user, each user's in time order."""

    table: ChoiceTable
    """the choices in time order, equal times shuffled by the seed"""
    rows: npt.NDArray[np.int64]
    """row of each event in the table, shape (n_events,)"""

    @classmethod
    def of(cls, table: ChoiceTable, seed: int) -> Events:
        """Order the events. Equal times are shuffled: neither the file's order nor the ids say
        which came first.

        A file sorted by item would otherwise leave "the next film has the larger id" in every burst
        of one time."""
        shuffled = np.random.default_rng([seed, 0]).permutation(table.n_choices)
        order = shuffled[np.argsort(table.times[shuffled], kind="stable")]
        users, times, items = table.users[order], table.times[order], table.items[order]
        ordered = ChoiceTable(
            users, times, items, table.user_ids, table.item_ids, table.released, table.period
        )
        return cls(ordered, np.argsort(users, kind="stable"))


def display_sets(events: Events, rule: DisplayRule) -> Iterator[IntArray]:
    """Yield the display sets, a chunk of events after the other: items, shape (n_chunk, displayed).

    The chosen item comes first, -1 fills up displays for which no more candidates exist. Raises
    ConfigError if `released-before` is asked of a table without release dates."""
    if rule.name == "released-before":
        return _released_before(events, rule)
    return _nearest(events, rule, unseen=rule.name == "nearest-unseen")


def _chunks(events: Events, rule: DisplayRule) -> Iterator[npt.NDArray[np.int64]]:
    step = max(CHUNK // rule.displayed, 1)
    for start in range(0, len(events.rows), step):
        yield events.rows[start : start + step]


def _nearest(events: Events, rule: DisplayRule, *, unseen: bool) -> Iterator[IntArray]:
    table = events.table
    n_items = len(table.item_ids)
    is_start = np.diff(table.times, prepend=-1) != 0
    starts = np.flatnonzero(is_start).astype(np.int32)
    group_of_row = np.cumsum(is_start, dtype=np.int32) - np.int32(1)
    sole_user = _sole_users(table)
    exclusive = np.bincount(sole_user[sole_user >= 0], minlength=len(table.user_ids))
    rng = np.random.default_rng([rule.seed, 1])
    choices = TimedChoices(
        table.users,
        table.items,
        group_of_row,
        np.append(starts, np.int32(table.n_choices)),
        table.times[starts],
        sole_user,
        (n_items - exclusive).astype(np.int32),
    )
    state = WalkState(
        np.array([-1, 0], dtype=np.int32),
        np.full(n_items, -1, dtype=np.int32),
        np.full(n_items, -1, dtype=np.int32),
    )
    for rows in _chunks(events, rule):
        displays = np.empty((len(rows), rule.displayed), dtype=np.int32)
        draws = rng.integers(2**31, size=(len(rows), 2))
        nearest_others(rows, choices, draws, unseen, state, displays)
        yield displays


def _sole_users(table: ChoiceTable) -> IntArray:
    """The only user who chose an item, or -1, shape (n_items,)."""
    first = np.empty(len(table.item_ids), dtype=np.int32)
    first[table.items] = table.users
    shared = table.items[table.users != first[table.items]]
    first[shared] = -1
    return first


def _released_before(events: Events, rule: DisplayRule) -> Iterator[IntArray]:
    """Up to displayed - 1 items of the period before, drawn without replacement (Floyd's algorithm,
    Bentley 1987)."""
    table = events.table
    if table.released is None:
        raise ConfigError(
            "rule 'released-before' needs release dates: read the choices with releases=True"
        )
    by_release = np.argsort(table.released, kind="stable").astype(np.int32)
    released = table.released[by_release]
    place_of_item = np.argsort(by_release)
    periods = table.periods()
    rng = np.random.default_rng([rule.seed, 1])
    for rows in _chunks(events, rule):
        chosen, before = table.items[rows], periods[rows] - 1
        first = np.searchsorted(released, before, side="left")
        size = np.searchsorted(released, before, side="right") - first
        # The chosen item, if it is of that period itself, is cut out: places from it on move by
        # one.
        hole = place_of_item[chosen] - first
        is_inside = (hole >= 0) & (hole < size)
        free = size - is_inside
        displays = np.full((len(rows), rule.displayed), -1, dtype=np.int32)
        displays[:, 0] = chosen
        places = _draw_distinct(free, rule.displayed - 1, rng)
        moved = first[:, None] + places + (is_inside[:, None] & (places >= hole[:, None]))
        displays[:, 1:] = np.where(places >= 0, by_release[np.where(places >= 0, moved, 0)], -1)
        yield displays


def _draw_distinct(
    n: npt.NDArray[np.int64], k: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Draw min(k, n) distinct numbers below each n, shape (len(n), k), -1 beyond them; every subset
    alike probable."""
    drawn = np.full((len(n), k), -1, dtype=np.int64)
    share = rng.random((len(n), k))
    count = np.minimum(n, k)
    for step in range(k):
        active = step < count
        top = n - count + step
        number = np.minimum((share[:, step] * (top + 1)).astype(np.int64), np.maximum(top, 0))
        is_taken = (drawn[:, :step] == number[:, None]).any(axis=1)
        drawn[:, step] = np.where(active, np.where(is_taken, top, number), -1)
    return drawn

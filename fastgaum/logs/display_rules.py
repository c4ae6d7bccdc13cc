"""Rules that make up the display set of a choice when none was logged: pure functions of a choice
table and a seed.

`nearest`           the chosen item and the items that other users chose nearest in time
`nearest-unseen`    the same, without items that this user chose in an earlier event
`released-before`   items released in the calendar month (or year) before the choice, the chosen
item appended

All work on chunks of events, user by user, so that what they hold does not grow with the size of
the displays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from fastgaum.errors import ConfigError, did_you_mean
from fastgaum.kernels.nearest import nearest_others
from fastgaum.logs.choice_table import ChoiceTable
from fastgaum.logs.log import IntArray

RuleName = Literal["nearest", "nearest-unseen", "released-before"]
RULES: tuple[RuleName, ...] = get_args(RuleName)
CHUNK = 1 << 22
"""candidates that are made at a time"""


@dataclass(frozen=True)
class Rule:
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


def display_sets(events: Events, rule: Rule) -> Iterator[IntArray]:
    """Yield the display sets, a chunk of events after the other: items, shape (n_chunk, displayed).

    The chosen item comes first, -1 fills up displays for which no more candidates exist. Raises
    ConfigError if `released-before` is asked of a table without release dates."""
    if rule.name == "released-before":
        return _released_before(events, rule)
    return _nearest(events, rule, unseen=rule.name == "nearest-unseen")


def _chunks(events: Events, rule: Rule) -> Iterator[npt.NDArray[np.int64]]:
    step = max(CHUNK // rule.displayed, 1)
    for start in range(0, len(events.rows), step):
        yield events.rows[start : start + step]


def _nearest(events: Events, rule: Rule, *, unseen: bool) -> Iterator[IntArray]:
    table = events.table
    n_items = len(table.item_ids)
    is_start = np.diff(table.times, prepend=-1) != 0
    starts = np.flatnonzero(is_start).astype(np.int32)
    group_of_row = np.cumsum(is_start, dtype=np.int32) - np.int32(1)
    sole_user = _sole_users(table)
    exclusive = np.bincount(sole_user[sole_user >= 0], minlength=len(table.user_ids))
    rng = np.random.default_rng([rule.seed, 1])
    last_user = np.array([-1, 0], dtype=np.int32)
    seen, shown = np.full(n_items, -1, dtype=np.int32), np.full(n_items, -1, dtype=np.int32)
    for rows in _chunks(events, rule):
        displays = np.empty((len(rows), rule.displayed), dtype=np.int32)
        nearest_others(
            rows,
            table.users,
            table.items,
            group_of_row,
            np.append(starts, np.int32(table.n_choices)),
            table.times[starts],
            sole_user,
            (n_items - exclusive).astype(np.int32),
            rng.integers(2**31, size=(len(rows), 2)),
            unseen,
            last_user,
            seen,
            shown,
            displays,
        )
        yield displays


def _sole_users(table: ChoiceTable) -> IntArray:
    """The only user who chose an item, or -1, shape (n_items,)."""
    first = np.empty(len(table.item_ids), dtype=np.int32)
    first[table.items] = table.users
    shared = table.items[table.users != first[table.items]]
    first[shared] = -1
    return first


def _released_before(events: Events, rule: Rule) -> Iterator[IntArray]:
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

"""What has been counted of a candidate's item: in its session before the event, and in training.

A session's counts of an item are one row of `N_COUNTS` integers. `count_display` and `count_choice`
say what an event adds to the row; the log (all events in turn) and the worlds (one event a step)
call the same two. In a log, a session's rows are found by item. A world has many users and a large
catalogue: each user has an open-addressing table with one key per item (`keys`, -1 where free;
linear probing), so a step costs what its slate holds, however long the session."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ._jit import Array, jit, jit_leaf

DISPLAYED, CHOSEN = 0, 1
"""columns of a row of counts: the session's earlier events that displayed, and that chose the item
"""
N_COUNTS = 2
"""width of a row of counts"""


class PackedSessions(NamedTuple):
    """Whole sessions, one after the other."""

    session_offsets: Array
    """start of each session in events, shape (n_sessions + 1,)"""
    display_offsets: Array
    """start of each display set in candidates, shape (n_events + 1,)"""
    items: Array
    """code of each candidate's item, shape (n_candidates,)"""
    choices: Array
    """place of the choice in its display set, -1 for no click, shape (n_events,)"""


class TrainingTotals(NamedTuple):
    """What training events say, by item or by candidate; shape (n,) each."""

    displays: Array
    choices: Array
    expected: Array
    """choices had every choice followed the place alone: the sum over the item's displays of the
    place's rate among those of the display; of equal rates 1/k among k"""


class UserTables(NamedTuple):
    """The sessions of n users of a world until now."""

    keys: Array
    """item rows, -1 where an entry is free, shape (n, room); room is a power of two and never full
    """
    counts: Array
    """row of counts of each entry, shape (n, room, N_COUNTS)"""
    events: Array
    """events until now, shape (n,)"""
    latest: Array
    """item rows of the last choices, shape (n, window): choice number c is at c % window"""
    n_chosen: Array
    """choices until now, shape (n,)"""


@jit_leaf
def count_display(counts: Array) -> None:
    """Add an event that displayed the item to its row of counts."""
    counts[DISPLAYED] += 1


@jit_leaf
def count_choice(counts: Array) -> None:
    """Add an event that chose the item to its row of counts."""
    counts[CHOSEN] += 1


@jit
def count_before(sessions: PackedSessions, n_items: int, before: Array) -> None:
    """Write, per candidate, the row of counts of its item in earlier events of its session.

    before: shape (n_candidates, N_COUNTS)."""
    session_offsets, display_offsets, items, choices = sessions
    scratch = np.zeros((n_items, N_COUNTS), np.int32)
    for session in range(len(session_offsets) - 1):
        first, last = session_offsets[session], session_offsets[session + 1]
        for event in range(first, last):
            start, stop = display_offsets[event], display_offsets[event + 1]
            for candidate in range(start, stop):
                for j in range(N_COUNTS):
                    before[candidate, j] = scratch[items[candidate], j]
            for candidate in range(start, stop):
                count_display(scratch[items[candidate]])
            if choices[event] >= 0:
                count_choice(scratch[items[start + choices[event]]])
        for candidate in range(display_offsets[first], display_offsets[last]):
            for j in range(N_COUNTS):
                scratch[items[candidate], j] = 0


@jit_leaf
def slot(keys: Array, item: int) -> Any:
    """Place of an item in a user's table, or the free one where it belongs."""
    room = len(keys)
    at = np.int64(np.uint64(item) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(33)) & (room - 1)
    while keys[at] >= 0 and keys[at] != item:
        at = (at + 1) & (room - 1)
    return at


class UserDisplays(NamedTuple):
    """What some users of many are shown, a display each."""

    users: Array
    """the user of each display, shape (n_events,)"""
    offsets: Array
    """start of each display in `items`, shape (n_events + 1,)"""
    items: Array
    """item row of each candidate, shape (n_candidates,)"""


@jit
def count_displays(displays: UserDisplays, chosen: Array, tables: UserTables) -> None:
    """Count what users were shown, and the candidate that each chose, (n_events,), -1 for no
    click."""
    keys, counts, events, latest, n_chosen = tables
    for event in range(len(displays.users)):
        user = displays.users[event]
        for candidate in range(displays.offsets[event], displays.offsets[event + 1]):
            item = displays.items[candidate]
            at = slot(keys[user], item)
            if keys[user, at] < 0:
                keys[user, at] = item
                for j in range(N_COUNTS):
                    counts[user, at, j] = 0
            count_display(counts[user, at])
        events[user] += 1
        if chosen[event] >= 0:
            item = displays.items[chosen[event]]
            count_choice(counts[user, slot(keys[user], item)])
            latest[user, n_chosen[user] % latest.shape[1]] = item
            n_chosen[user] += 1


@jit
def find_counts(displays: UserDisplays, tables: UserTables, out: Array) -> None:
    """Write the row of counts that its user has of each candidate, (n_candidates, N_COUNTS)."""
    for event in range(len(displays.users)):
        user = displays.users[event]
        for candidate in range(displays.offsets[event], displays.offsets[event + 1]):
            at = slot(tables.keys[user], displays.items[candidate])
            known = tables.keys[user, at] >= 0
            for j in range(N_COUNTS):
                out[candidate, j] = tables.counts[user, at, j] if known else 0


@jit
def move_counts(keys: Array, counts: Array, to_keys: Array, to_counts: Array) -> None:
    """Enter every user's counts into tables of another room; `to_keys` holds -1."""
    for user in range(len(keys)):
        for i in range(keys.shape[1]):
            if keys[user, i] >= 0:
                at = slot(to_keys[user], keys[user, i])
                to_keys[user, at] = keys[user, i]
                for j in range(N_COUNTS):
                    to_counts[user, at, j] = counts[user, i, j]


@jit
def fullest(keys: Array) -> Any:
    """How many entries the fullest user's table has."""
    most = 0
    for user in range(len(keys)):
        held = 0
        for i in range(keys.shape[1]):
            held += keys[user, i] >= 0
        most = max(most, held)
    return most


@jit_leaf
def add_event(sessions: PackedSessions, event: int, rates: Array, totals: TrainingTotals) -> None:
    """Add one training event to its items' totals; rates: of choices by place, the last for all
    further places, shape (n_places,)."""
    first, last = sessions.display_offsets[event], sessions.display_offsets[event + 1]
    furthest, total = len(rates) - 1, 0.0
    for candidate in range(first, last):
        total += rates[min(candidate - first, furthest)]
    for candidate in range(first, last):
        item = sessions.items[candidate]
        totals.displays[item] += 1
        totals.expected[item] += rates[min(candidate - first, furthest)] / total
    if sessions.choices[event] >= 0:
        totals.choices[sessions.items[first + sessions.choices[event]]] += 1


@jit
def count_items(
    rows: Array, sessions: PackedSessions, rates: Array, totals: TrainingTotals
) -> tuple[int, int]:
    """Add the events of the sessions `rows` to the totals of their items; return the numbers of
    those events and of their choices. rates: as in `add_event`."""
    n_events, n_choices = 0, 0
    for row in rows:
        for event in range(sessions.session_offsets[row], sessions.session_offsets[row + 1]):
            add_event(sessions, event, rates, totals)
            n_events += 1
            n_choices += sessions.choices[event] >= 0
    return n_events, n_choices


@jit
def add_moments(numbers: Array, mean: Array, squares: Array, least: Array, most: Array) -> None:
    """Write mean and sum of squared differences from it of each column of numbers, (n, n_columns)
    of at least one row, and its least and most value; mean and squares (float64) are 0 on entry,
    least and most the first row."""
    n, width = numbers.shape
    for i in range(n):
        for j in range(width):
            value = numbers[i, j]
            mean[j] += value
            least[j] = min(least[j], value)
            most[j] = max(most[j], value)
    for j in range(width):
        mean[j] /= n
    for i in range(n):
        for j in range(width):
            difference = numbers[i, j] - mean[j]
            squares[j] += difference * difference

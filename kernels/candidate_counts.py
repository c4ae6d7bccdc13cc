"""Counts of a candidate's item: in its session before the event, and in training.

A user of a world has an open-addressing table of its session's items (`keys`, -1 where free; linear
probing)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ._jit import Array, jit, jit_leaf
from .row_loops import copy

DISPLAYED, CHOSEN = 0, 1
"""columns of a row of counts: earlier events that displayed, and chose the item"""
N_COUNTS = 2


class PackedSessions(NamedTuple):
    """Whole sessions, one after the other."""

    session_offsets: Array  # start of each session in events, (n_sessions + 1,)
    display_offsets: Array  # start of each display set in candidates, (n_events + 1,)
    items: Array  # code of each candidate's item, (n_candidates,)
    choices: Array  # position in the display set, -1 for no click, (n_events,)


class TrainingTotals(NamedTuple):
    """Totals of training events, by item or by candidate; shape (n,) each."""

    displays: Array
    choices: Array
    expected: Array
    """choices had each followed the place alone: Σ over displays of the place's rate among those of
    the display; 1/k where rates are equal"""


class UserTables(NamedTuple):
    """The sessions of n users of a world until now."""

    keys: Array  # item rows, -1 where free, (n, room); room is a power of two and never full
    counts: Array  # row of counts of each entry, (n, room, N_COUNTS)
    events: Array  # events until now, (n,)
    latest: Array  # item rows of the last choices, (n, window): choice c is at c % window
    n_chosen: Array  # choices until now, (n,)


@jit
def count_before(sessions: PackedSessions, n_items: int, before: Array) -> None:
    """Write each candidate's row of counts in earlier events of its session, (n_candidates,
    N_COUNTS)."""
    session_offsets, display_offsets, items, choices = sessions
    scratch = np.zeros((n_items, N_COUNTS), np.int32)
    for session in range(len(session_offsets) - 1):
        first, last = session_offsets[session], session_offsets[session + 1]
        for event in range(first, last):
            start, stop = display_offsets[event], display_offsets[event + 1]
            for candidate in range(start, stop):
                copy(before[candidate], scratch[items[candidate]])
            for candidate in range(start, stop):
                scratch[items[candidate], DISPLAYED] += 1
            if choices[event] >= 0:
                scratch[items[start + choices[event]], CHOSEN] += 1
        for candidate in range(display_offsets[first], display_offsets[last]):
            scratch[items[candidate]] = 0


@jit_leaf
def slot(keys: Array, item: int) -> Any:
    """Where an item is in a user's table, or the free entry where it belongs."""
    room = len(keys)
    at = np.int64(np.uint64(item) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(33)) & (room - 1)
    while keys[at] >= 0 and keys[at] != item:
        at = (at + 1) & (room - 1)
    return at


class UserDisplays(NamedTuple):
    """Displays of some users of many."""

    users: Array  # the user of each display, (n_events,)
    offsets: Array  # start of each display in `items`, (n_events + 1,)
    items: Array  # item row of each candidate, (n_candidates,)


@jit
def count_displays(displays: UserDisplays, chosen: Array, tables: UserTables) -> None:
    """Count displays and the candidate that each user chose, (n_events,), -1 for no click."""
    keys, counts, events, latest, n_chosen = tables
    for event in range(len(displays.users)):
        user = displays.users[event]
        for candidate in range(displays.offsets[event], displays.offsets[event + 1]):
            item = displays.items[candidate]
            at = slot(keys[user], item)
            if keys[user, at] < 0:
                keys[user, at] = item
                counts[user, at] = 0
            counts[user, at, DISPLAYED] += 1
        events[user] += 1
        if chosen[event] >= 0:
            item = displays.items[chosen[event]]
            counts[user, slot(keys[user], item), CHOSEN] += 1
            latest[user, n_chosen[user] % latest.shape[1]] = item
            n_chosen[user] += 1


@jit
def find_counts(displays: UserDisplays, tables: UserTables, out: Array) -> None:
    """Write the row of counts that its user has of each candidate, (n_candidates, N_COUNTS)."""
    for event in range(len(displays.users)):
        user = displays.users[event]
        for candidate in range(displays.offsets[event], displays.offsets[event + 1]):
            at = slot(tables.keys[user], displays.items[candidate])
            if tables.keys[user, at] >= 0:
                copy(out[candidate], tables.counts[user, at])
            else:
                out[candidate] = 0


@jit
def move_counts(keys: Array, counts: Array, to_keys: Array, to_counts: Array) -> None:
    """Enter every user's counts into tables of another room; `to_keys` holds -1."""
    for user in range(len(keys)):
        for i in range(keys.shape[1]):
            if keys[user, i] >= 0:
                at = slot(to_keys[user], keys[user, i])
                to_keys[user, at] = keys[user, i]
                copy(to_counts[user, at], counts[user, i])


@jit
def count_items(
    rows: Array, sessions: PackedSessions, rates: Array, totals: TrainingTotals
) -> tuple[int, int]:
    """Add the events of the sessions `rows` to the totals of their items; return how many events
    and choices they have. rates: of choices by place, the last for further places, (n_places,)."""
    session_offsets, display_offsets, items, choices = sessions
    n_events, n_choices, furthest = 0, 0, len(rates) - 1
    for row in rows:
        for event in range(session_offsets[row], session_offsets[row + 1]):
            first, last, total = display_offsets[event], display_offsets[event + 1], 0.0
            for candidate in range(first, last):
                total += rates[min(candidate - first, furthest)]
            for candidate in range(first, last):
                item = items[candidate]
                totals.displays[item] += 1
                totals.expected[item] += rates[min(candidate - first, furthest)] / total
            n_events += 1
            if choices[event] >= 0:
                totals.choices[items[first + choices[event]]] += 1
                n_choices += 1
    return n_events, n_choices

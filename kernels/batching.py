"""Batch assembly straight from the packed arrays: whole sessions picked in any order, never padded.

Shuffled sessions lie anywhere in memory, so nearly every first touch misses the caches. Each array
is therefore read in a pass of its own whose loads do not wait for one another: many misses are then
under way at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ._jit import Array, jit, jit_leaf, prefetch_entry
from .candidate_formulas import less_set_means, standardise

AHEAD = 16
"""how many sessions before its turn a session is asked for: few fill more than a line or two"""


class PickedEvents(NamedTuple):
    """A batch's events; `later`, `clicked` and `chosen` have room for every event."""

    displays: Array
    """start of each display set in candidates, shape (n_events + 1,)"""
    choices: Array
    """shape (n_events,)"""
    later: Array
    """events that are not the first of their session"""
    clicked: Array
    """events with a choice"""
    chosen: Array
    """candidate of each of those choices"""


class WaitingNumbers(NamedTuple):
    """Numbers of candidates before a batch is made of them: not standardised, none twice."""

    values: Array
    """float32, shape (n_candidates, ·)"""
    flags: Array
    """those that are 0 or 1, uint8, shape (n_candidates, ·)"""
    of_sets: Array
    """those that all candidates of a display set share, float32, shape (n_events, ·)"""
    columns: tuple[Array, Array, Array]
    """the column of a batch's numbers of each value, flag and number of a set"""
    varying: Array
    """columns that also come less their mean over the display set, after all others"""
    mean: Array
    scale: Array
    """what numbers are standardised by, shape (n_numbers,)"""


@jit
def picked_size(offsets: Array, rows: Array) -> int:
    """How many entries the rows have together, -1 if one does not exist: offsets [0, 2, 3, 6], rows
    [2, 0] → 5."""
    total = 0
    for row in rows:
        if row < 0 or row >= len(offsets) - 1:
            return -1
        total += offsets[row + 1] - offsets[row]
    return total


@jit
def ragged_index(offsets: Array, rows: Array, picked_offsets: Array, index: Array) -> None:
    """Write the flat positions of the picked rows' entries, row after row.

    offsets [0, 2, 3, 6], rows [2, 0] → picked_offsets [0, 3, 5], index [3, 4, 5, 0, 1]
    """
    out = 0
    picked_offsets[0] = 0
    for row in range(len(rows)):
        for position in range(offsets[rows[row]], offsets[rows[row] + 1]):
            index[out] = position
            out += 1
        picked_offsets[row + 1] = out


@jit
def count_sessions(
    session_offsets: Array,
    display_offsets: Array,
    sessions: Array,
    picked_offsets: Array,
    first_events: Array,
    first_candidates: Array,
) -> int:
    """Find where each picked session starts, in the packed arrays and in the batch; return how many
    candidates they have.

    first_events, first_candidates: starts in the packed arrays, shape (n_sessions,). The sessions
    must exist."""
    events = 0
    picked_offsets[0] = 0
    for i in range(len(sessions)):
        session = np.uint64(sessions[i])
        first = session_offsets[session]
        first_events[i] = first
        events += session_offsets[session + np.uint64(1)] - first
        picked_offsets[i + 1] = events
    candidates = 0
    for i in range(len(sessions)):
        first = first_events[i]
        last = first + picked_offsets[i + 1] - picked_offsets[i]
        start = display_offsets[np.uint64(first)]
        first_candidates[i] = start
        candidates += display_offsets[np.uint64(last)] - start
    return candidates


@jit
def fill_events(
    display_offsets: Array,
    choices: Array,
    picked_offsets: Array,
    first_events: Array,
    picked: PickedEvents,
) -> tuple[int, int]:
    """Write the batch's events; return how many are not the first of their session, and how many
    have a choice."""
    picked_displays, picked_choices, later_events, clicked, chosen = picked
    for i in range(len(first_events)):
        if i + AHEAD < len(first_events):
            prefetch_entry(choices, first_events[i + AHEAD])
        start = picked_offsets[i]
        _copy(choices, first_events[i], picked_choices, start, picked_offsets[i + 1] - start)
    out = 0
    picked_displays[0] = 0
    for i in range(len(first_events)):
        start, shift = picked_offsets[i], first_events[i] - picked_offsets[i] + 1
        base = display_offsets[np.uint64(first_events[i])] - out
        for event in range(start, picked_offsets[i + 1]):
            out = display_offsets[np.uint64(event + shift)] - base
            picked_displays[np.uint64(event + 1)] = out
    later, n_clicked = 0, 0
    for i in range(len(first_events)):
        for event in range(picked_offsets[i] + 1, picked_offsets[i + 1]):
            later_events[np.uint64(later)] = event
            later += 1
    for event in range(len(picked_choices)):
        # written in any case, kept only if the count moves on: no branch to mispredict
        choice = picked_choices[event]
        clicked[np.uint64(n_clicked)] = event
        chosen[np.uint64(n_clicked)] = picked_displays[event] + choice
        n_clicked += choice >= 0
    return later, n_clicked


@jit
def history_tokens(
    session_offsets: Array,
    display_offsets: Array,
    choices: Array,
    keep_last: bool,
    token_offsets: Array,
    token_candidates: Array,
) -> int:
    """Write the chosen candidate (or -1 for no click) of each event that a later state reads;
    return how many.

    The choice of a session's last event is read by no state of the session, so it is skipped unless
    `keep_last`. session_offsets [0, 2, 3], choices [1, 0, 2], display_offsets [0, 3, 5, 8] →
    token_offsets [0, 1, 1], tokens [1]"""
    out = 0
    token_offsets[0] = 0
    skip = 0 if keep_last else 1
    for session in range(len(session_offsets) - 1):
        for event in range(session_offsets[session], session_offsets[session + 1] - skip):
            choice = choices[np.uint64(event)]
            token_candidates[np.uint64(out)] = (
                display_offsets[np.uint64(event)] + choice if choice >= 0 else -1
            )
            out += 1
        token_offsets[session + 1] = out
    return out


@jit
def fill_rows(
    source: Array, width: int, first: Array, offsets: Array, displays: Array, target: Array
) -> None:
    """Copy the picked sessions' candidates; a session's lie side by side, `width` numbers each;
    both arrays are flat.

    first: each session's first candidate in the source; offsets, displays: the batch's own.
    """
    if width == 0:
        return
    for i in range(len(first)):
        start, stop = displays[np.uint64(offsets[i])], displays[np.uint64(offsets[i + 1])]
        _copy(source, int(first[i]) * width, target, int(start) * width, int(stop - start) * width)


@jit
def keep_numbers(
    display_offsets: Array, numbers: Array, columns: tuple[Array, Array, Array], kept: Any
) -> None:
    """Write a chunk's numbers, (n_candidates, n_numbers), to the values, flags and numbers of sets
    that `kept` has room for, as `WaitingNumbers` holds them."""
    values, flags, of_sets = kept
    for event in range(len(display_offsets) - 1):
        first, last = display_offsets[event], display_offsets[event + 1]
        for j in range(len(columns[2])):
            of_sets[event, j] = numbers[first, columns[2][j]]
        for candidate in range(first, last):
            row = numbers[candidate]
            for j in range(len(columns[0])):
                values[candidate, j] = row[columns[0][j]]
            for j in range(len(columns[1])):
                flags[candidate, j] = np.uint8(row[columns[1][j]])


@jit
def fill_numbers(
    waiting: WaitingNumbers,
    first: Array,
    first_events: Array,
    offsets: Array,
    displays: Array,
    numbers: Array,
) -> None:
    """Write the picked sessions' numbers, as networks read them, to (n_candidates, n_numbers): set
    by set, while a set is in the cache.

    first, first_events: each session's first candidate and event; offsets, displays: the batch's
    own."""
    values, flags, of_sets, columns, varying, mean, scale = waiting
    for i in range(len(first)):
        source = int(first[i]) - int(displays[offsets[i]])
        for event in range(offsets[i], offsets[i + 1]):
            start, stop = displays[event], displays[event + 1]
            own = of_sets[first_events[i] + event - offsets[i]]
            for candidate in range(start, stop):
                row = numbers[candidate]
                for j in range(len(columns[0])):
                    row[columns[0][j]] = values[source + candidate, j]
                for j in range(len(columns[1])):
                    row[columns[1][j]] = flags[source + candidate, j]
                for j in range(len(columns[2])):
                    row[columns[2][j]] = own[j]
            less_set_means(numbers[start:stop], stop - start, varying, 1.0)
            for candidate in range(start, stop):
                standardise(numbers[candidate], mean, scale)


@jit
def fill_ids(
    items: Array, id_of_item: Array, first: Array, offsets: Array, displays: Array, ids: Array
) -> None:
    """Write the ids of the picked sessions' candidates, found by their items; all arrays are flat,
    as in `fill_rows`."""
    for i in range(len(first)):
        start, stop = displays[np.uint64(offsets[i])], displays[np.uint64(offsets[i + 1])]
        if i + AHEAD < len(first):
            prefetch_entry(items, first[i + AHEAD])
            prefetch_entry(items, first[i + AHEAD] + 15)
        _copy(items, int(first[i]), ids, int(start), int(stop - start))
    # in a pass of its own: one pass over both took 17 ns a candidate instead of 12
    for candidate in range(len(ids)):
        ids[candidate] = id_of_item[np.uint64(ids[candidate])]


@jit
def fill_bags(
    ids: Array,
    numbers: Array,
    candidates: Array,
    bag_ids: Array,
    bag_offsets: Array,
    bag_numbers: Array,
) -> int:
    """Write the bags of any candidates; -1 (no click) has the one id 0 and zeros. Returns the
    number of ids."""
    width, n_numbers = ids.shape[1], numbers.shape[1]
    out = 0
    bag_offsets[0] = 0
    for i in range(len(candidates)):
        candidate = candidates[i]
        if candidate < 0:
            bag_ids[out] = 0
            out += 1
            for column in range(n_numbers):
                bag_numbers[i, column] = 0.0
        else:
            for column in range(width):
                bag_ids[out + column] = ids[candidate, column]
            out += width
            for column in range(n_numbers):
                bag_numbers[i, column] = numbers[candidate, column]
        bag_offsets[i + 1] = out
    return out


@jit_leaf
def _copy(source: Array, start: int, target: Array, at: int, n: int) -> None:
    """target[at : at + n] = source[start : start + n]; unsigned positions spare a test for negative
    ones each time."""
    read, write = np.uint64(start), np.uint64(at)
    for k in range(n):
        target[write + np.uint64(k)] = source[read + np.uint64(k)]

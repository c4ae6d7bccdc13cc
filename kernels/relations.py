"""What pairs of items have been to each other in training displays: counting and looking up, by
loops over ragged arrays."""

from __future__ import annotations

import math

import numpy as np

from ._jit import Array, jit, jit_part


@jit
def rival_records(
    display_offsets: Array,
    items: Array,
    choices: Array,
    n_items: int,
    keys: Array,
    values: Array,
    events: Array,
) -> None:
    """Write a record for every ordered pair (a, b) of distinct candidates of a display set, Σ k (k
    − 1) of them.

    keys: a · n_items + b, int64; values (n, 3): 1, whether a was chosen, whether b was; events: the
    record's event."""
    at = 0
    for event in range(len(display_offsets) - 1):
        first, last = display_offsets[event], display_offsets[event + 1]
        chosen = first + choices[event] if choices[event] >= 0 else -1
        for a in range(first, last):
            for b in range(first, last):
                if a != b:
                    keys[at] = np.int64(items[a]) * n_items + items[b]
                    values[at, 0] = 1
                    values[at, 1] = a == chosen
                    values[at, 2] = b == chosen
                    events[at] = event
                    at += 1


@jit
def follow_records(
    session_offsets: Array,
    display_offsets: Array,
    items: Array,
    choices: Array,
    window: int,
    n_items: int,
    keys: Array,
    values: Array,
    events: Array,
    fill: bool,
) -> int:
    """Write a record for every pair (h, a): h among the last `window` choices of the session, a
    displayed after it.

    values (n, 2): 1, whether a was chosen. Returns the number of records; with fill = False nothing
    is written."""
    at = 0
    for session in range(len(session_offsets) - 1):
        start = session_offsets[session]
        for event in range(start, session_offsets[session + 1]):
            first, last = display_offsets[event], display_offsets[event + 1]
            taken = 0
            before = event - 1
            while before >= start and taken < window:
                if choices[before] >= 0:
                    taken += 1
                    if fill:
                        h = items[display_offsets[before] + choices[before]]
                        for a in range(first, last):
                            keys[at] = np.int64(h) * n_items + items[a]
                            values[at, 0] = 1
                            values[at, 1] = a - first == choices[event]
                            events[at] = event
                            at += 1
                    else:
                        at += last - first
                before -= 1
    return at


@jit
def sum_runs(sorted_keys: Array, order: Array, values: Array, unique: Array, sums: Array) -> int:
    """Sum values (n, k) over runs of equal keys; returns the number of runs. sums (n, k) is zero on
    entry."""
    runs = 0
    for i in range(len(sorted_keys)):
        if i == 0 or sorted_keys[i] != sorted_keys[i - 1]:
            unique[runs] = sorted_keys[i]
            runs += 1
        for k in range(values.shape[1]):
            sums[runs - 1, k] += values[order[i], k]
    return runs


@jit_part
def find(keys: Array, key: int, low: int, high: int) -> int:
    """Position of key in the ascending keys[low:high], or −1."""
    end = high
    while low < high:
        middle = (low + high) // 2
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low if low < end and keys[low] == key else -1


@jit
def rival_sums(
    display_offsets: Array,
    rows: Array,
    users: Array,
    n_items: int,
    starts: Array,
    keys: Array,
    counts: Array,
    own_starts: Array,
    own_keys: Array,
    own_counts: Array,
    out: Array,
) -> None:
    """Per candidate, over its rivals in the display set, without the own user's events.

    out (n_candidates, 5): displays together, rivals that were met, wins, losses, Σ log((wins + ½) /
    (losses + ½)).
    rows: training row of each candidate's item or −1; users: own-table row of each event's user or
    −1."""
    for event in range(len(display_offsets) - 1):
        first, last = display_offsets[event], display_offsets[event + 1]
        user = users[event]
        for a in range(first, last):
            if rows[a] < 0:
                continue
            for b in range(first, last):
                if a == b or rows[b] < 0:
                    continue
                key = np.int64(rows[a]) * n_items + rows[b]
                at = find(keys, key, starts[rows[a]], starts[rows[a] + 1])
                if at < 0:
                    continue
                met, won, lost = counts[at, 0], counts[at, 1], counts[at, 2]
                if user >= 0:
                    own = find(own_keys, key, own_starts[user], own_starts[user + 1])
                    if own >= 0:
                        met -= own_counts[own, 0]
                        won -= own_counts[own, 1]
                        lost -= own_counts[own, 2]
                out[a, 0] += met
                out[a, 1] += met > 0
                out[a, 2] += won
                out[a, 3] += lost
                out[a, 4] += math.log((won + 0.5) / (lost + 0.5))


@jit
def follow_sums(
    session_offsets: Array,
    display_offsets: Array,
    rows: Array,
    choices: Array,
    users: Array,
    window: int,
    n_items: int,
    starts: Array,
    keys: Array,
    counts: Array,
    own_starts: Array,
    own_keys: Array,
    own_counts: Array,
    out: Array,
) -> None:
    """Per candidate, over the last `window` choices before its event, without the own user's
    events.

    out (n_candidates, 2): displays after those choices, choices after them.
    """
    for session in range(len(session_offsets) - 1):
        start = session_offsets[session]
        for event in range(start, session_offsets[session + 1]):
            user = users[event]
            taken = 0
            before = event - 1
            while before >= start and taken < window:
                if choices[before] >= 0:
                    taken += 1
                    h = rows[display_offsets[before] + choices[before]]
                    if h >= 0:
                        for a in range(display_offsets[event], display_offsets[event + 1]):
                            if rows[a] < 0:
                                continue
                            key = np.int64(h) * n_items + rows[a]
                            at = find(keys, key, starts[h], starts[h + 1])
                            if at < 0:
                                continue
                            shown, chosen = counts[at, 0], counts[at, 1]
                            if user >= 0:
                                own = find(own_keys, key, own_starts[user], own_starts[user + 1])
                                if own >= 0:
                                    shown -= own_counts[own, 0]
                                    chosen -= own_counts[own, 1]
                            out[a, 0] += shown
                            out[a, 1] += chosen
                before -= 1

"""What a session, and a user, have said of a candidate so far: counts from the log, by loops with
one scratch row per item."""

from __future__ import annotations

import numpy as np

from ._jit import Array, jit


@jit
def counts_before(
    session_offsets: Array,
    display_offsets: Array,
    items: Array,
    choices: Array,
    seen: Array,
    picked: Array,
    displayed_before: Array,
    chosen_before: Array,
) -> None:
    """Count, per candidate, the earlier events of its session that displayed it and that chose it.

    `seen` and `picked` are scratch, shape (n_items,), zero on entry and on exit.
    """
    for session in range(len(session_offsets) - 1):
        first, last = session_offsets[session], session_offsets[session + 1]
        for event in range(first, last):
            for candidate in range(display_offsets[event], display_offsets[event + 1]):
                item = items[candidate]
                displayed_before[candidate] = seen[item]
                chosen_before[candidate] = picked[item]
            for candidate in range(display_offsets[event], display_offsets[event + 1]):
                seen[items[candidate]] += 1
            if choices[event] >= 0:
                picked[items[display_offsets[event] + choices[event]]] += 1
        for candidate in range(display_offsets[first], display_offsets[last]):
            seen[items[candidate]] = 0
            picked[items[candidate]] = 0


@jit
def counts_of_users(
    training: Array,
    training_users: Array,
    session_offsets: Array,
    display_offsets: Array,
    items: Array,
    choices: Array,
    asking: Array,
    asking_users: Array,
    part_offsets: Array,
    part_displays: Array,
    part_items: Array,
    seen: Array,
    picked: Array,
    expected: Array,
    own_displays: Array,
    own_choices: Array,
    own_expected: Array,
) -> None:
    """Count, per candidate of the asking sessions, its item's displays, choices and expected
    choices by its own user.

    training: rows of training sessions in a packed log, by ascending user; asking: sessions of a
    packed part, likewise. A display set of k candidates gives each of them 1/k expected choices.
    Scratch as in `counts_before`."""
    start, at = 0, 0
    while at < len(asking):
        user = asking_users[at]
        while start < len(training) and training_users[start] < user:
            start += 1
        stop = start
        while stop < len(training) and training_users[stop] == user:
            session = training[stop]
            for event in range(session_offsets[session], session_offsets[session + 1]):
                for candidate in range(display_offsets[event], display_offsets[event + 1]):
                    seen[items[candidate]] += 1
                    expected[items[candidate]] += 1.0 / (
                        display_offsets[event + 1] - display_offsets[event]
                    )
                if choices[event] >= 0:
                    picked[items[display_offsets[event] + choices[event]]] += 1
            stop += 1
        while at < len(asking) and asking_users[at] == user:
            first, last = part_offsets[asking[at]], part_offsets[asking[at] + 1]
            for candidate in range(part_displays[first], part_displays[last]):
                own_displays[candidate] = seen[part_items[candidate]]
                own_choices[candidate] = picked[part_items[candidate]]
                own_expected[candidate] = expected[part_items[candidate]]
            at += 1
        for row in range(start, stop):
            first, last = session_offsets[training[row]], session_offsets[training[row] + 1]
            for candidate in range(display_offsets[first], display_offsets[last]):
                seen[items[candidate]] = 0
                picked[items[candidate]] = 0
                expected[items[candidate]] = 0.0
        start = stop


@jit
def count_items(
    sessions: Array,
    session_offsets: Array,
    display_offsets: Array,
    items: Array,
    choices: Array,
    displays: Array,
    chosen: Array,
    expected: Array,
) -> tuple[int, int]:
    """Count each item's displays, choices and expected choices over the sessions; return their
    events and choices.

    displays, chosen, expected: shape (n_items,), zero on entry.
    """
    n_events, n_choices = 0, 0
    for session in sessions:
        for event in range(session_offsets[session], session_offsets[session + 1]):
            first, last = display_offsets[event], display_offsets[event + 1]
            n_events += 1
            for candidate in range(first, last):
                displays[items[candidate]] += 1
                expected[items[candidate]] += 1.0 / (last - first)
            if choices[event] >= 0:
                n_choices += 1
                chosen[items[first + choices[event]]] += 1
    return n_events, n_choices


@jit
def less_set_means(
    numbers: Array, columns: Array, display_offsets: Array, sums: Array, first: int
) -> None:
    """Write each of the columns less its mean over the display set to the columns from `first` on.

    numbers: float32, shape (n_candidates, ·); sums: each display set's, float32, shape (n_events,
    n_columns)."""
    for event in range(len(display_offsets) - 1):
        start, stop = display_offsets[event], display_offsets[event + 1]
        for i in range(len(columns)):
            mean = np.float64(sums[event, i]) / (stop - start)
            for candidate in range(start, stop):
                numbers[candidate, first + i] = np.float64(numbers[candidate, columns[i]]) - mean

"""What a session, and a user, have said of a candidate so far: counts from the log, by loops with one scratch row per item."""

from __future__ import annotations

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
def counts_of_user(
    sessions_by_user: Array,
    users: Array,
    session_offsets: Array,
    display_offsets: Array,
    items: Array,
    choices: Array,
    seen: Array,
    picked: Array,
    expected: Array,
    own_displays: Array,
    own_choices: Array,
    own_expected: Array,
) -> None:
    """Count, per candidate, its item's displays, choices and expected choices by its own user, over the sessions listed.

    A display set of k candidates gives each of them 1/k expected choices. `sessions_by_user` lists sessions with equal
    users side by side; scratch as in `counts_before`.
    """
    start = 0
    while start < len(sessions_by_user):
        stop = start
        user = users[sessions_by_user[start]]
        while stop < len(sessions_by_user) and users[sessions_by_user[stop]] == user:
            session = sessions_by_user[stop]
            for event in range(session_offsets[session], session_offsets[session + 1]):
                for candidate in range(display_offsets[event], display_offsets[event + 1]):
                    seen[items[candidate]] += 1
                    expected[items[candidate]] += 1.0 / (display_offsets[event + 1] - display_offsets[event])
                if choices[event] >= 0:
                    picked[items[display_offsets[event] + choices[event]]] += 1
            stop += 1
        for row in range(start, stop):
            session = sessions_by_user[row]
            for candidate in range(
                display_offsets[session_offsets[session]], display_offsets[session_offsets[session + 1]]
            ):
                own_displays[candidate] = seen[items[candidate]]
                own_choices[candidate] = picked[items[candidate]]
                own_expected[candidate] = expected[items[candidate]]
        for row in range(start, stop):
            session = sessions_by_user[row]
            for candidate in range(
                display_offsets[session_offsets[session]], display_offsets[session_offsets[session + 1]]
            ):
                seen[items[candidate]] = 0
                picked[items[candidate]] = 0
                expected[items[candidate]] = 0.0
        start = stop

"""What others chose at the nearest times: the simulated display sets of a log that has none.

The table of choices is sorted by time and cut into groups of one time each. From an event's own
group the walk takes the earlier or the later group, whichever is nearer, both at once where they
are equally near.

    times   10 12 12 15   group_offsets [0, 1, 3, 4]   group_of_row [0, 1, 1, 2]
    event at row 3 (time 15): group 2 (distance 0), group 1 (3), group 0 (5)
"""

from __future__ import annotations

from typing import NamedTuple

from ._jit import Array, jit


class TimedChoices(NamedTuple):
    """The table of choices, sorted by time."""

    users: Array
    """shape (n_choices,)"""
    items: Array
    """shape (n_choices,)"""
    group_of_row: Array
    """shape (n_choices,)"""
    group_offsets: Array
    """first choice of each group, shape (n_groups + 1,)"""
    group_times: Array
    """shape (n_groups,)"""
    sole_user: Array
    """the only user who chose an item, or -1, shape (n_items,)"""
    n_others: Array
    """how many items others than a user chose, shape (n_users,): a search ends when nothing is left
    to find"""


class WalkState(NamedTuple):
    """What goes on from call to call."""

    last_user: Array
    """the user of the last event, and how many items they have chosen that others chose as well,
    shape (2,); -1 and 0 before the first call"""
    seen: Array
    """the user who chose an item last, shape (n_items,); -1 before the first call"""
    shown: Array
    """scratch, shape (n_items,): -1 before the first call, left with the rows of events"""


@jit
def walk_stride(draw: int, n: int) -> int:
    """Return a number in [1, n + 1] that has no divisor in common with n, so that steps of it visit
    all of 0 … n - 1."""
    stride = 1 + draw % n
    while True:
        a, b = stride, n
        while b > 0:
            a, b = b, a % b
        if a == 1:
            return stride
        stride += 1


@jit
def nearest_others(
    events: Array,
    choices: TimedChoices,
    draws: Array,
    unseen: bool,
    state: WalkState,
    displays: Array,
) -> None:
    """Write each event's display set: its own item, then the items that others chose nearest in
    time, nearest first.

    A candidate is no item of the display yet, was chosen by another user, and with `unseen` is none
    that the event's user chose in an earlier event.

    Args:
        events: rows of the table, user by user, each user's in time order.
        choices: the table.
        draws: start and stride of each event's walk around rows of equal distance, (n_events, 2).
        unseen: leave out what the user chose before.
        state: what goes on from call to call.
        displays: what is written, (n_events, size); it ends in -1 where no candidate is left."""
    users, items, sole_user = choices.users, choices.items, choices.sole_user
    group_offsets, group_times = choices.group_offsets, choices.group_times
    last_user, seen, shown = state.last_user, state.seen, state.shown
    size = displays.shape[1]
    n_groups = len(group_times)
    for e in range(len(events)):
        row = events[e]
        user, item = users[row], items[row]
        if last_user[0] != user:
            last_user[0], last_user[1] = user, 0
        displays[e, 0] = item
        shown[item] = row
        left = choices.n_others[user]
        if sole_user[item] != user and not (unseen and seen[item] == user):
            left -= 1
        if unseen:
            left -= last_user[1]
        wanted = min(size, 1 + left)
        held = 1
        own = choices.group_of_row[row]
        earlier, later = own, own + 1
        while held < wanted:
            if earlier == own:
                before, after = earlier, own
                distance_before, distance_after = 0, 1
            else:
                before, after = earlier, later
                distance_before = group_times[own] - group_times[before] if before >= 0 else -1
                distance_after = group_times[after] - group_times[own] if after < n_groups else -1
            use_before = distance_before >= 0 and (
                distance_after < 0 or distance_before <= distance_after
            )
            use_after = distance_after >= 0 and (
                distance_before < 0 or distance_after <= distance_before
            )
            n_before = group_offsets[before + 1] - group_offsets[before] if use_before else 0
            n_after = group_offsets[after + 1] - group_offsets[after] if use_after else 0
            n = n_before + n_after
            if n == 0:
                break
            place = draws[e, 0] % n
            stride = walk_stride(draws[e, 1], n)
            for _ in range(n):
                if place < n_before:
                    other = group_offsets[before] + place
                else:
                    other = group_offsets[after] + place - n_before
                place = (place + stride) % n
                found = items[other]
                if users[other] == user or shown[found] == row or (unseen and seen[found] == user):
                    continue
                shown[found] = row
                displays[e, held] = found
                held += 1
                if held == wanted:
                    break
            if use_before:
                earlier -= 1
            if use_after:
                later += 1
        for i in range(held, size):
            displays[e, i] = -1
        if seen[item] != user:
            seen[item] = user
            if sole_user[item] != user:
                last_user[1] += 1

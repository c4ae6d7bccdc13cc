"""Choices of others at the nearest times: made-up display sets of a log that has none.

Choices are sorted by time, in groups of one time. From an event's own group the walk takes the
nearer of the earlier and the later one, both at once where equally near.

    times   10 12 12 15   group_offsets [0, 1, 3, 4]   group_of_row [0, 1, 1, 2]
    event at row 3 (time 15): group 2 (distance 0), group 1 (3), group 0 (5)"""

from __future__ import annotations

import math

import numpy as np

from ._jit import Array, jit


@jit
def walk_stride(draw: int, n: int) -> int:
    """A number in [1, n + 1] without a common divisor with n."""
    stride = 1 + draw % n
    while math.gcd(stride, n) != 1:
        stride += 1
    return stride


@jit
def nearest_others(
    events: Array,
    users: Array,
    items: Array,
    group_of_row: Array,
    group_offsets: Array,
    group_times: Array,
    sole_user: Array,
    n_others: Array,
    draws: Array,
    displays: Array,
) -> None:
    """Write each event's display set: its own item, then the distinct items that other users chose
    nearest in time, nearest first.

    Args:
        events: rows of the table of choices, (n_events,).
        users, items: the table, sorted by time, (n_choices,) each.
        group_of_row: (n_choices,).
        group_offsets, group_times: of each group, (n_groups + 1,) and (n_groups,).
        sole_user: the only user who chose an item, or -1, (n_items,).
        n_others: how many items others than a user chose, (n_users,).
        draws: start and stride of each walk around rows of equal distance, (n_events, 2).
        displays: written, (n_events, size), -1 where no candidate is left."""
    size = displays.shape[1]
    n_groups = len(group_times)
    # the event that displayed an item last
    shown = np.full(len(sole_user), -1, np.int64)
    for e in range(len(events)):
        row = events[e]
        user, item = users[row], items[row]
        displays[e, 0] = item
        shown[item] = e
        left = n_others[user] - (1 if sole_user[item] != user else 0)
        wanted = min(size, 1 + left)
        held = 1
        own = group_of_row[row]
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
                if users[other] == user or shown[found] == e:
                    continue
                shown[found] = e
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

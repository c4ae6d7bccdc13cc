"""The numbers of displayed places, kept up to date step by step: what the session so far says of
each item is counted, never gathered from its past.

Counts stand in one open-addressing table per user (`keys` (n, room), -1 where free; linear
probing), so that a step costs what its slate holds, however long the session and however large the
catalogue."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._jit import Array, jit, jit_part
from .relations import find


@jit_part
def _slot(keys: Array, item: int) -> Any:
    """Place of an item in a user's table, or the free one where it belongs; `keys` has a power of
    two of them, some free."""
    room = len(keys)
    at = np.int64(np.uint64(item) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(33)) & (room - 1)
    while keys[at] >= 0 and keys[at] != item:
        at = (at + 1) & (room - 1)
    return at


@jit_part
def _within(value: float, least: float, most: float) -> Any:
    return min(max(value, least), most)


@jit
def slate_numbers(
    first: int,
    last: int,
    rows: Array,
    fixed: Array,
    columns: Array,
    least: Array,
    most: Array,
    set_size: int,
    keys: Array,
    displayed: Array,
    picked: Array,
    events: Array,
    out: Array,
) -> None:
    """Write each displayed place's base numbers to out (n, k, ·), zeros where nothing is displayed.

    fixed (n_rows, n_base): what does not change, by item. columns: where displayed_before,
    chosen_before, log_set_size and event_number stand, -1 for one that is not asked for; all are
    there or none is. These four are kept within `least` and `most` (n_base). set_size: items of the
    display set, 0 where the places are that set."""
    k, n_base = rows.shape[1], fixed.shape[1]
    for user in range(first, last):
        size = 0
        for place in range(k):
            size += rows[user, place, 0] >= 0
        for place in range(k):
            item = rows[user, place, 0]
            for j in range(n_base):
                out[user, place, j] = fixed[item, j] if item >= 0 else 0.0
            if item < 0 or columns[0] < 0:
                continue
            at = _slot(keys[user], item)
            known = keys[user, at] >= 0
            counted = (
                math.log1p(displayed[user, at]) if known else 0.0,
                math.log1p(picked[user, at]) if known else 0.0,
                math.log(set_size if set_size > 0 else size),
                math.log1p(events[user]),
            )
            for j in range(4):
                out[user, place, columns[j]] = _within(
                    counted[j], least[columns[j]], most[columns[j]]
                )


@jit
def relation_numbers(
    first: int,
    last: int,
    rows: Array,
    n_items: int,
    set_size: int,
    starts: Array,
    pairs: Array,
    counts: Array,
    f_starts: Array,
    f_pairs: Array,
    f_counts: Array,
    latest: Array,
    n_chosen: Array,
    column: int,
    out: Array,
) -> None:
    """Write the six numbers of `sessions.relations` to out[:, :, column:column + 6].

    rivals (`starts`, `pairs`, `counts`) and follows (`f_…`) as in `relations.py`; latest (n,
    WINDOW): item rows of each user's last choices, a ring in which choice number c stands at c %
    WINDOW; n_chosen (n,). Rows from n_items on are unknown. Where a set_size is given, sums over
    the other places are what a set of that size, drawn from the places, has on average."""
    k, window = rows.shape[1], latest.shape[1]
    for user in range(first, last):
        size = 0
        for place in range(k):
            size += rows[user, place, 0] >= 0
        share = (set_size - 1) / max(size - 1, 1) if set_size > 0 else 1.0
        for place in range(k):
            a = rows[user, place, 0]
            if a < 0:
                continue
            met_all, known, won_all, lost_all, odds, shown, taken = 0, 0, 0, 0, 0.0, 0, 0
            for other in range(k if a < n_items else 0):
                b = rows[user, other, 0]
                if other == place or b < 0 or b >= n_items:
                    continue
                at = find(pairs, np.int64(a) * n_items + b, starts[a], starts[a + 1])
                if at >= 0:
                    met_all += counts[at, 0]
                    known += counts[at, 0] > 0
                    won_all += counts[at, 1]
                    lost_all += counts[at, 2]
                    odds += math.log((counts[at, 1] + 0.5) / (counts[at, 2] + 0.5))
            for i in range(min(n_chosen[user], window) if a < n_items else 0):
                h = latest[user, i]
                if h < 0 or h >= n_items:
                    continue
                at = find(f_pairs, np.int64(h) * n_items + a, f_starts[h], f_starts[h + 1])
                if at >= 0:
                    shown += f_counts[at, 0]
                    taken += f_counts[at, 1]
            out[user, place, column] = math.log1p(share * met_all)
            out[user, place, column + 1] = known / max(size - 1, 1)
            out[user, place, column + 2] = math.log(
                (share * won_all + 0.5) / (share * lost_all + 0.5)
            )
            out[user, place, column + 3] = share * odds
            out[user, place, column + 4] = math.log1p(shown)
            out[user, place, column + 5] = math.log1p(taken)


@jit
def standardise_slates(
    first: int,
    last: int,
    rows: Array,
    n_base: int,
    set_size: int,
    varying: Array,
    mean: Array,
    scale: Array,
    out: Array,
) -> None:
    """Write the columns `varying` less their mean over the display set to those from n_base on,
    then standardise all.

    Where a set_size is given, that mean is what a set of that size has on average that holds the
    place and others of the user."""
    k, n_numbers = out.shape[1], out.shape[2]
    for user in range(first, last):
        size = 0
        for place in range(k):
            size += rows[user, place, 0] >= 0
        share = (set_size - 1) * size / (set_size * max(size - 1, 1)) if set_size > 0 else 1.0
        for i in range(n_numbers - n_base):
            total = 0.0
            for place in range(k):
                total += out[user, place, varying[i]]
            for place in range(k):
                if rows[user, place, 0] >= 0:
                    out[user, place, n_base + i] = share * (
                        out[user, place, varying[i]] - total / size
                    )
        for place in range(k):
            displayed = rows[user, place, 0] >= 0
            for j in range(n_numbers):
                out[user, place, j] = (
                    (out[user, place, j] - mean[j]) / scale[j] if displayed else 0.0
                )


@jit
def count_slates(
    first: int,
    last: int,
    active: Array,
    rows: Array,
    items: Array,
    keys: Array,
    displayed: Array,
    picked: Array,
    events: Array,
    latest: Array,
    n_chosen: Array,
) -> None:
    """Count what the active users were shown and chose, items (n,) with -1 for no click."""
    for user in range(first, last):
        if not active[user]:
            continue
        for place in range(rows.shape[1]):
            item = rows[user, place, 0]
            if item >= 0:
                at = _slot(keys[user], item)
                if keys[user, at] < 0:
                    keys[user, at] = item
                    displayed[user, at] = 0
                    picked[user, at] = 0
                displayed[user, at] += 1
        events[user] += 1
        if items[user] >= 0:
            picked[user, _slot(keys[user], items[user])] += 1
            latest[user, n_chosen[user] % latest.shape[1]] = items[user]
            n_chosen[user] += 1


@jit
def move_counts(
    keys: Array,
    displayed: Array,
    picked: Array,
    to_keys: Array,
    to_displayed: Array,
    to_picked: Array,
) -> None:
    """Enter every user's counts into tables of another room; `to_keys` holds -1."""
    for user in range(len(keys)):
        for i in range(keys.shape[1]):
            if keys[user, i] >= 0:
                at = _slot(to_keys[user], keys[user, i])
                to_keys[user, at] = keys[user, i]
                to_displayed[user, at] = displayed[user, i]
                to_picked[user, at] = picked[user, i]


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

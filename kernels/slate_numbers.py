"""The numbers of the places that many users are shown: the formulas of `candidate_formulas.py`,
over the slates, or the pools, of users first to last − 1 of a world, and of one online user.

out: shape (n, k, n_numbers)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._jit import Array, jit, jit_leaf
from .candidate_counts import N_COUNTS, UserTables, slot
from .candidate_formulas import (
    Slates,
    is_same,
    less_set_means,
    numbers_of_event,
    numbers_of_relations,
    numbers_of_session,
    standardise,
    write_values,
)
from .pairs import Hashed, ask_for_marks, hash_again, hashed_rows
from .relations import N_SUMS, PairTables, add_follows, add_rivals


class ItemNumbers(NamedTuple):
    """What a world has of its items before anything of a session is known."""

    fixed: Array
    """base numbers of each item, 0 where a session decides, shape (n_rows, n_base)"""
    columns: Array
    """columns of SESSION_NUMBERS"""
    least: Array
    most: Array
    """what training has seen, and a session's numbers are kept within, shape (n_numbers,) each"""


@jit_leaf
def _set_size(rows: Array) -> int:
    """Places of a user's slate, rows (k, ·), that show something."""
    size = 0
    for place in range(len(rows)):
        size += rows[place, 0] >= 0
    return size


@jit
def slate_numbers(
    first: int,
    last: int,
    slates: Slates,
    users: UserTables,
    items: ItemNumbers,
    out: Array,
) -> None:
    """Write each displayed place's fixed numbers and SESSION_NUMBERS, zeros where nothing is
    displayed."""
    fixed, columns, least, most = items
    rows, set_size = slates
    nothing = np.zeros(N_COUNTS, np.int32)
    counted = False
    for j in range(len(columns)):
        counted |= columns[j] >= 0
    for user in range(first, last):
        size = set_size if set_size > 0 else _set_size(rows[user])
        # without a place that shows something, nothing reads it
        of_user = numbers_of_event(users.events[user] if counted else 0, max(size, 1))
        for place in range(rows.shape[1]):
            item = rows[user, place, 0]
            for j in range(fixed.shape[1]):
                out[user, place, j] = fixed[item, j] if item >= 0 else 0.0
            if item < 0 or not counted:
                continue
            at = slot(users.keys[user], item)
            counts = users.counts[user, at] if users.keys[user, at] >= 0 else nothing
            values = numbers_of_session(counts, of_user)
            for j in range(len(values)):
                if columns[j] >= 0:
                    out[user, place, columns[j]] = min(
                        max(values[j], least[columns[j]]), most[columns[j]]
                    )


@jit
def slate_context_numbers(
    first: int, last: int, slates: Slates, of_context: Array, columns: Array, out: Array
) -> None:
    """Write `is_same` of each displayed place and context field.

    of_context: item row of the users' events, (n, n_fields); columns: where each field's number is
    written, (n_fields,)."""
    rows = slates.rows
    for user in range(first, last):
        for place in range(rows.shape[1]):
            for field in range(len(columns)):
                same = is_same(rows[user, place, 0], of_context[user, field])
                out[user, place, columns[field]] = same


@jit
def slate_relations(
    first: int,
    last: int,
    slates: Slates,
    users: UserTables,
    tables: PairTables,
    columns: Array,
    out: Array,
) -> None:
    """Write RELATION_NUMBERS of each displayed place."""
    rows, set_size = slates
    k, latest, n_chosen = rows.shape[1], users.latest, users.n_chosen
    most = tables.rule.most
    sums = np.empty((k, N_SUMS))
    shown, ahead = hashed_rows(np.full(k, -1)), hashed_rows(np.full(k, -1))
    # marks come from memory: the next user's are on their way while this one's are read
    for next_user in range(first, last + 1):
        user = next_user - 1
        shown, ahead = ahead, shown
        if next_user < last:
            _look_ahead(rows[next_user], tables, ahead)
            for i in range(min(n_chosen[next_user], latest.shape[1])):
                of_choice = latest[next_user, i]
                ask_for_marks(tables.follows.starts, tables.follows.marks, of_choice, ahead.hashes)
        if user < first:
            continue
        items = shown.rows
        n_others = min(_set_size(rows[user]) - 1, most)
        share = min(set_size - 1, most) / max(n_others, 1) if set_size > 0 else 1.0
        sums[:] = 0.0
        add_rivals(shown, tables, sums)
        for i in range(min(n_chosen[user], latest.shape[1])):
            add_follows(shown, latest[user, i], tables.follows, sums)
        for place in range(k):
            if items[place] >= 0:
                values = numbers_of_relations(sums[place], n_others, share)
                write_values(values, columns, out[user, place])


@jit_leaf
def _look_ahead(slate: Array, tables: PairTables, ahead: Hashed) -> None:
    """Hash a user's slate, (k, ·), and ask for the marks of its rivals."""
    for place in range(len(slate)):
        ahead.rows[place] = slate[place, 0]
    hash_again(ahead)
    for place in range(len(slate)):
        ask_for_marks(tables.rivals.starts, tables.rivals.marks, ahead.rows[place], ahead.hashes)


@jit
def standardise_slates(
    first: int,
    last: int,
    slates: Slates,
    varying: Array,
    mean: Array,
    scale: Array,
    out: Array,
) -> None:
    """Write the columns `varying` less their set's mean to the last columns and standardise all; 0
    where nothing is displayed."""
    rows, set_size = slates
    for user in range(first, last):
        size = _set_size(rows[user])
        share = (set_size - 1) * size / (set_size * max(size - 1, 1)) if set_size > 0 else 1.0
        less_set_means(out[user], size, varying, share)
        for place in range(rows.shape[1]):
            if rows[user, place, 0] >= 0:
                standardise(out[user, place], mean, scale)
            else:
                out[user, place] = 0.0

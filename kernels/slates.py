"""Slates shown to many users at once: which places are displayed, their scores, their
probabilities, and the draw.

A user's slate is a row of k places. What the kernels read is not the item but the table rows of a
place, (n, k, n_rows): the item's, and where the order of display is a feature the position's; -1 in
the first stands for a place that shows nothing. All dense tables are folded before: one row holds
all that an item's ids say to a layer.

Products are taken row by row in loops of our own, over tiles of rows that stay in cache. A BLAS
product would give a row other bits in another place or beside other rows (on some processors), and
a user's scores must not depend on who stands beside it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._jit import AHEAD, Array, jit, jit_fast, jit_leaf, prefetch_row
from .activations import ZERO, activate, activated_dot, exp_nonpositive
from .draws import pick, uniform
from .products import add, copy, dot, matrix, multiply_rows

TILE = 96
"""rows that are worked on at once, a multiple of 3"""
FEW = 32
"""places of a slate up to which repeats are found by comparing all pairs"""


class ScorerTables(NamedTuple):
    """A folded scorer."""

    table: Array
    """what a row adds to the first layer, shape (·, widths[0])"""
    wide: Array
    """what a row adds to the score, shape (·,)"""
    from_state: Array
    """shape (S, widths[0])"""
    from_numbers: Array
    """shape (d, widths[0])"""
    wide_numbers: Array
    """shape (d,)"""
    bias: Array
    """of the first layer, shape (widths[0],)"""
    deeper: Array
    """of each later layer W, transposed, then b, one behind the other"""
    widths: Array
    """units of each hidden layer"""
    kind: int
    """the activation"""


class ChoiceRule(NamedTuple):
    """How scores become probabilities."""

    eta: float
    outside: bool
    """whether no click is possible"""


class Displayed(NamedTuple):
    """What users see."""

    rows: Array
    """table rows of each place, shape (n, k, n_rows)"""
    numbers: Array
    """numbers of each place, shape (n, k, d)"""


class Chosen(NamedTuple):
    """What users chose, and what of it moves their histories."""

    places: Array
    """shape (n,), -1 for no click"""
    items: Array
    """shape (n,), -1 for no click"""
    rows: Array
    """table rows, -1 for no click, shape (n, 1, n_rows)"""
    numbers: Array
    """0 for no click, shape (n, 1, d)"""


@jit
def displayed_rows(
    first: int, last: int, slates: Array, active: Array, n_rows: int, n_positions: int, rows: Array
) -> None:
    """Write the table rows of each place, (n, k, 1) or (n, k, 2): the item's, and n_rows + 1 + its
    rank among the displayed.

    An item that stood earlier in the slate is not displayed again, nor is anything to an inactive
    user. A rank from `n_positions` on has the row n_rows: that of an unknown position."""
    k = slates.shape[1]
    seen = np.zeros(n_rows if k > FEW else 0, np.int32)
    for user in range(first, last):
        rank = 0
        for place in range(k):
            item = slates[user, place]
            if not active[user]:
                item = -1
            if item >= 0 and k > FEW:
                if seen[item] == user - first + 1:
                    item = -1
                else:
                    seen[item] = user - first + 1
            elif item >= 0:
                for other in range(place):
                    if slates[user, other] == item:
                        item = -1
                        break
            rows[user, place, 0] = item
            if rows.shape[2] == 2:
                rows[user, place, 1] = (
                    -1 if item < 0 else n_rows + 1 + rank if rank < n_positions else n_rows
                )
            rank += item >= 0


@jit_fast
def slate_scores(
    first: int,
    last: int,
    rows: Array,
    numbers: Array,
    states: Array,
    scorer: ScorerTables,
    scores: Array,
) -> None:
    """Write a scorer's scores of each place, (n, k), 0 where nothing is displayed.

    rows (n, k, n_rows), numbers (n, k, d) as in `Displayed`; states (n, S)."""
    table, widths, deeper = scorer.table, scorer.widths, scorer.deeper
    k, n_rows, n_numbers, width, state_dim = (
        rows.shape[1],
        rows.shape[2],
        numbers.shape[2],
        widths[0],
        states.shape[1],
    )
    flat_rows, flat_numbers = (
        rows.reshape(len(rows) * k, n_rows),
        numbers.reshape(len(rows) * k, n_numbers),
    )
    flat_scores = scores.reshape(-1)
    widest = 0
    for layer in range(len(widths)):
        widest = max(widest, widths[layer])
    of_users, sums = np.zeros((TILE, state_dim), table.dtype), np.empty((TILE, width), table.dtype)
    of_places = np.zeros((TILE, n_numbers), table.dtype)
    one, other = np.zeros(TILE * widest, table.dtype), np.zeros(TILE * widest, table.dtype)
    for start in range(first, last, TILE):
        users = min(TILE, last - start)
        for i in range(users):
            copy(of_users[i], states[start + i])
        multiply_rows(of_users, scorer.from_state, users, sums)
        for i in range(users):
            add(sums[i], scorer.bias)
        for begin in range(start * k, (start + users) * k, TILE):
            count = min(TILE, (start + users) * k - begin)
            values = matrix(one, 0, TILE, width)
            if n_numbers > 0:
                for i in range(count):
                    copy(of_places[i], flat_numbers[begin + i])
                multiply_rows(of_places, scorer.from_numbers, count, values)
            shown = flat_rows[begin : begin + count]
            _first_layer(begin // k - start, begin % k, k, shown, scorer, sums, values)
            at, before = 0, width
            for layer in range(1, len(widths)):
                after = widths[layer]
                above = matrix(other, 0, TILE, after)
                multiply_rows(values, matrix(deeper, at, before, after), count, above)
                at += before * after
                beside = deeper[at : at + after]
                at += after
                # the last layer's activations go straight into the score
                for i in range(count if layer + 1 < len(widths) else 0):
                    activate(above[i], beside, scorer.kind)
                one, other = other, one
                values, before = above, after
            last_layer = deeper[at : at + before + 1]
            for i in range(count):
                if shown[i, 0] < 0:
                    flat_scores[begin + i] = ZERO
                    continue
                score = last_layer[before]
                if len(widths) > 1:
                    beside = deeper[at - before : at]
                    score += activated_dot(values[i], beside, scorer.kind, last_layer)
                else:
                    score += dot(values[i], last_layer)
                if n_numbers > 0:
                    score += dot(of_places[i], scorer.wide_numbers)
                for f in range(n_rows):
                    row = shown[i, f]
                    score += scorer.wide[row] if row >= 0 else ZERO
                flat_scores[begin + i] = score


@jit_leaf
def _first_layer(
    user: int,
    place: int,
    k: int,
    rows: Array,
    scorer: ScorerTables,
    sums: Array,
    values: Array,
) -> None:
    """Turn a tile's sums over numbers, if there are any, into activations of the first layer.

    rows (count, n_rows): those of the tile, which begins with a place of a user; sums: what each
    user's state and the bias add. A place that shows nothing is left as it is."""
    table, add_to, kind = scorer.table, len(scorer.from_numbers) > 0, scorer.kind
    count, n_rows = rows.shape
    for i in range(count):
        ahead = rows[min(i + AHEAD, count - 1), 0]
        if ahead >= 0:
            prefetch_row(table, ahead)
        row = rows[i, 0]
        if row >= 0:
            value = values[i]
            if not add_to:
                copy(value, sums[user])
            else:
                add(value, sums[user])
            for f in range(1, n_rows):
                if rows[i, f] >= 0:
                    add(value, table[rows[i, f]])
            activate(value, table[row], kind)
        place += 1
        if place == k:
            place = 0
            user += 1


@jit_fast
def softmax_slates(
    first: int,
    last: int,
    scores: Array,
    rows: Array,
    rule: ChoiceRule,
    probs: Array,
    none: Array,
) -> None:
    """Write softmax(eta · scores) over each user's displayed places, (n, k), and what is left for
    no click, (n,)."""
    k = scores.shape[1]
    scale, outside = np.float32(rule.eta), rule.outside
    for user in range(first, last):
        top = ZERO if outside else np.float32(-np.inf)
        for place in range(k):
            if rows[user, place, 0] >= 0:
                top = max(top, scale * scores[user, place])
        if top == -np.inf:
            for place in range(k):
                probs[user, place] = ZERO
            none[user] = 1.0
            continue
        for place in range(k):
            probs[user, place] = exp_nonpositive(min(scale * scores[user, place] - top, ZERO))
        nothing = np.float64(exp_nonpositive(-top)) if outside else 0.0
        total = nothing
        for place in range(k):
            if rows[user, place, 0] < 0:
                probs[user, place] = ZERO
            total += probs[user, place]
        for place in range(k):
            probs[user, place] /= total
        none[user] = nothing / total


@jit
def draw_places(
    first: int,
    last: int,
    probs: Array,
    none: Array,
    keys: Array,
    displayed: Displayed,
    chosen: Chosen,
) -> None:
    """Draw each user's choice by its key."""
    rows, numbers = displayed
    for user in range(first, last):
        choice = pick(uniform(keys[user]), probs[user], none[user])
        chosen.places[user] = choice
        chosen.items[user] = rows[user, choice, 0] if choice >= 0 else -1
        for f in range(rows.shape[2]):
            chosen.rows[user, 0, f] = rows[user, choice, f] if choice >= 0 else -1
        for j in range(numbers.shape[2]):
            chosen.numbers[user, 0, j] = numbers[user, choice, j] if choice >= 0 else ZERO


@jit
def take_places(first: int, last: int, values: Array, places: Array, taken: Array) -> None:
    """Write each user's value at its place, (n,), 0 for place -1."""
    for user in range(first, last):
        taken[user] = values[user, places[user]] if places[user] >= 0 else ZERO


@jit
def slates_of(actions: Array, pools: Array, active: Array, strict: bool, slates: Array) -> int:
    """Write slates[i, j] = pools[i, actions[i, j]] of active users; one pool may stand for all.

    Returns -1, or the flat place of the first action that is outside the pool or, if strict, equal
    to an earlier one of its slate."""
    n_users, width = actions.shape
    size, shared = pools.shape[1], len(pools) == 1
    for i in range(n_users):
        if not active[i]:
            continue
        row = 0 if shared else i
        for j in range(width):
            action = actions[i, j]
            if action < 0 or action >= size:
                return int(i * width + j)
            slates[i, j] = pools[row, action]
        for j in range(1, width if strict else 0):
            for h in range(j):
                if actions[i, h] == actions[i, j]:
                    return int(i * width + j)
    return -1

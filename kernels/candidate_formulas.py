"""The formulas of a candidate's numbers, each once, for training, evaluation and worlds.

Values are in the order of the names; `columns` says where each is written, -1 for none. `set_size`
is 0 where candidates are a display set, and k where they are a pool of which an average set of k is
meant."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._jit import Array, jit, jit_leaf
from .candidate_counts import CHOSEN, DISPLAYED, TrainingTotals
from .pairs import ask_for_marks, hashed_rows
from .relations import (
    CHOSEN_AFTER,
    LOST,
    MET,
    N_SUMS,
    ODDS,
    SHOWN_AFTER,
    TOGETHER,
    WON,
    LatestChoices,
    PairTables,
    add_follows,
    add_rivals,
    log_odds,
)

SESSION_NUMBERS = ("displayed_before", "chosen_before", "log_set_size", "event_number")
"""of the session until now and the display"""
TRAINING_NUMBERS = (
    "log_displays",
    "log_choices",
    "choice_rate",
    "choice_lift",
    "never_seen",
    "never_chosen",
)
"""of an item in training"""
RELATION_NUMBERS = (
    "rivals_met",
    "rivals_known",
    "rivals_won",
    "rivals_odds",
    "follows_shown",
    "follows_chosen",
)
"""log displays with the rivals, share of them met, log odds of all wins, sum of log odds, log
displays and choices after the last choices"""


LOGS = np.log1p(np.arange(1024))
"""log(1 + n) of small n"""


@jit_leaf
def log1p_count(count: float) -> float:
    """log(1 + count), without a call where the count is 0."""
    return math.log1p(count) if count > 0 else 0.0


@jit_leaf
def log1p_whole(count: int) -> float:
    """log(1 + count) of a whole number."""
    return float(LOGS[count]) if count < len(LOGS) else math.log1p(count)


@jit_leaf
def log_lift(choices: float, expected: float) -> float:
    """The log of choices over the expected ones, half a choice added to both."""
    return math.log((choices + 0.5) / (expected + 0.5))


@jit_leaf
def write_values(values: Any, columns: Array, numbers: Array) -> None:
    """Write a candidate's values to their columns of its numbers."""
    for j in range(len(values)):
        if columns[j] >= 0:
            numbers[columns[j]] = values[j]


@jit
def session_numbers(
    display_offsets: Array,
    n_before: Array,
    before: Array,
    set_size: int,
    columns: Array,
    out: Array,
) -> None:
    """Write SESSION_NUMBERS of each candidate to out (n_candidates, ·).

    n_before: events of its session before each, (n_events,); before: (n_candidates, N_COUNTS)."""
    for event in range(len(display_offsets) - 1):
        first, last = display_offsets[event], display_offsets[event + 1]
        size = set_size if set_size > 0 else max(last - first, 1)
        log_size, number = log1p_whole(size - 1), log1p_whole(n_before[event])
        for candidate in range(first, last):
            shown, chosen = before[candidate, DISPLAYED], before[candidate, CHOSEN]
            values = log1p_whole(shown), log1p_whole(chosen), log_size, number
            write_values(values, columns, out[candidate])


@jit
def training_numbers(totals: TrainingTotals, prior_rate: float, columns: Array, out: Array) -> None:
    """Write TRAINING_NUMBERS of each of n totals to out (n, ·); prior_rate: choices per display of
    all items, at which two more displays are chosen."""
    for i in range(len(totals.displays)):
        displays, choices = totals.displays[i], totals.choices[i]
        values = (
            log1p_whole(displays),
            log1p_whole(choices),
            (choices + 2 * prior_rate) / (displays + 2),
            log_lift(choices, totals.expected[i]),
            1.0 if displays == 0 else 0.0,
            1.0 if choices == 0 else 0.0,
        )
        write_values(values, columns, out[i])


@jit
def relation_numbers(
    display_offsets: Array,
    rows: Array,
    choices: LatestChoices,
    tables: PairTables,
    set_size: int,
    columns: Array,
    out: Array,
) -> None:
    """Write RELATION_NUMBERS of each candidate to out (n_candidates, ·).

    rows: training row of each candidate, another number for an unknown one, (n_candidates,)."""
    n_events, most, follows = len(display_offsets) - 1, tables.rule.most, tables.follows
    latest, window = choices.items, choices.items.shape[1]
    if n_events == 0:
        return
    ahead = hashed_rows(rows[display_offsets[0] : display_offsets[1]])
    for event in range(n_events):
        first, last, shown = display_offsets[event], display_offsets[event + 1], ahead
        # marks come from memory: the next event's are on their way while this one's are read
        if event + 1 < n_events:
            ahead = hashed_rows(rows[last : display_offsets[event + 2]])
            for row in ahead.rows:
                ask_for_marks(tables.rivals.starts, tables.rivals.marks, row, ahead.hashes)
            for i in range(min(choices.n[event + 1], window)):
                ask_for_marks(follows.starts, follows.marks, latest[event + 1, i], ahead.hashes)
        n_others = min(last - first - 1, most)
        # of a pool, what a set of k has on average
        share = min(set_size - 1, most) / max(n_others, 1) if set_size > 0 else 1.0
        sums = np.zeros((last - first, N_SUMS))
        add_rivals(shown, tables, sums)
        for i in range(min(choices.n[event], window)):
            add_follows(shown, latest[event, i], follows, sums)
        for place in range(last - first):
            of_pairs = sums[place]
            values = (
                log1p_count(share * of_pairs[TOGETHER]),
                of_pairs[MET] / max(n_others, 1),
                log_odds(share * of_pairs[WON], share * of_pairs[LOST]),
                share * of_pairs[ODDS],
                log1p_count(of_pairs[SHOWN_AFTER]),
                log1p_count(of_pairs[CHOSEN_AFTER]),
            )
            write_values(values, columns, out[first + place])


@jit
def relate_to_sets(display_offsets: Array, varying: Array, set_size: int, out: Array) -> None:
    """Write the columns `varying` less their mean over each display set to the last columns of out
    (n_candidates, n_numbers); of a pool of m, times (k - 1) m / (k (m - 1))."""
    n_base = out.shape[1] - len(varying)
    for event in range(len(display_offsets) - 1):
        block = out[display_offsets[event] : display_offsets[event + 1]]
        size, share = len(block), 1.0
        if set_size > 0:
            share = (set_size - 1) * size / (set_size * max(size - 1, 1))
        for i in range(len(varying)):
            total = 0.0
            for place in range(size):
                total += block[place, varying[i]]
            mean = total / max(size, 1)
            for place in range(size):
                block[place, n_base + i] = share * (block[place, varying[i]] - mean)


@jit
def encode_rows(
    raw: Array,
    columns: Array,
    start: Array,
    scale: Array,
    least: Array,
    most: Array,
    bend: Array,
    out: Array,
) -> None:
    """Write rows raw (n, n_raw) as networks read them, out (n, n_numbers); all else as in
    `features.standardise.NumberCode`."""
    for i in range(len(out)):
        for j in range(len(columns)):
            value = (raw[i, columns[j]] - start[j]) / scale[j]
            if bend[j] > 0:
                value = value / np.hypot(np.float32(1), value / bend[j])
            out[i, j] = min(max(value, least[j]), most[j])

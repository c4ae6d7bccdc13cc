"""The formulas of a candidate's numbers, each once: training, evaluation and worlds call these.

A formula takes what has been counted of one candidate and returns its numbers, in the order of the
names beside it. The loops below give it the counts of the candidates of displays: those of a log,
and those that users of a world or one online user are shown. `columns` says where each number is
written, -1 for one not asked for. `set_size` is 0 where candidates are a display set, and k where
they are a pool of which an average set of k is meant.

To add a number: its name and its value here, its place in `COUNTED_NUMBERS` of
fastgaum/features/numbers.py, and what it counts, if that is new, in candidate_counts.py."""

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
"""numbers that the session until now and the display decide"""
TRAINING_NUMBERS = (
    "log_displays",
    "log_choices",
    "choice_rate",
    "choice_lift",
    "never_seen",
    "never_chosen",
)
"""numbers that training says of an item"""
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
"""log(1 + n) of small n: looked up in place of a call"""


@jit_leaf
def log1p_count(count: float) -> float:
    """log(1 + count), without a call where the count is 0: of pairs most are."""
    return math.log1p(count) if count > 0 else 0.0


@jit_leaf
def log1p_whole(count: int) -> float:
    """log(1 + count) of a whole number."""
    return float(LOGS[count]) if count < len(LOGS) else math.log1p(count)


@jit_leaf
def numbers_of_event(n_events: int, set_size: int) -> Any:
    """The SESSION_NUMBERS that the candidates of an event share."""
    return log1p_whole(set_size - 1), log1p_whole(n_events)


@jit_leaf
def numbers_of_session(counts: Array, of_event: Any) -> Any:
    """SESSION_NUMBERS of an item; counts: its row in the session until now; of_event: what the
    event's candidates share."""
    return log1p_whole(counts[DISPLAYED]), log1p_whole(counts[CHOSEN]), of_event[0], of_event[1]


@jit_leaf
def log_lift(choices: float, expected: float) -> float:
    """Log of choices beside the expected ones (uniform choice, or the place's rate), half a choice
    added to both."""
    return math.log((choices + 0.5) / (expected + 0.5))


@jit_leaf
def numbers_of_training(displays: int, choices: int, expected: float, prior_rate: float) -> Any:
    """TRAINING_NUMBERS of an item; prior_rate: choices per display of all items.

    The rate is that of two more displays, chosen at the prior rate. The lift is choices beside the
    expected ones (`TrainingTotals.expected`), half a choice added to both."""
    return (
        log1p_whole(displays),
        log1p_whole(choices),
        (choices + 2 * prior_rate) / (displays + 2),
        log_lift(choices, expected),
        1.0 if displays == 0 else 0.0,
        1.0 if choices == 0 else 0.0,
    )


@jit_leaf
def numbers_of_relations(sums: Array, n_others: int, share: float) -> Any:
    """RELATION_NUMBERS of a candidate; sums: what pairs say of it; n_others: how many candidates of
    its display set it is compared with.

    share: 1 for a display set. The sums over a pool times those of a set of k over n_others are
    what a set of k, drawn from the pool, has on average."""
    return (
        log1p_count(share * sums[TOGETHER]),
        sums[MET] / max(n_others, 1),
        log_odds(share * sums[WON], share * sums[LOST]),
        share * sums[ODDS],
        log1p_count(sums[SHOWN_AFTER]),
        log1p_count(sums[CHOSEN_AFTER]),
    )


@jit_leaf
def less_set_means(block: Array, size: int, varying: Array, share: float) -> None:
    """Write the columns `varying` less their mean over a display set to the set's last columns.

    block: the set's candidates, (·, n_numbers); size: how many there are. share: 1 for a display
    set. The difference in a pool of m, times (k - 1) m over k (m - 1), is what a candidate has on
    average in a set of k drawn from the pool."""
    n_base = block.shape[1] - len(varying)
    for i in range(len(varying)):
        total = 0.0
        for place in range(len(block)):
            total += block[place, varying[i]]
        mean = total / max(size, 1)
        for place in range(len(block)):
            block[place, n_base + i] = share * (block[place, varying[i]] - mean)


@jit_leaf
def write_values(values: Any, columns: Array, numbers: Array) -> None:
    """Write a candidate's values to their columns of its numbers."""
    for j in range(len(values)):
        if columns[j] >= 0:
            numbers[columns[j]] = values[j]


@jit_leaf
def is_same(item: int, of_context: int) -> float:
    """1 for a candidate that is the item of its event's context, else 0; of_context: -1 where there
    is none."""
    return 1.0 if item == of_context and item >= 0 else 0.0


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

    n_before: events of its session before each event, (n_events,); before: row of counts of each
    candidate, (n_candidates, N_COUNTS)."""
    for event in range(len(display_offsets) - 1):
        first, last = display_offsets[event], display_offsets[event + 1]
        size = set_size if set_size > 0 else max(last - first, 1)
        of_event = numbers_of_event(n_before[event], size)
        for candidate in range(first, last):
            values = numbers_of_session(before[candidate], of_event)
            write_values(values, columns, out[candidate])


@jit
def training_numbers(totals: TrainingTotals, prior_rate: float, columns: Array, out: Array) -> None:
    """Write TRAINING_NUMBERS of each of n totals to out (n, ·)."""
    for i in range(len(totals.displays)):
        values = numbers_of_training(
            totals.displays[i], totals.choices[i], totals.expected[i], prior_rate
        )
        write_values(values, columns, out[i])


@jit
def context_numbers(
    display_offsets: Array, items: Array, of_context: Array, columns: Array, out: Array
) -> None:
    """Write `is_same` of each candidate and context field to out (n_candidates, ·).

    items: code of each candidate's item, (n_candidates,); of_context: the events', (n_events,
    n_fields); columns: where each field's number is written, (n_fields,)."""
    for event in range(len(display_offsets) - 1):
        for candidate in range(display_offsets[event], display_offsets[event + 1]):
            for field in range(len(columns)):
                same = is_same(items[candidate], of_context[event, field])
                out[candidate, columns[field]] = same


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
        share = min(set_size - 1, most) / max(n_others, 1) if set_size > 0 else 1.0
        sums = np.zeros((last - first, N_SUMS))
        add_rivals(shown, tables, sums)
        for i in range(min(choices.n[event], window)):
            add_follows(shown, latest[event, i], follows, sums)
        for place in range(last - first):
            values = numbers_of_relations(sums[place], n_others, share)
            write_values(values, columns, out[first + place])


@jit
def relate_to_sets(display_offsets: Array, varying: Array, set_size: int, out: Array) -> None:
    """Write each display set's columns `varying` less their mean over it to the last columns of out
    (n_candidates, n_numbers)."""
    for event in range(len(display_offsets) - 1):
        first, last = display_offsets[event], display_offsets[event + 1]
        size, share = last - first, 1.0
        if set_size > 0:
            share = (set_size - 1) * size / (set_size * max(size - 1, 1))
        less_set_means(out[first:last], size, varying, share)


@jit
def encode_rows(
    raw: Array,
    columns: Array,
    start: Array,
    scale: Array,
    least: Array,
    most: Array,
    out: Array,
) -> None:
    """Write the numbers of each row, raw (n, n_raw), as networks read them, out (n, n_numbers);
    all else as in `features.number_code.NumberCode`."""
    for i in range(len(out)):
        for j in range(len(columns)):
            value = (raw[i, columns[j]] - start[j]) / scale[j]
            out[i, j] = min(max(value, least[j]), most[j])

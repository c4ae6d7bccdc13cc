"""The formulas of a candidate's numbers, each once: training, evaluation and worlds call these.

A formula takes what has been counted of one candidate and returns its numbers, in the order of the
names beside it. The loops below give it the counts of a log's candidates; those of
`slate_numbers.py`, of the places of the slates that a world shows. `columns` says where each number
is written, -1 for one not asked for.

To add a number: its name and its value here, its place in `COUNTED_NUMBERS` of
fastgaum/features/numbers.py, and what it counts, if that is new, in candidate_counts.py."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ._jit import Array, jit, jit_leaf
from .candidate_counts import CHOSEN, DISPLAYED, PackedSessions, TrainingTotals
from .pairs import hashed_rows
from .relations import (
    CHOSEN_AFTER,
    LOST,
    MET,
    N_SUMS,
    ODDS,
    SHOWN_AFTER,
    TOGETHER,
    WON,
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

    block: the set's candidates, (·, n_numbers), zeros where a place shows nothing; size: candidates
    of the set. share: 1 for a display set. The difference in a pool of m, times (k - 1) m over
    k (m - 1), is what a candidate has on average in a set of k drawn from the pool."""
    n_base = block.shape[1] - len(varying)
    for i in range(len(varying)):
        total = 0.0
        for place in range(len(block)):
            total += block[place, varying[i]]
        mean = total / max(size, 1)
        for place in range(len(block)):
            block[place, n_base + i] = share * (block[place, varying[i]] - mean)


@jit_leaf
def standardise(numbers: Array, mean: Array, scale: Array) -> None:
    """Turn a candidate's numbers, (n_numbers,), into standard deviations from training's mean."""
    for j in range(len(numbers)):
        numbers[j] = (numbers[j] - mean[j]) / scale[j]


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


class Slates(NamedTuple):
    """What is shown to n users."""

    rows: Array
    """each place's item row first, -1 where nothing is displayed, shape (n, k, ·)"""
    set_size: int
    """candidates of the display set: 0 where the places are that set, k where they are a pool of
    which an average slate of k is meant"""


# A log: all candidates of whole sessions.


@jit
def session_numbers(
    session_offsets: Array, display_offsets: Array, before: Array, columns: Array, out: Array
) -> None:
    """Write SESSION_NUMBERS of each candidate to out (n_candidates, ·); before: its row of counts,
    shape (n_candidates, N_COUNTS)."""
    for session in range(len(session_offsets) - 1):
        start = session_offsets[session]
        for event in range(start, session_offsets[session + 1]):
            first, last = display_offsets[event], display_offsets[event + 1]
            of_event = numbers_of_event(event - start, last - first)
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
    sessions: PackedSessions, tables: PairTables, window: int, columns: Array, out: Array
) -> None:
    """Write RELATION_NUMBERS of each candidate to out (n_candidates, ·).

    sessions: with training rows as items, -1 for an unknown one; window: how many of the last
    choices count."""
    session_offsets, display_offsets, rows, choices = sessions
    latest = np.empty(window, np.int32)
    for session in range(len(session_offsets) - 1):
        n_chosen = 0
        for event in range(session_offsets[session], session_offsets[session + 1]):
            first, last = display_offsets[event], display_offsets[event + 1]
            shown, sums = hashed_rows(rows[first:last]), np.zeros((last - first, N_SUMS))
            add_rivals(shown, tables, sums)
            for i in range(min(n_chosen, window)):
                add_follows(shown, latest[i], tables.follows, sums)
            for place in range(last - first):
                n_others = min(last - first - 1, tables.rule.most)
                write_values(
                    numbers_of_relations(sums[place], n_others, 1.0), columns, out[first + place]
                )
            if choices[event] >= 0:
                latest[n_chosen % window] = shown.rows[choices[event]]
                n_chosen += 1


@jit
def relate_to_sets(display_offsets: Array, varying: Array, out: Array) -> None:
    """Write each display set's columns `varying` less their mean over it to the last columns of out
    (n_candidates, n_numbers)."""
    for event in range(len(display_offsets) - 1):
        first, last = display_offsets[event], display_offsets[event + 1]
        less_set_means(out[first:last], last - first, varying, 1.0)


@jit
def standardise_rows(mean: Array, scale: Array, out: Array) -> None:
    """Standardise the numbers of each candidate, out (n_candidates, n_numbers)."""
    for i in range(len(out)):
        standardise(out[i], mean, scale)

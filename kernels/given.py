"""What earlier choices of a session have given, and how candidates stand in their displays."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ._jit import Array, jit

WINDOW = 256
"""earlier events that are read, at most"""
PRIOR_EVENTS = 0.5
"""outcomes of the training mean that each mean begins with"""


class PastChoices(NamedTuple):
    """Choices in the order of their events, those of a session side by side."""

    keys: Array  # the item and its categories that were chosen, -1 for none, (n_past, n_keys)
    values: Array  # what followed, NaN for nothing known, (n_past, n_values)


class GivenColumns(NamedTuple):
    """Columns of a candidate's numbers, -1 for none."""

    means: Array  # mean of what the key has given, (n_keys, n_values)
    of_all: Array  # mean of what all choices have given, (n_values,)
    last: Array  # what the item gave last, (n_values,)
    best: Array  # the most that the item has given, (n_values,)
    chosen_last: int  # whether the event before chose the item


@jit
def write_given(
    offsets: Array,
    keys: Array,
    first: Array,
    last: Array,
    past: PastChoices,
    priors: Array,
    columns: GivenColumns,
    numbers: Array,
) -> None:
    """Write what the rows first[e] to last[e] of the past have given to the candidates of event e.

    keys: as of the past, (n_candidates, n_keys); priors: training means, (n_values,)."""
    n_keys, n_values = columns.means.shape
    sums, counts = np.empty(n_values), np.empty(n_values)
    latest, best = np.empty(n_values), np.empty(n_values)
    for event in range(len(first)):
        begin, end = max(first[event], last[event] - WINDOW), last[event]
        sums[:] = PRIOR_EVENTS * priors
        counts[:] = PRIOR_EVENTS
        for t in range(begin, end):
            for j in range(n_values):
                if not math.isnan(past.values[t, j]):
                    sums[j] += past.values[t, j]
                    counts[j] += 1
        for candidate in range(offsets[event], offsets[event + 1]):
            for j in range(n_values):
                if columns.of_all[j] >= 0:
                    numbers[candidate, columns.of_all[j]] = sums[j] / counts[j]
        for candidate in range(offsets[event], offsets[event + 1]):
            row = numbers[candidate]
            for k in range(n_keys):
                key = keys[candidate, k]
                sums[:] = PRIOR_EVENTS * priors
                counts[:] = PRIOR_EVENTS
                latest[:] = priors
                best[:] = -np.inf
                for t in range(begin, end):
                    if past.keys[t, k] == key and key >= 0:
                        for j in range(n_values):
                            value = past.values[t, j]
                            if not math.isnan(value):
                                sums[j] += value
                                counts[j] += 1
                                latest[j] = value
                                best[j] = max(best[j], value)
                for j in range(n_values):
                    if columns.means[k, j] >= 0:
                        row[columns.means[k, j]] = sums[j] / counts[j]
                    if k == 0 and columns.last[j] >= 0:
                        row[columns.last[j]] = latest[j]
                    if k == 0 and columns.best[j] >= 0:
                        row[columns.best[j]] = best[j] if best[j] > -np.inf else priors[j]
            if columns.chosen_last >= 0:
                key = keys[candidate, 0]
                same = end > begin and key >= 0 and past.keys[end - 1, 0] == key
                row[columns.chosen_last] = 1.0 if same else 0.0


@jit
def rank_displays(offsets: Array, columns: Array, numbers: Array, ranks: Array) -> None:
    """Write where each candidate stands in its display by some of its numbers: the share of the
    others that have less, minus the share that have more; (n_candidates, n_columns), in -1 to 1."""
    for event in range(len(offsets) - 1):
        start, stop = offsets[event], offsets[event + 1]
        n = stop - start
        for j in range(len(columns)):
            values = numbers[start:stop, columns[j]]
            in_order = np.sort(values)
            for candidate in range(n):
                less = np.searchsorted(in_order, values[candidate])
                more = n - np.searchsorted(in_order, values[candidate], side="right")
                ranks[start + candidate, j] = (less - more) / max(n - 1, 1)


@jit
def sum_ranks(
    session_offsets: Array, offsets: Array, choices: Array, ranks: Array, sums: Array, n: Array
) -> None:
    """Write the sum of the ranks of the choices before each event in its session, (n_events,
    n_columns), and how many of them were among several candidates, (n_events,)."""
    total = np.zeros(ranks.shape[1], sums.dtype)
    for session in range(len(session_offsets) - 1):
        total[:] = 0
        counted = 0
        for event in range(session_offsets[session], session_offsets[session + 1]):
            sums[event] = total
            n[event] = counted
            if choices[event] >= 0 and offsets[event + 1] - offsets[event] > 1:
                counted += 1
                for j in range(len(total)):
                    total[j] += ranks[offsets[event] + choices[event], j]

"""The numbers of a candidate by name, and their columns. Formulas are in
kernels/candidate_formulas.py and kernels/crossed.py."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from fastgaum.arrays import FloatArray, IntArray, LongArray
from fastgaum.errors import LogFormatError
from fastgaum.kernels.candidate_counts import TrainingTotals
from fastgaum.kernels.candidate_formulas import (
    RELATION_NUMBERS,
    TRAINING_NUMBERS,
    training_numbers,
)
from fastgaum.logs.columns import MOST_NUMBER, show
from fastgaum.logs.context import training_events
from fastgaum.logs.log import ItemCounts, SessionLog

COUNTED_NUMBERS = (
    *("displayed_before", "chosen_before", "log_displays", "log_choices", "choice_rate"),
    *("choice_lift", "never_seen", "never_chosen", "log_set_size", "event_number"),
)
"""SESSION_NUMBERS and TRAINING_NUMBERS in the order in which a candidate has them"""
SAME_FOR_SET = ("log_set_size", "event_number")
"""numbers that all candidates of a display set share"""
LOG_VIEWS = "log_views"
PLACE_NUMBERS = ("place_row_number", "place_column_number")
"""row and column, from 0, of a candidate's place in a grid"""
ALIKE_OR_CENTRED = ("given_all_", "habit_")
"""numbers of outcomes (`features.outcomes`) that a display's candidates share, or whose mean over
them is 0"""
SAME_AS = "same_as_"
""""candidate is the item that the context field holds" is a number of this name and the field's"""


def made_numbers(protocol: str, relations: bool, successive: bool = False) -> tuple[str, ...]:
    """Names of the numbers that are made, in order; `successive`: of successive choices, whose
    displays lose an item with each click. There the size would stand for the clicks, and a smaller
    first display for one that has been clicked."""
    counted = COUNTED_NUMBERS if protocol != "identity" else ()
    return (
        *(name for name in counted if not (successive and name == "log_set_size")),
        *(RELATION_NUMBERS if relations else ()),
        *((LOG_VIEWS,) if protocol == "views" else ()),
    )


def number_columns(wanted: Sequence[str], number_names: Sequence[str]) -> LongArray:
    """Column of each wanted number, -1 for none, shape (len(wanted),)."""
    at = {name: column for column, name in enumerate(number_names)}
    return np.array([at.get(name, -1) for name in wanted], np.int64)


def varying_columns(
    number_names: Sequence[str], relative_numbers: bool, unread: Collection[str] = ()
) -> LongArray:
    """Columns of numbers that also come less their mean over the display set; unread: those
    with a sign, which do not."""
    # one candidate at most is the context's item: its copy would say the same; places have the same
    # mean in all displays of one length
    without = (*SAME_FOR_SET, *PLACE_NUMBERS)
    columns = [
        column
        for column, name in enumerate(number_names if relative_numbers else ())
        if name not in (*without, *unread) and not name.startswith((SAME_AS, *ALIKE_OR_CENTRED))
    ]
    return np.array(columns, np.int64)


class PlaceCounts:
    """Displays and choices of each training place, counted part by part."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.sizes = self.choices = np.zeros(1, np.int64)

    def add(self, log: SessionLog) -> None:
        """Count a part's training events, whose order is real."""
        training = training_events(log)
        choices = log.choices[training]
        found = (np.diff(log.display_offsets)[training], choices[choices >= 0])
        n = int(found[0].max(initial=0)) + 1
        self._add(*(np.bincount(one, minlength=n) for one in found))

    def combine(self, other: PlaceCounts) -> None:
        """Count what another has counted."""
        self._add(other.sizes, other.choices)

    def _add(self, sizes: LongArray, choices: LongArray) -> None:
        n = max(len(sizes), len(self.sizes))

        def add(former: LongArray, more: LongArray) -> LongArray:
            return np.pad(former, (0, n - len(former))) + np.pad(more, (0, n - len(more)))

        self.sizes, self.choices = add(self.sizes, sizes), add(self.choices, choices)

    def rates(self) -> FloatArray:
        """As `place_rates`."""
        n = len(self.sizes) - 1
        if n < 2:
            return np.zeros(0, np.float32)
        # a display of k has the places up to k
        shown = np.cumsum(self.sizes[::-1])[::-1][1:]
        rates = (self.choices[:n] + 0.5) / (shown + 0.5)
        relative: FloatArray = (rates / rates[0]).astype(np.float32)
        return relative


def place_rates(log: SessionLog) -> FloatArray:
    """Choices (and half a one more) per display at each training place, relative to the first,
    (n_places,); empty where order means nothing, or no display has a second place."""
    counts = PlaceCounts()
    if log.ordered:
        counts.add(log)
    return counts.rates()


def totals_of(counts: ItemCounts, space_rows: IntArray) -> TrainingTotals:
    """Training counts of the items in those rows, (n,) each; zeros for row -1."""
    known = space_rows >= 0
    return TrainingTotals(
        np.where(known, counts.displays[space_rows], 0),
        np.where(known, counts.choices[space_rows], 0),
        np.where(known, counts.expected[space_rows], 0.0),
    )


def item_numbers(totals: TrainingTotals, prior_rate: float) -> FloatArray:
    """TRAINING_NUMBERS of n items, shape (n, 6)."""
    numbers = np.empty((len(totals.displays), len(TRAINING_NUMBERS)), np.float32)
    training_numbers(totals, prior_rate, np.arange(len(TRAINING_NUMBERS)), numbers)
    return numbers


def require_moderate(
    log: SessionLog,
    names: Sequence[str],
    numbers: FloatArray,
    events: IntArray,
    offsets: IntArray | None = None,
) -> None:
    """Raise LogFormatError, with the event, where a number is not finite, or so large that sums of
    it overflow; numbers (n, n_names), of events, or of candidates from `offsets` on."""
    if numbers.size == 0 or (numbers.min() >= -MOST_NUMBER and numbers.max() <= MOST_NUMBER):
        return
    row, column = np.argwhere(~(np.abs(numbers) <= MOST_NUMBER))[0].tolist()
    event = int(events[row if offsets is None else np.searchsorted(offsets, row, "right") - 1])
    session = int(np.searchsorted(log.session_offsets, event, "right")) - 1
    raise LogFormatError(
        f"event {show(log.event_ids[event])} of session {show(log.session_ids[session])} has "
        f"{numbers[row, column]:g} in '{names[column]}', a number between -{MOST_NUMBER:g} and "
        f"{MOST_NUMBER:g} is required: correct it, drop the event, or leave the column out"
    )

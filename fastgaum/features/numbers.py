"""The numbers of a candidate by name: which there are, in which columns they stand, and what those
of training count.

Each formula is written once, in kernels/candidate_formulas.py and kernels/crossed.py. The encoder
applies it to all candidates of a log at once, for training and evaluation; a world applies it to
the slate that it shows, step by step. tests/features/test_numbers.py, and with a context
tests/worlds/test_context.py, hold both to the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fastgaum.arrays import Float64Array, FloatArray, IntArray, LongArray
from fastgaum.errors import LogFormatError
from fastgaum.features.crossed import CrossedField, fixes_display
from fastgaum.features.sessions import Selection, chunks, select_sessions
from fastgaum.features.vocabulary import OF_PLACE
from fastgaum.kernels.candidate_counts import TrainingTotals, add_moments
from fastgaum.kernels.candidate_formulas import (
    RELATION_NUMBERS,
    TRAINING_NUMBERS,
    training_numbers,
)
from fastgaum.kernels.crossed import CrossedCounts, Displayers
from fastgaum.logs.columns import MOST_NUMBER, show
from fastgaum.logs.log import ItemCounts, SessionLog

if TYPE_CHECKING:
    from fastgaum.features.vocabulary import CategoricalField


def crossed_fields(
    context: Sequence[CategoricalField], tables: Sequence[tuple[CrossedCounts, Displayers]] = ()
) -> list[CrossedField]:
    """The context fields that are crossed with items; tables: what training says of each."""
    return [
        CrossedField(
            one.name,
            len(one.values),
            one.source == "context_item",
            one.source == "context_item" and counts is not None and fixes_display(*counts),
        )
        for one, counts in zip_longest(context, tables)
    ]


COUNTED_NUMBERS = (
    *("displayed_before", "chosen_before", "log_displays", "log_choices", "choice_rate"),
    *("choice_lift", "never_seen", "never_chosen", "log_set_size", "event_number"),
)
"""SESSION_NUMBERS and TRAINING_NUMBERS in the order in which a candidate has them"""
SAME_FOR_SET = ("log_set_size", "event_number")
"""numbers that all candidates of a display set share: relative to their mean they are nothing"""
LOG_VIEWS = "log_views"
PLACE_NUMBERS = ("place_row_number", "place_column_number")
"""row and column, from 0, of a candidate's place in a grid"""
SAME_AS = "same_as_"
"""a number of this name and a context field's: whether the candidate is the item that the field
holds"""


def made_numbers(protocol: str, relations: bool) -> tuple[str, ...]:
    """Names of the numbers that are made, in order; those of the context and a log's own numeric
    fields follow them."""
    return (
        *(COUNTED_NUMBERS if protocol != "identity" else ()),
        *(RELATION_NUMBERS if relations else ()),
        *((LOG_VIEWS,) if protocol == "views" else ()),
    )


def number_columns(wanted: Sequence[str], number_names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Column of each wanted number, -1 for one that is not there, shape (len(wanted),)."""
    at = {name: column for column, name in enumerate(number_names)}
    return np.array([at.get(name, -1) for name in wanted], np.int64)


def varying_columns(number_names: Sequence[str], set_context: bool) -> npt.NDArray[np.int64]:
    """Columns of the numbers that also come less their mean over the display set, in the order of
    those copies."""
    names = number_names if set_context else ()
    return np.array([at for at, name in enumerate(names) if _varies(name)], np.int64)


def _varies(name: str) -> bool:
    # one candidate at most is the context's item: its copy would say the same; places have the same
    # mean in all displays of one length
    return name not in (*SAME_FOR_SET, *PLACE_NUMBERS) and not name.startswith(SAME_AS)


def place_rates(log: SessionLog) -> FloatArray:
    """Choices per display at each place of the training displays, the first being 1, shape
    (n_places,); empty where the order of displays means nothing, or no display has a second place.

    Half a choice more at each place: a place that was never chosen may be chosen yet."""
    sizes: LongArray = np.zeros(0, np.int64)
    chosen: LongArray = np.zeros(0, np.int64)
    for chunk in chunks(log, log.sessions_in("train")) if log.ordered else ():
        picked = select_sessions(log, chunk)
        sizes = _sum(sizes, np.bincount(np.diff(picked.display_offsets)))
        chosen = _sum(chosen, np.bincount(picked.choices[picked.choices >= 0]))
    n = len(sizes) - 1
    if n < 2:
        return np.zeros(0, np.float32)
    # a display of k has the places up to k
    shown = np.cumsum(sizes[::-1])[::-1][1:]
    rates = (_sum(chosen, np.zeros(n, np.int64)) + 0.5) / (shown + 0.5)
    relative: FloatArray = (rates / rates[0]).astype(np.float32)
    return relative


def _sum(one: LongArray, other: LongArray) -> LongArray:
    """The sum of two counts by number, of whatever length."""
    total = np.zeros(max(len(one), len(other)), np.int64)
    total[: len(one)] += one
    total[: len(other)] += other
    return total


def totals_of(counts: ItemCounts, space_rows: IntArray) -> TrainingTotals:
    """Training counts of the items in those rows, (n,) each; zeros for an unknown item, row -1."""
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


def places_in_grid(places: IntArray, grid: int) -> FloatArray:
    """PLACE_NUMBERS of places, the first being 0, shape (·, 2).

    >>> places_in_grid(np.array([0, 2, 3], np.int32), 3).tolist()
    [[0.0, 0.0], [0.0, 2.0], [1.0, 0.0]]
    """
    return np.stack([places // grid, places % grid], -1).astype(np.float32)


def log_views(views: npt.NDArray[np.number]) -> npt.NDArray[np.floating]:
    """The number that protocol `views` makes of view counts (each at least 1), shape (n,)."""
    numbers: npt.NDArray[np.floating] = np.log(views)
    return numbers


def names_of_numbers(
    log: SessionLog, of_events: Sequence[str], others: Sequence[str], protocol: str, relations: bool
) -> tuple[str, ...]:
    """Names of all numbers of a log's candidates; of_events: those of the context, others: those of
    the vectors of items, and of places in a grid.

    Raises:
        LogFormatError: a field has the name of such a number, or two numbers have one name.
    """
    names = made_numbers(protocol, relations)
    declared = log.columns_of("item", "candidate")
    clash = sorted(
        name
        for name in log.columns_of("item", "candidate", "event", "user")
        if name in (*names, *of_events, *others, "item", *OF_PLACE) or name.startswith(SAME_AS)
    )
    if clash:
        raise LogFormatError(
            f"field name '{clash[0]}' is one of the built-in fields: rename the column"
        )
    if len(set(of_events)) < len(of_events):
        raise LogFormatError(
            f"the context fields {', '.join(sorted(log.context))} would make two numbers "
            "of one name: rename one of them"
        )
    of_log = sorted(name for name, column in declared.items() if column.texts is None)
    of_events = of_events if protocol != "identity" else ()
    return (*names, *of_events, *others, *of_log)


@dataclass
class Moments:
    """Mean, sum of squares, least and most of each column, block by block (Chan et al. 1979)."""

    count: int = 0
    mean: Float64Array = field(default_factory=lambda: np.zeros(0))
    squares: Float64Array = field(default_factory=lambda: np.zeros(0))
    least: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))
    most: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))

    def add(self, numbers: FloatArray) -> None:
        """Count a block, (n, n_columns), of at least one row."""
        mean, squares = np.zeros((2, numbers.shape[1]))
        least, most = numbers[0].copy(), numbers[0].copy()
        add_moments(numbers, mean, squares, least, most)
        self.combine(Moments(len(numbers), mean, squares, least, most))

    def combine(self, block: Moments) -> None:
        """Count what another has counted."""
        if block.count == 0:
            return
        if self.count == 0:
            self.count, self.mean, self.squares = block.count, block.mean, block.squares
            self.least, self.most = block.least, block.most
            return
        shift, total = block.mean - self.mean, self.count + block.count
        self.mean = self.mean + shift * (block.count / total)
        between = shift**2 * (self.count * block.count / total)
        self.squares = self.squares + block.squares + between
        self.least = np.minimum(self.least, block.least)
        self.most = np.maximum(self.most, block.most)
        self.count = total

    def scale(self) -> FloatArray:
        """Standard deviation of each column, 1 where it is 0."""
        scale = np.sqrt(self.squares / max(self.count, 1)).astype(np.float32)
        return np.where(scale > 1e-6, scale, np.float32(1))


def require_moderate(
    log: SessionLog, part: Selection, names: Sequence[str], numbers: FloatArray
) -> None:
    """Raise LogFormatError where a number of a part's candidates, (n_candidates, n_names), is not
    finite or so large that sums of it overflow, naming the event."""
    if numbers.size == 0 or (numbers.min() >= -MOST_NUMBER and numbers.max() <= MOST_NUMBER):
        return
    candidate, column = np.argwhere(~(np.abs(numbers) <= MOST_NUMBER))[0].tolist()
    event = int(np.searchsorted(part.display_offsets, candidate, "right")) - 1
    value = float(numbers[candidate, column])
    raise out_of_range(log, int(part.events[event]), names[column], value)


def out_of_range(log: SessionLog, event: int, name: str, value: float) -> LogFormatError:
    """The error for a number that is not finite, or so large that sums of it overflow."""
    session = int(np.searchsorted(log.session_offsets, event, "right")) - 1
    return LogFormatError(
        f"event {show(log.event_ids[event])} of session {show(log.session_ids[session])} has "
        f"{value:g} in '{name}', a number between -{MOST_NUMBER:g} and {MOST_NUMBER:g} is "
        "required: correct it, drop the event, or leave the column out"
    )

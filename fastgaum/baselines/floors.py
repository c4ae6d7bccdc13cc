"""Floors: rankings that need no model, printed beside every figure. A model that does not beat them
has learned nothing.

    random                 every candidate ties: prec@k is the mean of min(k, n) / n
    train click rate       (choices + 0.3) / (displays + 1) in training; 0.3 for an unseen item
    train click count      choices in training
    fewest train displays  fewest displays in training first: on logs whose clicks are new to the
                           display, a leak more than a model
    first place            the order of the display, where it is real
    <field> alone          a declared number, largest or smallest first: the direction that ranks
                           the training choices better
    <field>, else click rate  the candidate that is the event's context, where a context field holds
                           items; else the train click rate

Every floor ranks without looking at the user's state. The counts are those of the training split. A
log without training events has only the floors that need none. Three of the floors are also models
with the verbs of every model: rows of the table of `reproduce`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from fastgaum.arrays import Float64Array
from fastgaum.baselines.base import Arrays, Baseline, SettingRows, item_rows
from fastgaum.features.sessions import EncodedSessions, Selection, select_sessions
from fastgaum.logs.context import context_of, item_of_codes
from fastgaum.logs.log import SessionLog, SplitName
from fastgaum.metrics.precision import micro_mean, precision_at_k
from fastgaum.nets.tensors import BatchTensors

Counts = npt.NDArray[np.integer]
Precisions = dict[str, dict[int, Float64Array]]
"""prec@k of each event, percent, by the floor's name and k, shape (n_events,), NaN without a
choice"""


@dataclass(frozen=True)
class Floor:
    """A ranking that needs no model."""

    name: str
    scores: Callable[[SessionLog, Selection], Float64Array]
    """score of each picked candidate of a log, higher first, shape (n_candidates,)"""


def floors_of(log: SessionLog) -> list[Floor]:
    """The floors of a log, in the order of the table."""
    counts = log.training_counts()
    floors = [Floor("random", lambda log, part: np.zeros(len(part.candidates)))]
    trained = bool(counts.displays.any())
    if trained:
        floors += [
            _by_item("train click rate", click_rate(counts.displays, counts.choices)),
            _by_item("train click count", counts.choices.astype(np.float64)),
            _by_item("fewest train displays", -counts.displays.astype(np.float64)),
        ]
    if log.ordered:
        floors.append(Floor("first place", _first_place))
    if not trained:
        return floors
    rate = click_rate(counts.displays, counts.choices)
    of_items = [field.name for field in context_of(log) if field.holds == "items"]
    return [*floors, *(_of_context(name, log, rate) for name in of_items), *_number_floors(log)]


def floor_precisions(
    log: SessionLog, split: SplitName = "test", ks: tuple[int, ...] = (1, 2)
) -> Precisions:
    """prec@k of each floor of a log on each event of a split, in the log's order."""
    picked = select_sessions(log, log.sessions_in(split))
    precisions: Precisions = {}
    for floor in floors_of(log):
        scores = floor.scores(log, picked)
        precisions[floor.name] = {
            k: 100 * precision_at_k(scores, picked.display_offsets, picked.choices, k) for k in ks
        }
    return precisions


def floor_table(
    log: SessionLog, split: SplitName = "test", ks: tuple[int, ...] = (1, 2)
) -> dict[str, dict[int, float]]:
    """{name: {k: prec@k in percent}} of each floor on a split.

    Micro average over events with a choice, ties by exact expectation; NaN if the split has no such
    event."""
    return means_of(floor_precisions(log, split, ks))


def means_of(precisions: Precisions) -> dict[str, dict[int, float]]:
    """The mean over events with a choice of each floor's precisions."""
    return {
        name: {k: micro_mean(values) for k, values in by_k.items()}
        for name, by_k in precisions.items()
    }


def click_rate(displays: Counts, choices: Counts) -> Float64Array:
    """Smoothed click rate (choices + 0.3) / (displays + 1) of items, shape (n_items,).

    0.3 and 1 are not tuned for ranking: they are what reproduces the protocol's click-rate row on
    yelp, yoochoose and taobao (62.8/83.4, 49.9/73.7, 27.7/46.1), so that tables stay comparable
    with it."""
    # One division of whole numbers: equal rates are equal floats, so ties stay ties.
    return np.asarray((10 * choices + 3) / (10 * (displays + 1)), dtype=np.float64)


def _by_item(name: str, scores: Float64Array) -> Floor:
    return Floor(name, lambda log, part: scores[np.asarray(log.items)[part.candidates]])


def _first_place(log: SessionLog, part: Selection) -> Float64Array:
    starts = np.repeat(part.display_offsets[:-1], np.diff(part.display_offsets))
    return np.asarray(starts - np.arange(len(part.candidates)), dtype=np.float64)


def _of_context(name: str, log: SessionLog, rate: Float64Array) -> Floor:
    """The candidate that is the event's context first, then by click rate."""
    item_of_code = item_of_codes(log, name)
    first = 1 + rate.max()

    def scores(log: SessionLog, part: Selection) -> Float64Array:
        items = np.asarray(log.items)[part.candidates]
        of_events = item_of_code[log.values_at(name, part.events)]
        same = items == np.repeat(of_events, np.diff(part.display_offsets))
        return np.where(same, first, rate[items])

    return Floor(f"{name}, else click rate", scores)


def _number_floors(log: SessionLog) -> list[Floor]:
    """A floor for each declared number, in the direction that ranks the training choices better; of
    two that rank them alike, largest first."""
    fields = log.columns_of("item") | log.columns_of("candidate")
    floors = []
    picked = select_sessions(log, log.sessions_in("train"))
    for name in (name for name, column in fields.items() if column.texts is None):
        largest, smallest = (
            precision_at_k(
                _number(name, sign)(log, picked), picked.display_offsets, picked.choices, 1
            )
            for sign in (1, -1)
        )
        lead = float(np.nansum(largest - smallest))
        floors.append(Floor(f"{name} alone", _number(name, 1 if lead >= 0 else -1)))
    return floors


def _number(name: str, sign: int) -> Callable[[SessionLog, Selection], Float64Array]:
    """Scores by sign · number."""

    def scores(log: SessionLog, part: Selection) -> Float64Array:
        return np.asarray(sign * log.values_at(name, part.candidates).astype(np.float64))

    return scores


@dataclass(eq=False)
class _ItemFloor(Baseline):
    """Ranks by one number per training item; an unknown item counts as never displayed."""

    reads: ClassVar[tuple[str, ...]] = ("identity",)

    def _fit(self, train: EncodedSessions, validation: EncodedSessions) -> SettingRows:
        assert self.space is not None
        displays = np.append(self.space.item_counts.displays, 0)
        self.by_item = self._of_items(displays, np.append(self.space.item_counts.choices, 0))
        return []

    @abstractmethod
    def _of_items(self, displays: Counts, choices: Counts) -> Float64Array:
        """Score items by their counts on the training split; the last entry is the unknown
        item's."""

    def _scores(self, batch: BatchTensors) -> Float64Array:
        scores: Float64Array = self.by_item[item_rows(batch.source)]
        return scores

    def _arrays(self) -> Arrays:
        return {"by_item": self.by_item}

    def _restore(self, arrays: Arrays) -> None:
        self.by_item = arrays["by_item"]


@dataclass(eq=False)
class RandomFloor(_ItemFloor):
    """No order at all: every candidate ties, and a choice is uniform over the display set."""

    name: ClassVar[str] = "random"

    def _of_items(self, displays: Counts, choices: Counts) -> Float64Array:
        return np.zeros(len(displays))


@dataclass(eq=False)
class ClickRateFloor(_ItemFloor):
    """The smoothed click rate of the training split."""

    name: ClassVar[str] = "click-rate"

    def _of_items(self, displays: Counts, choices: Counts) -> Float64Array:
        return click_rate(displays, choices)


@dataclass(eq=False)
class ClickCountFloor(_ItemFloor):
    """Number of times that the item was chosen in the training split."""

    name: ClassVar[str] = "click-count"

    def _of_items(self, displays: Counts, choices: Counts) -> Float64Array:
        return choices.astype(np.float64)

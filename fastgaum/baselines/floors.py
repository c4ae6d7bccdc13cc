"""Floors: rankings that need no model, printed beside every table. What does not beat them has
learned nothing.

All are fitted on the train split and rank the same for every user and state:

    random                 no order at all: every candidate ties, prec@k is exactly the mean of
    min(k, n) / n train click rate       (choices + 0.3) / (displays + 1); an item unseen in
    training counts as chosen 3 times in 10 train click count      choices fewest train displays
    -displays: on logs whose clicks are new to the display, a leak more than a model
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from fastgaum.logs.log import IntArray, SessionLog, SplitName
from fastgaum.logs.ragged import pick_rows
from fastgaum.logs.vocabulary import Vocabulary
from fastgaum.metrics.precision import micro_mean, precision_at_k

Float64Array = npt.NDArray[np.float64]


class Floor(Protocol):
    """A ranking fitted on a log's train split."""

    name: str

    def fit(self, log: SessionLog) -> Self:
        """Count what the ranking needs on the train split, and return itself."""

    def scores(self, log: SessionLog, rows: IntArray) -> Float64Array:
        """Score the candidates of sessions `rows`, in their order, shape (their candidates,);
        higher ranks first."""


class RandomFloor:
    """No order at all: every candidate ties."""

    name = "random"

    def fit(self, log: SessionLog) -> Self:
        """Nothing to learn."""
        return self

    def scores(self, log: SessionLog, rows: IntArray) -> Float64Array:
        """Return zeros, shape (candidates of sessions `rows`,)."""
        return np.zeros(len(candidates_of(log, rows)[0]))


class _CountFloor(ABC):
    """Items by their displays and choices in training."""

    name: str

    def fit(self, log: SessionLog) -> Self:
        """Count, over the train split, the display sets that show each item and the events that
        choose it."""
        candidates, offsets, choices = candidates_of(log, log.sessions_in("train"))
        items = log.items[candidates]
        clicked = choices >= 0
        chosen = items[offsets[:-1][clicked] + choices[clicked]]
        self.item_ids = log.item_ids
        self.displays = np.bincount(items, minlength=log.n_items)
        self.choices = np.bincount(chosen, minlength=log.n_items)
        return self

    def scores(self, log: SessionLog, rows: IntArray) -> Float64Array:
        """Score the candidates of sessions `rows`, shape (their candidates,); an unknown item has
        no counts."""
        # By id, so that another log's items find their counts whatever their codes.
        codes = Vocabulary(self.item_ids).codes(log.item_ids)
        known = codes >= 0
        of_item = self._score(
            np.where(known, self.displays[codes], 0), np.where(known, self.choices[codes], 0)
        )
        return of_item[log.items[candidates_of(log, rows)[0]]]

    @abstractmethod
    def _score(
        self, displays: npt.NDArray[np.int64], choices: npt.NDArray[np.int64]
    ) -> Float64Array:
        """Score items by their counts, all of shape (n_items,)."""


class TrainClickRate(_CountFloor):
    """Smoothed click rate (choices + 0.3) / (displays + 1).

    0.3 and 1 are not tuned for ranking: they are what reproduces the protocol's click-rate row on
    yelp, yoochoose and taobao (62.8/83.4, 49.9/73.7, 27.7/46.1), so that tables stay comparable
    with it."""

    name = "train click rate"

    def _score(
        self, displays: npt.NDArray[np.int64], choices: npt.NDArray[np.int64]
    ) -> Float64Array:
        # One division of whole numbers: equal rates are equal floats, so ties stay ties.
        return np.asarray((10 * choices + 3) / (10 * (displays + 1)), dtype=np.float64)


class TrainClickCount(_CountFloor):
    """Number of times that the item was chosen."""

    name = "train click count"

    def _score(
        self, displays: npt.NDArray[np.int64], choices: npt.NDArray[np.int64]
    ) -> Float64Array:
        return choices.astype(np.float64)


class FewestTrainDisplays(_CountFloor):
    """Number of display sets that showed the item, fewest first."""

    name = "fewest train displays"

    def _score(
        self, displays: npt.NDArray[np.int64], choices: npt.NDArray[np.int64]
    ) -> Float64Array:
        return -displays.astype(np.float64)


FLOORS: tuple[Callable[[], Floor], ...] = (
    RandomFloor,
    TrainClickRate,
    TrainClickCount,
    FewestTrainDisplays,
)
"""in the order of the table"""


def floor_table(
    log: SessionLog, split: SplitName = "test", ks: tuple[int, ...] = (1, 2)
) -> dict[str, dict[int, float]]:
    """Fit every floor on the train split and return {name: {k: prec@k in percent}} on `split`.

    Micro average over events with a choice, ties by exact expectation; NaN if the split has no such
    event."""
    rows = log.sessions_in(split)
    _, offsets, choices = candidates_of(log, rows)
    table: dict[str, dict[int, float]] = {}
    for make in FLOORS:
        floor = make().fit(log)
        scores = floor.scores(log, rows)
        table[floor.name] = {
            k: 100 * micro_mean(precision_at_k(scores, offsets, choices, k)).value for k in ks
        }
    return table


def candidates_of(log: SessionLog, rows: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Flat candidates of sessions `rows`, the start of each display set among them, and the
    choices."""
    _, events = pick_rows(log.session_offsets, rows)
    offsets, candidates = pick_rows(log.display_offsets, events)
    return candidates, offsets, log.choices[events]

"""Floors: rankings that need no model, printed beside every figure.

    random                 every candidate ties: prec@k is the mean of min(k, n) / n
    train click rate       (choices + 0.3) / (displays + 1) in training; 0.3 for an unseen item
    train click count      choices in training
    fewest train displays  fewest first: on logs whose clicks are new to the display, a leak
    first place            the order of the display, where it is real
    <field> alone          a declared number, in the direction that ranks training choices better
    <field>, else click rate  the candidate that is the event's context, else the click rate

A log without training events has only the floors that need none. Three are also models."""

from __future__ import annotations

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
"""prec@k of each event, percent, by floor and k, shape (n_events,), NaN without a choice"""


@dataclass(frozen=True)
class Floor:
    """A ranking that needs no model."""

    name: str
    scores: Callable[[Selection], Float64Array]
    """score of each picked candidate of its log, higher first, shape (n_candidates,)"""


def floors_of(log: SessionLog) -> list[Floor]:
    """The floors of a log, in the order of the table."""
    counts = log.training_counts()
    floors = [Floor("random", lambda part: np.zeros(len(part.candidates)))]
    trained = bool(counts.displays.any())
    rate = click_rate(counts.displays, counts.choices)
    if trained:
        by_item = {
            "train click rate": rate,
            "train click count": counts.choices.astype(np.float64),
            "fewest train displays": -counts.displays.astype(np.float64),
        }
        floors += [_by_item(log, name, scores) for name, scores in by_item.items()]
    if log.ordered:
        floors.append(Floor("first place", lambda part: -part.places.astype(np.float64)))
    if trained:
        of_items = [field.name for field in context_of(log) if field.holds == "items"]
        floors += [_of_context(log, name, rate) for name in of_items]
        fields = log.columns_of("item") | log.columns_of("candidate")
        floors += [_of_number(log, name) for name, one in fields.items() if one.texts is None]
    return floors


def floor_precisions(
    log: SessionLog, split: SplitName = "test", ks: tuple[int, ...] = (1, 2)
) -> Precisions:
    """prec@k of each floor on each event of a split, in the log's order."""
    picked = select_sessions(log, log.sessions_in(split))
    precisions: Precisions = {}
    for floor in floors_of(log):
        scores = floor.scores(picked)
        precisions[floor.name] = {
            k: 100 * precision_at_k(scores, picked.display_offsets, picked.choices, k) for k in ks
        }
    return precisions


def floor_table(
    log: SessionLog, split: SplitName = "test", ks: tuple[int, ...] = (1, 2)
) -> dict[str, dict[int, float]]:
    """{name: {k: prec@k in percent}}: micro average over events with a choice, ties by exact
    expectation; NaN without such an event."""
    return means_of(floor_precisions(log, split, ks))


def means_of(precisions: Precisions) -> dict[str, dict[int, float]]:
    """The mean over events with a choice of each floor's precisions."""
    return {
        name: {k: micro_mean(values) for k, values in by_k.items()}
        for name, by_k in precisions.items()
    }


def click_rate(displays: Counts, choices: Counts) -> Float64Array:
    """Smoothed click rate (choices + 0.3) / (displays + 1) of items, shape (n_items,): what gives
    the protocol's click-rate row on yelp, yoochoose and taobao (62.8/83.4, 49.9/73.7,
    27.7/46.1)."""
    # One division of whole numbers: equal rates are equal floats, so ties stay ties.
    return np.asarray((10 * choices + 3) / (10 * (displays + 1)), dtype=np.float64)


def _by_item(log: SessionLog, name: str, scores: Float64Array) -> Floor:
    return Floor(name, lambda part: scores[log.items[part.candidates]])


def _of_context(log: SessionLog, name: str, rate: Float64Array) -> Floor:
    """The candidate that is the event's context first, then by click rate."""
    item_of_code = item_of_codes(log, name)

    def scores(part: Selection) -> Float64Array:
        items = log.items[part.candidates]
        of_events = item_of_code[log.values_at(name, part.events)]
        same = items == np.repeat(of_events, np.diff(part.display_offsets))
        return np.where(same, 1 + rate.max(), rate[items])

    return Floor(f"{name}, else click rate", scores)


def _of_number(log: SessionLog, name: str) -> Floor:
    """By a declared number, in the direction that ranks the training choices better; of two that
    rank them alike, largest first."""
    train = select_sessions(log, log.sessions_in("train"))
    values = log.values_at(name, train.candidates).astype(np.float64)
    largest, smallest = (
        precision_at_k(sign * values, train.display_offsets, train.choices, 1) for sign in (1, -1)
    )
    sign = 1 if float(np.nansum(largest - smallest)) >= 0 else -1
    return Floor(
        f"{name} alone",
        lambda part: sign * log.values_at(name, part.candidates).astype(np.float64),
    )


@dataclass(eq=False)
class _ItemFloor(Baseline):
    """Ranks by one number per training item; an unknown item counts as never displayed."""

    reads: ClassVar[tuple[str, ...]] = ("identity",)

    def _fit(self, train: EncodedSessions, validation: EncodedSessions) -> SettingRows:
        assert self.space is not None
        counts = self.space.item_counts
        displays, choices = np.append(counts.displays, 0), np.append(counts.choices, 0)
        self.by_item = {
            "random": np.zeros(len(displays)),
            "click-rate": click_rate(displays, choices),
            "click-count": choices.astype(np.float64),
        }[self.name]
        return []

    def _scores(self, batch: BatchTensors) -> Float64Array:
        scores: Float64Array = self.by_item[item_rows(batch.source)]
        return scores

    def _arrays(self) -> Arrays:
        return {"by_item": self.by_item}

    def _restore(self, arrays: Arrays) -> None:
        self.by_item = arrays["by_item"]


@dataclass(eq=False)
class RandomFloor(_ItemFloor):
    """Every candidate ties: a choice is uniform over the display set."""

    name: ClassVar[str] = "random"


@dataclass(eq=False)
class ClickRateFloor(_ItemFloor):
    """The smoothed click rate of the training split."""

    name: ClassVar[str] = "click-rate"


@dataclass(eq=False)
class ClickCountFloor(_ItemFloor):
    """Number of times that the item was chosen in the training split."""

    name: ClassVar[str] = "click-count"

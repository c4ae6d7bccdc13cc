"""Floors: rankings that need no model, printed beside every figure.

    random                 every candidate ties: prec@k is the mean of min(k, n) / n
    train click rate       (choices + 0.3) / (displays + 1) in training; 0.3 for an unseen item
    train click count      choices in training
    fewest train displays  fewest first: on logs whose clicks are new to the display, a leak
    first place            the order of the display, where it is real
    <field> alone          a declared number, in the direction that ranks training choices better
    <field>, else click rate  the candidate that is the event's context, else the click rate

A log without training events has only the floors that need none. If a model is scored on another
log than its training log, the counts are those of its training. On sessions that trained a model
by folds of users, counts are of the users of the other folds, as the model's are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from fastgaum.arrays import Float64Array, FloatArray, IntArray
from fastgaum.baselines.base import Arrays, Baseline, SettingRows, item_rows
from fastgaum.features.encoder import Encoder
from fastgaum.features.sessions import EncodedSessions, Selection, event_weights, select_sessions
from fastgaum.features.space import FeatureSpace
from fastgaum.features.training_order import folds_of, with_fold
from fastgaum.logs.context import context_of, item_of_codes
from fastgaum.logs.log import TEST, PackedArrays, SessionLog, SplitName
from fastgaum.metrics.precision import KS, micro_mean, precision_at_k
from fastgaum.nets.batches import Batch

Counts = npt.NDArray[np.number]
Ranking = Callable[[Selection], Float64Array]
"""scores each picked candidate of its log, higher first, shape (n_candidates,)"""
Precisions = dict[str, dict[int, Float64Array]]
"""prec@k of each event, percent, by floor and k, shape (n_events,), NaN without a choice"""


def floors_of(
    log: SessionLog, counted: tuple[Float64Array, Float64Array] | None = None
) -> dict[str, Ranking]:
    """The floors of a log by name, in the order of the table; counted: displays and choices of each
    item, (n_items,) each, where the log's own training split is not what counts."""
    train = select_sessions(log, log.sessions_in("train"))
    weights = event_weights(log, train.events)
    own = _counts(log.items[train.candidates], train, weights, log.n_items)
    displays, choices = counted or own

    def by_item(scores: Float64Array) -> Ranking:
        return lambda part: scores[log.items[part.candidates]]

    floors: dict[str, Ranking] = {"random": lambda part: np.zeros(len(part.candidates))}
    trained, rate = bool(displays.any()), click_rate(displays, choices)
    if trained:
        floors["train click rate"] = by_item(rate)
        floors["train click count"] = by_item(choices)
        floors["fewest train displays"] = by_item(-displays)
    if log.ordered:
        floors["first place"] = lambda part: -part.places.astype(np.float64)
    if trained:
        for field in context_of(log):
            if field.holds == "items":
                floors[f"{field.name}, else click rate"] = _by_context(log, field.name, rate)
        for name, column in (log.columns_of("item") | log.columns_of("candidate")).items():
            # its direction is that of training events, which counts do not have
            if column.texts is None and counted is None:
                floors[f"{name} alone"] = _by_number(log, name, train)
    return floors


def floor_precisions(
    log: SessionLog,
    split: SplitName = "test",
    space: FeatureSpace | None = None,
) -> Precisions:
    """prec@k of each floor on each event of a split, in the log's order; space: of a model that is
    scored on it."""
    picked, n_folds = select_sessions(log, log.sessions_in(split)), 0
    if space is not None and space.folds and split != "test":
        n_folds = space.folds if Encoder(space, log).reads_training_log else 0
    counted = None if space is None or n_folds else _counted_before(space, log, split)
    ranked = {name: ranking(picked) for name, ranking in floors_of(log, counted).items()}
    if n_folds:
        folds = np.where(log.split == TEST, -1, folds_of(log.user_hashes, n_folds))[picked.rows]
        of_candidate = np.repeat(folds, np.diff(picked.display_offsets[picked.session_offsets]))
        for fold in np.unique(folds[folds >= 0]).tolist():
            for name, ranking in floors_of(with_fold(log, fold, n_folds)).items():
                ranked[name] = np.where(of_candidate == fold, ranking(picked), ranked[name])
    return {
        name: {
            k: 100 * precision_at_k(scores, picked.display_offsets, picked.choices, k) for k in KS
        }
        for name, scores in ranked.items()
    }


def floor_table(
    log: SessionLog,
    split: SplitName = "test",
    space: FeatureSpace | None = None,
) -> dict[str, dict[int, float]]:
    """{name: {k: prec@k in percent}}: micro average over events with a choice, ties by exact
    expectation; NaN without such an event. space: as of `floor_precisions`."""
    events = select_sessions(log, log.sessions_in(split)).events
    return means_of(floor_precisions(log, split, space), log.weight_of_event[events])


def _counted_before(
    space: FeatureSpace, log: SessionLog, split: SplitName
) -> tuple[Float64Array, Float64Array] | None:
    """What training counted of each item of a log, (n_items,) each: nothing if the split's own
    choices are among it; None if the log's training split says it."""
    encoder, counts = Encoder(space, log), space.item_counts
    rows = encoder.coded.space_rows
    if encoder.reads_training_log:
        return None if split in ("validation", "test") else (np.zeros(len(rows)),) * 2
    return np.append(counts.displays, 0.0)[rows], np.append(counts.choices, 0.0)[rows]


def means_of(precisions: Precisions, weights: Float64Array) -> dict[str, dict[int, float]]:
    """The mean over events with a choice of each floor's precisions, by the events' weights."""
    return {
        name: {k: micro_mean(values, weights) for k, values in by_k.items()}
        for name, by_k in precisions.items()
    }


def click_rate(displays: Counts, choices: Counts) -> Float64Array:
    """Smoothed click rate (choices + 0.3) / (displays + 1) of items, shape (n_items,)."""
    # One division of whole numbers: equal rates are equal floats, so ties stay ties.
    return np.asarray((10 * choices + 3) / (10 * (displays + 1)), dtype=np.float64)


def _counts(
    items: IntArray, part: PackedArrays, weights: FloatArray | None, n_items: int
) -> tuple[Float64Array, Float64Array]:
    """Displays and choices of each item, by the weights of the events, (n_items,) each."""
    own = np.ones(part.n_events) if weights is None else weights
    shown, chosen = np.repeat(own, np.diff(part.display_offsets)), items[part.chosen_candidates]
    displays = np.bincount(items, shown, n_items).astype(np.float64)
    choices = np.bincount(chosen, own[part.choices >= 0], n_items).astype(np.float64)
    # weights are float32: three of 1 and one of 3 would be no tie
    return displays.round(4), choices.round(4)


def _by_context(log: SessionLog, name: str, rate: Float64Array) -> Ranking:
    """The candidate that is the event's context first, then by click rate."""
    item_of_code = item_of_codes(log, name)

    def scores(part: Selection) -> Float64Array:
        items = log.items[part.candidates]
        of_events = item_of_code[log.values_at(name, part.events)]
        return np.where(items == of_events[part.event_of_candidate()], 1 + rate.max(), rate[items])

    return scores


def _by_number(log: SessionLog, name: str, train: Selection) -> Ranking:
    """By a declared number, in the direction that ranks the training choices better; of two that
    rank them alike, largest first."""

    def values(part: Selection) -> Float64Array:
        return log.values_at(name, part.candidates).astype(np.float64)

    largest, smallest = (
        precision_at_k(scores, train.display_offsets, train.choices, 1)
        for scores in (values(train), -values(train))
    )
    better = micro_mean(largest - smallest, log.weight_of_event[train.events])
    return (lambda part: -values(part)) if better < 0 else values


@dataclass(eq=False)
class _ItemFloor(Baseline):
    """Ranks by one number per training item; an unknown item counts as never displayed."""

    reads: ClassVar[tuple[str, ...]] = ("identity",)

    def _fit(self, train: EncodedSessions, validation: EncodedSessions) -> SettingRows:
        assert self.space is not None
        n_rows = len(self.space.item_counts.displays) + 1
        displays, choices = _counts(item_rows(train), train, train.weights, n_rows)
        self.by_item = {
            "random": np.zeros(n_rows),
            "click-rate": click_rate(displays, choices),
            "click-count": choices,
        }[self.name]
        return []

    def _scores(self, batch: Batch) -> Float64Array:
        scores: Float64Array = self.by_item[item_rows(batch)]
        return scores

    def _arrays(self) -> Arrays:
        return {"by_item": self.by_item}

    def _restore(self, arrays: Arrays) -> None:
        self.by_item = arrays["by_item"]


@dataclass(eq=False)
class RandomFloor(_ItemFloor):
    """Every candidate ties."""

    name: ClassVar[str] = "random"


@dataclass(eq=False)
class ClickRateFloor(_ItemFloor):
    """The smoothed click rate of the training split."""

    name: ClassVar[str] = "click-rate"


@dataclass(eq=False)
class ClickCountFloor(_ItemFloor):
    """Number of times that the item was chosen in the training split."""

    name: ClassVar[str] = "click-count"

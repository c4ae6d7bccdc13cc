"""Ordered statistics: a training user reads what training said before it, never what it said itself
(Prokhorenkova et al., "CatBoost", NeurIPS 2018, on target leakage).

Training users come in a random order, in blocks, each encoded with what those before it said.
Validation and test read what all said."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastgaum.arrays import BoolArray, Float64Array, IntArray, LongArray
from fastgaum.features.coded_log import CodedLog
from fastgaum.features.number_columns import place_rates
from fastgaum.features.sessions import EncodedSessions, Selection
from fastgaum.features.space import FeatureSpace
from fastgaum.features.training_counts import StatisticsCounter, scale_counts
from fastgaum.logs.hashes import Hashes, mixed_bits
from fastgaum.logs.log import TEST, TRAIN, VALIDATION, SessionLog
from fastgaum.presets import FOLDS_BELOW


class TrainingOrder(NamedTuple):
    """In which orders training users are read."""

    n_orders: int
    alone: float
    """share of each order that is counted and not encoded"""
    n_blocks: int
    """blocks into which the rest is cut"""
    hides: bool = True
    """whether items are hidden"""

    def blocks(self, users: IntArray, number: int) -> LongArray:
        """Block of each user in an order, -1 if only counted; shape (n_users,)."""
        place = hash_uniformly(
            users.astype(np.uint64) * np.uint64(self.n_orders) + np.uint64(number)
        )
        blocks = np.floor((place - self.alone) / (1 - self.alone) * self.n_blocks)
        return np.maximum(blocks, -1).astype(np.int64)


FEW, MANY, ONCE = TrainingOrder(3, 0.25, 8), TrainingOrder(2, 0.0, 8), TrainingOrder(1, 0.0, 8)
"""the orders of a log of fewer than FOLDS_BELOW training events, of one of more, and of scoring"""


def training_order(log: SessionLog) -> TrainingOrder:
    """The orders in which training users are read."""
    return FEW if log.count("events", "train") < FOLDS_BELOW else MANY


class Training(NamedTuple):
    """The training split as a fit reads it, once."""

    counted: EncodedSessions
    """all of its sessions, without numbers"""
    read: EncodedSessions
    """its sessions in the order in which they are read, that of ONCE"""


class Hiding(NamedTuple):
    """Items that a training session does not know: no id, counts or relations. What an item has of
    itself (price, category, vector, place) stays."""

    share: float
    number: int
    """of the order: other items are hidden in another one"""

    def hides(self, part: Selection, items: IntArray) -> BoolArray:
        """Whether each candidate's item (code) is hidden, shape (n_candidates,)."""
        starts = part.display_offsets[part.session_offsets]
        keys = mixed_bits(part.rows.astype(np.uint64) * np.uint64(31) + np.uint64(self.number))
        return (
            hash_uniformly(np.repeat(keys, np.diff(starts)) ^ mixed_bits(items.astype(np.uint64)))
            < self.share
        )


def folds_of(hashes: Hashes, n_folds: int) -> LongArray:
    """Fold of each user, 0 to n_folds − 1, by the hash of its id alone; shape (n_users,)."""
    return (mixed_bits(hashes ^ _OF_FOLDS) % np.uint64(n_folds)).astype(np.int64)


_OF_FOLDS = np.uint64(0x5EED_F01D)
"""splits of users are by the same hashes: folds are to be free of them"""


def number_of_folds(log: SessionLog, most: int) -> int:
    """How many folds the users of a log's training and validation fill, `most` at most; 0 where
    there are no two folds."""
    hashes = log.user_hashes[log.split != TEST]
    for n_folds in range(most, 1, -1):
        if len(np.unique(folds_of(hashes, n_folds))) == n_folds:
            return n_folds
    return 0


def with_all_training(log: SessionLog, folds: int) -> SessionLog:
    """The log as a fit by folds counts it, its validation sessions in training too; without folds
    as it is."""
    if not folds:
        return log
    return log.with_split(np.where(log.split == VALIDATION, np.int8(TRAIN), log.split))


def with_fold(log: SessionLog, fold: int, n_folds: int) -> SessionLog:
    """The log whose users of training and validation train, except those of a fold, which
    validate."""
    folds = folds_of(log.user_hashes, n_folds)
    split = np.where(folds == fold, np.int8(VALIDATION), np.int8(TRAIN))
    return log.with_split(np.where(log.split == TEST, log.split, split))


def spaces_without(coded: CodedLog, log: SessionLog, whole: FeatureSpace) -> list[FeatureSpace]:
    """For each fold of a space the space with what the other users of `log` (`with_all_training`)
    said, in counts of the size of them all: no user reads its own choices."""
    train = log.sessions_in("train")
    folds = folds_of(log.user_hashes[train], whole.folds)
    relations, crossed = whole.relations is not None, bool(whole.crossed)

    def without(fold: int) -> FeatureSpace:
        rates = whole.place_rates.copy()
        if len(rates):
            own = place_rates(with_fold(log, fold, whole.folds))
            rates[: len(own)] = own
        space = dataclasses.replace(whole, place_rates=rates)
        counter = StatisticsCounter(coded, space, relations, crossed)
        counter.add(train[folds != fold])
        counted = counter.counted()
        rate = counted.item_counts.choices.sum() / counted.item_counts.displays.sum()
        return resized(dataclasses.replace(counted, prior_rate=float(rate)), whole)

    return [without(fold) for fold in range(whole.folds)]


def resized(counted: FeatureSpace, whole: FeatureSpace) -> FeatureSpace:
    """A space in counts of the size of the whole log's."""
    n_counted = int(counted.item_counts.displays.sum())
    factor = whole.item_counts.displays.sum() / max(n_counted, 1)
    space = scale_counts(counted, factor) if n_counted else counted
    # which numbers a candidate has is the whole log's to say
    space.__dict__["fixing_fields"] = whole.fixing_fields
    return space


FEWEST_NEW, MOST_HIDDEN, LEAST_HIDDEN = 5000, 0.05, 0.005
"""training candidates of new items that are wanted, and bounds of the share that is hidden for
them"""


def share_to_hide(displays: npt.NDArray[np.integer], alone: float) -> float:
    """Share of items to hide, so that training meets FEWEST_NEW candidates whose item is new. Where
    a share `alone` is not read, an item of n displays is read as new (1 − alone)ⁿ / (n · (1 −
    alone)) times a display. displays: (n_items,)."""
    n = displays[displays > 0].astype(np.float64)
    total = max(n.sum(), 1.0)
    wanted = min(max(FEWEST_NEW / total, LEAST_HIDDEN), MOST_HIDDEN)
    return float(max(wanted - ((1 - alone) ** (n - 1)).sum() / total, 0.0))


def hash_uniformly(values: npt.NDArray[Any]) -> Float64Array:
    """A number from 0 to below 1 of each whole number, the same everywhere."""
    return (mixed_bits(values.astype(np.uint64)) >> np.uint64(11)).astype(np.float64) / 2.0**53


def spaces_before(
    coded: CodedLog,
    whole: FeatureSpace,
    order: TrainingOrder,
    number: int,
) -> Iterator[FeatureSpace]:
    """For each block of an order the space with what users before it said, in counts of the size of
    the whole training split."""
    relations, crossed = whole.relations is not None, bool(whole.crossed)
    counter = StatisticsCounter(coded, whole, relations, crossed)
    train = coded.log.sessions_in("train")
    blocks = order.blocks(coded.log.users[train], number)
    for block in range(order.n_blocks):
        if (blocks == block - 1).any():
            counter.add(train[blocks == block - 1])
        yield resized(counter.counted(), whole)

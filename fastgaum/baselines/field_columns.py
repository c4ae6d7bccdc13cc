"""Declared fields, the place and the event's context as plain columns, for models without a table
of ids.

A field of few values is a code; of one of many values, columns are what training says of the value,
as `bags` of an item. The context is crossed with the item and each declared field, and training is
counted by these pairs too. What a candidate shares with the last choices is a count for each
field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from fastgaum.arrays import BoolArray, FloatArray, IntArray
from fastgaum.baselines.base import Arrays
from fastgaum.features.fields import CategoricalField
from fastgaum.features.number_columns import item_numbers, totals_of
from fastgaum.features.sessions import EncodedSessions
from fastgaum.features.space import FeatureSpace
from fastgaum.features.training_order import ONCE, Training
from fastgaum.kernels.candidate_counts import TrainingTotals
from fastgaum.logs.log import ItemCounts
from fastgaum.nets.batches import Batch
from fastgaum.nets.sequences import prefixes

FEW_VALUES = 64
"""a field of more values is read by what training says of them"""
SPEED_OF_FEW = 10.0
"""how many times as fast as others the weights of a field of few values learn"""
FieldKeys = npt.NDArray[np.int64]
"""what training is counted by, (n_candidates,)"""


def ids_of_few(space: FeatureSpace) -> np.ndarray:
    """Whether each id is of a field of few values, bool, (n_ids,)."""
    few = np.zeros(space.n_ids, dtype=bool)
    for part in (*space.categorical, *space.context):
        # a context field that holds items has the items' ids
        if part.source != "context_item":
            few[part.start : part.stop] = is_few(part)
    return few


def is_few(part: CategoricalField) -> bool:
    """Whether a field other than the items has few values."""
    return part.source not in ("item", "context_item") and len(part.values) <= FEW_VALUES


@dataclass(frozen=True)
class KeyCounts:
    """Training counts of each key."""

    keys: FieldKeys
    """ascending, (n_keys,)"""
    counts: ItemCounts
    """of each key"""


@dataclass(frozen=True)
class FieldColumns:
    """Columns of the declared fields and of the place."""

    space: FeatureSpace
    counts: tuple[KeyCounts, ...]
    """of each family of keys, in the order of `_keys`"""

    @classmethod
    def fit(cls, space: FeatureSpace, training: Training) -> Self:
        """Count the training split."""
        counts, train = list[KeyCounts](), training.counted
        for keys in cls(space, ())._keys(train):
            unique, groups = np.unique(keys, return_inverse=True)
            every = np.ones(len(keys), np.bool_)
            counts.append(KeyCounts(unique, _count_groups(groups, len(unique), train, every)))
        return cls(space, tuple(counts))

    def places(self, ids: IntArray) -> FloatArray:
        """The places, (n_candidates, 1); no column where the order is not real."""
        columns = [
            # a place beyond those of training is the one after the last
            np.where(codes < 0, n_values, codes)
            for part, codes, n_values in self._coded(ids)
            if part.source == "position"
        ]
        return _stacked(columns, len(ids))

    def codes(self, ids: IntArray) -> FloatArray:
        """Codes of the fields of few values, NaN if unknown, (n_candidates, n_fields)."""
        columns = [
            np.where(codes < 0, np.nan, codes)
            for part, codes, _ in self._coded(ids)
            if is_few(part) and part.source != "position"
        ]
        return _stacked(columns, len(ids))

    def context_codes(self, source: Batch) -> FloatArray:
        """Codes of the context fields of few values, NaN if unknown, (n_events, ·)."""
        codes = [
            (source.context_ids[:, column] - np.int32(part.start + 1))
            for column, part in enumerate(self.space.context)
            if len(part.values) <= FEW_VALUES
        ]
        return _stacked([np.where(one < 0, np.nan, one) for one in codes], source.n_events)

    def numbers(self, batch: Batch, window: int, of_keys: FloatArray | None = None) -> FloatArray:
        """Statistics of keys, and how often each field's value is among the last `window` choices,
        (n_candidates, ·). `of_keys`: the statistics, where they are not those of all users."""
        if of_keys is None:
            of_keys = self.of_keys(batch)
        return np.column_stack([of_keys, self._shared(batch, window)])

    def of_keys(
        self, source: Batch | EncodedSessions, training: Training | None = None
    ) -> FloatArray:
        """Statistics of keys, (n_candidates, ·). `training`: these are the training sessions as
        they are read: each candidate reads what the users before its own said
        (`features.training_order`)."""
        prior, columns = self.space.prior_rate, [np.empty((len(source.ids), 0), np.float32)]
        keys = self._keys(source)
        counted = [None] * len(keys) if training is None else self._keys(training.counted)
        # one family after the other: the totals of a large log's candidates are large
        for at, (key, own) in enumerate(zip(keys, counted, strict=True)):
            if training is None or own is None:
                one = self.counts[at]
                totals = totals_of(one.counts, _find_rows(one.keys, key))
            else:
                totals = _totals_before(own, key, training)
            columns.append(item_numbers(totals, prior))
        return np.concatenate(columns, axis=1)

    def arrays(self) -> Arrays:
        """Arrays that `restore` needs beside the space."""
        return {
            f"fields.{at}.{name}": values
            for at, one in enumerate(self.counts)
            for name, values in ({"keys": one.keys} | vars(one.counts)).items()
        }

    @classmethod
    def restore(cls, space: FeatureSpace, arrays: Arrays) -> Self:
        """The columns that `arrays` described. Raises ValueError for arrays that do not fit."""
        counts = []
        blank = cls(space, ())
        for at in range(len(blank._many) + len(space.context) * len(blank._crossed)):
            keys, *totals = (
                arrays[f"fields.{at}.{name}"]
                for name in ("keys", "displays", "choices", "expected")
            )
            if not len(keys) or any(one.shape != keys.shape for one in totals):
                raise ValueError("counts of a field do not fit its values")
            counts.append(KeyCounts(keys, ItemCounts(*totals)))
        return cls(space, tuple(counts))

    @property
    def _many(self) -> list[int]:
        """Columns of the ids of fields of many values."""
        fields = enumerate(self.space.categorical)
        return [column for column, part in fields if part.source != "item" and not is_few(part)]

    @property
    def _crossed(self) -> list[int]:
        """Columns of the ids that the context is crossed with."""
        fields = enumerate(self.space.categorical)
        return [column for column, part in fields if part.source != "position"]

    def _keys(self, source: Batch | EncodedSessions) -> list[FieldKeys]:
        """Families of keys that training is counted by: fields of many values, pairs of context and
        candidate."""
        ids = source.ids.astype(np.int64)
        event = source.event_of_candidate()
        pairs = [
            context[event] * self.space.n_ids + ids[:, column]
            for context in source.context_ids.T.astype(np.int64)
            for column in self._crossed
        ]
        return [*(ids[:, column] for column in self._many), *pairs]

    def _coded(self, ids: IntArray) -> list[tuple[CategoricalField, IntArray, int]]:
        """Fields other than the item, candidates' codes in each (-1: unknown), how many values."""
        return [
            (part, ids[:, column] - np.int32(part.start + 1), len(part.values))
            for column, part in enumerate(self.space.categorical)
            if part.source != "item"
        ]

    def _shared(self, batch: Batch, window: int) -> FloatArray:
        """How often each declared field's value is among the last choices."""
        fields = [
            column
            for column, part in enumerate(self.space.categorical)
            if part.source.endswith("_field")
        ]
        ids = batch.ids
        if not fields:
            return np.empty((len(ids), 0), np.float32)
        before = chosen_before(batch, self.space.n_ids, window)
        event = batch.event_of_candidate()
        counts = [np.asarray(before[event, ids[:, column]]).ravel() for column in fields]
        return _stacked(counts, len(ids))


def chosen_before(batch: Batch, n_ids: int, window: int) -> sparse.csr_matrix:
    """How often each id is in the last `window` choices before each event, (n_events, n_ids)."""
    read, starts = prefixes(batch.token_offsets, window)
    ids = batch.tokens.ids.numpy()
    tokens = sparse.csr_matrix(
        (np.ones(len(ids), dtype=np.float32), ids, batch.tokens.offsets.numpy()),
        shape=(batch.tokens.n_bags, n_ids),
    )
    event = np.repeat(batch.later_events.numpy(), np.diff(starts.numpy()))
    ones, shape = np.ones(len(read), dtype=np.float32), (batch.n_events, batch.tokens.n_bags)
    return sparse.csr_matrix((ones, (event, read.numpy())), shape=shape) @ tokens


def _count_groups(
    groups: npt.NDArray[np.integer], n: int, train: EncodedSessions, counts: BoolArray
) -> ItemCounts:
    """Counts by group of the training candidates that `counts` marks."""
    sizes, chosen = np.diff(train.display_offsets), train.chosen_candidates
    return ItemCounts(
        np.bincount(groups, counts, n).astype(np.int64),
        np.bincount(groups[chosen], counts[chosen], n).astype(np.int64),
        np.bincount(groups, np.repeat(1 / sizes, sizes) * counts, n).astype(np.float64),
    )


def _totals_before(counted: FieldKeys, keys: FieldKeys, training: Training) -> TrainingTotals:
    """Counts of each read candidate's key over the users before its own."""
    whole, read = training.counted, training.read
    unique, groups = np.unique(counted, return_inverse=True)
    rows, sizes = _find_rows(unique, keys), np.diff(whole.display_offsets[whole.session_offsets])
    blocks, ends = ONCE.blocks(whole.users, 0), read.display_offsets[read.session_offsets]
    session, found = 0, list[TrainingTotals]()
    for block in range(ONCE.n_blocks):
        before = _count_groups(groups, len(unique), whole, np.repeat(blocks < block, sizes))
        # sessions are read block by block
        stop = session + int((blocks == block).sum())
        found.append(totals_of(before, rows[ends[session] : ends[stop]]))
        session = stop
    return TrainingTotals(*map(np.concatenate, zip(*found, strict=True)))


def _find_rows(known: FieldKeys, keys: FieldKeys) -> IntArray:
    """Row of each key among known ones, ascending; -1 for another."""
    rows = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[rows] == keys, rows, -1).astype(np.int32)


def _stacked(columns: list[npt.NDArray[np.generic]], n: int) -> FloatArray:
    stacked = np.column_stack(columns) if columns else np.empty((n, 0))
    return stacked.astype(np.float32)

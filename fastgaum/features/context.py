"""The context of events as networks read it: an id of each field of categories, and numbers.

A field that holds items has the items' own ids: what is learned of an item as a candidate serves it
as context. Its candidates have one number more, whether they are that item
(`kernels.candidate_formulas.context_numbers`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fastgaum.arrays import FloatArray, IntArray
from fastgaum.features.numbers import Moments, out_of_range
from fastgaum.logs.columns import MOST_NUMBER, Vocabulary
from fastgaum.logs.context import item_of_codes, training_events
from fastgaum.logs.log import SessionLog

if TYPE_CHECKING:
    from fastgaum.features.space import FeatureSpace


@dataclass(frozen=True)
class ContextEncoder:
    """Reads the context of a log's events."""

    space: FeatureSpace
    log: SessionLog
    id_of_code: tuple[IntArray, ...]
    """feature id of each code of each field of categories; the last entry is that of code -1, a
    missing value"""
    item_of_code: tuple[IntArray, ...]
    """item code of each code of each field that holds items, -1 for a value that is no item of the
    log; the last entry likewise"""

    @classmethod
    def of(cls, space: FeatureSpace, log: SessionLog) -> ContextEncoder:
        """That of any events with the categories and items of `log`."""
        rows = (
            Vocabulary(part.values).codes_from(Vocabulary(log.columns[part.name].categories))
            for part in space.context
        )
        ids = tuple(
            row + np.int32(part.start + 1) for row, part in zip(rows, space.context, strict=True)
        )
        items = tuple(item_of_codes(log, name) for name in space.fields_of_items)
        return cls(space, log, ids, items)

    def ids(self, events: IntArray) -> IntArray:
        """Feature ids of the events' fields of categories, (n, n_fields)."""
        ids = np.empty((len(events), len(self.id_of_code)), np.int32)
        for column, part in enumerate(self.space.context):
            ids[:, column] = self.id_of_code[column][self.log.values_at(part.name, events)]
        return ids

    def items(self, events: IntArray) -> IntArray:
        """Item codes of the events' fields that hold items, -1 for none, (n, n_fields)."""
        items = np.empty((len(events), len(self.item_of_code)), np.int32)
        for column, name in enumerate(self.space.fields_of_items):
            items[:, column] = self.item_of_code[column][self.log.values_at(name, events)]
        return items

    def numbers(self, events: IntArray) -> FloatArray:
        """The events' standardised numbers, (n, n_numbers).

        Raises:
            LogFormatError: a number is not finite, or too large.
        """
        names = self.space.context_number_names
        numbers = np.empty((len(events), len(names)), np.float32)
        for column, name in enumerate(names):
            values = numbers[:, column]
            values[:] = self.log.values_at(name, events)
            wrong = ~(np.abs(values) <= MOST_NUMBER)
            if wrong.any():
                row = int(wrong.argmax())
                raise out_of_range(self.log, int(events[row]), name, float(values[row]))
        numbers -= self.space.context_mean
        numbers /= self.space.context_scale
        return numbers


def context_moments(log: SessionLog, names: Sequence[str]) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of each number of the training events."""
    moments = Moments()
    training = training_events(log)
    if names and training.any():
        moments.add(np.stack([log.values_at(name, training) for name in names], 1))
    return moments.mean.astype(np.float32), moments.scale()

"""Catalogue: items that worlds and online users can show, each as a candidate without a session.

A model keeps no fields. An online user takes them from an item table or with each display, a world
from a log: the mean of a candidate's number over the item's training displays, the most frequent
category (ties: the first in order), the mean view count, rounded. An item that training did not
display gets the mean over all, the unknown category, and one view; without a vector the mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.arrays import FloatArray, IntArray
from fastgaum.errors import ConfigError, did_you_mean
from fastgaum.features.coded_log import check_columns
from fastgaum.features.fields import OF_PLACE, ids_of_items
from fastgaum.features.item_vectors import ItemVectors, VectorsOfRows, component_names
from fastgaum.features.number_columns import (
    LOG_VIEWS,
    item_numbers,
    number_columns,
    totals_of,
)
from fastgaum.features.sessions import select_sessions
from fastgaum.features.space import FeatureSpace
from fastgaum.kernels.candidate_formulas import TRAINING_NUMBERS
from fastgaum.logs.columns import show
from fastgaum.logs.log import SessionLog
from fastgaum.logs.vocabulary import Vocabulary

NO_VALUE = -2
"""instead of a category's row: the display has to give the category"""


@dataclass(frozen=True)
class Catalogue:
    """The training items of a feature space, further ones, and a row for an unknown item."""

    space: FeatureSpace
    item_ids: pl.Series
    ids: IntArray
    """feature ids of each row, 0 where the place decides or a display gives the category, shape
    (n_items + 1, n_categorical)"""
    fixed: FloatArray
    """base numbers of each row before they are standardised, 0 where a session decides, NaN where
    a display gives the number, shape (n_items + 1, n_base)"""
    vectors: VectorsOfRows | None = None
    """standardised vectors of some rows, (n, dim), where networks read vectors"""

    @property
    def n_items(self) -> int:
        """Number of items, without the unknown one."""
        return len(self.item_ids)

    @cached_property
    def rows(self) -> dict[str, int]:
        """Row of each item."""
        return {item: row for row, item in enumerate(self.item_ids.to_list())}

    @classmethod
    def of(
        cls, space: FeatureSpace, log: SessionLog | None = None, further: pl.Series | None = None
    ) -> Catalogue:
        """The items of a feature space, then `further` new ones, with fields of a log.

        Raises:
            ConfigError: fields or view counts need a log, or a further item is a training item.
            FeatureMismatchError: the log's fields are not the training log's.
        """
        of_log = [*space.field_names, *(f"item vectors {name}" for name, _ in space.vectors.widths)]
        of_log += ["view counts"] if space.protocol == "views" else []
        if log is None and of_log:
            raise ConfigError(
                f"the model reads {', '.join(of_log)}, which it does not keep per item: pass the "
                "log that has them, --log LOG (log=…)"
            )
        item_ids = space.categorical[0].values
        if further is not None:
            item_ids = pl.concat([item_ids, further.cast(pl.String).alias(item_ids.name)])
            if item_ids.n_unique() < len(item_ids):
                raise ConfigError(
                    "a further item is a training item, or is given twice: pass each new item once"
                )
        if log is None:
            return cls._of_values(space, item_ids, {}, None)
        check_columns(space, log)
        row_of_item = Vocabulary(item_ids).codes(log.item_ids)
        known = np.flatnonzero(row_of_item >= 0)
        item_of_row = np.full(len(item_ids) + 1, -1, np.int32)
        item_of_row[row_of_item[known]] = known
        values = _values_of_log(space, log, row_of_item, len(item_ids) + 1)
        return cls._of_values(space, item_ids, values, (log, item_of_row, 0.0))

    @classmethod
    def of_table(
        cls,
        space: FeatureSpace,
        items: pl.Series,
        values: Mapping[str, npt.NDArray[Any]],
        source: SessionLog | None = None,
    ) -> Catalogue:
        """The items of a feature space, of its actions and of a table.

        Args:
            space: of the model.
            items: the table's items, (n,).
            values: row of each item's category, or its number, by field, (n,).
            source: a log of these items in this order, where the table has their vectors.
        """
        trained = space.categorical[0].values
        others = [part.values for part in space.actions[1:]]
        every = pl.concat([one.cast(pl.String).alias("item") for one in (trained, *others, items)])
        item_ids = every.unique(maintain_order=True)
        at, item_of_row = Vocabulary(item_ids).codes(items), np.full(len(item_ids) + 1, -1)
        item_of_row[at] = np.arange(len(items))
        by_row = {}
        for name, column in values.items():
            blank = np.nan if column.dtype.kind == "f" else NO_VALUE
            by_row[name] = np.full(len(item_of_row), blank, column.dtype)
            by_row[name][at] = column
        of_vectors = None if source is None else (source, item_of_row, np.nan)
        return cls._of_values(space, item_ids, by_row, of_vectors)

    @classmethod
    def _of_values(
        cls,
        space: FeatureSpace,
        item_ids: pl.Series,
        values: Mapping[str, npt.NDArray[Any]],
        of_vectors: tuple[SessionLog, npt.NDArray[np.integer], float] | None,
    ) -> Catalogue:
        """values: fields by row; of_vectors: a log, its item of each row, and the components of an
        item that it does not hold."""
        names, components = space.number_names, component_names(space.vectors)
        n_trained, n = len(space.item_counts.displays), len(item_ids) + 1
        rows = np.append(np.arange(n_trained), np.full(n - n_trained, -1)).astype(np.int32)
        fixed = np.zeros((n, len(names)), np.float32)
        columns = number_columns(TRAINING_NUMBERS, names)
        of_training = item_numbers(totals_of(space.item_counts, rows), space.prior_rate)
        fixed[:, columns[columns >= 0]] = of_training[:, columns >= 0]
        of_items = (LOG_VIEWS, *space.field_names, *components)
        for column, name in enumerate(names):
            if name in of_items:
                fixed[:, column] = values.get(name, np.nan)
        vectors = None
        if of_vectors is not None and space.vectors.dim:
            log, item_of_row, missing = of_vectors
            if space.vectors.are_read:
                vectors = partial(_standardised_vectors, space.vectors, log, item_of_row)
            else:
                found = space.vectors.components(log)
                made = np.where((item_of_row >= 0)[:, None], found[item_of_row], missing)
                fixed[:, number_columns(components, names)] = made
        ids = np.zeros((n, len(space.categorical)), np.int32)
        for column, part in enumerate(space.categorical):
            codes = rows if part.source == "item" else values.get(part.name)
            if part.source not in OF_PLACE and codes is not None:
                no_value = codes == NO_VALUE
                ids[:, column] = np.where(no_value, 0, part.ids(np.where(no_value, -1, codes)))
        return cls(space, item_ids, ids, fixed, vectors)


def _standardised_vectors(
    vectors: ItemVectors, log: SessionLog, item_of_row: npt.NDArray[np.integer], rows: slice
) -> FloatArray:
    """Vectors of rows; zeros, the mean, for an item that the log does not hold."""
    items = item_of_row[rows]
    found = np.zeros((len(items), vectors.dim), np.float32)
    found[items >= 0] = vectors.rows(log, items[items >= 0])
    return found


def _values_of_log(
    space: FeatureSpace, log: SessionLog, row_of_item: IntArray, n: int
) -> dict[str, npt.NDArray[Any]]:
    """Fields of n rows: those of the log's items, or of their training displays."""
    train = log.sessions_in("train")
    shown = select_sessions(log, train if len(train) else log.sessions_in("all")).candidates
    of_shown = row_of_item[log.items[shown]]

    def seen(name: str) -> tuple[IntArray, npt.NDArray[Any]]:
        column = log.columns[name]
        of_items = column.of == "item"
        return (row_of_item, column.values) if of_items else (of_shown, column.values[shown])

    values: dict[str, npt.NDArray[Any]] = {}
    for part in space.categorical:
        if part.source in ("item_field", "candidate_field"):
            rows, codes = seen(part.name)
            of_log = Vocabulary(log.columns[part.name].categories)
            found = Vocabulary(part.values).codes_from(of_log)[codes]
            values[part.name] = _most_frequent(rows, found, n, len(part.values) + 1)
    for name in set(space.number_names) & set(space.field_names):
        values[name] = _means(*seen(name), n)
    if LOG_VIEWS in space.number_names:
        assert log.views is not None
        views = _means(of_shown, log.views[shown].astype(np.float64), n, 1.0)
        values[LOG_VIEWS] = np.log(np.maximum(np.rint(views), 1)).astype(np.float32)
    return values


def _most_frequent(
    rows: IntArray, codes: npt.NDArray[np.integer], n: int, width: int
) -> npt.NDArray[np.integer]:
    """The most frequent code of each of n rows, below width - 1, the first of several; -1 of an
    unknown category, or without one."""
    pairs, counts = np.unique(rows.astype(np.int64) * width + codes + 1, return_counts=True)
    # by rising count, and among equals by falling code: what is written last is the most frequent,
    # ties the first
    order = np.lexsort((-pairs, counts))
    pairs, result = pairs[order][pairs[order] >= 0], np.full(n, -1, np.int32)
    result[pairs // width] = pairs % width - 1
    return result


def _means(
    rows: IntArray, values: npt.NDArray[Any], n: int, missing: float | None = None
) -> FloatArray:
    """The mean value of each of n rows; `missing`, or the mean of all, where there is none."""
    known = rows >= 0
    counts = np.bincount(rows[known], minlength=n)
    sums = np.bincount(rows[known], weights=values[known], minlength=n)
    other = float(values.mean()) if missing is None else missing
    return np.where(counts > 0, sums / np.maximum(counts, 1), other).astype(np.float32)


class ActionIds:
    """Bags of actions, as `features.coded_log` makes them."""

    def __init__(self, catalogue: Catalogue) -> None:
        space = catalogue.space
        kinds, others = space.actions
        self.fields = {
            part.name: column
            for column, part in enumerate(space.categorical)
            if part.source == "item_field"
        }
        """column of each field of items"""
        own = ids_of_items(space.categorical[0], others, catalogue.item_ids)
        self.of_rows: IntArray = np.column_stack(
            [np.append(own, np.int32(others.start)), catalogue.ids[:, list(self.fields.values())]]
        )
        self.of_kinds = {name: kinds.start + 1 + row for row, name in enumerate(kinds.values)}

    def of(self, rows: IntArray, action: str) -> IntArray:
        """Feature ids of an action on the items of some rows, (n, ·).

        Raises:
            ConfigError: training had no such action.
        """
        if action not in self.of_kinds:
            raise ConfigError(
                f"the model knows no action {show(action)}, training had "
                f"{', '.join(self.of_kinds)}{did_you_mean(str(action), self.of_kinds)}"
            )
        kinds = np.full((len(rows), 1), self.of_kinds[action], np.int32)
        return np.concatenate([self.of_rows[rows], kinds], axis=1)

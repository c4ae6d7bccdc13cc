"""Catalogue: what a simulated candidate is, before anybody's session says anything of it.

The training split says most of it: ids, and how often each item was displayed and chosen (all of
it: simulated users are new, none has training sessions of their own to leave out). Fields are
columns of a log, which a model does not keep: a model that reads some needs the log. What a log has
per candidate becomes one value per item there: a number its mean over the item's training displays,
a category the most frequent one (ties: the first in order), view counts their mean, rounded; an
item that the log's training split never displayed gets the mean over all, the unknown category, and
one view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.errors import ConfigError
from fastgaum.features.encoder import SAME_FOR_SET, rows_of
from fastgaum.features.relations import NUMBERS as RELATION_NUMBERS
from fastgaum.features.selection import Selection, select_sessions
from fastgaum.features.space import FeatureSpace
from fastgaum.logs.log import FloatArray, IntArray, SessionLog
from fastgaum.logs.vocabulary import N_RESERVED

COUNTED = ("displayed_before", "chosen_before", "log_set_size", "event_number")
"""numbers that the session so far decides"""


@dataclass(frozen=True)
class Catalogue:
    """The training items of a feature space as simulated candidates, then further ones that
    training never displayed.

    One more row stands for an unknown item.
    """

    space: FeatureSpace
    item_ids: pl.Series
    ids: IntArray
    """feature ids of each row, 0 in the position's column, shape (n_items + 1, n_categorical)"""
    fixed: FloatArray
    """base numbers of each row before they are standardised, 0 where a session decides, shape
    (n_items + 1, n_base)"""
    position_column: int
    """column of `ids` that the place decides, -1 where order is no feature"""
    n_positions: int
    counted: IntArray
    """columns of COUNTED among the base numbers, -1 where they are not asked for"""
    relations_column: int
    """first column of the relations' numbers, -1 where they are not asked for"""
    varying: npt.NDArray[np.int64]
    """base numbers that also come less their mean over the display set, in the order of those
    copies"""
    training_numbers: FloatArray
    """log displays, log choices and choice rate of each item in training, shape (n_items, 3)"""

    @property
    def n_items(self) -> int:
        """Number of items, the unknown one not among them."""
        return len(self.item_ids)

    @property
    def n_trained(self) -> int:
        """Number of training items, which stand first."""
        return len(self.space.item_displays)

    @classmethod
    def of(
        cls, space: FeatureSpace, log: SessionLog | None = None, further: pl.Series | None = None
    ) -> Catalogue:
        """The items of a feature space, then `further` ones, as the model meets new items; `log`
        says what their fields are.

        Raises:
            ConfigError: the space has fields or view counts and no log is given, or a further item
                is none.
            FeatureMismatchError: the log's fields are not the training log's.
        """
        if log is None and (space.field_names or space.protocol == "views"):
            what = [*space.field_names, *(["view counts"] if space.protocol == "views" else [])]
            raise ConfigError(
                f"the model reads {', '.join(what)}, which it does not keep per item: pass the log "
                "that has them (log=…)"
            )
        names, item_ids = space.number_names, space.categorical[0].values
        n_trained = len(item_ids)
        if further is not None:
            item_ids = pl.concat([item_ids, further.cast(pl.String).alias(item_ids.name)])
            if item_ids.n_unique() < len(item_ids):
                raise ConfigError(
                    "a further item is a training item, or stands there twice: pass each new item "
                    "once"
                )
        fields = _Fields(space, log, item_ids) if log is not None else None
        statistics = _training_statistics(space, len(item_ids) + 1)
        fixed = np.zeros((len(item_ids) + 1, len(names)), np.float32)
        for column, name in enumerate(names):
            if name in statistics:
                fixed[:, column] = statistics[name]
            elif name not in COUNTED and name not in RELATION_NUMBERS:
                assert fields is not None
                fixed[:, column] = (
                    fields.log_views() if name == "log_views" else fields.numbers(name)
                )
        ids = np.zeros((len(fixed), len(space.categorical)), np.int32)
        position, n_positions = -1, 0
        for column, part in enumerate(space.categorical):
            if part.source == "position":
                position, n_positions = column, len(part.values)
            elif part.source == "item":
                ids[:, column] = part.start
                ids[:n_trained, column] += np.arange(1, n_trained + 1, dtype=np.int32)
            else:
                assert fields is not None
                ids[:, column] = part.start + 1 + fields.rows(part.name, part.values)
        return cls(
            space,
            item_ids,
            ids,
            fixed,
            position,
            n_positions,
            np.array([_at(names, name) for name in COUNTED], np.int32),
            _at(names, RELATION_NUMBERS[0]),
            np.array(
                [
                    i
                    for i, name in enumerate(names)
                    if space.set_context and name not in SAME_FOR_SET
                ],
                np.int64,
            ),
            np.stack(
                [statistics[name][:-1] for name in ("log_displays", "log_choices", "choice_rate")],
                1,
            ).astype(np.float32),
        )

    def bags(self, rows: IntArray) -> IntArray:
        """Feature ids, (n, n_categorical), of table rows (n, 1 or 2) as the kernels have them."""
        ids = self.ids[rows[:, 0]]
        if self.position_column >= 0:
            start = self.space.categorical[self.position_column].start
            ids[:, self.position_column] = start + rows[:, 1] - len(self.ids)
        return ids

    def rows(self, ids: IntArray) -> IntArray:
        """Table rows, (n, 1 or 2), of feature ids (n, n_categorical): the way back, fields left to
        the item."""
        item = (
            ids[:, 0] - N_RESERVED
        )  # a further item is unknown here: ids do not tell one from another
        rows = np.where(item < 0, self.n_items, item)[:, None]
        if self.position_column >= 0:
            start = self.space.categorical[self.position_column].start
            rows = np.concatenate(
                [rows, ids[:, self.position_column, None] - start + len(self.ids)], axis=1
            )
        return rows.astype(np.int32)


def _at(names: tuple[str, ...], name: str) -> int:
    return names.index(name) if name in names else -1


def _training_statistics(space: FeatureSpace, n: int) -> dict[str, npt.NDArray[Any]]:
    """What the encoder computes of an item's training counts, by item, then n in all that have
    none."""
    rest = np.zeros(n - len(space.item_displays), np.int64)
    displays, choices = np.append(space.item_displays, rest), np.append(space.item_choices, rest)
    expected = np.append(space.item_expected, rest)
    return {
        "log_displays": np.log1p(displays),
        "log_choices": np.log1p(choices),
        "choice_rate": (choices + 2 * space.prior_rate) / (displays + 2),
        "choice_lift": np.log((choices + 0.5) / (expected + 0.5)),
        "never_seen": displays == 0,
        "never_chosen": choices == 0,
    }


class _Fields:
    """A log's fields by item, the unknown item last."""

    def __init__(self, space: FeatureSpace, log: SessionLog, item_ids: pl.Series) -> None:
        space.check_fields(log)
        self.log = log
        train = log.sessions_in("train")
        part: Selection = select_sessions(log, train if len(train) else log.sessions_in("all"))
        self.candidates = part.candidates
        self.items = rows_of(log.item_ids, item_ids)
        """row of each of the log's items, -1 for one that the catalogue does not hold"""
        self.n = len(item_ids) + 1
        self.at = self.items[np.asarray(log.items)[self.candidates]]

    def numbers(self, name: str) -> FloatArray:
        """A number by item."""
        if name in self.log.item_fields:
            values = self.log.item_fields[name]
            known = np.flatnonzero(self.items >= 0)
            result = np.full(self.n, values.mean(), np.float32)
            result[self.items[known]] = values[known]
            return result
        return self._means(self.log.candidate_fields[name][self.candidates], None)

    def log_views(self) -> FloatArray:
        """Logarithm of an item's rounded mean number of views."""
        assert self.log.views is not None
        views = self._means(self.log.views[self.candidates].astype(np.float64), 1.0)
        return np.log(np.maximum(np.rint(views), 1)).astype(np.float32)

    def rows(self, name: str, values: pl.Series) -> IntArray:
        """Row of an item's category among `values`, -1 for an unknown one."""
        row_of_code = np.append(rows_of(self.log.categories[name], values), np.int32(-1))
        result = np.full(self.n, -1, np.int32)
        if name in self.log.item_fields:
            known = np.flatnonzero(self.items >= 0)
            result[self.items[known]] = row_of_code[self.log.item_fields[name][known]]
            return result
        width = len(values) + 1
        code = row_of_code[self.log.candidate_fields[name][self.candidates]]
        pairs, counts = np.unique(self.at.astype(np.int64) * width + code + 1, return_counts=True)
        # by rising count, and among equals by falling code: what is written last is the most
        # frequent, ties the first
        order = np.lexsort((-pairs, counts))
        pairs = pairs[order][pairs[order] >= 0]
        result[pairs // width] = pairs % width - 1
        return result

    def _means(self, values: npt.NDArray[Any], missing: float | None) -> FloatArray:
        known = self.at >= 0
        counts = np.bincount(self.at[known], minlength=self.n)
        sums = np.bincount(self.at[known], weights=values[known], minlength=self.n)
        other = missing if missing is not None else float(values.mean())
        return np.where(counts > 0, sums / np.maximum(counts, 1), other).astype(np.float32)

"""Catalogue: what a simulated candidate is, before a session says anything of it.

The training split says most of it: ids, and how often each item was displayed and chosen (all of
it, as for a test user). Fields are
columns of a log, which a model does not keep: a model that reads some needs the log. What a log has
per candidate becomes one value per item there: a number its mean over the item's training displays,
a category the most frequent one (ties: the first in order), view counts their mean, rounded; an
item that the log's training split never displayed gets the mean over all, the unknown category, and
one view. Vectors of items come from the log too; an item that it does not hold has their mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.arrays import FloatArray, IntArray
from fastgaum.engine.fixed import Vectors, rows_of_table
from fastgaum.errors import ConfigError
from fastgaum.features.item_vectors import SAMPLE, component_names, principal_axes
from fastgaum.features.numbers import (
    LOG_VIEWS,
    PLACE_NUMBERS,
    item_numbers,
    log_views,
    number_columns,
    totals_of,
)
from fastgaum.features.sessions import Selection, select_sessions
from fastgaum.features.space import FeatureSpace
from fastgaum.features.vocabulary import OF_PLACE
from fastgaum.kernels.candidate_formulas import RELATION_NUMBERS, SESSION_NUMBERS, TRAINING_NUMBERS
from fastgaum.logs.columns import Vocabulary
from fastgaum.logs.log import SessionLog
from fastgaum.nets.networks import Scorer

ITEM_STATISTICS = ("log_displays", "log_choices", "choice_rate")
"""what a policy may know of an item's training events"""


@dataclass(frozen=True)
class Catalogue:
    """The training items of a feature space as simulated candidates, then further ones that
    training never displayed.

    One more row stands for an unknown item.
    """

    space: FeatureSpace
    item_ids: pl.Series
    ids: IntArray
    """feature ids of each row, 0 where the place decides, shape (n_items + 1, n_categorical)"""
    fixed: FloatArray
    """base numbers of each row before they are standardised, 0 where a session decides, shape
    (n_items + 1, n_base)"""
    statistics: FloatArray
    """ITEM_STATISTICS of each item, shape (n_items, 3)"""
    vectors: Vectors | None = None
    """standardised vectors of some rows, (n, dim), where networks read vectors"""

    @property
    def n_items(self) -> int:
        """Number of items, the unknown one not among them."""
        return len(self.item_ids)

    @property
    def n_trained(self) -> int:
        """Number of training items, which stand first."""
        return len(self.space.item_counts.displays)

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
        of_log = [*space.field_names, *(f"item vectors {name}" for name, _ in space.vectors.widths)]
        if log is None and (of_log or space.protocol == "views"):
            what = [*of_log, *(["view counts"] if space.protocol == "views" else [])]
            raise ConfigError(
                f"the model reads {', '.join(what)}, which it does not keep per item: pass the log "
                "that has them, --log LOG (log=…)"
            )
        names, item_ids = space.number_names, space.categorical[0].values
        of_events = (*SESSION_NUMBERS, *space.numbers_of_context, *PLACE_NUMBERS)
        components = component_names(space.vectors)
        n_trained = len(item_ids)
        if further is not None:
            item_ids = pl.concat([item_ids, further.cast(pl.String).alias(item_ids.name)])
            if item_ids.n_unique() < len(item_ids):
                raise ConfigError(
                    "a further item is a training item, or is given twice: pass each new item once"
                )
        fields = _Fields(space, log, item_ids) if log is not None else None
        space_rows = np.full(len(item_ids) + 1, -1, np.int32)
        space_rows[:n_trained] = np.arange(n_trained)
        of_training = item_numbers(totals_of(space.item_counts, space_rows), space.prior_rate)
        fixed = np.zeros((len(item_ids) + 1, len(names)), np.float32)
        for column, name in enumerate(names):
            if name in TRAINING_NUMBERS:
                fixed[:, column] = of_training[:, TRAINING_NUMBERS.index(name)]
            elif name in components:
                assert fields is not None
                if name == components[0]:
                    made = fields.vectors(slice(None)) @ space.vectors.axes
                    fixed[:, column : column + len(components)] = made
            elif name not in of_events and name not in RELATION_NUMBERS:
                assert fields is not None
                fixed[:, column] = fields.log_views() if name == LOG_VIEWS else fields.numbers(name)
        ids = np.zeros((len(fixed), len(space.categorical)), np.int32)
        for column, part in enumerate(space.categorical):
            if part.source in OF_PLACE:
                continue
            if part.source == "item":
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
            of_training[:-1, number_columns(ITEM_STATISTICS, TRAINING_NUMBERS)],
            fields.vectors if fields is not None and space.vectors.are_read else None,
        )


class _Fields:
    """A log's fields by item, the unknown item last."""

    def __init__(self, space: FeatureSpace, log: SessionLog, item_ids: pl.Series) -> None:
        space.check_fields(log)
        self.log, self.space = log, space
        train = log.sessions_in("train")
        part: Selection = select_sessions(log, train if len(train) else log.sessions_in("all"))
        self.candidates = part.candidates
        self.items = Vocabulary(item_ids).codes(log.item_ids)
        """row of each of the log's items, -1 for one that the catalogue does not hold"""
        self.n = len(item_ids) + 1
        self.at = self.items[np.asarray(log.items)[self.candidates]]

    def numbers(self, name: str) -> FloatArray:
        """A number by item."""
        column, known = self.log.columns[name], np.flatnonzero(self.items >= 0)
        if column.of == "item":
            result = np.full(self.n, column.values.mean(), np.float32)
            result[self.items[known]] = column.values[known]
            return result
        return self._means(column.values[self.candidates], None)

    def vectors(self, rows: slice) -> FloatArray:
        """Standardised vectors of rows of the catalogue; zeros, the mean, for an item that the log
        does not hold."""
        item_of_row = np.full(self.n, -1, np.int32)
        known = np.flatnonzero(self.items >= 0)
        item_of_row[self.items[known]] = known
        items = item_of_row[rows]
        found = np.zeros((len(items), self.space.vectors.dim), np.float32)
        found[items >= 0] = self.space.vectors.rows(self.log, items[items >= 0])
        return found

    def log_views(self) -> FloatArray:
        """Logarithm of an item's rounded mean number of views."""
        assert self.log.views is not None
        views = self._means(self.log.views[self.candidates].astype(np.float64), 1.0)
        return log_views(np.maximum(np.rint(views), 1)).astype(np.float32)

    def rows(self, name: str, values: pl.Series) -> IntArray:
        """Row of an item's category among `values`, -1 for an unknown one."""
        column = self.log.columns[name]
        row_of_code = Vocabulary(values).codes_from(Vocabulary(column.categories))
        result = np.full(self.n, -1, np.int32)
        if column.of == "item":
            known = np.flatnonzero(self.items >= 0)
            result[self.items[known]] = row_of_code[column.values[known]]
            return result
        width = len(values) + 1
        code = row_of_code[column.values[self.candidates]]
        pairs, counts = np.unique(self.at.astype(np.int64) * width + code + 1, return_counts=True)
        # by rising count, and among equals by falling code: what is written last is the most
        # frequent, ties the first
        order = np.lexsort((-pairs, counts))
        pairs = pairs[order][pairs[order] >= 0]
        result[pairs // width] = pairs % width - 1
        return result

    def _means(self, values: npt.NDArray[np.generic], missing: float | None) -> FloatArray:
        known = self.at >= 0
        counts = np.bincount(self.at[known], minlength=self.n)
        sums = np.bincount(self.at[known], weights=values[known], minlength=self.n)
        other = missing if missing is not None else float(values.mean())
        return np.where(counts > 0, sums / np.maximum(counts, 1), other).astype(np.float32)


def item_features(catalogue: Catalogue, reward: Scorer, n_features: int) -> FloatArray:
    """Features of each item, (n_items, ≤ n_features): principal components, then log displays, log
    choices, choice rate.

    The components are of the rows that the items add to the reward model's first layer, or with
    towers of their vectors. They are divided by the standard deviation of the first one, so
    that their relative sizes stay; the entry of largest absolute weight in a component is
    positive. The statistics are standardised. There are fewer features where the table has fewer
    columns.

    Raises:
        ConfigError: fewer features than statistics are asked for.
    """
    if n_features < len(ITEM_STATISTICS):
        raise ConfigError(
            f"n_features must be at least {len(ITEM_STATISTICS)}, the training statistics, got "
            f"{n_features}"
        )
    statistics = _standardised(catalogue.statistics)
    layer = reward.first if reward.tower is None else reward.tower.items
    n, n_ids = catalogue.n_items, catalogue.space.n_ids
    table = rows_of_table(layer, catalogue.vectors, n + 1)
    own = [at for at, one in enumerate(catalogue.space.categorical) if one.source not in OF_PLACE]
    vectors = table[catalogue.ids[:n, own]].sum(1)
    if len(table) > n_ids:
        vectors += table[n_ids : n_ids + n]
    if layer.up is not None:
        vectors = vectors @ layer.up.detach().cpu().numpy()
    n_components = min(n_features - len(ITEM_STATISTICS), vectors.shape[1])
    if n_components == 0:
        return statistics
    mean, axes, variances = principal_axes(vectors[:: -(-len(vectors) // SAMPLE)])
    axes = axes[:, :n_components] / np.sqrt(max(float(variances[0]), 1e-12))
    components = (vectors - mean.astype(np.float32)) @ axes.astype(np.float32)
    return np.ascontiguousarray(np.concatenate([components, statistics], axis=1), np.float32)


def _standardised(numbers: FloatArray) -> FloatArray:
    scale = numbers.std(axis=0)
    return np.asarray(
        (numbers - numbers.mean(axis=0)) / np.where(scale > 1e-6, scale, np.float32(1)), np.float32
    )

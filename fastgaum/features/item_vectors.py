"""Vectors of items, standardised. Towers (`nets.towers`) read them, other models principal
components."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.arrays import FloatArray, IntArray
from fastgaum.errors import ConfigError, LogFormatError
from fastgaum.features.standardise import Moments
from fastgaum.kernels.optimiser import number_rows
from fastgaum.logs.log import Column, SessionLog
from fastgaum.logs.side_tables import item_vectors_of

N_COMPONENTS = 16
"""principal components that are read without a tower of items"""
SAMPLE = 200_000
"""vectors that principal axes are found on"""
ROWS_AT_ONCE = 16_384


@dataclass(frozen=True)
class ItemVectors:
    """Moments and axes of the vectors of the training items."""

    widths: tuple[tuple[str, int], ...]
    """name and length of each column of vectors, by name; they stand side by side"""
    mean: FloatArray
    """mean of each entry over the training items, shape (dim,)"""
    scale: FloatArray
    """standard deviation of each (1 where it is 0), shape (dim,)"""
    axes: FloatArray
    """principal axes of the standardised vectors, (dim, n_components); none: vectors themselves are
    read"""

    @property
    def dim(self) -> int:
        """Numbers of an item's vector."""
        return len(self.mean)

    @property
    def n_components(self) -> int:
        """Numbers of a candidate made of its vector."""
        return int(self.axes.shape[1])

    @property
    def are_read(self) -> bool:
        """Whether networks read the vectors themselves."""
        return self.dim > 0 and self.n_components == 0

    @classmethod
    def of(cls, log: SessionLog, items: npt.NDArray[np.integer], components: bool) -> ItemVectors:
        """Those of a log's training items (codes); `components` asks for axes."""
        widths = tuple((name, vectors.shape[1]) for name, vectors in sorted(log.vectors.items()))
        dim = sum(width for _, width in widths)
        no_axes = np.zeros((dim, 0), np.float32)
        none = cls(widths, np.zeros(dim, np.float32), np.ones(dim, np.float32), no_axes)
        if dim == 0:
            return none
        moments = Moments()
        for start in range(0, len(items), ROWS_AT_ONCE):
            moments.add(none.raw(log, items[start : start + ROWS_AT_ONCE]))
        mean, scale = moments.mean.astype(np.float32), moments.scale()
        found = cls(widths, mean, scale, no_axes)
        if not components:
            return found
        sample = found.rows(log, items[:: -(-len(items) // SAMPLE)])
        axes = principal_axes(sample)[1][:, :N_COMPONENTS]
        return cls(widths, mean, scale, np.ascontiguousarray(axes, np.float32))

    def of_table(self, ids: pl.Series, table: pl.DataFrame) -> SessionLog:
        """A log without a session of the items `ids` of a table's rows. Raises ConfigError: a
        column is missing, holds no vectors, or those of another length."""
        columns = {}
        for name, width in self.widths:
            if name not in table.columns:
                raise ConfigError(
                    f"the model reads the item vectors '{name}', the item table has no such column "
                    f"(it has {', '.join(table.columns)}): add it"
                )
            try:
                rows = np.arange(len(ids), dtype=np.int32)
                vectors = item_vectors_of(table[name], ids, rows)
            except LogFormatError as error:
                raise ConfigError(f"the item table: {error}") from None
            columns[name] = Column("item", vectors)
            if (found := vectors.shape[1]) != width:
                raise ConfigError(
                    f"the vectors '{name}' of the item table have {found} numbers, the training "
                    f"log's have {width}: give those of the same model of texts or images"
                )
        return replace(SessionLog.empty(ids), columns=columns)

    def raw(self, log: SessionLog, items: npt.NDArray[np.integer]) -> FloatArray:
        """Vectors of items as the log has them, (n, dim)."""
        vectors = np.empty((len(items), self.dim), np.float32)
        at = 0
        for name, width in self.widths:
            vectors[:, at : at + width] = log.columns[name].values[items]
            at += width
        return vectors

    def rows(self, log: SessionLog, items: npt.NDArray[np.integer]) -> FloatArray:
        """Standardised vectors of items, (n, dim)."""
        vectors = self.raw(log, items)
        vectors -= self.mean
        vectors /= self.scale
        return vectors

    def components(self, log: SessionLog) -> FloatArray:
        """Components of all of a log's items, (n_items, n_components)."""
        found = np.empty((log.n_items, self.n_components), np.float32)
        for start in range(0, log.n_items, ROWS_AT_ONCE):
            items = np.arange(start, min(start + ROWS_AT_ONCE, log.n_items))
            np.matmul(self.rows(log, items), self.axes, out=found[items[0] : items[-1] + 1])
        return found


def component_names(vectors: ItemVectors) -> tuple[str, ...]:
    """Names of the numbers made of vectors."""
    return tuple(f"vector_component_{i + 1}" for i in range(vectors.n_components))


def principal_axes(
    sample: npt.NDArray[np.floating],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean (d,), principal axes (d, d) as columns, the variance along each (d,), largest first; an
    axis's largest entry is positive."""
    values = sample.astype(np.float64)
    mean = values.mean(axis=0)
    values -= mean
    variances, axes = np.linalg.eigh(values.T @ values / len(values))
    axes = axes[:, ::-1]
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.where(axes[largest, np.arange(axes.shape[1])] < 0, -1.0, 1.0)
    return mean, axes, variances[::-1]


class BatchVectors(NamedTuple):
    """Vectors of the items of a batch, each once."""

    values: FloatArray
    """standardised, shape (n_distinct, dim)"""
    candidates: IntArray
    """row of each candidate's item, shape (n_candidates,)"""
    tokens: IntArray
    """row of each token's item, -1 for no click, shape (n_tokens,)"""
    context: IntArray
    """row of the item in each field of the context, -1 for none, shape (n_events, n_fields)"""


@dataclass(frozen=True)
class VectorReader:
    """Reads the vectors of the items of encoded sessions."""

    vectors: ItemVectors
    log: SessionLog
    items: IntArray
    """code of each candidate's item, shape (n_candidates,)"""
    context: IntArray
    """code of the item in each context field of ids, -1 for none, shape (n_events, n_fields)"""

    def of_batch(self, candidates: IntArray, events: IntArray, tokens: IntArray) -> BatchVectors:
        """The vectors of a batch; tokens: candidate chosen at each token, -1 for no click,
        (n_tokens,)."""
        items, context = self.items[candidates], self.context[events]
        held = context >= 0
        codes = np.concatenate([items, context[held]])
        slots, rows = np.empty_like(codes), np.empty_like(codes)
        slot_of = np.full(self.log.n_items, -1, np.int32)
        count = number_rows(codes, slot_of, slots, rows)
        of_items = slots[: len(items)]
        of_context = np.full(context.shape, -1, np.int32)
        of_context[held] = slots[len(items) :]
        return BatchVectors(
            self.vectors.rows(self.log, rows[:count]),
            of_items,
            rows_of_chosen(of_items, tokens),
            of_context,
        )


def rows_of_chosen(rows: IntArray, candidates: IntArray) -> IntArray:
    """The row of each of those candidates, -1 where it is none."""
    return np.append(rows, np.int32(-1))[np.maximum(candidates, -1)]

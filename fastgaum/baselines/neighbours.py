"""What neighbourhood models share: who chose what in training, and what ranks candidates that no
neighbour knows.

In logs of short sessions most events have no earlier choice, and most pairs of items were never
chosen together. There every candidate has similarity 0: the popularity of the item decides, added
to the score with a weight."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from msgspec import Meta
from scipy import sparse

from fastgaum.baselines.base import Arrays, Float64Array, Grids, Values, item_rows
from fastgaum.baselines.grid_search import GridBaseline
from fastgaum.config import CountFromOne, NotNegative
from fastgaum.features.batches import Batch
from fastgaum.features.encoder import N_RESERVED
from fastgaum.features.sessions import EncodedSessions
from fastgaum.features.space import FeatureSpace
from fastgaum.nets.sequences import prefixes
from fastgaum.nets.tensors import BatchTensors

Points = Annotated[float, Meta(ge=-1e9, le=1e9)]
"""added to a score"""
MOST_EARLIER = 1000
"""so many of the last tokens before an event are read"""
FALLBACK: Grids = {
    "popularity": ("rate", "count", "lift"),
    "popularity_weight": (0.1, 1.0),
    "unknown": (0.5, 0.75, 1.0),
}
"""grids of the fallback's settings"""


@dataclass(eq=False)
class NeighbourBaseline(GridBaseline):
    """Base of the neighbourhood models: they read identities alone."""

    reads: ClassVar[tuple[str, ...]] = ("identity",)

    neighbours: CountFromOne = 100
    """at most so many neighbours"""
    popularity: Literal["auto", "rate", "count", "lift"] = "auto"
    """fallback for candidates without a neighbour, from the training split: choices per display;
    choices; choices against those expected had every choice been uniform over its display set"""
    popularity_weight: NotNegative | None = None
    """weight in the score of the fallback, a number in [0, 1]: 0.001 only breaks ties"""
    unknown: NotNegative | None = None
    """fallback of an item that training never displayed"""
    repeat: Points | None = None
    """added to a candidate that the session has chosen before: 0 leaves it alone, a negative value
    filters it"""
    shrinkage: NotNegative | None = None
    """regularisation λ of the similarities"""

    @abstractmethod
    def _similar(self, batch: BatchTensors, chosen: Values) -> Float64Array:
        """Similarity of each candidate to the choices before its event, shape (n_candidates,); 0
        without a neighbour."""

    def _learn(self, train: EncodedSessions) -> None:
        self._read_popularity()

    def _scores_with(self, batch: BatchTensors, chosen: Values) -> Float64Array:
        similar = self._similar(batch, chosen)
        items = item_rows(batch.source)
        fallback = np.where(items < 0, chosen["unknown"], self.by_item[chosen["popularity"]][items])
        return np.asarray(similar + chosen["popularity_weight"] * fallback, dtype=np.float64)

    def _restore(self, arrays: Arrays) -> None:
        super()._restore(arrays)
        self._read_popularity()

    def _read_popularity(self) -> None:
        assert self.space is not None
        self.by_item = {kind: popularity(self.space, kind) for kind in FALLBACK["popularity"]}


def popularity(space: FeatureSpace, kind: str) -> Float64Array:
    """Popularity of each training item, in [0, 1], shape (n_items,).

    rate (choices + 0.3) / (displays + 1), as the floor of that name; count choices / most choices
    of an item; lift (choices + ½) / (choices + expected + 1), where a display set of k candidates
    expects 1/k choices of each."""
    choices, displays = space.item_counts.choices, space.item_counts.displays
    if kind == "rate":
        # one division of whole numbers: equal rates are equal floats, so ties stay ties
        return np.asarray((10 * choices + 3) / (10 * (displays + 1)), dtype=np.float64)
    if kind == "count":
        return np.asarray(choices / max(int(choices.max()), 1), dtype=np.float64)
    # sums of 1/k in another order are equal to rounding only
    lift = np.round((choices + 0.5) / (choices + space.item_counts.expected + 1), 9)
    return np.asarray(lift, dtype=np.float64)


@dataclass(frozen=True)
class EarlierChoices:
    """The choices before each event: one entry for each event and each known item that was chosen
    before it in its session. A choice of an unknown item ages the others; no click ages nothing."""

    shape: tuple[int, int]
    """events, and items of training"""
    event: np.ndarray
    """of each entry, shape (n_entries,)"""
    item: np.ndarray
    """shape (n_entries,)"""
    age: np.ndarray
    """choices since then, 0 for the last one, shape (n_entries,)"""
    length: np.ndarray
    """choices before the event, those of unknown items included, shape (n_entries,)"""

    @classmethod
    def of(cls, batch: BatchTensors, n_items: int) -> Self:
        """The choices of a batch; at most MOST_EARLIER tokens before an event are read."""
        source, expanded = batch.source, prefixes(batch.token_offsets, MOST_EARLIER)
        token, last = expanded.rows.numpy(), expanded.last.numpy()
        sizes = np.diff(expanded.offsets.numpy())
        candidates = source.token_candidates
        # an unknown item's row is -1, and so is no choice's
        items = np.where(candidates >= 0, item_rows(source)[candidates], -1)[token]
        # the number of choices up to each token; differences within a session are what counts
        total = np.cumsum(candidates >= 0)
        newest = np.repeat(total[token[last]], sizes)
        before = np.repeat(total[token[expanded.first.numpy()]], sizes)
        first = np.repeat((candidates >= 0)[token[expanded.first.numpy()]], sizes)
        known = items >= 0
        event = np.repeat(source.later_events, sizes)
        age, length = newest - total[token], newest - before + first
        shape = (batch.n_events, n_items)
        return cls(shape, event[known], items[known], age[known], length[known])

    def matrix(self, weights: Float64Array) -> sparse.csr_matrix:
        """The entries' weights, those of one event and item added up, (n_events, n_items)."""
        return sparse.csr_matrix((weights, (self.event, self.item)), shape=self.shape)

    def latest(self) -> Self:
        """The latest entry of each event and item."""
        order = np.lexsort((self.age, self.item, self.event))
        event, item = self.event[order], self.item[order]
        order = order[np.append(True, (np.diff(event) != 0) | (np.diff(item) != 0))[: len(order)]]
        parts = (part[order] for part in (self.event, self.item, self.age, self.length))
        return type(self)(self.shape, *parts)


def of_candidates(matrix: sparse.csr_matrix, batch: Batch) -> Float64Array:
    """The entry of each candidate's event and item, (n_candidates,); 0 for an unknown item. Sums
    in another order are equal to rounding only: equal candidates tie again."""
    items = item_rows(batch)
    event = np.repeat(np.arange(len(batch.choices)), np.diff(batch.display_offsets))
    values = np.asarray(matrix[event, np.maximum(items, 0)], dtype=np.float64).ravel()
    return np.where(items >= 0, np.round(values, 10), 0.0)


def choice_matrix(train: EncodedSessions, n_items: int, rows: np.ndarray) -> sparse.csr_matrix:
    """Who chose what, once or more: ones, shape (max(rows) + 1, n_items); rows (n_sessions,) says
    who has a session."""
    items = train.ids[train.chosen_candidates, 0] - N_RESERVED
    who = np.repeat(rows, np.diff(train.session_offsets))[train.choices >= 0]
    matrix = sparse.csr_matrix((np.ones(len(items)), (who, items)), (int(rows.max()) + 1, n_items))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def arrays_of(name: str, matrix: sparse.csr_matrix) -> Arrays:
    """A sparse matrix as named arrays."""
    parts = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr}
    return {f"{name}.{part}": values for part, values in parts.items()}


def matrix_of(name: str, arrays: Arrays, n_items: int) -> sparse.csr_matrix:
    """The matrix that `arrays_of` described, of n_items columns. Raises ValueError for a damaged
    one: scipy would read past its end."""
    parts = tuple(arrays[f"{name}.{part}"] for part in ("data", "indices", "indptr"))
    matrix = sparse.csr_matrix(parts, shape=(len(parts[2]) - 1, n_items))
    matrix.check_format(full_check=True)
    return matrix

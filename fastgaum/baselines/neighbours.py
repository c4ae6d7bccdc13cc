"""What neighbourhood models share: who chose what in training, and what ranks candidates that no
neighbour knows.

In logs of short sessions most events have no earlier choice, and most pairs of items were never
chosen together. There every candidate has similarity 0: the popularity of the item decides, added
to the score with a weight."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

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
from fastgaum.kernels.neighbours import SessionDisplays
from fastgaum.nets.tensors import BatchTensors

Points = Annotated[float, Meta(ge=-1e9, le=1e9)]
"""added to a score"""
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
        of_neighbours = tuple(
            value for name, value in chosen.items() if name in self.grids and name not in FALLBACK
        )
        similar = self._kept(batch, of_neighbours, lambda: self._similar(batch, chosen))
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


def displays_of(batch: Batch) -> SessionDisplays:
    """A batch as the kernels of neighbours read it."""
    return SessionDisplays(
        batch.session_offsets,
        batch.display_offsets,
        batch.token_offsets,
        batch.token_candidates,
        item_rows(batch),
    )


def choice_matrix(train: EncodedSessions, n_items: int, rows: np.ndarray) -> sparse.csr_matrix:
    """Who chose what, once or more: int32 ones, shape (max(rows) + 1, n_items); rows (n_sessions,)
    says who has a session."""
    clicked = train.choices >= 0
    items = train.ids[train.chosen_candidates, 0] - N_RESERVED
    who = np.repeat(rows, np.diff(train.session_offsets))[clicked]
    ones = np.ones(len(items), dtype=np.int32)
    matrix = sparse.csr_matrix((ones, (who, items)), shape=(int(rows.max()) + 1, n_items))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def check_rows(indptr: np.ndarray, indices: np.ndarray, n_rows: int, n_columns: int) -> None:
    """Raise ValueError unless these are compressed rows of that shape: a kernel would read a
    damaged file's past their end."""
    starts_fit = indptr.shape == (n_rows + 1,) and indptr[0] == 0 and indptr[-1] == len(indices)
    if (
        not starts_fit
        or (np.diff(indptr) < 0).any()
        or ((indices < 0) | (indices >= n_columns)).any()
    ):
        raise ValueError(f"compressed rows are not of shape ({n_rows}, {n_columns})")

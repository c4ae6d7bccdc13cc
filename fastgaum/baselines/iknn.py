"""Item kNN: Sarwar et al., "Item-based collaborative filtering recommendation algorithms", WWW
2001.

Similarity and settings as in the Item-KNN of Hidasi et al., "Session-based recommendations with
recurrent neural networks", ICLR 2016: sim(i, j) = c_ij / √((c_i + λ)(c_j + λ)), where c_ij counts
the training users who chose both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta
from scipy import sparse

from fastgaum.baselines.base import Arrays, Float64Array, Grids, Values
from fastgaum.baselines.neighbours import (
    FALLBACK,
    EarlierChoices,
    NeighbourBaseline,
    arrays_of,
    choice_matrix,
    matrix_of,
    of_candidates,
)
from fastgaum.features.sessions import EncodedSessions
from fastgaum.nets.tensors import BatchTensors


@dataclass(eq=False)
class ItemKnn(NeighbourBaseline):
    """Ranks candidates by co-choice with the session's earlier choices, then by popularity.

    The report and its paper give the model's name only. Chosen here: score(a) = Σ_j decay^j ·
    sim(j-th newest choice, a), which with decay 0 reads the last choice alone, as Hidasi et al. do;
    an item is `repeat` similar to itself (there 0); choices are joined by user, as in Sarwar et
    al., not by session; items that were displayed together but not chosen are no neighbours (on the
    public logs that lowered validation likelihood); what has no neighbour is ranked by popularity,
    where the papers, ranking a whole catalogue, leave it out."""

    name: ClassVar[str] = "iknn"
    published_name: ClassVar[str | None] = "IKNN"
    grids: ClassVar[Grids] = {
        "repeat": (0.0, -1.0, 1.0),
        "decay": (0.0, 1.0),
        "shrinkage": (20.0, 2.0),
        **FALLBACK,
    }

    decay: Annotated[float, Meta(ge=0, le=1)] | None = None
    """weight of each earlier choice relative to the next: 0 is the last choice only, 1 all of them
    alike"""

    def _learn(self, train: EncodedSessions) -> None:
        super()._learn(train)
        _, users = np.unique(train.users, return_inverse=True)
        matrix = choice_matrix(train, len(self.by_item["rate"]), users)
        self.counts = (matrix.T @ matrix).tocoo()
        self.nearest: dict[float, sparse.csr_matrix] = {}

    def _similar(self, batch: BatchTensors, chosen: Values) -> Float64Array:
        decay, shrinkage = chosen["decay"], chosen["shrinkage"]

        def of_both() -> tuple[Float64Array, Float64Array]:
            earlier = EarlierChoices.of(batch, len(self.by_item["rate"]))
            weights = earlier.matrix(decay ** earlier.age.astype(np.float64))
            weights.eliminate_zeros()
            similar = weights @ self._nearest(shrinkage)
            return of_candidates(similar, batch.source), of_candidates(weights, batch.source)

        similar, same = self._kept(batch, (decay, shrinkage), of_both)
        return np.asarray(similar + chosen["repeat"] * same, dtype=np.float64)

    def _nearest(self, shrinkage: float) -> sparse.csr_matrix:
        """Each item's neighbours and their similarities, (n_items, n_items); of equal ones at the
        limit the first items stay."""
        if shrinkage not in self.nearest:
            counts, support = self.counts, self.counts.diagonal() + shrinkage
            sims = counts.data / np.sqrt(support[counts.row] * support[counts.col])
            others = counts.row != counts.col
            row, column, sims = counts.row[others], counts.col[others], sims[others]
            order = np.lexsort((column, -sims, row))
            first = np.searchsorted(row[order], row[order])
            kept = order[np.arange(len(order)) - first < self.neighbours]
            self.nearest[shrinkage] = sparse.csr_matrix(
                (sims[kept], (row[kept], column[kept])), shape=counts.shape
            )
        return self.nearest[shrinkage]

    def _arrays(self) -> Arrays:
        return super()._arrays() | arrays_of("near", self._nearest(self.chosen["shrinkage"]))

    def _restore(self, arrays: Arrays) -> None:
        super()._restore(arrays)
        near = matrix_of("near", arrays, len(self.by_item["rate"]))
        if near.shape[0] != near.shape[1]:
            raise ValueError("each item has a row of neighbours")
        self.nearest = {self.chosen["shrinkage"]: near}

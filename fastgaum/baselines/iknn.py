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

from fastgaum.baselines.base import Arrays, Float64Array, Grids, Values
from fastgaum.baselines.neighbours import (
    FALLBACK,
    NeighbourBaseline,
    check_rows,
    choice_matrix,
    displays_of,
)
from fastgaum.features.sessions import EncodedSessions
from fastgaum.kernels.neighbours import (
    ItemSums,
    SparseRows,
    nearest_items,
    score_by_items,
)
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
        assert self.space is not None
        _, users = np.unique(train.users, return_inverse=True)
        matrix = choice_matrix(train, len(self.space.item_counts.choices), users)
        self.counts = (matrix.T @ matrix).tocsr()
        self.counts.sort_indices()
        self.nearest: dict[float, SparseRows] = {}

    def _similar(self, batch: BatchTensors, chosen: Values) -> Float64Array:
        source = batch.source
        near = self._nearest(chosen["shrinkage"])
        displays = displays_of(source)
        n_items, scores = len(near.indptr) - 1, np.empty(len(displays.items))
        scratch = ItemSums(
            np.zeros(n_items), np.empty(n_items, np.int32), np.zeros(n_items, np.bool_)
        )
        score_by_items(displays, near, chosen["repeat"], chosen["decay"], scratch, scores)
        return scores

    def _nearest(self, shrinkage: float) -> SparseRows:
        """Each item's neighbours and their similarities."""
        if shrinkage not in self.nearest:
            counts = self.counts
            room = int(np.minimum(np.diff(counts.indptr), self.neighbours).sum())
            near = SparseRows(
                np.empty(len(counts.indptr), np.int32), np.empty(room, np.int32), np.empty(room)
            )
            together = SparseRows(counts.indptr, counts.indices, counts.data)
            nearest_items(together, counts.diagonal(), shrinkage, self.neighbours, near)
            used = near.indptr[-1]
            self.nearest[shrinkage] = SparseRows(
                near.indptr, near.indices[:used], near.values[:used]
            )
        return self.nearest[shrinkage]

    def _arrays(self) -> Arrays:
        near = self._nearest(self.chosen["shrinkage"])
        return super()._arrays() | {
            "near.indptr": near.indptr,
            "near.indices": near.indices,
            "near.sims": near.values,
        }

    def _restore(self, arrays: Arrays) -> None:
        super()._restore(arrays)
        n_items = len(self.by_item["rate"])
        indptr, indices, sims = (arrays[f"near.{name}"] for name in ("indptr", "indices", "sims"))
        check_rows(indptr, indices, n_items, n_items)
        if sims.shape != indices.shape:
            raise ValueError("each neighbour has one similarity")
        self.nearest = {self.chosen["shrinkage"]: SparseRows(indptr, indices, sims)}

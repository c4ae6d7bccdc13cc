"""Session kNN, in the two forms that the published table names.

Jannach & Ludewig, "When recurrent neural networks meet the neighborhood for session-based
recommendation", RecSys 2017: neighbours of a session are the training sessions that share a choice
with it, by cosine; an item scores the similarities of the neighbours that chose it; in a cascade,
their recurrent network re-ranks what the neighbours found. Ludewig & Jannach, "Evaluation of
session-based recommendation algorithms", User Modeling and User-Adapted Interaction 28,
2018: V-SKNN, the dot product with the session as a vector whose weights fall linearly with the
position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import sparse

from fastgaum.baselines.base import Arrays, Float64Array, Grids, Rows, Values
from fastgaum.baselines.neighbours import (
    FALLBACK,
    EarlierChoices,
    NeighbourBaseline,
    Points,
    arrays_of,
    choice_matrix,
    matrix_of,
    of_candidates,
)
from fastgaum.baselines.s_rnn import SessionRnn
from fastgaum.config import CountFromOne
from fastgaum.features.sessions import EncodedSessions
from fastgaum.nets.tensors import BatchTensors

EVENTS_AT_ONCE = 512
"""neighbours are looked for so many events at a time: each may have all of training"""


@dataclass(eq=False)
class _SessionKnn(NeighbourBaseline):
    """Neighbours are whole training sessions; their items' shares of the similarity are what
    candidates score."""

    by_position: ClassVar[bool]
    """later choices weigh more (V-SKNN), or all alike in a cosine"""

    neighbours: CountFromOne = 500
    """at most so many neighbours; those that tie with the last are kept"""

    def _learn(self, train: EncodedSessions) -> None:
        super()._learn(train)
        self.sessions = choice_matrix(train, len(self.by_item["rate"]), np.arange(train.n_sessions))

    def _similar(self, batch: BatchTensors, chosen: Values) -> Float64Array:
        shared, total, before = self._kept(batch, ("shares",), lambda: self._neighbours(batch))
        shares = shared / np.where(shared > 0, chosen["shrinkage"] + total, 1.0)
        return np.asarray(shares + chosen["repeat"] * before, dtype=np.float64)

    def _neighbours(self, batch: BatchTensors) -> tuple[Float64Array, Float64Array, Float64Array]:
        """Of each candidate: the similarity of its event's neighbours that chose it, that of all of
        them, and whether the session chose it before, (n_candidates,) each."""
        earlier = EarlierChoices.of(batch, self.sessions.shape[1]).latest()
        before = earlier.matrix(np.ones(len(earlier.event)))
        if self.by_position:
            weights = earlier.matrix(1 - earlier.age / earlier.length)
        else:
            distinct = np.maximum(np.diff(before.indptr), 1)
            weights = sparse.diags(1 / np.sqrt(distinct)) @ before
        sizes = np.maximum(np.diff(self.sessions.indptr), 1)
        norms = np.ones(len(sizes)) if self.by_position else np.sqrt(sizes)
        shared, totals = [], []
        for start in range(0, weights.shape[0], EVENTS_AT_ONCE):
            sims = (weights[start : start + EVENTS_AT_ONCE] @ self.sessions.T).tocsr()
            # sums in another order are equal to rounding only
            sims.data = np.round(sims.data / norms[sims.indices], 12)
            for row in np.flatnonzero(np.diff(sims.indptr) > self.neighbours):
                of_row = sims.data[sims.indptr[row] : sims.indptr[row + 1]]
                limit = np.partition(of_row, -self.neighbours)[-self.neighbours]
                of_row[of_row < limit] = 0
            sims.eliminate_zeros()
            totals.append(np.asarray(sims.sum(axis=1)).ravel())
            shared.append(sims @ self.sessions)
        total = np.repeat(np.concatenate(totals), np.diff(batch.source.display_offsets))
        together = sparse.vstack(shared, format="csr")
        return of_candidates(together, batch.source), total, of_candidates(before, batch.source)

    def _arrays(self) -> Arrays:
        return super()._arrays() | arrays_of("sessions", self.sessions)

    def _restore(self, arrays: Arrays) -> None:
        super()._restore(arrays)
        self.sessions = matrix_of("sessions", arrays, len(self.by_item["rate"]))


@dataclass(eq=False)
class VectorSessionKnn(_SessionKnn):
    """SCKNNV, which the report names and does not expand: read here as V-SKNN in a weighted sum
    with popularity.

    Chosen here: similarities are made shares, score(a) = Σ sim · [a chosen] / (λ + Σ sim), so that
    they and the popularity have one scale in every session (λ = 0, or no popularity, ranks as the
    paper does); all training sessions may be neighbours, not the 1,000 most recent, since the logs
    have no clock; an item chosen before is recommended as any other unless `repeat` says otherwise.
    """

    name: ClassVar[str] = "scknnv"
    by_position: ClassVar[bool] = True
    grids: ClassVar[Grids] = {
        "repeat": (0.0, -1.0, 1.0),
        "shrinkage": (0.0, 2.0, 20.0),
        **FALLBACK,
    }


@dataclass(eq=False)
class CascadeSessionKnn(_SessionKnn):
    """SCKNNC, which the report names and does not expand; its paper calls it the method of Jannach
    & Ludewig that unifies session-based RNN and kNN "by cascading combination".

    Chosen here: the neighbours, by cosine, put candidates that they know first, and the S-RNN,
    trained beside them with its own defaults, ranks those and the rest; with few candidates per
    display there is no need to cut the neighbours' list. `cascade` beyond the spread of the S-RNN's
    scores is their strict cascade, less lets the S-RNN overrule the neighbours. The S-RNN has a
    bias per item, so popularity may have weight 0. What the neighbours say counts by its sign only:
    their λ keeps shares below 1, so that repeat = -1 puts items chosen before last, and has no
    other effect."""

    name: ClassVar[str] = "scknnc"
    published_name: ClassVar[str | None] = "SCKNNC"
    by_position: ClassVar[bool] = False
    grids: ClassVar[Grids] = {
        "repeat": (0.0, -1.0, 1.0),
        "shrinkage": (1.0,),
        "cascade": (100.0, 3.0, 1.0),
        **FALLBACK,
        "popularity_weight": (0.0, 1.0, 5.0),
    }

    cascade: Points | None = None
    """points for a candidate that the neighbours know, on the scale of the S-RNN's scores"""

    def _fit(self, train: EncodedSessions, validation: EncodedSessions) -> Rows:
        self.rnn = self._fresh_rnn()
        self.rnn._fit(train, validation)
        return super()._fit(train, validation)

    def _fresh_rnn(self) -> SessionRnn:
        rnn = SessionRnn(seed=self.seed)
        rnn.space, rnn.outside = self.space, self.outside
        return rnn

    def _similar(self, batch: BatchTensors, chosen: Values) -> Float64Array:
        known = np.sign(super()._similar(batch, chosen))
        ranked = self._kept(batch, ("s-rnn",), lambda: self.rnn._scores(batch))
        return np.asarray(chosen["cascade"] * known + ranked, dtype=np.float64)

    def _arrays(self) -> Arrays:
        return super()._arrays() | {
            f"rnn.{name}": value for name, value in self.rnn._arrays().items()
        }

    def _restore(self, arrays: Arrays) -> None:
        super()._restore(arrays)
        self.rnn = self._fresh_rnn()
        self.rnn._restore(
            {name[4:]: value for name, value in arrays.items() if name.startswith("rnn.")}
        )

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

from fastgaum.baselines.base import Arrays, Float64Array, Grids, Rows, Values
from fastgaum.baselines.neighbours import (
    FALLBACK,
    NeighbourBaseline,
    Points,
    check_rows,
    choice_matrix,
    displays_of,
)
from fastgaum.baselines.s_rnn import SessionRnn
from fastgaum.config import CountFromOne
from fastgaum.features.sessions import EncodedSessions
from fastgaum.kernels.neighbours import (
    NeighbourSessions,
    SessionSums,
    ShareRule,
    score_by_sessions,
)
from fastgaum.nets.tensors import BatchTensors


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
        assert self.space is not None
        matrix = choice_matrix(
            train, len(self.space.item_counts.choices), np.arange(train.n_sessions)
        )
        by_item = matrix.tocsc()
        self.of_item_indptr, self.of_item = by_item.indptr, by_item.indices
        self.norms = (
            np.ones(train.n_sessions) if self.by_position else np.sqrt(np.diff(matrix.indptr))
        )

    def _similar(self, batch: BatchTensors, chosen: Values) -> Float64Array:
        source = batch.source
        displays = displays_of(source)
        n_training, n_items = len(self.norms), len(self.of_item_indptr) - 1
        training = NeighbourSessions(
            self.of_item_indptr, self.of_item, self.norms, self.by_position
        )
        rule = ShareRule(self.neighbours, chosen["shrinkage"], chosen["repeat"])
        scratch = SessionSums(
            np.zeros(n_training), np.empty(n_training, np.int32), np.zeros(n_items, np.bool_)
        )
        scores = np.empty(len(displays.items))
        score_by_sessions(displays, training, rule, scratch, scores)
        return scores

    def _arrays(self) -> Arrays:
        mine = {
            "of_item.indptr": self.of_item_indptr,
            "of_item.sessions": self.of_item,
            "norms": self.norms,
        }
        return super()._arrays() | mine

    def _restore(self, arrays: Arrays) -> None:
        super()._restore(arrays)
        self.of_item_indptr, self.of_item = arrays["of_item.indptr"], arrays["of_item.sessions"]
        self.norms = arrays["norms"]
        check_rows(self.of_item_indptr, self.of_item, len(self.by_item["rate"]), len(self.norms))


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

"""Neighbourhood models: item kNN and session kNN. Where every candidate has similarity 0, a
weighted popularity of the item decides.

Item kNN: Sarwar et al., "Item-based collaborative filtering recommendation algorithms", WWW 2001;
sim(i, j) = c_ij / √((c_i + λ)(c_j + λ)), c_ij training users who chose both, as in Hidasi et al.,
"Session-based recommendations with recurrent neural networks", ICLR 2016.

Session kNN: Jannach & Ludewig, "When recurrent neural networks meet the neighborhood for
session-based recommendation", RecSys 2017: an item scores the similarities (cosines) of the
training sessions that share a choice and chose it. Ludewig & Jannach, "Evaluation of session-based
recommendation algorithms", User Modeling and User-Adapted Interaction 28, 2018: V-SKNN, weights
that fall linearly with the position."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from msgspec import Meta
from scipy import sparse

from fastgaum.arrays import Float64Array
from fastgaum.baselines.base import (
    Arrays,
    GridBaseline,
    Grids,
    SettingRows,
    Values,
    inner_arrays,
    item_rows,
)
from fastgaum.baselines.floors import click_rate
from fastgaum.baselines.s_rnn import SessionRnn
from fastgaum.config import CountFromOne, NotNegative
from fastgaum.features.sessions import EncodedSessions
from fastgaum.features.space import FeatureSpace
from fastgaum.nets.batches import Batch
from fastgaum.nets.sequences import prefixes

Points = Annotated[float, Meta(ge=-1e9, le=1e9)]
"""added to a score"""
MOST_EARLIER = 1000
"""so many of the last tokens before an event are read"""
FALLBACK: Grids = {
    "popularity": ("rate", "count", "lift"),
    "popularity_weight": (0.1, 1.0),
    "unknown": (0.5, 0.75, 1.0),
}


@dataclass(eq=False)
class NeighbourBaseline(GridBaseline):
    """Base of the neighbourhood models."""

    reads: ClassVar[tuple[str, ...]] = ("identity",)
    reads_weights: ClassVar[bool] = False

    neighbours: CountFromOne = 100
    """at most so many neighbours"""
    popularity: Literal["auto", "rate", "count", "lift"] = "auto"
    """fallback for candidates without a neighbour (`popularity`)"""
    popularity_weight: NotNegative | None = None
    """weight of the fallback, a number in [0, 1]"""
    unknown: NotNegative | None = None
    """fallback of an item that training never displayed"""
    repeat: Points | None = None
    """added to a candidate that the session has chosen before; a negative value filters it"""
    shrinkage: NotNegative | None = None
    """regularisation λ of the similarities"""

    @abstractmethod
    def _similar(self, batch: Batch, chosen: Values) -> Float64Array:
        """Similarity of each candidate to the earlier choices, shape (n_candidates,); 0: no
        neighbour."""

    def _scores_with(self, batch: Batch, chosen: Values) -> Float64Array:
        similar = self._similar(batch, chosen)
        items = item_rows(batch)
        fallback = np.where(items < 0, chosen["unknown"], self.by_item[chosen["popularity"]][items])
        return np.asarray(similar + chosen["popularity_weight"] * fallback, dtype=np.float64)

    def _restore(self, arrays: Arrays) -> None:
        self._read_popularity()

    def _read_popularity(self) -> None:
        assert self.space is not None
        self.by_item = {kind: popularity(self.space, kind) for kind in FALLBACK["popularity"]}


def popularity(space: FeatureSpace, kind: str) -> Float64Array:
    """Popularity of each training item, in [0, 1], shape (n_items,).

    rate (choices + 0.3) / (displays + 1); count choices / most choices of an item; lift (choices +
    ½) / (choices + expected + 1), 1/k choices of each being expected of k candidates."""
    choices, displays = space.item_counts.choices, space.item_counts.displays
    if kind == "rate":
        return click_rate(displays, choices)
    if kind == "count":
        return np.asarray(choices / max(int(choices.max()), 1), dtype=np.float64)
    # sums of 1/k in another order are equal to rounding only
    lift = np.round((choices + 0.5) / (choices + space.item_counts.expected + 1), 9)
    return np.asarray(lift, dtype=np.float64)


@dataclass(frozen=True)
class EarlierChoices:
    """Entries of known items chosen before each event in its session. A choice of an unknown item
    ages the others; no click does not."""

    shape: tuple[int, int]
    """events, and items of training"""
    event: np.ndarray
    """of each entry, shape (n_entries,)"""
    item: np.ndarray
    """shape (n_entries,)"""
    age: np.ndarray
    """choices since then, 0 for the last one, shape (n_entries,)"""
    length: np.ndarray
    """choices before the event, shape (n_entries,)"""

    @classmethod
    def of(cls, batch: Batch, n_items: int) -> Self:
        """The choices of a batch, of MOST_EARLIER tokens before an event."""
        read, starts = prefixes(batch.token_offsets, MOST_EARLIER)
        token, offsets = read.numpy(), starts.numpy()
        sizes, first, last = np.diff(offsets), token[offsets[:-1]], token[offsets[1:] - 1]
        candidates = batch.token_candidates.numpy()
        # an unknown item's row is -1, and so is no choice's
        items = np.where(candidates >= 0, item_rows(batch)[candidates], -1)[token]
        # the number of choices up to each token; differences within a session are what counts
        total = np.cumsum(candidates >= 0)
        newest = np.repeat(total[last], sizes)
        before = np.repeat(total[first], sizes)
        first_chose = np.repeat((candidates >= 0)[first], sizes)
        known = items >= 0
        event = np.repeat(batch.later_events.numpy(), sizes)
        age, length = newest - total[token], newest - before + first_chose
        shape = (batch.n_events, n_items)
        return cls(shape, event[known], items[known], age[known], length[known])

    def matrix(self, weights: Float64Array) -> sparse.csr_matrix:
        """The entries' weights, summed, (n_events, n_items)."""
        return sparse.csr_matrix((weights, (self.event, self.item)), shape=self.shape)

    def latest(self) -> Self:
        """The latest entry of each event and item, an event's oldest first."""
        pairs = (self.event * self.shape[1] + self.item)[::-1]
        last = len(pairs) - 1 - np.unique(pairs, return_index=True)[1]
        parts = (part[last] for part in (self.event, self.item, self.age, self.length))
        return type(self)(self.shape, *parts)


def of_candidates(matrix: sparse.csr_matrix, batch: Batch) -> Float64Array:
    """The entry of each candidate's event and item, (n_candidates,); 0 for an unknown item."""
    items = item_rows(batch)
    found = matrix[batch.event_of_candidate(), np.maximum(items, 0)]
    values = np.asarray(found, dtype=np.float64).ravel()
    return np.where(items >= 0, np.round(values, 10), 0.0)


def choice_matrix(train: EncodedSessions, n_items: int, rows: np.ndarray) -> sparse.csr_matrix:
    """Ones where a row chose an item, shape (max(rows) + 1, n_items); rows: of each session."""
    items = item_rows(train)[train.chosen_candidates]
    who = np.repeat(rows, np.diff(train.session_offsets))[train.choices >= 0]
    matrix = sparse.csr_matrix((np.ones(len(items)), (who, items)), (int(rows.max()) + 1, n_items))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


_PARTS = ("data", "indices", "indptr")


def arrays_of(name: str, matrix: sparse.csr_matrix) -> Arrays:
    """A sparse matrix as named arrays."""
    return {f"{name}.{part}": getattr(matrix, part) for part in _PARTS}


def matrix_of(name: str, arrays: Arrays, n_items: int) -> sparse.csr_matrix:
    """The matrix of `arrays_of`. Raises ValueError for a damaged one."""
    parts = tuple(arrays[f"{name}.{part}"] for part in _PARTS)
    matrix = sparse.csr_matrix(parts, shape=(len(parts[2]) - 1, n_items))
    matrix.check_format(full_check=True)
    return matrix


@dataclass(eq=False)
class ItemKnn(NeighbourBaseline):
    """Ranks candidates by co-choice with the session's earlier choices, then by popularity.

    Chosen here: score(a) = Σ_j decay^j · sim(j-th newest choice, a), an item being `repeat` similar
    to itself; choices are joined by user; items displayed together but not chosen are no
    neighbours."""

    name: ClassVar[str] = "iknn"
    published_name: ClassVar[str | None] = "IKNN"
    grids: ClassVar[Grids] = {
        "repeat": (0.0, -1.0, 1.0),
        "decay": (0.0, 1.0),
        "shrinkage": (20.0, 2.0),
        **FALLBACK,
    }

    decay: Annotated[float, Meta(ge=0, le=1)] | None = None
    """weight of each earlier choice relative to the next; 0: the last choice only"""

    def _learn(self, train: EncodedSessions) -> None:
        self._read_popularity()
        _, users = np.unique(train.users, return_inverse=True)
        matrix = choice_matrix(train, len(self.by_item["rate"]), users)
        self.counts = (matrix.T @ matrix).tocoo()
        self.nearest: dict[float, sparse.csr_matrix] = {}

    def _similar(self, batch: Batch, chosen: Values) -> Float64Array:
        decay, shrinkage = chosen["decay"], chosen["shrinkage"]

        def of_both() -> tuple[Float64Array, Float64Array]:
            earlier = EarlierChoices.of(batch, len(self.by_item["rate"]))
            weights = earlier.matrix(decay ** earlier.age.astype(np.float64))
            weights.eliminate_zeros()
            similar = weights @ self._nearest(shrinkage)
            return of_candidates(similar, batch), of_candidates(weights, batch)

        similar, same = self._kept(batch, (decay, shrinkage), of_both)
        return np.asarray(similar + chosen["repeat"] * same, dtype=np.float64)

    def _nearest(self, shrinkage: float) -> sparse.csr_matrix:
        """Each item's neighbours and their similarities, (n_items, n_items)."""
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
        return arrays_of("near", self._nearest(self.chosen["shrinkage"]))

    def _restore(self, arrays: Arrays) -> None:
        super()._restore(arrays)
        near = matrix_of("near", arrays, len(self.by_item["rate"]))
        if near.shape[0] != near.shape[1]:
            raise ValueError("each item has a row of neighbours")
        self.nearest = {self.chosen["shrinkage"]: near}


EVENTS_AT_ONCE = 512
"""neighbours are looked for so many events at a time"""


@dataclass(eq=False)
class _SessionKnn(NeighbourBaseline):
    """Neighbours are training sessions."""

    by_position: ClassVar[bool]
    """later choices weigh more (V-SKNN), or all alike in a cosine"""

    neighbours: CountFromOne = 500
    """those that tie with the last are kept"""

    def _learn(self, train: EncodedSessions) -> None:
        self._read_popularity()
        self.sessions = choice_matrix(train, len(self.by_item["rate"]), np.arange(train.n_sessions))

    def _similar(self, batch: Batch, chosen: Values) -> Float64Array:
        shared, total, before = self._kept(batch, ("shares",), lambda: self._neighbours(batch))
        shares = shared / np.where(shared > 0, chosen["shrinkage"] + total, 1.0)
        return np.asarray(shares + chosen["repeat"] * before, dtype=np.float64)

    def _neighbours(self, batch: Batch) -> tuple[Float64Array, Float64Array, Float64Array]:
        """Of each candidate: the similarity of neighbours that chose it, of all, and whether the
        session chose it before, (n_candidates,) each."""
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
        total = np.repeat(np.concatenate(totals), np.diff(batch.display_offsets.numpy()))
        together = sparse.vstack(shared, format="csr")
        return of_candidates(together, batch), total, of_candidates(before, batch)

    def _arrays(self) -> Arrays:
        return arrays_of("sessions", self.sessions)

    def _restore(self, arrays: Arrays) -> None:
        super()._restore(arrays)
        self.sessions = matrix_of("sessions", arrays, len(self.by_item["rate"]))


@dataclass(eq=False)
class VectorSessionKnn(_SessionKnn):
    """SCKNNV, which the report names and does not expand: V-SKNN in a weighted sum with popularity.

    Chosen here: similarities are made shares, score(a) = Σ sim · [a chosen] / (λ + Σ sim), of all
    training sessions, not the 1,000 most recent."""

    name: ClassVar[str] = "scknnv"
    by_position: ClassVar[bool] = True
    grids: ClassVar[Grids] = {
        "repeat": (0.0, -1.0, 1.0),
        "shrinkage": (0.0, 2.0, 20.0),
        **FALLBACK,
    }


@dataclass(eq=False)
class CascadeSessionKnn(_SessionKnn):
    """SCKNNC, which the report names and does not expand; its paper: session-based RNN and kNN,
    unified "by cascading combination".

    Chosen here: the neighbours, by cosine, put candidates that they know first, by the sign of
    their share alone, and an S-RNN with its own defaults ranks those and the rest. `cascade` beyond
    the spread of its scores is a strict cascade; repeat = -1 puts items chosen before last."""

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

    def _fit(self, train: EncodedSessions, validation: EncodedSessions) -> SettingRows:
        self.rnn = self._fresh_rnn()
        self.rnn._fit(train, validation)
        return super()._fit(train, validation)

    def _fresh_rnn(self) -> SessionRnn:
        rnn = SessionRnn(seed=self.seed)
        rnn.space, rnn.no_click = self.space, self.no_click
        return rnn

    def _similar(self, batch: Batch, chosen: Values) -> Float64Array:
        known = np.sign(super()._similar(batch, chosen))
        ranked = self._kept(batch, ("s-rnn",), lambda: self.rnn._scores(batch))
        return np.asarray(chosen["cascade"] * known + ranked, dtype=np.float64)

    def _arrays(self) -> Arrays:
        of_rnn = {f"rnn.{name}": value for name, value in self.rnn._arrays().items()}
        setting = np.array([self.rnn.combinations().index(self.rnn.chosen)])
        return super()._arrays() | of_rnn | {"rnn_setting": setting}

    def _restore(self, arrays: Arrays) -> None:
        super()._restore(arrays)
        self.rnn = self._fresh_rnn()
        self.rnn.chosen = self.rnn.combinations()[arrays["rnn_setting"].item()]
        self.rnn._restore(inner_arrays("rnn", arrays))

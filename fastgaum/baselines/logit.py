"""Linear conditional logit: McFadden, "Conditional logit analysis of qualitative choice behavior",
1974.

utility(a) = Σ_f w_f over the ids of a's bag + w · numbers; choice by softmax over the display set.
It has no history encoder: under `identity` it is one weight per item, under `bags` it reads the
numbers that our networks read. What all candidates of an event share says nothing of which one is
chosen, so the event's context enters as crosses: a weight for each context value and candidate's
value that training displayed together, and for each context number one more weight of each id and
number; by itself it counts against no click alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import sparse
from scipy.optimize import minimize

from fastgaum.arrays import Float64Array, FloatArray
from fastgaum.baselines.base import (
    Arrays,
    Baseline,
    Grids,
    Link,
    SettingRows,
    Values,
    nll_of_link,
    validation_prec1,
)
from fastgaum.baselines.field_columns import ids_of_few, is_few
from fastgaum.config import Positive
from fastgaum.features.batches import Batch, assemble
from fastgaum.features.sessions import EncodedSessions
from fastgaum.nets.networks import context_sizes
from fastgaum.nets.tensors import BatchTensors

FEW_PENALTY = 0.1
"""the penalty of values of fields that have few, each seen often, and of the intercept"""

CHUNK_ROWS = 1 << 16
SEARCHED, FINAL = 1e-6, 1e-14
"""tolerances of the weights that penalties are compared by, and of the last ones"""


@dataclass(frozen=True)
class Design:
    """What the weights multiply, a row per candidate, without products that can be made again:
    numbers as one matrix of all rows and crossings would take ten times their memory."""

    ids: sparse.csr_matrix
    """1 at each of a candidate's ids, (n_candidates, n_ids)"""
    numbers: FloatArray
    """(n_candidates, n_numbers)"""
    factors: Float64Array
    """1 and the context numbers of a candidate's event: each multiplies ids and numbers once,
    (n_candidates, 1 + n_context_numbers)"""
    others: sparse.csr_matrix
    """crosses; where no click is a choice, an intercept and the context"""

    def times(self, weights: Float64Array) -> Float64Array:
        """The utility of each candidate, (n_candidates,)."""
        n_ids, width = self.ids.shape[1], self.factors.shape[1]
        n_own = n_ids + self.numbers.shape[1]
        own = weights[: width * n_own].reshape(width, n_own).T
        sums = np.asarray(self.ids @ own[:n_ids])
        for rows in self._chunks():
            sums[rows] += self.numbers[rows].astype(np.float64) @ own[n_ids:]
        rest = np.asarray(self.others @ weights[width * n_own :])
        return np.asarray(np.einsum("nk,nk->n", sums, self.factors) + rest)

    def transposed_times(self, errors: Float64Array, power: int = 1) -> Float64Array:
        """The sum over candidates of their row, its entries to a power, times their error."""
        factors = self.factors**power * errors[:, None]
        of_numbers = np.zeros((self.numbers.shape[1], factors.shape[1]))
        for rows in self._chunks():
            of_numbers += (self.numbers[rows].astype(np.float64) ** power).T @ factors[rows]
        own = np.concatenate([np.asarray(self.ids.T @ factors), of_numbers])
        return np.append(own.T.reshape(-1), np.asarray(self.others.power(power).T @ errors))

    def _chunks(self) -> Iterator[slice]:
        return (
            slice(first, first + CHUNK_ROWS) for first in range(0, len(self.numbers), CHUNK_ROWS)
        )


@dataclass(eq=False)
class ConditionalLogit(Baseline):
    """The linear choice model: its weights minimise the summed NLL of the training choices and
    ½ Σ penalty · weight², which is convex, by L-BFGS.

    Penalties are chosen on validation: one of ids (items, and values of fields of many values),
    which keeps rare items' weights from standing in for the numbers, and one of numbers."""

    name: ClassVar[str] = "logit"
    fit_link: ClassVar[bool] = False
    grids: ClassVar[Grids] = {
        "penalty": (100.0, 10.0, 1.0, 0.1),
        "number_penalty": (100.0, 10.0, 1.0),
    }

    penalty: Positive | None = None
    """of the weights of ids"""
    number_penalty: Positive | None = None
    """of the weights of numbers, which are standardised"""

    def _fit(self, train: EncodedSessions, validation: EncodedSessions) -> SettingRows:
        everything, held = (
            assemble(one, np.arange(one.n_sessions, dtype=np.int32)) for one in (train, validation)
        )
        self.crossed = np.unique(self._cross_keys(everything))
        of_train, design = self._design(everything), self._design(held)
        rows, best = list[Values](), np.inf
        found = chosen = np.zeros(len(self._penalties(1.0, 1.0)))
        for values in self.combinations():
            penalties = self._penalties(values["penalty"], values["number_penalty"])
            found = least_penalised(penalties, of_train, everything, self.outside, found, SEARCHED)
            scores = design.times(found)
            loss = nll_of_link(scores, validation, self.outside)(Link()) / validation.n_events
            rows.append(
                values | {"val_loss": loss, "val_prec1": validation_prec1(scores, validation)}
            )
            if loss < best:
                best, chosen, self.weights = loss, penalties, found
        start = self.weights
        self.weights = least_penalised(chosen, of_train, everything, self.outside, start, FINAL)
        self.settings_tried = len(rows)
        return rows

    def _scores(self, batch: BatchTensors) -> Float64Array:
        return self._design(batch.source).times(self.weights)

    def _arrays(self) -> Arrays:
        return {"weights": self.weights, "crossed": self.crossed}

    def _restore(self, arrays: Arrays) -> None:
        self.weights, self.crossed = arrays["weights"], arrays["crossed"]
        if self.weights.shape != self._penalties(1.0, 1.0).shape:
            raise ValueError("the weights are not those of the feature space")

    def _cross_keys(self, batch: Batch) -> np.ndarray:
        """A key for each context field's value and each id of a candidate, int64, (n_candidates,
        n_context_fields · n_categorical)."""
        assert self.space is not None
        event = np.repeat(np.arange(len(batch.choices)), np.diff(batch.display_offsets))
        context = batch.context_ids.astype(np.int64)[event] * self.space.n_ids
        keys: np.ndarray = (context[:, :, None] + batch.ids[:, None, :]).reshape(len(event), -1)
        return keys

    def _design(self, batch: Batch) -> Design:
        """The design of a batch's candidates, whose columns are those of `_penalties`."""
        assert self.space is not None
        n, n_ids = len(batch.ids), self.space.n_ids
        event = np.repeat(np.arange(len(batch.choices)), np.diff(batch.display_offsets))
        context = batch.context_numbers.astype(np.float64)[event]
        keys = self._cross_keys(batch)
        columns = np.searchsorted(self.crossed, keys)
        inside = np.minimum(columns, len(self.crossed) - 1)
        known = self.crossed[inside] == keys if len(self.crossed) else np.zeros(keys.shape, bool)
        ends = np.append(0, np.cumsum(known.sum(1)))
        others = sparse.csr_matrix(
            (np.ones(ends[-1]), columns[known], ends), shape=(n, len(self.crossed))
        )
        if self.outside:
            of_events = _indicators(batch.context_ids[event], n_ids)
            others = sparse.hstack([others, np.ones((n, 1)), context, of_events], format="csr")
        factors = np.concatenate([np.ones((n, 1)), context], axis=1)
        return Design(_indicators(batch.ids, n_ids), batch.numbers, factors, others)

    def _penalties(self, penalty: float, number_penalty: float) -> Float64Array:
        """The penalty of each column of `_design`."""
        assert self.space is not None
        space = self.space
        of_ids = np.where(ids_of_few(space), FEW_PENALTY, penalty)
        own = np.append(of_ids, np.full(space.n_numbers, number_penalty))
        context_numbers = context_sizes(space).n_numbers
        # a pair is of few values where both of its values are
        few_context = np.zeros(space.n_ids, dtype=bool)
        for part in space.context:
            few_context[part.start : part.stop] = is_few(part)
        left, right = self.crossed // space.n_ids, self.crossed % space.n_ids
        few = few_context[left] & ids_of_few(space)[right]
        parts = [own, *[own] * context_numbers, np.where(few, FEW_PENALTY, penalty)]
        if self.outside:
            parts += [np.full(1 + context_numbers, FEW_PENALTY), np.full(space.n_ids, penalty)]
        return np.concatenate(parts)


def _indicators(ids: np.ndarray, n_ids: int) -> sparse.csr_matrix:
    """A row for each row of ids, with 1 at each of them."""
    starts = np.arange(len(ids) + 1) * ids.shape[1]
    return sparse.csr_matrix((np.ones(ids.size), ids.ravel(), starts), shape=(len(ids), n_ids))


def penalised_nll(
    weights: Float64Array,
    penalties: Float64Array,
    design: Design,
    batch: Batch,
    outside: bool,
) -> tuple[float, Float64Array]:
    """The summed NLL of a batch's choices and ½ Σ penalty · weight², and the gradient, shape
    (n_weights,)."""
    starts, sizes = batch.display_offsets[:-1], np.diff(batch.display_offsets)
    utility = design.times(weights)
    top = np.maximum.reduceat(utility, starts)
    if outside:
        top = np.maximum(top, 0.0)
    odds = np.exp(utility - np.repeat(top, sizes))
    total = np.add.reduceat(odds, starts) + (np.exp(-top) if outside else 0.0)
    nll = float((np.log(total) + top).sum() - utility[batch.chosen].sum())
    error = odds / np.repeat(total, sizes)
    error[batch.chosen] -= 1
    gradient = design.transposed_times(error) + penalties * weights
    return nll + 0.5 * float(penalties @ weights**2), gradient


def least_penalised(
    penalties: Float64Array,
    design: Design,
    batch: Batch,
    outside: bool,
    start: Float64Array,
    tolerance: float,
) -> Float64Array:
    """The weights of the least `penalised_nll`, found from `start` on, until a step gains less than
    a share `tolerance`, (n_weights,)."""
    # what a weight's curvature would be with uniform choices: steps are measured by it
    sizes = np.diff(batch.display_offsets)
    share = 1 / (np.repeat(sizes, sizes) + outside)
    curvature = design.transposed_times(share * (1 - share), power=2)
    scale, n_events = 1 / np.sqrt(penalties + curvature), len(sizes)

    def scaled(values: Float64Array) -> tuple[float, Float64Array]:
        value, gradient = penalised_nll(scale * values, penalties, design, batch, outside)
        return value / n_events, scale * gradient / n_events

    options = {"maxiter": 1000, "ftol": tolerance, "gtol": 1e-7, "maxcor": 20}
    found = minimize(scaled, start / scale, jac=True, method="L-BFGS-B", options=options)
    return np.asarray(scale * found.x, dtype=np.float64)

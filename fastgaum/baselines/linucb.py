"""LinUCB: Li et al., "A contextual-bandit approach to personalized news article recommendation",
WWW 2010.

x is the one-hot of the item followed by z: an intercept, numbers, the columns of `field_columns`,
products of the context's numbers with these. A = λI + Σ x xᵀ, b = Σ reward · x over the training
candidates: score = x·A⁻¹b + alpha · √(xᵀA⁻¹x)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fastgaum.arrays import Float64Array
from fastgaum.baselines.base import Arrays, GridBaseline, Grids, Values, item_rows
from fastgaum.baselines.field_columns import FieldColumns
from fastgaum.config import NotNegative, Positive
from fastgaum.features.batches import assemble
from fastgaum.features.ordered_counts import Training
from fastgaum.features.sessions import EncodedSessions
from fastgaum.nets.tensors import BatchTensors, to_tensors

_SUMS = ("displays", "choices", "cross", "gram", "response")
"""of items (n_items + 1,) twice and (n_items + 1, n_z); of z (n_z, n_z), (n_z,)"""
_LAST_CHOICES = 10
"""so many of the last choices are compared with a candidate by the declared fields"""


@dataclass(eq=False)
class LinUcb(GridBaseline):
    """A ridge regression of "was chosen" with an optimist's bonus for what training has shown
    seldom.

    Chosen here: the paper's hybrid model with the intercept alone as its item-wise part; the
    training log is replayed in full; after it nothing is learned. An item that training never
    displayed has no θ and the largest bonus."""

    name: ClassVar[str] = "linucb"
    grids: ClassVar[Grids] = {
        "alpha": (1.0, 0.0, 0.1, 0.3, 3.0, 10.0),
        "ridge": (1.0, 10.0, 100.0),
    }

    counts_fields: ClassVar[bool] = True

    alpha: NotNegative | None = None
    """weight of the standard deviation"""
    ridge: Positive | None = None
    """λ of the ridge regression; the paper's is 1"""

    def _learn(self, train: EncodedSessions) -> None:
        """Add up the blocks of A - λI, and b."""
        assert self.space is not None
        # the last row is an unknown item's: never displayed, never chosen
        n_rows = len(self.space.item_counts.choices) + 1
        assert self.training is not None
        self.fields = FieldColumns.fit(self.space, self.training)
        # a hidden item is the unknown one, whose row is the last
        items = np.where(train.unseen, n_rows - 1, item_rows(train))
        context = self._context(to_tensors(assemble(train)), self.training)
        shown = train.weight_of_event[train.event_of_candidate()]
        reward = np.zeros(len(items))
        reward[train.chosen_candidates] = shown[train.chosen_candidates]
        self.displays = np.bincount(items, shown, n_rows)
        self.choices = np.bincount(items, reward, n_rows)
        weighted = context * shown[:, None]
        self.cross = np.stack([np.bincount(items, column, n_rows) for column in weighted.T], axis=1)
        self.gram, self.response = context.T @ weighted, context.T @ reward

    def _scores_with(self, batch: BatchTensors, chosen: Values) -> Float64Array:
        ridge = chosen["ridge"]
        seen = self.displays + ridge
        weighted = self.cross / seen[:, None]
        inverse = np.linalg.inv(
            self.gram + ridge * np.eye(len(self.gram)) - self.cross.T @ weighted
        )
        beta = inverse @ (self.response - weighted.T @ self.choices)
        theta = (self.choices - self.cross @ beta) / seen
        items = item_rows(batch.source)
        context = self._kept(batch, ("context",), lambda: self._context(batch))
        rest = context - weighted[items]
        variance = np.einsum("nd,nd->n", rest @ inverse, rest) + 1 / seen[items]
        scores = context @ beta + theta[items] + chosen["alpha"] * np.sqrt(variance)
        # a matrix product may round equal rows apart by where they stand: equal candidates tie
        # again
        return np.asarray(np.round(scores, 10), dtype=np.float64)

    def _arrays(self) -> Arrays:
        sums = {f"sum.{name}": getattr(self, name) for name in _SUMS}
        return sums | self.fields.arrays()

    def _restore(self, arrays: Arrays) -> None:
        assert self.space is not None
        self.fields = FieldColumns.restore(self.space, arrays)
        for name in _SUMS:
            setattr(self, name, arrays[f"sum.{name}"])

    def _context(self, batch: BatchTensors, training: Training | None = None) -> Float64Array:
        """z, (n_candidates, n_z). `training`: as in `FieldColumns.of_keys`."""
        source = batch.source
        event, ones = source.event_of_candidate(), np.ones(len(source.ids))
        own = np.column_stack([source.numbers, self.fields.indicators(source.ids)])
        of_keys = None if training is None else self.fields.of_keys(source, training)
        of_fields = self.fields.numbers(batch, _LAST_CHOICES, of_keys)
        products = [own * number[event, None] for number in source.context_numbers.T]
        return np.column_stack([ones, own, of_fields, *products]).astype(np.float64)

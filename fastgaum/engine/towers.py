"""A `Scorer` with towers by hand, and the table of items that candidates, context and past choices
share."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import nn

from fastgaum import threads
from fastgaum.arrays import FloatArray, IntArray
from fastgaum.engine.optimiser import PlayerOptimiser
from fastgaum.engine.scorer import (
    NO_SLOTS,
    NO_TABLE,
    Chains,
    DisplayBatch,
    ScorerLayer,
    dropout_rule,
    joined,
)
from fastgaum.engine.tables import (
    Buffer,
    Named,
    NamedParts,
    NamedRoom,
    SparseTable,
    parts_of_slots,
)
from fastgaum.features.item_vectors import BatchVectors
from fastgaum.kernels import towers as kernels
from fastgaum.kernels.choice import GIVEN, SCORES, Loss
from fastgaum.kernels.optimiser import add_rows, group_bags
from fastgaum.kernels.scorer import ScorerInputs, ScorerPass
from fastgaum.nets.bags import BagLinear
from fastgaum.nets.networks import Scorer
from fastgaum.nets.tensors import Bags
from fastgaum.nets.towers import TwoTower

HIDDEN_KEY = 1
"""added to a pass's key for the hidden layer's dropout"""


def dense_of(tower: TwoTower) -> list[nn.Parameter]:
    """All parameters but the table and w, in the order of the kernel's `dense`."""
    own = [part for one in (tower.hidden, tower.out, tower.direct) for part in one.parameters()]
    return own if tower.tastes is None else [*own, tower.tastes]


def weights_of(tower: TwoTower, table: FloatArray, dense: FloatArray) -> kernels.TowerWeights:
    """Towers as the kernel reads them."""
    width, own = tower.hidden.out_features, tower.own
    return kernels.TowerWeights(table, dense, width, own.start, len(own))


class TowerScorerLayer:
    """A scorer of two towers with a network beside them."""

    def __init__(self, scorer: Scorer, tower: TwoTower) -> None:
        self.scorer, self.tower, self.deep = scorer, tower, ScorerLayer(scorer)
        self.rate, self.share = max(tower.dropout.p, self.deep.rate), self.deep.share
        self._x, self._hidden, self._users, self._scores = (Buffer() for _ in range(4))
        self._blocks = Buffer()
        self.own: ItemTable | None = None
        self.items: ItemTable | None = None
        """the table that the towers read, own or not; None: they are tastes alone"""

    def own_tables(self, n_ids: int) -> list[SparseTable]:
        """Make the tables over ids sparse."""
        tables = self.deep.own_tables(n_ids)
        if self.scorer.items is not None:
            self.own = self.items = ItemTable(self.scorer.items, n_ids)
            tables = [*tables, self.own.table]
        return tables

    def dense_parameters(self) -> list[nn.Parameter]:
        """The network's, then w, then the towers', then the items' own."""
        numbers = self.tower.numbers
        own = [] if numbers is None else [cast(nn.Parameter, numbers.weight)]
        items = [] if self.own is None else self.own.dense
        return [*self.deep.dense_parameters(), *own, *dense_of(self.tower), *items]

    def bind(self, optimiser: PlayerOptimiser) -> None:
        """Find the dense parameters in the flat block."""
        numbers = self.tower.numbers
        self.deep.bind(optimiser, None if numbers is None else numbers.weight)
        own = dense_of(self.tower)
        start = optimiser.place(own[0])
        end = start + sum(part.numel() for part in own)
        self.grad = optimiser.grad[start:end]
        rows = np.empty((0, self.tower.dim), np.float32)
        if self.items is not None:
            self.items.optimiser = optimiser
            rows = self.items.table.values
        self.weights = weights_of(self.tower, rows, optimiser.values[start:end])

    def begin(self, shown: DisplayBatch, states: FloatArray, key: int | None = None) -> FloatArray:
        """As `ScorerLayer.begin`."""
        # another key: one dropout must not follow the other
        self.deep.take(shown, states, None if key is None else key ^ 0x5BD1E995)
        if self.own is not None:
            self.own.project()
        self.shown = shown = (
            shown._replace(ids=shown.ids[:, :0], named=None)
            if self.items is None
            else self.items.read_by(shown)
        )
        # a table that a batch's vectors are added to may have moved
        if self.items is not None:
            self.weights = self.weights._replace(table=self.items.table.values)
        slots = NO_SLOTS if shown.named is None else shown.named.slots
        inputs = ScorerInputs(shown.offsets, shown.ids, shown.numbers, states, slots)
        rate, of_hidden = self.tower.dropout.p, None if key is None else key + HIDDEN_KEY
        written = kernels.TowerPass(
            self._x(*states.shape),
            self._hidden(len(states), self.weights.width),
            self._users(len(states), self.tower.dim),
            self._scores(len(shown.ids)),
        )
        dropouts = dropout_rule(rate, key), dropout_rule(rate, of_hidden)
        self.fixed = inputs, self.weights, dropouts, written
        return written.scores

    def run(
        self,
        loss: Loss,
        scores: FloatArray,
        grad_scores: FloatArray | None = None,
        before: Chains | None = None,
    ) -> None:
        """As `ScorerLayer.run`; a table that others own gets its gradient from them."""
        parts, named = self.shown.parts, self.shown.named
        chains = [[call] for call in self.deep.calls(loss, scores, grad_scores)]
        self.scores, self.log_totals = scores, self.deep.log_totals
        self.grad_scores, self.grad_states = self.deep.grad_scores, self.deep.grad_states
        if loss.kind != GIVEN:
            first: Chains = [[(kernels.tower_forward, (*part, *self.fixed))] for part in parts]
            chains = joined(first, before, chains)
        if loss.kind == SCORES:
            threads.run_chains(chains)
            return
        rows, none, blocks = self.weights.table[:0], self.grad[:0], self.grad[None]
        if self.items is not None and named is not None:
            rows = self.items.rows_of(named)
        if len(parts) > 1:
            blocks = self._blocks(len(parts), len(self.grad))
        grads = ScorerPass(none, none, self.grad_scores, none, rows, NO_TABLE, self.grad_states)
        back: Chains = [
            [(kernels.tower_backward, (*part, *self.fixed, grads._replace(dense=block)))]
            for part, block in zip(parts, blocks, strict=True)
        ]
        threads.run_chains(joined(chains, back))
        self.deep.sum_parts(loss)
        if len(blocks) > 1:
            np.add.reduce(blocks, axis=0, out=self.grad)
        if self.own is not None and named is not None:
            self.own.add(named)
            self.own.add_vectors(named, [])


class ItemTable:
    """A table of vectors, (n_ids, d), and its gradient over all bags that name its rows; vectors of
    a batch's items are projected to rows after the ids'."""

    vectors: BatchVectors | None = None
    """of the batch, where networks read some"""
    n_others: int | None = None
    """bags beside the candidates' that may name rows; None: never"""

    optimiser: PlayerOptimiser

    def __init__(self, rows: BagLinear, n_ids: int) -> None:
        self.table = SparseTable(rows.table, n_ids)
        self.projection = rows.projection
        self.dense = [] if rows.projection is None else [rows.projection]
        self.room, self.rooms = NamedRoom(), (NamedRoom(), NamedRoom())
        self.slot_of = np.empty(0, np.int32)
        self._ids, self._offsets = Buffer(np.int32), Buffer(np.int32)
        self._rows, self._vector_grads = Buffer(), Buffer()

    def take(self, vectors: BatchVectors | None) -> None:
        """Read the vectors of the next batch."""
        self.vectors = None if self.projection is None else vectors

    def project(self) -> None:
        """Write the rows of the batch's vectors."""
        if self.vectors is not None and self.projection is not None:
            values = self.vectors.values
            weights = self.optimiser.value_of(self.projection)
            np.matmul(values, weights, out=self.table.rows_after(len(values)))

    def read_by(self, shown: DisplayBatch) -> DisplayBatch:
        """Display sets whose candidates name the rows of their vectors too."""
        if self.vectors is None:
            return shown
        n_rows = self.table.n_ids + len(self.vectors.values)
        rows = self.vectors.candidates + np.int32(self.table.n_ids)
        ids, named = np.concatenate([shown.ids, rows[:, None]], axis=1), shown.named
        if named is not None:
            if len(self.slot_of) < n_rows:
                self.slot_of = np.full(n_rows + n_rows // 4, -1, np.int32)
            named = NamedParts(ids, shown.offsets, shown.parts, self.slot_of, self.rooms)
        return shown._replace(ids=ids, named=named)

    def bags(self, bags: Bags, rows: IntArray) -> Bags:
        """Bags that also name the row of a vector where `rows`, (n_bags,), has one."""
        if self.vectors is None:
            return bags
        entries = np.where(rows < 0, rows, rows + np.int32(self.table.n_ids))
        ids, offsets = with_entries(bags.ids.numpy(), bags.offsets.numpy(), entries)
        return replace(bags, ids=torch.from_numpy(ids), offsets=torch.from_numpy(offsets))

    def rows_of(self, named: NamedParts) -> FloatArray:
        """Where parts of the candidates sum the gradients of their rows."""
        if self.n_others is None and self.vectors is None:
            return self.table.rows_of(named)
        return self._rows(named.count + (self.n_others or 0), self.table.width)

    def add(self, named: NamedParts) -> None:
        """Sum over the parts, where no others name rows."""
        if self.vectors is None:
            self.table.add_parts(named)
        else:
            self.add_all(named, [], self.slot_of)

    def add_all(
        self, named: NamedParts | None, others: list[tuple[Bags, FloatArray]], slot_of: IntArray
    ) -> None:
        """Sum the gradients of the candidates' parts, in `rows_of`, and of other bags, each with
        the gradient of its sum of rows, (n_bags, d)."""
        n = 0 if named is None else named.count
        own, lengths = np.empty(0, np.int32), np.ones(n, np.int32)
        if named is not None:
            own = named.rows
            if self.vectors is not None:
                of_ids = own < self.table.n_ids
                own, lengths = own[of_ids], of_ids.astype(np.int32)
        parts = [own, *(bags.ids.numpy() for bags, _ in others)]
        ids = self._ids(sum(map(len, parts)))
        np.concatenate(parts, out=ids)
        each = [lengths, *(np.diff(bags.offsets.numpy()) for bags, _ in others)]
        offsets = self._offsets(1 + sum(map(len, each)))
        offsets[0] = 0
        np.cumsum(np.concatenate(each), out=offsets[1:])
        # a buffer holds what was last written, in the order of memory
        rows = self._rows(n + (self.n_others or 0), self.table.width)[: len(offsets) - 1]
        if others:
            np.concatenate([grad for _, grad in others], out=rows[n:])
        self.table.add(Named(ids, offsets, slot_of, self.room), rows)

    def add_vectors(
        self, named: NamedParts | None, others: list[tuple[IntArray, FloatArray]]
    ) -> None:
        """Leave the gradient of the projection where the optimiser reads it."""
        if self.projection is None:
            return
        grad = self.optimiser.grad_of(self.projection)
        if self.vectors is None:
            grad[...] = 0
            return
        values, n, width = (
            self.vectors.values,
            0 if named is None else named.count,
            self.table.width,
        )
        own = np.empty(0, np.int32) if named is None else named.rows - np.int32(self.table.n_ids)
        flat = np.concatenate([own, *(rows for rows, _ in others)])
        held = flat >= 0
        offsets = np.zeros(len(flat) + 1, np.int32)
        np.cumsum(held, out=offsets[1:])
        slots = flat[held]
        starts, bags = np.empty(len(values) + 1, np.int32), np.empty(len(slots), np.int32)
        group_bags(slots, offsets, starts, bags)
        of_parts = self._rows(n + (self.n_others or 0), width)[:n]
        rows = np.concatenate([of_parts, *(one for _, one in others)])
        total = self._vector_grads(len(values), width)
        # a vector that no bag names is not written
        total[:] = 0
        parts = parts_of_slots(starts, width)
        threads.run(add_rows, [(rows, starts, bags, *part, total) for part in parts])
        np.matmul(values.T, total, out=grad)


def with_entries(ids: IntArray, offsets: IntArray, entries: IntArray) -> tuple[IntArray, IntArray]:
    """Bags that end with one entry more, -1 being none: ids and offsets.

    >>> ids, offsets = np.array([4, 5, 6], np.int32), np.array([0, 2, 3], np.int32)
    >>> [part.tolist() for part in with_entries(ids, offsets, np.array([9, -1], np.int32))]
    [[4, 5, 9, 6], [0, 3, 4]]"""
    held = entries >= 0
    after = np.cumsum(held, dtype=np.int32)
    longer = offsets.copy()
    longer[1:] += after
    found = np.empty(len(ids) + int(after[-1:].sum()), np.int32)
    at = np.arange(len(ids)) + np.repeat(after - held, np.diff(offsets))
    found[at] = ids
    found[longer[1:][held] - 1] = entries[held]
    return found, longer

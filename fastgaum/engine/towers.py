"""`TowerScorer` by hand, and the table of items that candidates, context and past choices share.

What happens once per event is a product of small matrices (numpy); what happens per candidate is a
kernel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from fastgaum import threads
from fastgaum.engine.optimiser import PlayerOptimiser
from fastgaum.engine.scorer import (
    NO_TABLE,
    ScorerLayer,
    dropout_rule,
    parts_of,
)
from fastgaum.engine.tables import (
    Array,
    Buffer,
    Ints,
    Named,
    NamedRoom,
    Rule,
    SparseTable,
    parts_of_slots,
)
from fastgaum.features.item_vectors import BatchVectors
from fastgaum.kernels import towers as kernels
from fastgaum.kernels.draws import DropoutRule
from fastgaum.kernels.optimiser import group_bags
from fastgaum.nets.bags import BagLinear
from fastgaum.nets.networks import TowerScorer
from fastgaum.nets.tensors import Bags
from fastgaum.nets.towers import TwoTower

HIDDEN_KEY = 1
"""added to a pass's key for the dropout of the user's hidden layer"""


class TowerLayer:
    """Two towers' passes. The owner of the table sums its gradient (`ItemTable`)."""

    def __init__(self, tower: TwoTower) -> None:
        self.tower, self.rate = tower, tower.dropout.p
        self._scores, self._events = Buffer(), Buffer(np.int32)
        self._grad_users, self._grad_weights = Buffer(), Buffer()

    def dense_parameters(self) -> list[nn.Parameter]:
        """All parameters but the table."""
        tower = self.tower
        layers = (tower.numbers, tower.hidden, tower.out, tower.direct)
        return [part for layer in layers if layer is not None for part in layer.parameters()]

    def bind(self, optimiser: PlayerOptimiser, table: SparseTable) -> None:
        """Find the dense parameters in the flat block."""
        self.optimiser, self.table = optimiser, table

    def forward(
        self,
        displays: kernels.Displays,
        states: Array,
        key: int | None = None,
    ) -> Array:
        """Scores, (n_candidates,); a `key` turns dropout on. The result stays valid until the next
        forward pass."""
        value, tower = self.optimiser.value_of, self.tower
        self.displays = displays
        self.parts = parts_of(displays.offsets)
        of_hidden = None if key is None else key + HIDDEN_KEY
        self.dropouts = dropout_rule(self.rate, key), dropout_rule(self.rate, of_hidden)
        self.x = _dropped(states, self.dropouts[0])
        hidden = self.x @ value(tower.hidden.weight).T + value(tower.hidden.bias)
        np.maximum(hidden, 0, out=hidden)
        self.hidden = _dropped(hidden, self.dropouts[1])
        users = np.empty((len(states), tower.dim), np.float32)
        np.matmul(self.hidden, value(tower.out.weight).T, out=users[:, :-1])
        users[:, :-1] += value(tower.out.bias)
        users[:, :-1] += self.x @ value(tower.direct.weight).T
        users[:, -1] = 1
        weights = np.empty(0, np.float32)
        if tower.numbers is not None:
            weights = value(tower.numbers.weight)[0]
        self.users = kernels.Users(users, weights)
        scores = self._scores(len(displays.ids))
        fixed = (displays, self.users, self.table.values, scores)
        threads.run(kernels.tower_scores, [(*part, *fixed) for part in self.parts])
        return scores

    def backward(self, grad_scores: Array) -> Array:
        """Leave the dense gradients where the optimiser reads them, and the factors of the table's
        in `bag_gradients`; returns the gradient of the states, (n_events, state_dim)."""
        tower, value, grad_of = self.tower, self.optimiser.value_of, self.optimiser.grad_of
        displays, (users, _) = self.displays, self.users
        n_events = len(users)
        grads = kernels.Users(
            self._grad_users(*users.shape), self._grad_weights(n_events, displays.numbers.shape[1])
        )
        fixed = (displays, grad_scores, self.table.values, grads)
        threads.run(kernels.user_gradients, [(*part, *fixed) for part in self.parts])
        grad_users = grads.vectors
        if tower.numbers is not None:
            grads.weights.sum(0, out=grad_of(tower.numbers.weight)[0])
        events = self._events(len(grad_scores))
        events[:] = np.repeat(np.arange(n_events, dtype=np.int32), np.diff(displays.offsets))
        self.bag_gradients = kernels.BagGradients(events, grad_scores, users, NO_TABLE)
        grad = grad_users[:, :-1]
        np.matmul(grad.T, self.hidden, out=grad_of(tower.out.weight))
        grad.sum(0, out=grad_of(tower.out.bias))
        np.matmul(grad.T, self.x, out=grad_of(tower.direct.weight))
        grad_hidden = grad @ value(tower.out.weight)
        kernels.drop_matrix(grad_hidden, self.dropouts[1])
        grad_hidden *= self.hidden > 0
        np.matmul(grad_hidden.T, self.x, out=grad_of(tower.hidden.weight))
        grad_hidden.sum(0, out=grad_of(tower.hidden.bias))
        grad_x: Array = grad_hidden @ value(tower.hidden.weight)
        grad_x += grad @ value(tower.direct.weight)
        kernels.drop_matrix(grad_x, self.dropouts[0])
        return grad_x


class TowerScorerLayer:
    """A scorer of two towers with a network beside them."""

    def __init__(self, scorer: TowerScorer) -> None:
        self.scorer = scorer
        self.deep = ScorerLayer(scorer.deep)
        self.tower = TowerLayer(scorer.tower)
        self.rate = self.tower.rate
        self.own: ItemTable | None = None
        self.items: ItemTable | None = None
        """the table that the towers read, own or not"""

    def own_tables(self, n_ids: int, rule: Rule) -> list[SparseTable]:
        """Make the tables over ids sparse; the tower's too, where no other reads it."""
        tables = self.deep.own_tables(n_ids, rule)
        if self.scorer.items is not None:
            self.own = self.items = ItemTable(self.scorer.items, n_ids, rule)
            tables = [*tables, self.own.table]
        return tables

    def dense_parameters(self) -> list[nn.Parameter]:
        """The network's, then the towers', and of the items what no other module has."""
        items = [] if self.own is None else self.own.dense_parameters()
        return [*self.deep.dense_parameters(), *self.tower.dense_parameters(), *items]

    def bind(self, optimiser: PlayerOptimiser) -> None:
        """Find the dense parameters in the flat block; `items` is there, or has been set."""
        self.deep.bind(optimiser)
        assert self.items is not None
        self.items.bind(optimiser)
        self.tower.bind(optimiser, self.items.table)

    def forward(
        self,
        display_offsets: Ints,
        ids: Ints,
        numbers: Array,
        states: Array,
        key: int | None = None,
    ) -> Array:
        """As `ScorerLayer.forward`."""
        assert self.items is not None
        if self.own is not None:
            self.own.project()
        displays = kernels.Displays(display_offsets, self.items.candidate_ids(ids), numbers)
        scores = self.tower.forward(displays, states, key)
        # another key: one dropout must not follow the other
        own = None if key is None else key ^ 0x5BD1E995
        scores += self.deep.forward(display_offsets, ids, numbers, states, own)
        self.scores = scores
        return scores

    def backward(self, grad_scores: Array, named: Named) -> Array:
        """As `ScorerLayer.backward`; a table that others own gets its gradient from them."""
        grad_states = self.tower.backward(grad_scores)
        grad_states += self.deep.backward(grad_scores, named)
        if self.own is not None:
            grads = self.tower.bag_gradients
            self.own.add(named, grads)
            self.own.add_vectors([], grads)
        return grad_states


class ItemTable:
    """A table of vectors, (n_ids, d), and its gradient over all bags that name its rows.

    Where the log has vectors of items, those of a batch are projected to rows after the ids': bags
    then name one row more."""

    vectors: BatchVectors | None = None
    """of the batch, set by `take`; None where networks read none"""

    def __init__(self, rows: BagLinear, n_ids: int, rule: Rule) -> None:
        self.table = SparseTable(rows.table, n_ids, rule, "items")
        self.projection = rows.projection
        self.room = NamedRoom()
        self._ids, self._offsets = Buffer(np.int32), Buffer(np.int32)
        self._rows, self._vector_grads = Buffer(), Buffer()

    def dense_parameters(self) -> list[nn.Parameter]:
        """The projection, if there is one."""
        return [] if self.projection is None else [self.projection]

    def bind(self, optimiser: PlayerOptimiser) -> None:
        """Find the projection in the flat block."""
        self.optimiser = optimiser

    def take(self, vectors: BatchVectors | None) -> None:
        """Read the vectors of the next batch."""
        self.vectors = None if self.projection is None else vectors

    def project(self) -> None:
        """Write the rows of the batch's vectors, by the weights as they are now."""
        if self.vectors is not None and self.projection is not None:
            values = self.vectors.values
            weights = self.optimiser.value_of(self.projection)
            np.matmul(values, weights, out=self.table.rows_after(len(values)))

    def candidate_ids(self, ids: Ints) -> Ints:
        """Rows that each candidate names, from its ids (n_candidates, n_fields)."""
        if self.vectors is None:
            return ids
        rows = self.vectors.candidates + np.int32(self.table.n_ids)
        return np.concatenate([ids, rows[:, None]], axis=1)

    def bags(self, bags: Bags, rows: Ints) -> Bags:
        """Bags that also name the row of a vector where `rows`, (n_bags,), has one."""
        if self.vectors is None:
            return bags
        entries = np.where(rows < 0, rows, rows + np.int32(self.table.n_ids))
        ids, offsets = with_entries(bags.ids.numpy(), bags.offsets.numpy(), entries)
        return replace(bags, ids=torch.from_numpy(ids), offsets=torch.from_numpy(offsets))

    def add_vectors(self, others: list[tuple[Ints, Array]], grads: kernels.BagGradients) -> None:
        """Leave the gradient of the projection where the optimiser reads it.

        Args:
            others: rows of vectors of the bags that are no candidates', (n_bags,), and the gradient
                of each one's sum of rows, (n_bags, d).
            grads: of the candidates' bags.
        """
        if self.projection is None:
            return
        grad = self.optimiser.grad_of(self.projection)
        if self.vectors is None:
            grad[...] = 0
            return
        values, rows = self.vectors.values, [self.vectors.candidates, *(rows for rows, _ in others)]
        flat = np.concatenate(rows)
        held = flat >= 0
        offsets = np.zeros(len(flat) + 1, np.int32)
        np.cumsum(held, out=offsets[1:])
        slots = flat[held]
        starts, bags = np.empty(len(values) + 1, np.int32), np.empty(len(slots), np.int32)
        group_bags(slots, offsets, starts, bags)
        width = self.table.width
        written = np.concatenate([np.empty((0, width), np.float32), *(one for _, one in others)])
        total = self._vector_grads(len(values), width)
        fixed = (starts, bags, grads._replace(rows=written), total)
        parts = parts_of_slots(starts, width)
        threads.run(kernels.row_gradients, [(*part, *fixed) for part in parts])
        np.matmul(values.T, total, out=grad)

    def add(self, named: Named, grads: kernels.BagGradients) -> None:
        """Sum the gradients of the bags that `named` numbers."""
        total = self.table.buffer(named)
        fixed = (*named.bags, grads, total)
        parts = named.parts(self.table.width)
        threads.run(kernels.row_gradients, [(*part, *fixed) for part in parts])

    def add_all(
        self,
        candidates: Ints,
        grads: kernels.BagGradients | None,
        others: list[tuple[Bags, Array]],
        slot_of: Ints,
    ) -> None:
        """Sum the gradients of the candidates' bags and of all others.

        Args:
            candidates: ids, (n_candidates, n_fields); read where there are `grads`.
            grads: the candidates', as factors; None: no candidate reads the table.
            others: bags, and the gradient of each one's sum of rows, (n_bags, d).
            slot_of: as in `Named`.
        """
        n = 0 if grads is None else len(candidates)
        width = candidates.shape[1]
        parts = [candidates.reshape(-1)[: n * width], *(bags.ids.numpy() for bags, _ in others)]
        ids = self._ids(sum(map(len, parts)))
        np.concatenate(parts, out=ids)
        lengths = [np.full(n, width), *(np.diff(bags.offsets.numpy()) for bags, _ in others)]
        offsets = self._offsets(1 + sum(map(len, lengths)))
        offsets[0] = 0
        np.cumsum(np.concatenate(lengths), out=offsets[1:])
        d = self.table.width
        rows = self._rows(len(offsets) - 1 - n, d)
        if others:
            np.concatenate([grad for _, grad in others], out=rows)
        if grads is None:
            nothing, no_events = np.empty(0, np.float32), np.empty(0, np.int32)
            grads = kernels.BagGradients(no_events, nothing, np.empty((0, d), np.float32), rows)
        self.add(Named(ids, offsets, slot_of, self.room), grads._replace(rows=rows))


def with_entries(ids: Ints, offsets: Ints, entries: Ints) -> tuple[Ints, Ints]:
    """Bags that end with one entry more where there is one, -1 being none: ids and offsets.

    >>> ids, offsets = np.array([4, 5, 6], np.int32), np.array([0, 2, 3], np.int32)
    >>> [part.tolist() for part in with_entries(ids, offsets, np.array([9, -1], np.int32))]
    [[4, 5, 9, 6], [0, 3, 3]]
    """
    held = entries >= 0
    after = np.cumsum(held, dtype=np.int32)
    longer = offsets.copy()
    longer[1:] += after
    found = np.empty(len(ids) + int(after[-1:].sum()), np.int32)
    at = np.arange(len(ids)) + np.repeat(after - held, np.diff(offsets))
    found[at] = ids
    found[longer[1:][held] - 1] = entries[held]
    return found, longer


def _dropped(values: Array, rule: DropoutRule) -> Array:
    """A copy of the values after dropout; the values themselves where there is none."""
    if rule.threshold == 0:
        return values
    values = values.copy()
    kernels.drop_matrix(values, rule)
    return values

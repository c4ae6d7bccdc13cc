"""The players of the engine's game: a scorer, what it reads, and an optimiser."""

from __future__ import annotations

import numpy as np
from torch import nn

from fastgaum.arrays import FloatArray, IntArray
from fastgaum.config import Config
from fastgaum.engine.histories import RecurrentHistory
from fastgaum.engine.optimiser import PlayerOptimiser
from fastgaum.engine.scorer import (
    GRADIENT_GIVEN,
    ONLY_SCORES,
    Chains,
    DisplayBatch,
    ScorerLayer,
)
from fastgaum.engine.tables import Buffer, SparseTable
from fastgaum.engine.towers import ItemTable, TowerScorerLayer
from fastgaum.features.item_vectors import BatchVectors
from fastgaum.kernels import examination as kernels
from fastgaum.kernels.choice import Loss
from fastgaum.nets.histories import Recurrent
from fastgaum.nets.networks import RewardPlayer, Scorer
from fastgaum.nets.tensors import Bags, BatchTensors


class EngineStates:
    """States of events by hand, and the table of items that they share with the candidates."""

    def __init__(self, player: RewardPlayer) -> None:
        self.player, self.context = player, player.context
        assert isinstance(player.history, Recurrent)
        self.history = RecurrentHistory(player.history)
        self.items: ItemTable | None = None
        self._states = Buffer()

    def own_tables(self, n_ids: int) -> list[SparseTable]:
        """Make the tables over ids sparse."""
        if self.player.items is None:
            return self.history.own_tables(n_ids)
        self.items = ItemTable(self.player.items, n_ids)
        if self.history.shared:
            self.history.table = self.items.table
        return [*self.history.own_tables(n_ids), self.items.table]

    def dense_parameters(self) -> list[nn.Parameter]:
        """The history's, then the projection of the items' vectors."""
        items = [] if self.items is None else self.items.dense
        return [*self.history.dense_parameters(), *items]

    def forward(self, batch: BatchTensors, tokens: Bags, context: Bags) -> FloatArray:
        """State of each event, (n_events, state_dim); valid until the next forward pass."""
        self.of_tokens, self.of_context = tokens, context
        if self.items is not None:
            self.items.n_others = tokens.n_bags + context.n_bags
            self.items.take(batch.source.vectors)
            self.items.project()
        self.vectors = None if self.items is None else self.items.vectors
        if self.items is not None and self.vectors is not None and self.history.shared:
            tokens = self.items.bags(tokens, self.vectors.tokens)
        states = self.history.forward(batch, tokens)
        if self.context is None:
            return states
        n, width = states.shape
        joined = self._states(n, self.player.state_dim)
        joined[:, :width] = states
        numbers = batch.source.context_numbers
        if self.items is not None and self.context.sizes.n_fields:
            rows = self._table_rows(self.items, context).reshape(n, -1)
            joined[:, width : width + rows.shape[1]] = rows
            width += rows.shape[1]
        joined[:, width:] = numbers
        return joined

    def _table_rows(self, items: ItemTable, context: Bags) -> FloatArray:
        rows: FloatArray = items.table.values[context.ids.numpy()]
        if self.vectors is not None:
            held = np.flatnonzero(self.vectors.context.reshape(-1) >= 0)
            of_vectors = self.vectors.context.reshape(-1)[held]
            rows[held] += items.table.values[items.table.n_ids + of_vectors]
        return rows

    def backward(
        self, grad_states: FloatArray, scorer: ScorerLayer | TowerScorerLayer, slot_of: IntArray
    ) -> None:
        """Leave all gradients where the optimiser reads them, after the `scorer`'s."""
        width = self.history.state_dim
        self.history.backward(np.ascontiguousarray(grad_states[:, :width]), slot_of)
        if self.items is None:
            return
        others: list[tuple[Bags, FloatArray]] = []
        of_vectors: list[tuple[IntArray, FloatArray]] = []
        vectors, history = self.vectors, self.history
        if history.shared and len(history.later):
            of_history = history.grad_rows
            others.append((self.of_tokens, of_history))
            of_vectors += [] if vectors is None else [(vectors.tokens, of_history)]
        if self.context is not None and self.context.sizes.n_fields:
            d = self.items.table.width
            end = width + self.context.sizes.n_fields * d
            rows = grad_states[:, width:end].reshape(-1, d)
            others.append((self.of_context, rows))
            of_vectors += [] if vectors is None else [(vectors.context.reshape(-1), rows)]
        named = scorer.shown.named if isinstance(scorer, TowerScorerLayer) else None
        self.items.add_all(named, others, slot_of)
        self.items.add_vectors(named, of_vectors)


class EnginePlayer:
    """A scorer with its examination, the states it trains (None for a generator), one optimiser."""

    def __init__(
        self,
        scorer: Scorer,
        states: EngineStates | None,
        n_ids: int,
        config: Config,
        lr: float,
        weight_decay: float,
    ) -> None:
        self.scorer: ScorerLayer | TowerScorerLayer = (
            ScorerLayer(scorer) if scorer.tower is None else TowerScorerLayer(scorer, scorer.tower)
        )
        tables: list[SparseTable] = self.scorer.own_tables(n_ids)
        dense = self.scorer.dense_parameters()
        if states is not None:
            tables = [*tables, *states.own_tables(n_ids)]
            if scorer.tower is not None and scorer.tower.items is not None:
                assert isinstance(self.scorer, TowerScorerLayer)
                self.scorer.items = states.items
            dense += states.dense_parameters()
        self.later = None if scorer.examination is None else scorer.examination.later
        undecayed = [] if self.later is None else [self.later]
        n_places = 1 + sum(one.numel() for one in undecayed)
        self.by_place, self.of_places = np.zeros((2, n_places), np.float32)
        self.optimiser = PlayerOptimiser(dense, tables, lr, weight_decay, config.clip, undecayed)
        self.scorer.bind(self.optimiser)
        network = self.scorer.deep if isinstance(self.scorer, TowerScorerLayer) else self.scorer
        network.of_states = states is not None
        if states is not None:
            states.history.bind(self.optimiser)

    def take(self, vectors: BatchVectors | None) -> None:
        """Have a table of one's own read the vectors of the next batch."""
        if isinstance(self.scorer, TowerScorerLayer) and self.scorer.own is not None:
            self.scorer.own.take(vectors)

    def forward(
        self,
        shown: DisplayBatch,
        states: FloatArray,
        key: int | None = None,
        loss: Loss = ONLY_SCORES,
    ) -> FloatArray:
        """Scores, (n_candidates,), valid until the next forward pass; a `key` turns dropout on."""
        scores, self.offsets = self.scorer.begin(shown, states, key), shown.offsets
        before: Chains | None = None
        if self.later is not None:
            self.by_place[1:] = self.optimiser.value_of(self.later)
            before = [
                [(kernels.examine, (shown.offsets[first : last + 1], self.by_place, scores))]
                for first, last in shown.parts
            ]
        self.scorer.run(loss, scores, before=before)
        return scores

    def learn(
        self, loss: Loss, shown: DisplayBatch, states: FloatArray, key: int | None = None
    ) -> FloatArray:
        """Scores; gradients are left where the optimiser reads them, and in
        `scorer.grad_states`."""
        scores = self.forward(shown, states, key, loss)
        self._places_backward()
        return scores

    def backward(self, grad_scores: FloatArray) -> None:
        """Leave the gradients of the last pass, from that of its scores."""
        self.scorer.run(GRADIENT_GIVEN, self.scorer.scores, grad_scores)
        self._places_backward()

    def _places_backward(self) -> None:
        if self.later is not None:
            kernels.examination_gradient(self.offsets, self.scorer.grad_scores, self.of_places)
            self.optimiser.grad_of(self.later)[:] = self.of_places[1:]

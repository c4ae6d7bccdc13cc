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
from fastgaum.nets.examination import Examination
from fastgaum.nets.histories import Recurrent
from fastgaum.nets.networks import RewardPlayer, Scorer
from fastgaum.nets.tensors import Bags, BatchTensors


class EngineStates:
    """States of events by hand: of the history, then of the context; and the table of items that
    both share with the candidates."""

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
        self.history.share(self.items.table)
        return [*self.history.own_tables(n_ids), self.items.table]

    def dense_parameters(self) -> list[nn.Parameter]:
        """The history's, then the projection of the items' vectors."""
        items = [] if self.items is None else self.items.dense_parameters()
        return [*self.history.dense_parameters(), *items]

    def forward(self, batch: BatchTensors, tokens: Bags, context: Bags) -> FloatArray:
        """State of each event, (n_events, state_dim); valid until the next forward pass."""
        self.of_tokens, self.of_context = tokens, context
        if self.items is not None:
            self.items.n_others = tokens.n_bags + context.n_bags
            self.items.take(batch.source.vectors)
            self.items.project()
        self.vectors = None if self.items is None else self.items.vectors
        if self.items is not None and self.vectors is not None and self.history.reads_items:
            tokens = self.items.bags(tokens, self.vectors.tokens)
        states = self.history.forward(batch, tokens)
        if self.context is None:
            return states
        n, width = states.shape
        joined = self._states(n, self.player.state_dim)
        joined[:, :width] = states
        numbers = batch.source.context_numbers
        if self.items is not None and self.context.sizes.n_fields:
            rows = self._context_rows(self.items, context).reshape(n, -1)
            joined[:, width : width + rows.shape[1]] = rows
            width += rows.shape[1]
        joined[:, width:] = numbers
        return joined

    def _context_rows(self, items: ItemTable, context: Bags) -> FloatArray:
        """Vector of each event's context fields, (n_events · n_fields, d)."""
        rows: FloatArray = items.table.values[context.ids.numpy()]
        if self.vectors is not None:
            held = np.flatnonzero(self.vectors.context.reshape(-1) >= 0)
            of_vectors = self.vectors.context.reshape(-1)[held]
            rows[held] += items.table.values[items.table.n_ids + of_vectors]
        return rows

    def backward(
        self, grad_states: FloatArray, scorer: ScorerLayer | TowerScorerLayer, slot_of: IntArray
    ) -> None:
        """Leave all gradients where the optimiser reads them; `scorer` has left those of the
        candidates."""
        width = self.history.state_dim
        self.history.backward(np.ascontiguousarray(grad_states[:, :width]), slot_of)
        if self.items is None:
            return
        others: list[tuple[Bags, FloatArray]] = []
        of_vectors: list[tuple[IntArray, FloatArray]] = []
        vectors, of_history = self.vectors, self.history.shared_rows()
        if of_history is not None:
            others.append((self.of_tokens, of_history))
            of_vectors += [] if vectors is None else [(vectors.tokens, of_history)]
        if self.context is not None and self.context.sizes.n_fields:
            d = self.items.table.width
            end = width + self.context.sizes.n_fields * d
            rows = grad_states[:, width:end].reshape(-1, d)
            others.append((self.of_context, rows))
            of_vectors += [] if vectors is None else [(vectors.context.reshape(-1), rows)]
        named = scorer.tower.shown.named if isinstance(scorer, TowerScorerLayer) else None
        self.items.add_all(named, others, slot_of)
        self.items.add_vectors(named, of_vectors)


class ExaminationLayer:
    """`Examination` by hand."""

    def __init__(self, examination: Examination) -> None:
        self.later = examination.later
        n_places = 1 + self.later.numel()
        self.by_place, self.grad = np.zeros(n_places, np.float32), np.empty(n_places, np.float32)

    def add_to(self, scores: FloatArray, shown: DisplayBatch, optimiser: PlayerOptimiser) -> Chains:
        """The calls that add e of its place to each candidate's score."""
        self.offsets = shown.offsets
        self.by_place[1:] = optimiser.value_of(self.later)
        return [
            [(kernels.examine, (shown.offsets[first : last + 1], self.by_place, scores))]
            for first, last in shown.parts
        ]

    def backward(self, grad_scores: FloatArray, optimiser: PlayerOptimiser) -> None:
        """Leave the gradient where the optimiser reads it."""
        kernels.examination_gradient(self.offsets, grad_scores, self.grad)
        optimiser.grad_of(self.later)[:] = self.grad[1:]


class EnginePlayer:
    """A scorer, the states it trains (a generator, which reads the reward's, has none), one
    optimiser."""

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
        examination, undecayed = scorer.examination, list[nn.Parameter]()
        self.examination: ExaminationLayer | None = None
        if examination is not None:
            self.examination, undecayed = ExaminationLayer(examination), [examination.later]
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
        self, shown: DisplayBatch, states: FloatArray, key: int | None = None
    ) -> FloatArray:
        """Scores, (n_candidates,); a `key` turns dropout on. The result stays valid until the next
        pass that is not `backward`."""
        return self._run(ONLY_SCORES, shown, states, key)

    def learn(
        self, loss: Loss, shown: DisplayBatch, states: FloatArray, key: int | None = None
    ) -> FloatArray:
        """Scores, with all gradients left where the optimiser reads them, and that of the states in
        `scorer.grad_states`."""
        scores = self._run(loss, shown, states, key)
        self._places_backward()
        return scores

    def backward(self, grad_scores: FloatArray) -> None:
        """Leave the gradients as `learn` does, of the last pass, from that of its scores."""
        self.scorer.run(GRADIENT_GIVEN, self.scorer.scores, grad_scores)
        self._places_backward()

    def _run(
        self, loss: Loss, shown: DisplayBatch, states: FloatArray, key: int | None
    ) -> FloatArray:
        scores, before = self.scorer.begin(shown, states, key), None
        if self.examination is not None:
            before = self.examination.add_to(scores, shown, self.optimiser)
        self.scorer.run(loss, scores, before=before)
        return scores

    def _places_backward(self) -> None:
        if self.examination is not None:
            self.examination.backward(self.scorer.grad_scores, self.optimiser)

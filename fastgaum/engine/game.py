"""The game by hand: what `game.game.ReferenceGame` does with autograd, over kernels. The two agree
step by step.

Every loss of the game has a gradient in closed form with respect to the scores of a batch,
(probability − target) / n_events, so one backward pass through a scorer and a history encoder is
all that a step needs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastgaum import threads
from fastgaum.config import Config
from fastgaum.engine.bilstm import BiLstmHistory
from fastgaum.engine.histories import EngineHistory, PositionWeightHistory, RecurrentHistory
from fastgaum.engine.optimiser import PlayerOptimiser, SharedGradient
from fastgaum.engine.scorer import ScorerLayer, parts_of
from fastgaum.engine.tables import Array, Buffer, Ints, Named, NamedRoom, Rule, SparseTable
from fastgaum.engine.towers import ItemTable, TowerScorerLayer
from fastgaum.errors import StepRefusedError
from fastgaum.features.item_vectors import BatchVectors
from fastgaum.game.game import Game
from fastgaum.kernels import choice as kernels
from fastgaum.kernels import examination as of_places
from fastgaum.kernels.draws import drop_ids
from fastgaum.nets.examination import Examination
from fastgaum.nets.histories import HistoryEncoder, PositionWeight, PrefixBiLstm, Recurrent
from fastgaum.nets.networks import Networks, RewardPlayer, Scorer, TowerScorer
from fastgaum.nets.regularisers import Regulariser, Shannon, best_value
from fastgaum.nets.tensors import Bags, BatchTensors
from fastgaum.processes import Processes

SHARED_SCORES = 1 << 16
"""scores of a softmax that two threads share"""


HISTORIES: dict[type[HistoryEncoder], Callable[[Any], EngineHistory]] = {
    Recurrent: RecurrentHistory,
    PositionWeight: PositionWeightHistory,
    PrefixBiLstm: BiLstmHistory,
}
"""the passes by hand of each class of encoder; subclasses have none"""


def engine_history(encoder: HistoryEncoder) -> EngineHistory:
    """The encoder by hand."""
    return HISTORIES[type(encoder)](encoder)


class EngineStates:
    """States of events by hand: of the history, then of the context; and the table of items that
    both share with the candidates."""

    def __init__(self, player: RewardPlayer) -> None:
        self.player, self.context = player, player.context
        self.history = engine_history(player.history)
        self.items: ItemTable | None = None
        self._states = Buffer()

    def own_tables(self, n_ids: int, rule: Rule) -> list[SparseTable]:
        """Make the tables over ids sparse."""
        if self.player.items is None:
            return self.history.own_tables(n_ids, rule)
        self.items = ItemTable(self.player.items, n_ids, rule)
        self.history.share(self.items.table)
        return [*self.history.own_tables(n_ids, rule), self.items.table]

    def dense_parameters(self) -> list[nn.Parameter]:
        """The history's, then the projection of the items' vectors."""
        items = [] if self.items is None else self.items.dense_parameters()
        return [*self.history.dense_parameters(), *items]

    def forward(self, batch: BatchTensors, tokens: Bags, context: Bags) -> Array:
        """State of each event, (n_events, state_dim); valid until the next forward pass."""
        self.of_tokens, self.of_context = tokens, context
        if self.items is not None:
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

    def _context_rows(self, items: ItemTable, context: Bags) -> Array:
        """Vector of each event's context fields, (n_events · n_fields, d)."""
        rows: Array = items.table.values[context.ids.numpy()]
        if self.vectors is not None:
            held = np.flatnonzero(self.vectors.context.reshape(-1) >= 0)
            of_vectors = self.vectors.context.reshape(-1)[held]
            rows[held] += items.table.values[items.table.n_ids + of_vectors]
        return rows

    def backward(
        self, grad_states: Array, scorer: ScorerLayer | TowerScorerLayer, slot_of: Ints
    ) -> None:
        """Leave all gradients where the optimiser reads them; `scorer` has left those of the
        candidates."""
        width = self.history.state_dim
        self.history.backward(np.ascontiguousarray(grad_states[:, :width]), slot_of)
        if self.items is None:
            return
        others: list[tuple[Bags, Array]] = []
        of_vectors: list[tuple[Ints, Array]] = []
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
        if isinstance(scorer, TowerScorerLayer):
            grads = scorer.tower.bag_gradients
            self.items.add_all(scorer.deep.inputs.ids, grads, others, slot_of)
            self.items.add_vectors(of_vectors, grads)
        else:
            self.items.add_all(np.empty((0, 1), np.int32), None, others, slot_of)


class ExaminationLayer:
    """`Examination` by hand."""

    def __init__(self, examination: Examination) -> None:
        self.later = examination.later
        n_places = 1 + self.later.numel()
        self.by_place, self.grad = np.zeros(n_places, np.float32), np.empty(n_places, np.float32)

    def add_to(self, scores: Array, display_offsets: Ints, optimiser: PlayerOptimiser) -> None:
        """Add e of its place to each candidate's score."""
        self.offsets = display_offsets
        self.by_place[1:] = optimiser.value_of(self.later)
        of_places.examine(display_offsets, self.by_place, scores)

    def backward(self, grad_scores: Array, optimiser: PlayerOptimiser) -> None:
        """Leave the gradient where the optimiser reads it."""
        of_places.examination_gradient(self.offsets, grad_scores, self.grad)
        optimiser.grad_of(self.later)[:] = self.grad[1:]


class EnginePlayer:
    """A scorer, the states it trains (a generator, which reads the reward's, has none), one
    optimiser."""

    def __init__(
        self,
        scorer: Scorer | TowerScorer,
        states: EngineStates | None,
        n_ids: int,
        config: Config,
        lr: float,
        weight_decay: float,
    ) -> None:
        rule = config.table_optimiser
        self.scorer: ScorerLayer | TowerScorerLayer = (
            TowerScorerLayer(scorer) if isinstance(scorer, TowerScorer) else ScorerLayer(scorer)
        )
        tables: list[SparseTable] = self.scorer.own_tables(n_ids, rule)
        dense, products = self.scorer.dense_parameters(), []
        if states is not None:
            tables = [*tables, *states.own_tables(n_ids, rule)]
            if isinstance(self.scorer, TowerScorerLayer) and states.items is not None:
                self.scorer.items = states.items
            dense += states.dense_parameters()
            products = states.history.own_products()
        examination, undecayed = scorer.examination, list[nn.Parameter]()
        self.examination: ExaminationLayer | None = None
        if examination is not None:
            self.examination, undecayed = ExaminationLayer(examination), [examination.later]
        self.optimiser = PlayerOptimiser(
            dense, tables, lr, weight_decay, config.clip, products, undecayed
        )
        self.scorer.bind(self.optimiser)
        if states is not None:
            states.history.bind(self.optimiser)

    def take(self, vectors: BatchVectors | None) -> None:
        """Have a table of one's own read the vectors of the next batch."""
        if isinstance(self.scorer, TowerScorerLayer) and self.scorer.own is not None:
            self.scorer.own.take(vectors)

    def forward(
        self,
        display_offsets: Ints,
        ids: Ints,
        numbers: Array,
        states: Array,
        key: int | None = None,
    ) -> Array:
        """As `ScorerLayer.forward`, with what the places add."""
        scores = self.scorer.forward(display_offsets, ids, numbers, states, key)
        if self.examination is not None:
            self.examination.add_to(scores, display_offsets, self.optimiser)
        return scores

    def backward(self, grad_scores: Array, named: Named) -> Array:
        """As `ScorerLayer.backward`."""
        if self.examination is not None:
            self.examination.backward(grad_scores, self.optimiser)
        return self.scorer.backward(grad_scores, named)


class EngineGame(Game):
    """Two players over one set of networks, on the CPU; `runs_by_hand` says for which
    configurations."""

    def __init__(
        self,
        networks: Networks,
        config: Config,
        regulariser: Regulariser,
        unknown_of_id: torch.Tensor,
        outside: bool,
    ) -> None:
        super().__init__(networks, config, regulariser, outside)
        self.unknown_of_id = unknown_of_id.numpy()
        n_ids = len(self.unknown_of_id)
        self.slot_of = np.full(n_ids, -1, np.int32)
        self.room = NamedRoom()
        self._targets, self._grad_scores, self._probs, self._totals = (Buffer() for _ in range(4))
        self._whole_states = Buffer()
        self._dropped_ids = {name: Buffer(np.int32) for name in ("candidates", "tokens", "context")}
        self.states_layer = EngineStates(networks.player)
        self.reward = EnginePlayer(
            networks.player.reward,
            self.states_layer,
            n_ids,
            config,
            config.lr,
            config.weight_decay,
        )
        self.generator: EnginePlayer | None = None
        if networks.generator is not None:
            self.generator = EnginePlayer(
                networks.generator, None, n_ids, config, config.generator_lr, 0.0
            )

    def optimisers(self) -> dict[str, PlayerOptimiser]:
        """Every player's optimiser, by name."""
        own = {"reward": self.reward.optimiser}
        return own if self.generator is None else {**own, "generator": self.generator.optimiser}

    def share(self, processes: Processes) -> None:
        """Take every step with the other processes of the training."""
        for optimiser in self.optimisers().values():
            optimiser.shared = SharedGradient(processes, self.slot_of)

    def outputs(self, batch: BatchTensors) -> tuple[Tensor, Tensor | None]:
        """As the base says. A `bilstm` is left to the reference: by hand it keeps every layer of
        every prefix, and batches that are scored are large."""
        if self.config.history == "bilstm":
            return super().outputs(batch)
        utility = torch.from_numpy(self._utility(batch, batch.candidates, batch.tokens).copy())
        if self.generator is None:
            return utility, None
        inputs = self._inputs(batch, batch.candidates)
        logits = self.generator.forward(*inputs, self.states)
        return utility, torch.from_numpy(logits.copy())

    def release(self) -> None:
        """Settle, and leave the networks with parameters of their own."""
        self.settle()
        for optimiser in self.optimisers().values():
            optimiser.release()

    def exact_step(self, batch: BatchTensors) -> float:
        """As the base says."""
        candidates = self._dropped(batch.candidates, "candidates")
        tokens = self._dropped(batch.tokens, "tokens")
        utility = self._utility(batch, candidates, tokens, train=True)
        probs, loss = self._best_response(utility, batch)
        return self._reward_step(batch, probs, self._named(candidates), _finite(loss))

    def round(self, batch: BatchTensors) -> float:
        """As the base says."""
        assert self.generator is not None
        whole = None
        if self.config.id_dropout > 0:
            states = self.states_layer.forward(batch, batch.tokens, batch.context)
            whole = _copied(states, self._whole_states)
        utility, candidates, named = self._played(batch)
        self._generator_steps(batch, candidates, named, self.config.generator_steps)
        # what it plays is its choice with nothing dropped
        inputs = (*self._inputs(batch, batch.candidates), self.states if whole is None else whole)
        probs = self._link(self.generator.forward(*inputs), batch)
        offsets, choices = batch.source.display_offsets, batch.source.choices
        loss = _finite(kernels.expected_loss(utility, probs, offsets, choices))
        return self._reward_step(batch, probs, named, loss)

    def generator_turn(self, batch: BatchTensors, steps: int) -> None:
        """As the base says."""
        _, candidates, named = self._played(batch)
        self._generator_steps(batch, candidates, named, steps)

    def _played(self, batch: BatchTensors) -> tuple[Array, Bags, Named]:
        """The reward's pass that a round is played on: utilities, the candidates and their
        rows."""
        candidates = self._dropped(batch.candidates, "candidates")
        tokens = self._dropped(batch.tokens, "tokens")
        utility = self._utility(batch, candidates, tokens, train=True)
        return utility, candidates, self._named(candidates)

    def _generator_steps(
        self, batch: BatchTensors, candidates: Bags, named: Named, steps: int
    ) -> None:
        """Generator steps under the draws of the reward's pass."""
        assert self.generator is not None
        generator = self.generator
        inputs = (*self._inputs(batch, candidates), self.states, self.key)
        best, loss = self._best_response(self.reward.scorer.scores, batch)
        _finite(loss)
        target = _copied(best, self._targets)
        grad = self._grad_scores(len(target))
        for _ in range(steps):
            probs = self._link(generator.forward(*inputs), batch)
            kernels.target_gradient(probs, target, batch.n_events, grad)
            generator.backward(grad, named)
            generator.optimiser.step()

    def _reward_step(self, batch: BatchTensors, probs: Array, named: Named, loss: float) -> float:
        grad = self._grad_scores(len(probs))
        kernels.logged_gradient(probs, batch.source.display_offsets, batch.source.choices, grad)
        grad_states = self.reward.backward(grad, named)
        self.states_layer.backward(grad_states, self.reward.scorer, self.slot_of)
        return self.reward.optimiser.step(loss)

    def _utility(
        self, batch: BatchTensors, candidates: Bags, tokens: Bags, train: bool = False
    ) -> Array:
        scorer, context = self.reward.scorer, batch.context
        if train and len(context.ids):
            context = self._dropped(context, "context")
        self.states = self.states_layer.forward(batch, tokens, context)
        self.key = _key() if train and scorer.rate > 0 else None
        return self.reward.forward(*self._inputs(batch, candidates), self.states, self.key)

    def _inputs(self, batch: BatchTensors, candidates: Bags) -> tuple[Ints, Ints, Array]:
        source = batch.source
        if self.generator is not None:
            self.generator.take(source.vectors)
        ids = source.ids
        if candidates is not batch.candidates:
            ids = candidates.ids.numpy().reshape(ids.shape)
        return source.display_offsets, ids, source.numbers

    def _best_response(self, utility: Array, batch: BatchTensors) -> tuple[Array, float]:
        """∇Ω*(eta · utility), (n_candidates,), and the mean Fenchel–Young loss."""
        eta, offsets, choices = self.config.eta, batch.source.display_offsets, batch.source.choices
        if isinstance(self.regulariser, Shannon):
            probs, totals = self._softmax(utility, eta, batch)
            return probs, kernels.mean_exact_loss(utility, eta, totals, offsets, choices)
        with torch.no_grad():
            scores = eta * torch.from_numpy(utility)
            best = self.regulariser.best_response(scores, batch.display_offsets, self.outside)
            value = best_value(self.regulariser, scores, batch.display_offsets, self.outside) / eta
            logged = torch.from_numpy(utility)[batch.chosen].sum()
        return best.probs.numpy(), float(value.mean() - logged / batch.n_events)

    def _link(self, logits: Array, batch: BatchTensors) -> Array:
        if isinstance(self.regulariser, Shannon):
            return self._softmax(logits, 1.0, batch)[0]
        with torch.no_grad():
            dist = self.regulariser.link(
                torch.from_numpy(logits), batch.display_offsets, self.outside
            )
        return dist.probs.numpy()

    def _softmax(self, scores: Array, eta: float, batch: BatchTensors) -> tuple[Array, Array]:
        probs, totals = self._probs(len(scores)), self._totals(batch.n_events)
        offsets = batch.source.display_offsets
        written = kernels.Softmax(probs, totals)
        fixed = scores, np.float32(eta), offsets, self.outside, written
        # a second thread takes some 60 µs to wake: it is not worth that where the first needs a few
        # times as much
        parts = parts_of(offsets) if len(scores) > SHARED_SCORES else [(0, batch.n_events)]
        threads.run(kernels.choice_probs, [(*part, *fixed) for part in parts])
        return probs, totals

    def _dropped(self, bags: Bags, name: str) -> Bags:
        """Bags with each id replaced by its field's unknown row with probability id_dropout."""
        if self.config.id_dropout == 0:
            return bags
        ids = self._dropped_ids[name](len(bags.ids))
        threshold = np.uint32(self.config.id_dropout * 2**32)
        drop_ids(bags.ids.numpy(), self.unknown_of_id, np.uint32(_key()), threshold, ids)
        return dataclasses.replace(bags, ids=torch.from_numpy(ids))

    def _named(self, candidates: Bags) -> Named:
        ids, offsets = candidates.ids.numpy(), candidates.offsets.numpy()
        return Named(ids, offsets, self.slot_of, self.room)


def _copied(values: Array, room: Buffer) -> Array:
    """A copy that the next pass does not overwrite."""
    copy = room(*values.shape)
    copy[:] = values
    return copy


def _finite(loss: float) -> float:
    """The loss, before anything is moved by it. Raises StepRefusedError for one that is not
    finite."""
    if not math.isfinite(loss):
        raise StepRefusedError(f"the loss is {loss}")
    return loss


def _key() -> int:
    """A key for one pass of dropout, from torch's random stream."""
    return int(torch.randint(2**31, ()))

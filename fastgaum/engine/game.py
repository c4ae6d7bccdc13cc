"""The game by hand, over kernels, as `game.game.ReferenceGame` plays it with autograd."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor

from fastgaum import threads
from fastgaum.arrays import FloatArray
from fastgaum.config import Config
from fastgaum.engine.optimiser import PlayerOptimiser
from fastgaum.engine.players import EnginePlayer, EngineStates
from fastgaum.engine.scorer import DisplayBatch, parts_of
from fastgaum.engine.tables import Buffer, NamedParts, NamedRoom
from fastgaum.errors import StepRefusedError
from fastgaum.game.game import Game
from fastgaum.kernels import choice as kernels
from fastgaum.kernels.choice import CHOICES, TARGETS, Loss
from fastgaum.kernels.draws import drop_ids
from fastgaum.nets.networks import Networks
from fastgaum.nets.regularisers import Regulariser
from fastgaum.nets.tensors import Bags, BatchTensors

NOTHING: FloatArray = np.empty(0, np.float32)
SHARED_SCORES = 1 << 16
"""scores of a softmax that two threads share"""


class EngineGame(Game):
    """Two players over one set of networks, on the CPU, where `runs_by_hand` allows."""

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
        self.rooms = NamedRoom(), NamedRoom()
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

    def outputs(self, batch: BatchTensors) -> tuple[Tensor, Tensor | None]:
        """As the base says."""
        self._take_states(batch, batch.tokens)
        shown = self._shown(batch, batch.candidates)
        utility = torch.from_numpy(self.reward.forward(shown, self.states).copy())
        if self.generator is None:
            return utility, None
        logits = self.generator.forward(shown, self.states)
        return utility, torch.from_numpy(logits.copy())

    def release(self) -> None:
        """As the base says."""
        self.settle()
        for optimiser in self.optimisers().values():
            optimiser.release()

    def exact_step(self, batch: BatchTensors) -> float:
        """As the base says."""
        shown, tokens = self.drawn(batch)
        self._take_states(batch, tokens, train=True)
        eta, choices, weights = self.config.eta, batch.source.choices, _weights_of(batch)
        learned = Loss(CHOICES, np.float32(eta), self.outside, choices, NOTHING, weights)
        utility = self.reward.learn(learned, shown, self.states, self.key)
        totals = self.reward.scorer.log_totals
        return self._states_step(_mean_loss(totals, 1 / eta, utility, batch))

    def round(self, batch: BatchTensors) -> float:
        """As the base says."""
        assert self.generator is not None
        whole, (shown, tokens) = self._whole_and_drawn(batch)
        self._take_states(batch, tokens, train=True)
        utility = self.reward.forward(shown, self.states, self.key)
        self._generator_steps(batch, shown, self.config.generator_steps)
        # what it plays is its choice with nothing dropped
        played = self._shown(batch, batch.candidates)
        scores = self.generator.forward(played, self.states if whole is None else whole)
        probs = self._softmax(scores, 1.0, batch)[0]
        loss = _mean_loss(probs, utility, utility, batch)
        grad = self._grad_scores(*probs.shape)
        np.divide(probs, batch.n_events, out=grad)
        grad[batch.source.chosen] -= np.float32(1 / batch.n_events)
        if batch.source.weights is not None:
            grad *= np.repeat(batch.source.weights, np.diff(batch.source.display_offsets))
        self.reward.backward(grad)
        return self._states_step(loss)

    def generator_turn(self, batch: BatchTensors, steps: int) -> None:
        """As the base says."""
        shown, tokens = self.drawn(batch)
        self._take_states(batch, tokens, train=True)
        self.reward.forward(shown, self.states, self.key)
        self._generator_steps(batch, shown, steps)

    def _whole_and_drawn(
        self, batch: BatchTensors
    ) -> tuple[FloatArray | None, tuple[DisplayBatch, Bags]]:
        """States with no id dropped, None where none ever is, and what `drawn` gives, each in a
        thread."""
        if self.config.id_dropout == 0:
            return None, self.drawn(batch)
        drawn = list[tuple[DisplayBatch, Bags]]()
        whole = self._whole_states(batch.n_events, self.states_layer.player.state_dim)

        def keep_whole() -> None:
            whole[:] = self.states_layer.forward(batch, batch.tokens, batch.context)

        threads.run_chains([[(lambda: drawn.append(self.drawn(batch)), ())], [(keep_whole, ())]])
        return whole, drawn[0]

    def _generator_steps(self, batch: BatchTensors, shown: DisplayBatch, steps: int) -> None:
        assert self.generator is not None
        generator, inputs = self.generator, (shown, self.states, self.key)
        eta, utility = self.config.eta, self.reward.scorer.scores
        best, totals = self._softmax(utility, eta, batch)
        _mean_loss(totals, 1 / eta, utility, batch)
        target, weights = self._targets(len(best)), _weights_of(batch)
        target[:] = best
        choices = batch.source.choices
        learned = Loss(TARGETS, np.float32(1), self.outside, choices, target, weights)
        for _ in range(steps):
            generator.learn(learned, *inputs)
            generator.optimiser.step()

    def _states_step(self, loss: float) -> float:
        scorer = self.reward.scorer
        self.states_layer.backward(scorer.grad_states, scorer, self.slot_of)
        return self.reward.optimiser.step(loss)

    def _take_states(self, batch: BatchTensors, tokens: Bags, train: bool = False) -> None:
        context = batch.context
        if train and len(context.ids):
            context = self._dropped(context, "context")
        self.states = self.states_layer.forward(batch, tokens, context)
        self.key = (
            int(torch.randint(2**31, (), device="cpu"))
            if train and self.reward.scorer.rate > 0
            else None
        )

    def drawn(self, batch: BatchTensors) -> tuple[DisplayBatch, Bags]:
        """Display sets and tokens with ids dropped."""
        candidates = self._dropped(batch.candidates, "candidates")
        tokens = self._dropped(batch.tokens, "tokens")
        shown = self._shown(batch, candidates)
        named = NamedParts(shown.ids, shown.offsets, shown.parts, self.slot_of, self.rooms)
        return shown._replace(named=named), tokens

    def _shown(self, batch: BatchTensors, candidates: Bags) -> DisplayBatch:
        source = batch.source
        if self.generator is not None:
            self.generator.take(source.vectors)
        ids = source.ids
        if candidates is not batch.candidates:
            ids = candidates.ids.numpy().reshape(ids.shape)
        parts = parts_of(source.display_offsets, *self.reward.scorer.share)
        return DisplayBatch(source.display_offsets, ids, source.numbers, parts)

    def _softmax(
        self, scores: FloatArray, eta: float, batch: BatchTensors
    ) -> tuple[FloatArray, FloatArray]:
        probs, totals = self._probs(len(scores)), self._totals(batch.n_events)
        offsets = batch.source.display_offsets
        # a second thread takes some 60 µs to wake: it is not worth that where the first needs a few
        # times as much
        parts = parts_of(offsets) if len(scores) > SHARED_SCORES else [(0, batch.n_events)]
        calls = [
            (scores, np.float32(eta), offsets[a : b + 1], self.outside, probs, totals[a:b])
            for a, b in parts
        ]
        threads.run(kernels.choice_probs, calls)
        return probs, totals

    def _dropped(self, bags: Bags, name: str) -> Bags:
        """Replace each id by its field's unknown row with probability id_dropout."""
        if self.config.id_dropout == 0:
            return bags
        ids = self._dropped_ids[name](len(bags.ids))
        threshold = np.uint32(self.config.id_dropout * 2**32)
        drop_ids(
            bags.ids.numpy(),
            self.unknown_of_id,
            np.uint32(int(torch.randint(2**31, (), device="cpu"))),
            threshold,
            ids,
        )
        return dataclasses.replace(bags, ids=torch.from_numpy(ids))


def _weights_of(batch: BatchTensors) -> FloatArray:
    """Weights of the events as kernels read them, (n_events,), or (0,) without any."""
    return NOTHING if batch.source.weights is None else batch.source.weights


@np.errstate(all="ignore")
def _mean_loss(
    values: FloatArray, factors: FloatArray | float, utility: FloatArray, batch: BatchTensors
) -> float:
    """The mean over events of values, of each event or candidate, times factors, less the logged
    choices' utility, by the events' weights. Raises StepRefusedError where it is not finite."""
    terms, chosen, weights = values * factors, utility[batch.source.chosen], batch.source.weights
    if weights is not None:
        of_events = len(terms) == batch.n_events
        sizes = np.diff(batch.source.display_offsets)
        terms = terms * (weights if of_events else np.repeat(weights, sizes))
        chosen = chosen * weights[batch.source.clicked]
    total = terms.sum(dtype=np.float64)
    loss = float(total - chosen.sum(dtype=np.float64)) / batch.n_events
    if not math.isfinite(loss):
        raise StepRefusedError(f"the loss is {loss}")
    return loss

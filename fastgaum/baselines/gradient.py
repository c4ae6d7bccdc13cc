"""GradientBaseline: baselines that are torch modules, trained by one short loop with early stop on validation."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fastgaum.baselines.base import Arrays, Baseline, Float64Array, validation_prec1
from fastgaum.errors import NumericsError
from fastgaum.models.networks import IdDropout
from fastgaum.models.tensors import BatchTensors, to_tensors
from fastgaum.ops.segments import segment_logsumexp
from fastgaum.sessions.batches import batches
from fastgaum.sessions.features import EncodedSessions


@dataclass(eq=False)
class GradientBaseline(Baseline):
    """A baseline trained by AdamW. A subclass defines `_network`, and `_losses` unless it is a choice model.

    Every id may be replaced by its field's unknown row in training (id dropout), so that unknown items are trained.
    """

    epochs: int = 60
    """at most so many epochs"""
    patience: int = 8
    """stop after so many epochs without a better validation score"""
    select: Literal["loss", "prec@1"] = "loss"
    """the validation score that chooses the epoch"""
    batch_sessions: int = 64
    """sessions per batch"""
    lr: float = 3e-3
    """learning rate"""
    weight_decay: float = 0.01
    """decoupled weight decay"""
    id_dropout: float = 0.3
    """probability that an id is replaced by its field's unknown row in a training step"""
    clip: float = 5.0
    """largest gradient norm"""

    @abstractmethod
    def _network(self) -> nn.Module:
        """A fresh module for `self.space`; called with a BatchTensors it returns scores, shape (n_candidates,)."""

    def _losses(self, scores: Tensor, batch: BatchTensors) -> Tensor:
        """Loss of each event, shape (n_events,); by default the NLL of the choice within its display set (nats)."""
        return choice_nll(scores, batch, self.outside)

    def _fit(self, train: EncodedSessions, validation: EncodedSessions, observer: Any) -> list[dict[str, Any]]:
        assert self.space is not None
        self.network = self._network()
        drop = IdDropout(torch.from_numpy(self.space.unknown_of_id), self.id_dropout)
        optimiser = torch.optim.AdamW(self.network.parameters(), lr=self.lr, weight_decay=self.weight_decay, fused=True)
        order = np.random.default_rng(self.seed)
        fixed = list(self._batches(validation))
        rows: list[dict[str, Any]] = []
        best, best_state, waited = math.inf, copy.deepcopy(self.network.state_dict()), 0
        while len(rows) < self.epochs and waited < self.patience:
            loss = self._epoch(train, order, drop, optimiser)
            value, prec1 = self._validate(fixed, validation)
            if not math.isfinite(loss + value):
                raise NumericsError(
                    f"the loss of '{self.name}' is not finite in epoch {len(rows) + 1}: lower lr or clip"
                )
            better = value < best
            if better:
                best, best_state = value, copy.deepcopy(self.network.state_dict())
            waited = 0 if better else waited + 1
            rows.append({"epoch": len(rows) + 1, "loss": loss, "val_loss": value, "val_prec1": prec1, "best": better})
        self.network.load_state_dict(best_state)
        return rows

    def _epoch(
        self, train: EncodedSessions, order: np.random.Generator, drop: IdDropout, optimiser: torch.optim.Optimizer
    ) -> float:
        self.network.train()
        total, n_events = 0.0, 0
        for batch in self._shuffled(train, order):
            dropped = replace(batch, candidates=drop(batch.candidates), tokens=drop(batch.tokens))
            loss = self._losses(self.network(dropped), batch).mean()
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
            optimiser.step()
            total += float(loss.detach()) * batch.n_events
            n_events += batch.n_events
        return total / n_events

    def _shuffled(self, train: EncodedSessions, order: np.random.Generator) -> Iterator[BatchTensors]:
        return (to_tensors(batch) for batch in batches(train, self.batch_sessions, order))

    @torch.no_grad()
    def _validate(self, fixed: list[BatchTensors], validation: EncodedSessions) -> tuple[float, float]:
        """Value to be minimised, and prec@1 in percent."""
        self.network.eval()
        outputs = [self.network(batch) for batch in fixed]
        losses = [self._losses(scores, batch) for scores, batch in zip(outputs, fixed, strict=True)]
        scores = torch.cat(outputs).numpy()
        prec1 = validation_prec1(scores, validation)
        return (float(torch.cat(losses).mean()) if self.select == "loss" else -prec1), prec1

    @torch.no_grad()
    def _scores(self, batch: BatchTensors) -> Float64Array:
        scores: Tensor = self.network.eval()(batch)
        return scores.double().numpy()

    def _arrays(self) -> Arrays:
        return {f"net.{name}": value.numpy() for name, value in self.network.state_dict().items()}

    def _restore(self, arrays: Arrays) -> None:
        self.network = self._network()
        state = {name[4:]: torch.from_numpy(value) for name, value in arrays.items() if name.startswith("net.")}
        self.network.load_state_dict(state)


def choice_nll(scores: Tensor, batch: BatchTensors, outside: bool) -> Tensor:
    """−log softmax over the display set of the choice (collaborative competitive filtering), shape (n_events,)."""
    total = segment_logsumexp(scores, batch.display_offsets, outside)
    chosen = scores.new_zeros(batch.n_events).index_copy(0, batch.clicked, scores[batch.chosen])
    return total - chosen


def logistic_nll(scores: Tensor, batch: BatchTensors) -> Tensor:
    """Sum over each display set of the binary cross-entropy of "was chosen", shape (n_events,)."""
    labels = torch.zeros_like(scores).index_fill(0, batch.chosen, 1.0)
    losses = nn.functional.binary_cross_entropy_with_logits(scores, labels, reduction="none")
    sizes = torch.diff(batch.display_offsets).long()
    event = torch.repeat_interleave(torch.arange(batch.n_events), sizes)
    return losses.new_zeros(batch.n_events).index_add(0, event, losses)

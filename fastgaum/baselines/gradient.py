"""GradientBaseline: baselines that are torch modules, trained by one short loop with early stop on
validation; and the choices before an event as fixed-size features, for networks without a recurrent
state."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from fastgaum.baselines.base import Arrays, Baseline, Float64Array, Rows, validation_prec1
from fastgaum.baselines.field_columns import SPEED_OF_FEW, has_few_values
from fastgaum.config import Count, CountFromOne, NotNegative, Positive, Probability
from fastgaum.errors import NumericsError, StepRefusedError
from fastgaum.features.batches import batches
from fastgaum.features.sessions import EncodedSessions
from fastgaum.features.space import FeatureSpace
from fastgaum.features.vocabulary import CategoricalField
from fastgaum.game.guard import Guard
from fastgaum.nets.bags import IdDropout, bag_sum
from fastgaum.nets.segments import segment_logsumexp
from fastgaum.nets.tensors import Bags, BatchTensors, to_tensors

RATE_OF_FEW = 0.05
"""id dropout of a field of few values at most"""
FEWEST_STEPS = 4
"""steps of an epoch at least: a log of 19 long sessions had one, and fits ended before they had
learned"""


@dataclass(eq=False)
class GradientBaseline(Baseline):
    """A baseline trained by AdamW. A subclass defines `_network`, and `_losses` unless it is a
    choice model.

    Every id may be replaced by its field's unknown row in training (id dropout), so that unknown
    items are trained. Ids of fields of few values, each seen often, are dropped seldom: what is
    dropped often has too small a weight."""

    epochs: CountFromOne = 300
    """at most so many epochs; `patience` ends a fit long before on most logs"""
    patience: CountFromOne = 8
    """stop after so many epochs without a better validation score"""
    select: Literal["loss", "prec@1"] = "loss"
    """the validation score that chooses the epoch"""
    batch_sessions: CountFromOne = 64
    """sessions per batch; fewer on a log of few sessions, so that an epoch has FEWEST_STEPS"""
    lr: Positive = 3e-3
    """learning rate"""
    weight_decay: NotNegative = 0.01
    """decoupled weight decay"""
    id_dropout: Probability = 0.3
    """probability that an id is replaced by its field's unknown row in a training step"""
    clip: Positive = 5.0
    """largest gradient norm"""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """a batch whose loss or gradient is not finite: stop, or skip the batch and go on"""
    most_skipped: Count = 10
    """with on_nonfinite = skip: one skipped batch more than so many in a fit, and training stops"""

    @abstractmethod
    def _network(self) -> nn.Module:
        """A fresh module for `self.space`; called with a BatchTensors it returns scores, shape
        (n_candidates,)."""

    def _losses(self, scores: Tensor, batch: BatchTensors) -> Tensor:
        """Loss of each event, shape (n_events,); by default the NLL of the choice within its
        display set (nats)."""
        return choice_losses(scores, batch, self.outside)

    def _fit(self, train: EncodedSessions, validation: EncodedSessions) -> Rows:
        assert self.space is not None
        self.network = self._network()
        steps = _Steps(
            self,
            self.network,
            dropouts(self.space, self.id_dropout),
        )
        guard = Guard(steps, self.network, self, train, self.session_name)
        order = np.random.default_rng(self.seed)
        fixed = list(self._batches(validation))
        rows: Rows = []
        best, best_state, waited = math.inf, copy.deepcopy(self.network.state_dict()), 0
        while len(rows) < self.epochs and waited < self.patience:
            loss = self._epoch(train, order, steps, guard, len(rows) + 1)
            value, prec1 = self._validate(fixed, validation)
            if not math.isfinite(value):
                raise NumericsError(
                    f"the validation loss of '{self.name}' is {value} after epoch {len(rows) + 1}: "
                    "lower lr or clip"
                )
            skipped, at_fault = guard.of_epoch()
            better = value < best
            if better:
                guard.check_weights(f"after epoch {len(rows) + 1}")
                best, best_state = value, copy.deepcopy(self.network.state_dict())
            waited = 0 if better else waited + 1
            rows.append(
                {
                    "epoch": len(rows) + 1,
                    "loss": loss,
                    "val_loss": value,
                    "val_prec1": prec1,
                    "best": better,
                    "skipped": skipped,
                    "at_fault": at_fault,
                }
            )
        self.network.load_state_dict(best_state)
        return rows

    def _epoch(
        self,
        train: EncodedSessions,
        order: np.random.Generator,
        steps: _Steps,
        guard: Guard,
        epoch: int,
    ) -> float:
        self.network.train()
        total, n_events = 0.0, 0
        size = min(self.batch_sessions, max(1, train.n_sessions // FEWEST_STEPS))
        for done, drawn in enumerate(batches(train, size, order), start=1):
            batch = to_tensors(drawn)
            loss = guard.step(steps, batch, f"epoch {epoch}, batch {done}")
            if loss is not None:
                total += loss * batch.n_events
                n_events += batch.n_events
        return total / n_events if n_events else math.nan

    @torch.no_grad()
    def _validate(
        self, fixed: list[BatchTensors], validation: EncodedSessions
    ) -> tuple[float, float]:
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
        state = {
            name[4:]: torch.from_numpy(value)
            for name, value in arrays.items()
            if name.startswith("net.")
        }
        self.network.load_state_dict(state)


class _Steps:
    """AdamW steps of one fit; a step that is refused moves nothing."""

    def __init__(
        self, model: GradientBaseline, network: nn.Module, drops: Sequence[IdDropout]
    ) -> None:
        self.model, self.network, self.drops = model, network, drops
        self.optimiser = torch.optim.AdamW(
            network.parameters(), lr=model.lr, weight_decay=model.weight_decay, fused=True
        )
        self.frozen = False

    def freeze(self, frozen: bool) -> None:
        """Let steps look at losses and gradients and move nothing, or move again."""
        self.frozen = frozen

    def __call__(self, batch: BatchTensors) -> float:
        """One step; returns the mean loss. Raises StepRefusedError for a loss or a gradient that is
        not finite."""
        dropped = batch
        for drop in self.drops:
            dropped = replace(
                dropped,
                candidates=drop(dropped.candidates),
                tokens=drop(dropped.tokens),
                context=drop(dropped.context),
            )
        mean = self.model._losses(self.network(dropped), batch).mean()
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(mean)
        loss, norm = float(mean.detach()), self._clip()
        if not math.isfinite(loss):
            raise StepRefusedError(f"the loss is {loss}")
        if not math.isfinite(norm):
            raise StepRefusedError(f"the norm of the gradient is {norm}")
        if not self.frozen:
            self.optimiser.step()
        return loss

    def _clip(self) -> float:
        """Scale the gradient down to the largest norm allowed; returns the norm it had."""
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        norm = float(nn.utils.get_total_norm(gradients))
        if not math.isfinite(norm):
            # squares of float32 overflow from 1e19 on
            norm = float(nn.utils.get_total_norm([gradient.double() for gradient in gradients]))
        if self.model.clip < norm < math.inf:
            torch._foreach_mul_(gradients, self.model.clip / (norm + 1e-6))
        return norm


class FieldWeights(nn.Module):
    """Weights of each value of the fields of few values; they learn `SPEED_OF_FEW` times as fast
    as other weights, since each is seen so often that it is known sooner than the fit of the items
    has to stop. Nothing where there is no such field."""

    few: Tensor

    def __init__(self, space: FeatureSpace, out: int = 1) -> None:
        super().__init__()
        few = torch.from_numpy(ids_of_few(space))
        self.weights = nn.Parameter(torch.zeros(space.n_ids, out)) if few.any() else None
        self.register_buffer("few", few.float(), persistent=False)

    def add_to(self, scores: Tensor, bags: Bags) -> Tensor:
        """The scores and the sum of the weights of each bag, (n_bags,) or (n_bags, out)."""
        if self.weights is None:
            return scores
        speed = SPEED_OF_FEW * self.few[bags.ids.long()]
        sums = bag_sum(self.weights, bags.ids, bags.offsets, speed)
        return scores + sums.view(scores.shape)


def ids_of_few(space: FeatureSpace) -> np.ndarray:
    """Whether each id is of a field of few values, bool, (n_ids,)."""
    few = np.zeros(space.n_ids, dtype=bool)
    for part in (*space.categorical, *space.context):
        # a context field that holds items has the items' ids
        if part.source != "context_item":
            few[part.start : part.stop] = is_few(part)
    return few


def is_few(part: CategoricalField) -> bool:
    """Whether a field other than the items has few values."""
    return part.source not in ("item", "context_item") and has_few_values(part)


def dropouts(space: FeatureSpace, rate: float) -> list[IdDropout]:
    """What drops ids of a space in training: first those of items and of fields of many values,
    then those of fields of few."""
    own, few = np.arange(space.n_ids, dtype=np.int32), ids_of_few(space)
    drops = [(np.where(few, own, space.unknown_of_id), rate)]
    if few.any():
        drops.append((np.where(few, space.unknown_of_id, own), min(rate, RATE_OF_FEW)))
    return [IdDropout(torch.from_numpy(unknown), of_ids) for unknown, of_ids in drops]


def choice_losses(scores: Tensor, batch: BatchTensors, outside: bool) -> Tensor:
    """−log softmax over the display set of the choice (collaborative competitive filtering), shape
    (n_events,)."""
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


def mean_of_choices(embedded: Tensor, batch: BatchTensors) -> Tensor:
    """Mean over the choices before each event of their tokens' vectors, zeros before the first,
    shape (n_events, d).

    embedded (n_tokens, d). O(n_tokens): running sums, in float64 so that a session does not feel
    the others before it.

    One session, tokens [1.], [3.] → events 0, 1, 2 read [0.], [1.], [2.].
    """
    offsets = batch.token_offsets.long()
    running = torch.cat([embedded.new_zeros(1, embedded.shape[1]), embedded]).double().cumsum(0)
    lengths = torch.diff(offsets)
    start = torch.repeat_interleave(offsets[:-1], lengths)
    stop = torch.arange(1, len(embedded) + 1)
    means = (running[1:] - running[start]) / (stop - start)[:, None]
    zeros = embedded.new_zeros(batch.n_events, embedded.shape[1])
    return zeros.index_copy(0, batch.later_events, means.to(embedded.dtype))


def last_choices(batch: BatchTensors) -> Tensor:
    """Item id of the choice before each event (0 is no click), −1 before the first, int64, shape
    (n_events,)."""
    nothing = torch.full((batch.n_events,), -1, dtype=torch.int64)
    return nothing.index_copy(0, batch.later_events, item_ids(batch.tokens))


def item_ids(bags: Bags) -> Tensor:
    """The item of each bag, its first id, int64, shape (n_bags,)."""
    return bags.ids[bags.offsets[:-1].long()].long()

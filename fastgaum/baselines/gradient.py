"""GradientBaseline: torch modules, trained by one loop with early stop on validation; and the
choices before an event as fixed-size features."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from fastgaum.arrays import Float64Array
from fastgaum.baselines.base import (
    Arrays,
    Baseline,
    Link,
    SettingRows,
    Values,
    validation_nll,
    validation_prec1,
)
from fastgaum.baselines.field_columns import ids_of_few
from fastgaum.config import CountFromOne, NotNegative, Positive, Probability
from fastgaum.errors import NumericsError
from fastgaum.features.sessions import EncodedSessions
from fastgaum.features.space import FeatureSpace
from fastgaum.game.game import AVERAGES, averaged_share
from fastgaum.game.losses import exact_loss
from fastgaum.nets.bags import IdDropout
from fastgaum.nets.batches import Batch, batches
from fastgaum.nets.regularisers import Shannon
from fastgaum.nets.segments import segment_sum
from fastgaum.nets.tensors import Bags, float32_on

RATE_OF_FEW = 0.05
"""id dropout of a field of few values at most"""
BATCH_SESSIONS, FEWEST_STEPS = 64, 4
"""sessions of a batch; fewer where an epoch would have fewer steps: fits of few long sessions would
end too early"""
PATIENCE = 4
"""epochs without a better validation score, after which a fit stops"""
LARGEST_NORM = 5.0
"""of a gradient"""


@dataclass(eq=False)
class GradientBaseline(Baseline):
    """A baseline trained by AdamW, whose open settings are chosen by the lowest validation score. A
    subclass defines `_network`, and `_losses` unless it is a choice model.

    In training, id dropout puts a field's unknown row in an id's place. Ids of fields of few values
    are dropped seldom."""

    epochs: CountFromOne = 300
    """at most so many"""
    select: ClassVar[str] = "loss"
    lr: Positive = 3e-3
    weight_decay: NotNegative = 0.01
    """decoupled"""
    id_dropout: Probability | None = 0.3
    """probability that a training step replaces an id by its field's unknown row"""

    @abstractmethod
    def _network(self) -> nn.Module:
        """A fresh module for `self.space`, from a Batch to scores, shape (n_candidates,)."""

    def _losses(self, scores: Tensor, batch: Batch) -> Tensor:
        """Loss of each event, shape (n_events,); by default the NLL of the choice (nats)."""
        return exact_loss(scores, batch, Shannon(), 1.0, self.no_click)

    def _fit(self, train: EncodedSessions, validation: EncodedSessions) -> SettingRows:
        """Choose one setting after the other, each with the others as they are best so far."""
        fixed, rows, tried = list(self._batches(validation)), list[Values](), list[Values]()
        best, grids = math.inf, self.open_grids()
        chosen = {name: grid[0] for name, grid in grids.items()}
        for name, grid in grids.items() or [("", (None,))]:
            for value in grid:
                self.chosen = chosen | ({name: value} if name else {})
                if self.chosen in tried:
                    continue
                tried.append(self.chosen)
                torch.manual_seed(self.seed)
                network, epochs = self._best_network(train, validation, fixed)
                rows += [self.chosen | row for row in epochs]
                least = min(row["val_loss"] for row in epochs)
                if least < best:
                    best, kept, chosen = least, network, self.chosen
        self.network, self.chosen, self.settings_tried = kept, chosen, len(tried)
        return [row | {"best": row["val_loss"] == best} for row in rows]

    def _best_network(
        self, train: EncodedSessions, validation: EncodedSessions, fixed: list[Batch]
    ) -> tuple[nn.Module, SettingRows]:
        """The network of the best epoch, and a row for each epoch."""
        assert self.space is not None
        with float32_on():
            self.network = self._network()
        rate = float(self.chosen.get("id_dropout", self.id_dropout) or 0.0)
        drops = dropouts(self.space, rate)
        optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=self.lr, weight_decay=self.weight_decay, fused=True
        )
        order = np.random.default_rng(self.seed)
        size = min(BATCH_SESSIONS, max(1, train.n_sessions // FEWEST_STEPS))
        n_batches = -(-train.n_sessions // size)
        shares = min(AVERAGES, n_batches)

        def averaged(average: Tensor, value: Tensor, before: Tensor | int) -> Tensor:
            return average.lerp(value, averaged_share(int(before) + 1, shares))

        average = AveragedModel(self.network, torch.device("cpu"), averaged)
        stepped = self.network
        # a loss of its own scale says nothing across settings that change the loss
        link = None if self.fit_link else Link()
        rows: SettingRows = []
        best, weights, waited = math.inf, copy.deepcopy(self.network.state_dict()), 0
        while len(rows) < self.epochs and waited < PATIENCE:
            self.network = stepped.train()
            losses, epoch = list[float](), len(rows) + 1
            for done, drawn in enumerate(batches(train, size, order), start=1):
                where = f"in epoch {epoch}, batch {done}"
                losses.append(self._step(optimiser, drops, drawn, where))
                if done * shares % n_batches < shares:
                    average.update_parameters(stepped)
            self.network = average.module
            scores = np.concatenate([self._scores(batch) for batch in fixed])
            value = validation_nll(scores, validation, self.no_click, link)
            if not math.isfinite(value):
                raise NumericsError(
                    f"the validation loss of '{self.name}' is {value} after epoch {epoch}: lower lr"
                )
            waited += 1
            if value < best:
                best, weights, waited = value, copy.deepcopy(self.network.state_dict()), 0
            row = {"epoch": epoch, "loss": sum(losses) / train.n_events, "val_loss": value}
            rows.append(row | {"val_prec1": validation_prec1(scores, validation)})
        self.network.load_state_dict(weights)
        return self.network, rows

    def _step(
        self,
        optimiser: torch.optim.Optimizer,
        drops: Sequence[IdDropout],
        batch: Batch,
        where: str,
    ) -> float:
        """Take one step; returns the summed loss. Raises NumericsError: the loss or the gradient is
        not finite; nothing has moved."""
        dropped = batch
        for drop in drops:
            dropped = replace(
                dropped,
                candidates=drop(dropped.candidates),
                tokens=drop(dropped.tokens),
                context=drop(dropped.context),
            )
        loss = batch.weighted(self._losses(self.network(dropped), batch)).mean()
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), LARGEST_NORM)
        for name, value in (("loss", loss.detach()), ("norm of the gradient", norm)):
            if not value.isfinite():
                raise NumericsError(
                    f"the {name} of '{self.name}' is {float(value)} {where}: check the numbers of "
                    "the log, or lower lr"
                )
        optimiser.step()
        return float(loss.detach()) * batch.n_events

    @torch.no_grad()
    def _scores(self, batch: Batch) -> Float64Array:
        scores: Tensor = self.network.eval()(batch)
        return scores.double().numpy()

    def _arrays(self) -> Arrays:
        return {name: value.numpy() for name, value in self.network.state_dict().items()}

    def _restore(self, arrays: Arrays) -> None:
        with float32_on():
            self.network = self._network()
        self.network.load_state_dict({name: torch.from_numpy(one) for name, one in arrays.items()})


def dropouts(space: FeatureSpace, rate: float) -> list[IdDropout]:
    """Id dropouts of training: of items and fields of many values, then of fields of few."""
    own, few = np.arange(space.n_ids, dtype=np.int32), ids_of_few(space)
    drops = [(np.where(few, own, space.unknown_of_id), rate)]
    if few.any():
        drops.append((np.where(few, space.unknown_of_id, own), min(rate, RATE_OF_FEW)))
    return [IdDropout(torch.from_numpy(unknown), of_ids) for unknown, of_ids in drops]


def logistic_nll(scores: Tensor, batch: Batch) -> Tensor:
    """Binary cross-entropy of "was chosen", summed over each display set, shape (n_events,)."""
    labels = torch.zeros_like(scores).index_fill(0, batch.chosen, 1.0)
    losses = nn.functional.binary_cross_entropy_with_logits(scores, labels, reduction="none")
    return segment_sum(losses, batch.display_offsets)


def mean_of_choices(embedded: Tensor, batch: Batch) -> Tensor:
    """Mean over the choices before each event of their tokens' vectors, zeros before the first,
    shape (n_events, d); embedded (n_tokens, d).

    One session, tokens [1.], [3.] → events 0, 1, 2 read [0.], [1.], [2.]."""
    offsets = batch.token_offsets.long()
    running = torch.cat([embedded.new_zeros(1, embedded.shape[1]), embedded]).double().cumsum(0)
    lengths = torch.diff(offsets)
    start = torch.repeat_interleave(offsets[:-1], lengths)
    stop = torch.arange(1, len(embedded) + 1, device="cpu")
    means = (running[1:] - running[start]) / (stop - start)[:, None]
    zeros = embedded.new_zeros(batch.n_events, embedded.shape[1])
    return zeros.index_copy(0, batch.later_events, means.to(embedded.dtype))


def last_choices(batch: Batch) -> Tensor:
    """Item id of the choice before each event (0: no click, −1: none), int64, shape (n_events,)."""
    nothing = torch.full((batch.n_events,), -1, dtype=torch.int64, device="cpu")
    return nothing.index_copy(0, batch.later_events, item_ids(batch.tokens))


def item_ids(bags: Bags) -> Tensor:
    """The item of each bag, its first id, int64, shape (n_bags,)."""
    return bags.ids[bags.offsets[:-1].long()].long()

"""S-RNN: the session RNN GRU4Rec, scored on the display set.

Hidasi, Karatzoglou, Baltrunas & Tikk, "Session-based recommendations with recurrent neural
networks", ICLR 2016; Hidasi & Karatzoglou, "Recurrent neural networks with top-k gains for
session-based recommendations", CIKM 2018."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from fastgaum.arrays import Float64Array
from fastgaum.baselines.base import Grids, SettingRows, validation_nll
from fastgaum.baselines.gradient import GradientBaseline, item_ids
from fastgaum.config import Probability, Width
from fastgaum.features.encoder import N_RESERVED
from fastgaum.features.sessions import UNKNOWN_ITEM_ID, EncodedSessions
from fastgaum.nets.batches import Batch
from fastgaum.nets.histories import HistoryEncoder
from fastgaum.nets.segments import expand_to_candidates
from fastgaum.nets.sequences import time_major
from fastgaum.nets.tensors import Bags

ALL_ITEMS, NEGATIVES = 4096, 2048
"""items up to which all are negatives of each choice, and how many are drawn of more"""


@dataclass(eq=False)
class SessionRnn(GradientBaseline):
    """A GRU over the chosen items; score(a) = state · embedding of a + bias of a, trained to name
    the next item of the catalogue by cross-entropy.

    Chosen here: an item is a negative as often as it was displayed; with at most ALL_ITEMS items
    each is one, weighted by what sampling would have drawn; a session's first choice is trained and
    ranked from the zero state; all unseen items have one score, that of the best validation
    likelihood."""

    name: ClassVar[str] = "s-rnn"
    published_name: ClassVar[str | None] = "S-RNN"
    reads: ClassVar[tuple[str, ...]] = ("identity",)

    grids: ClassVar[Grids] = {"dim": (16, 32, 64), "dropout": (0.5, 0.2)}

    id_dropout: Probability | None = 0.1
    dim: Width | None = None
    """size of the state and of the output embeddings"""
    dropout: Probability | None = None
    """dropout of the state before it is scored"""

    def _network(self) -> nn.Module:
        assert self.space is not None
        counts = self.space.item_counts
        shares = counts.displays.astype(np.float64)
        network = _NextItem(shares / shares.sum(), **self.chosen)
        # the best biases without embeddings, smoothed as the click-rate floor: log choices per
        # expected negative
        with torch.no_grad():
            start = np.log((counts.choices + 0.3) / (shares + 1))
            network.bias[2:] = torch.from_numpy(start - start.mean()).float()
        return network

    def _fit(self, train: EncodedSessions, validation: EncodedSessions) -> SettingRows:
        rows = super()._fit(train, validation)
        scores = self._all_scores(validation)
        unknown = validation.ids[:, 0] == UNKNOWN_ITEM_ID

        def nll(value: float) -> float:
            return validation_nll(np.where(unknown, value, scores), validation, self.no_click)

        if unknown.any() and not unknown.all():
            # within the range of the known ones
            bounds = float(scores[~unknown].min()) - 1, float(scores[~unknown].max()) + 1
            best = minimize_scalar(nll, bounds=bounds, method="bounded", options={"maxiter": 25}).x
            assert isinstance(self.network, _NextItem)
            with torch.no_grad():
                self.network.bias[UNKNOWN_ITEM_ID] = float(best)
        return rows

    def _losses(self, scores: Tensor, batch: Batch) -> Tensor:
        # in training the network returns its states
        assert isinstance(self.network, _NextItem)
        return self.network.losses(scores, batch)


class _Gru(HistoryEncoder):
    """torch's GRU over a vector of each token's first id."""

    def __init__(self, n_ids: int, dim: int) -> None:
        super().__init__()
        self.state_dim = dim
        self.items = nn.Embedding(n_ids, dim)
        self.gru = nn.GRU(dim, dim)
        nn.init.normal_(self.items.weight, std=0.5 / math.sqrt(dim))

    def after_tokens(self, tokens: Bags, offsets: Tensor) -> Tensor:
        """State after each token."""
        _, running, order = time_major(offsets, tokens.n_bags)
        vectors = self.items(item_ids(tokens)[order])
        states: Tensor = self.gru(PackedSequence(vectors, torch.tensor(running, device="cpu")))[
            0
        ].data
        return states[torch.argsort(order)]


class _NextItem(nn.Module):
    """Rows are item ids of the feature space."""

    log_weights: Tensor
    """log of each item's share of negatives relative to uniform draws, shape (n_items,)"""
    cumulative: Tensor
    """cumulative probability of each item as a negative, float64, shape (n_items,)"""

    def __init__(self, shares: Float64Array, dim: int, dropout: float) -> None:
        super().__init__()
        self.n_items = len(shares)
        self.history = _Gru(self.n_items + N_RESERVED, dim)
        # small, as the shared table starts: the bias is learned first
        self.output = nn.Parameter(
            0.5 / math.sqrt(dim) * torch.randn(self.n_items + N_RESERVED, dim)
        )
        self.bias = nn.Parameter(torch.zeros(self.n_items + N_RESERVED))
        self.dropout = nn.Dropout(dropout)
        with np.errstate(divide="ignore"):
            log_weights = np.log(shares * self.n_items).astype(np.float32)
        self.register_buffer("log_weights", torch.from_numpy(log_weights), persistent=False)
        self.register_buffer("cumulative", torch.from_numpy(np.cumsum(shares)), persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """Scores of the candidates (n_candidates,); in training, states (n_events, dim)."""
        states: Tensor = self.dropout(self.history(batch))
        if self.training:
            return states
        ids = item_ids(batch.candidates)
        # an unknown item has no embedding that training could reach as an output: its bias alone
        known = (ids != UNKNOWN_ITEM_ID).to(states.dtype)
        of_candidates = expand_to_candidates(states, batch.display_offsets)
        return (of_candidates * self.output[ids]).sum(1) * known + self.bias[ids]

    def losses(self, states: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of the chosen item against negatives, 0 for no click, (n_events,)."""
        targets = item_ids(batch.candidates)[batch.chosen]
        asking = states[batch.clicked]
        score = self._scores_of_all if self.n_items <= ALL_ITEMS else self._scores_of_drawn
        logits, columns = score(asking, targets)
        losses = nn.functional.cross_entropy(logits, columns, reduction="none")
        return states.new_zeros(batch.n_events).index_copy(0, batch.clicked, losses)

    def _scores_of_all(self, asking: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted scores of every item, (n_clicked, n_items), and each target's column."""
        columns = targets - N_RESERVED
        logits = torch.addmm(
            self.bias[N_RESERVED:] + self.log_weights, asking, self.output[N_RESERVED:].T
        )
        # the target itself has no weight; its gradient is the same, so this may be done in place
        rows = torch.arange(len(targets), device="cpu")
        logits.index_put_((rows, columns), -self.log_weights[columns], accumulate=True)
        return logits, columns

    def _scores_of_drawn(self, asking: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of the target in column 0, then of drawn negatives, weighted as all items."""
        uniform = torch.rand(NEGATIVES, dtype=torch.float64, device="cpu")
        drawn = torch.searchsorted(self.cumulative, uniform)
        items = drawn.clamp(max=self.n_items - 1) + N_RESERVED
        log_weight = math.log(self.n_items / NEGATIVES)
        against = torch.addmm(self.bias[items] + log_weight, asking, self.output[items].T)
        against = against.masked_fill(items == targets[:, None], -torch.inf)
        positive = (asking * self.output[targets]).sum(1) + self.bias[targets]
        return torch.cat([positive[:, None], against], dim=1), torch.zeros_like(targets)

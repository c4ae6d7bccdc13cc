"""DFM: Guo, Tang, Ye, Li & He, "DeepFM: a factorization-machine based neural network for CTR
prediction", IJCAI 2017."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from fastgaum.baselines.base import Grids
from fastgaum.baselines.gradient import (
    GradientBaseline,
    logistic_nll,
    mean_of_choices,
)
from fastgaum.config import NotNegative, Probability, Width
from fastgaum.features.space import FeatureSpace
from fastgaum.nets.bags import BagLinear, bag_sum
from fastgaum.nets.batches import Batch
from fastgaum.nets.networks import context_sizes
from fastgaum.nets.segments import expand_to_candidates


@dataclass(eq=False)
class DeepFm(GradientBaseline):
    """score = linear + Σ_{i<j} ⟨v_i, v_j⟩ over the fields + a deep network over the same field
    vectors.

    Fields: each id of the bag (its embedding), each number (its embedding times its value), the
    context likewise, and the user, chosen here as the mean over the choices so far of the sum of
    their vectors."""

    name: ClassVar[str] = "dfm"
    published_name: ClassVar[str | None] = "DFM"
    grids: ClassVar[Grids] = {
        "loss": ("logistic", "choice"),
        "id_dropout": (0.8, 0.05),
        "dim": (16, 8, 32, 64),
        "dropout": (0.5, 0.3),
    }

    id_dropout: Probability | None = None
    loss: Literal["auto", "logistic", "choice"] = "auto"
    """logistic: each displayed item is an example; choice: each display set is one"""
    weight_decay: NotNegative = 0.1
    dim: Width | None = None
    """size of the field vectors"""
    dropout: Probability | None = None
    """of the deep part"""

    def _network(self) -> nn.Module:
        assert self.space is not None
        return _Network(self.space, self.chosen["dim"], self.chosen["dropout"])

    def _losses(self, scores: Tensor, batch: Batch) -> Tensor:
        logistic = self.chosen["loss"] == "logistic"
        return logistic_nll(scores, batch) if logistic else super()._losses(scores, batch)


class _Network(nn.Module):
    """Numbers are fields without being built."""

    def __init__(self, space: FeatureSpace, dim: int, dropout: float) -> None:
        super().__init__()
        n_ids, n_numbers, context = space.n_ids, space.n_numbers, context_sizes(space)
        self.shape = (len(space.categorical), n_numbers)
        n_context = context.n_fields + context.n_numbers
        self.linear = BagLinear(n_ids, n_numbers, 1, init_std=0.0)
        self.of_ids = nn.Parameter(torch.randn(n_ids, dim) * 0.1)
        self.of_numbers = nn.Parameter(torch.randn(n_numbers, dim) * 0.1)
        self.of_outcomes = nn.Parameter(torch.zeros(space.n_outcomes, dim))
        widths = (64, 64, 1)
        self.of_context_numbers = nn.Parameter(torch.randn(context.n_numbers, dim) * 0.1)
        # reads the field vectors side by side: ids, numbers, user, context
        n_fields = sum(self.shape) + 1 + n_context
        self.first = nn.Linear(n_fields * dim, widths[0])
        rest = [
            (nn.ReLU(), nn.Dropout(dropout), nn.Linear(below, above))
            for below, above in itertools.pairwise(widths)
        ]
        self.rest = nn.Sequential(*itertools.chain(*rest))

    def forward(self, batch: Batch) -> Tensor:
        """Scores, shape (n_candidates,)."""
        candidates, offsets = batch.candidates, batch.display_offsets
        ids = self.of_ids[candidates.ids.long().view(-1, self.shape[0])]
        tokens = bag_sum(self.of_ids, batch.tokens.ids, batch.tokens.offsets, None)
        of_numbers = torch.cat([self.of_numbers, self.of_outcomes])
        users = mean_of_choices(tokens + batch.tokens.numbers @ of_numbers, batch)
        context = self.of_ids[batch.context.ids.long().view(batch.n_events, -1)]
        numbers = batch.context_numbers[:, :, None] * self.of_context_numbers
        # fields that all candidates of an event share
        shared = torch.cat([users[:, None], context, numbers], 1)
        linear: Tensor = self.linear(candidates).squeeze(1)
        deep: Tensor = self.rest(
            self._first_layer(ids, candidates.numbers, shared, offsets)
        ).squeeze(1)
        second = self._second_order(ids, candidates.numbers, expand_to_candidates(shared, offsets))
        return linear + second + deep

    def _second_order(self, ids: Tensor, numbers: Tensor, shared: Tensor) -> Tensor:
        """Σ_{i<j} ⟨v_i, v_j⟩ over the fields, (n_candidates,): half of (the square of the sum − the
        sum of squares). Rendle, "Factorization machines", ICDM 2010.

        ids (n_candidates, n_categorical, dim), shared (n_candidates, n_shared, dim)."""
        total = ids.sum(1) + numbers @ self.of_numbers + shared.sum(1)
        squares = (
            ids.square().sum((1, 2))
            + numbers.square() @ self.of_numbers.square().sum(1)
            + shared.square().sum((1, 2))
        )
        return 0.5 * (total.square().sum(1) - squares)

    def _first_layer(self, ids: Tensor, numbers: Tensor, shared: Tensor, offsets: Tensor) -> Tensor:
        """The deep part's first layer, (n_candidates, hidden); shared (n_events, n_shared, dim)."""
        blocks = self.first.weight.view(self.first.out_features, -1, self.of_ids.shape[1])
        sizes = [*self.shape, shared.shape[1]]
        of_ids, of_numbers, of_shared = torch.split(blocks, sizes, dim=1)
        x = ids.flatten(1) @ of_ids.flatten(1).T + self.first.bias
        x = x + numbers @ torch.einsum("nd,hnd->nh", self.of_numbers, of_numbers)
        of_events = shared.flatten(1) @ of_shared.flatten(1).T
        first: Tensor = x + expand_to_candidates(of_events, offsets)
        return first

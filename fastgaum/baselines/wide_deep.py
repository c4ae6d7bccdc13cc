"""Wide & deep, with two losses: Cheng et al., "Wide & deep learning for recommender systems", DLRS
2016.

W&D-LR scores each item by itself, logistic, as in that paper. W&D-CCF is the same network under
Yang, Long, Smola, Zha & Zheng, "Collaborative competitive filtering: learning recommender using
context of user choice", SIGIR 2011: the items of a display compete, softmax over the display set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from fastgaum.baselines.base import Grids
from fastgaum.baselines.context_crosses import ContextCrosses, cross_rows
from fastgaum.baselines.gradient import (
    FieldWeights,
    GradientBaseline,
    item_ids,
    last_choices,
    logistic_nll,
    mean_of_choices,
)
from fastgaum.config import CountFromOne, NotNegative, Positive, Probability, Width, Widths
from fastgaum.features.space import FeatureSpace
from fastgaum.nets.bags import BagLinear, BagSizes
from fastgaum.nets.networks import Scorer, context_sizes
from fastgaum.nets.tensors import BatchTensors


@dataclass(eq=False)
class WideDeep(GradientBaseline):
    """score = wide + deep, trained together.

    Wide: linear over the candidate's ids and numbers, and one weight per hashed cross (last choice
    × candidate, event context × candidate). Deep: a ReLU network over the candidate's embedding and
    numbers beside the user's summary and the event's context. Chosen here, since the papers' user
    and app columns do not exist in these logs: the user is the mean embedding of the choices so
    far; one optimiser (AdamW) trains both parts, where the paper has FTRL with L1 for the wide one
    and AdaGrad for the deep one."""

    grids: ClassVar[Grids] = {"id_dropout": (0.8, 0.05)}

    id_dropout: Probability | None = None
    weight_decay: NotNegative = 0.1
    dim: Width = 8
    """size of the embeddings"""
    hidden: Widths = (64, 32)
    """widths of the deep part's hidden layers"""
    dropout: Probability = 0.5
    """dropout in the deep part"""
    crosses: CountFromOne = 4096
    """rows of the table that crosses are hashed to"""

    def _network(self) -> nn.Module:
        assert self.space is not None
        return _Network(self.space, self)


@dataclass(eq=False)
class WideDeepLr(WideDeep):
    """W&D-LR: each displayed item is a binary example, chosen or not."""

    name: ClassVar[str] = "wd-lr"
    published_name: ClassVar[str | None] = "W&D-LR"

    lr: Positive = 0.01

    def _losses(self, scores: Tensor, batch: BatchTensors) -> Tensor:
        return logistic_nll(scores, batch)


@dataclass(eq=False)
class WideDeepCcf(WideDeep):
    """W&D-CCF: each display set is one example, its candidates compete."""

    name: ClassVar[str] = "wd-ccf"
    published_name: ClassVar[str | None] = "W&D-CCF"
    fit_link: ClassVar[bool] = False

    dim: Width = 4
    dropout: Probability = 0.3


class _Network(nn.Module):
    def __init__(self, space: FeatureSpace, settings: WideDeep) -> None:
        super().__init__()
        n_ids, n_numbers = space.n_ids, space.n_numbers
        self.wide = BagLinear(n_ids, n_numbers, 1, 0, init_std=0.0)
        self.of_fields = FieldWeights(space)
        self.of_context = ContextCrosses(space)
        self.crosses = nn.Parameter(torch.zeros(settings.crosses))
        self.user = BagLinear(n_ids, n_numbers, settings.dim, 0, init_std=0.1)
        context = context_sizes(space)
        self.deep = Scorer(
            BagSizes(n_ids, n_numbers, settings.dim),
            settings.dim * (1 + context.n_fields) + context.n_numbers,
            settings.hidden,
            "relu",
            dropout=settings.dropout,
        )

    def forward(self, batch: BatchTensors) -> Tensor:
        """Scores, shape (n_candidates,)."""
        users = mean_of_choices(self.user(batch.tokens), batch)
        context = self.user.table[batch.context.ids.long()].reshape(batch.n_events, -1)
        states = torch.cat([users, context, batch.context_numbers], 1)
        scores: Tensor = self.deep(batch.candidates, states, batch.display_offsets)
        wide: Tensor = self.wide(batch.candidates).squeeze(1) + self._crossed(batch)
        scores = self.of_fields.add_to(scores + wide, batch.candidates)
        return self.of_context.add_to(scores, batch)

    def _crossed(self, batch: BatchTensors) -> Tensor:
        """Weight of each candidate's cross with the last choice, 0 before the first choice, shape
        (n_candidates,)."""
        last = torch.repeat_interleave(
            last_choices(batch), torch.diff(batch.display_offsets).long()
        )
        row = cross_rows(last, item_ids(batch.candidates), len(self.crosses))
        return self.crosses[row] * (last >= 0)

"""Wide & deep, with two losses: Cheng et al., "Wide & deep learning for recommender systems", DLRS
2016; W&D-CCF under the softmax over the display set of Yang, Long, Smola, Zha & Zheng,
"Collaborative competitive filtering: learning recommender using context of user choice", SIGIR
2011."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from fastgaum.baselines.base import Grids, Values
from fastgaum.baselines.field_columns import SPEED_OF_FEW, ids_of_few, is_few
from fastgaum.baselines.gradient import (
    GradientBaseline,
    item_ids,
    last_choices,
    logistic_nll,
    mean_of_choices,
)
from fastgaum.config import NotNegative, Positive, Probability, Width
from fastgaum.features.space import FeatureSpace
from fastgaum.nets.bags import BagLinear, BagSizes, SharedBagLinear, bag_sum
from fastgaum.nets.batches import Batch
from fastgaum.nets.networks import Scorer, context_sizes
from fastgaum.nets.segments import expand_to_candidates
from fastgaum.nets.tensors import Bags

CROSSES_OF_LAST, CROSSES_OF_CONTEXT = 4096, 1 << 18
"""rows of the tables that crosses are hashed to"""


@dataclass(eq=False)
class WideDeep(GradientBaseline):
    """score = wide + deep, trained together.

    Wide: linear over ids and numbers, and a weight per hashed cross (last choice × candidate,
    context × candidate). Deep: a ReLU network over the candidate, the user's summary and the
    context. Chosen here: the user is the mean embedding of the choices so far; AdamW trains both
    parts."""

    grids: ClassVar[Grids] = {
        "id_dropout": (0.8, 0.05),
        "dim": (8, 4, 32, 64),
        "dropout": (0.5, 0.3),
    }

    id_dropout: Probability | None = None
    weight_decay: NotNegative = 0.1
    dim: Width | None = None
    """of the embeddings"""
    dropout: Probability | None = None
    """of the deep part"""

    def _network(self) -> nn.Module:
        assert self.space is not None
        return _Network(self.space, self.chosen)


@dataclass(eq=False)
class WideDeepLr(WideDeep):
    """W&D-LR: each displayed item is a binary example."""

    name: ClassVar[str] = "wd-lr"
    published_name: ClassVar[str | None] = "W&D-LR"

    lr: Positive = 0.01

    def _losses(self, scores: Tensor, batch: Batch) -> Tensor:
        return logistic_nll(scores, batch)


@dataclass(eq=False)
class WideDeepCcf(WideDeep):
    """W&D-CCF: the candidates of a display set compete."""

    name: ClassVar[str] = "wd-ccf"
    published_name: ClassVar[str | None] = "W&D-CCF"
    fit_link: ClassVar[bool] = False


class _Network(nn.Module):
    def __init__(self, space: FeatureSpace, chosen: Values) -> None:
        super().__init__()
        n_ids, n_numbers, dim = space.n_ids, space.n_numbers, chosen["dim"]
        self.wide = BagLinear(n_ids, n_numbers, 1, init_std=0.0)
        self.of_fields = FieldWeights(space)
        self.of_context = ContextCrosses(space)
        self.crosses = nn.Parameter(torch.zeros(CROSSES_OF_LAST))
        self.user = BagLinear(n_ids, n_numbers + space.n_outcomes, dim, init_std=0.1)
        context = context_sizes(space)
        self.embedding = BagLinear(n_ids, 0, dim, init_std=0.1, bias=False)
        hidden = (64, 32)
        first = SharedBagLinear(self.embedding, n_numbers, hidden[0])
        self.deep = Scorer(
            BagSizes(n_ids, n_numbers),
            dim * (1 + context.n_fields) + context.n_numbers,
            hidden,
            "relu",
            dropout=chosen["dropout"],
            first=cast(BagLinear, first),
        )

    def forward(self, batch: Batch) -> Tensor:
        """Scores, shape (n_candidates,)."""
        users = mean_of_choices(self.user(batch.tokens), batch)
        context = self.user.table[batch.context.ids.long()].reshape(batch.n_events, -1)
        states = torch.cat([users, context, batch.context_numbers], 1)
        scores: Tensor = self.deep(batch.candidates, states, batch.display_offsets)
        # a cross with the last choice, none before the first
        last = expand_to_candidates(last_choices(batch), batch.display_offsets)
        row = cross_rows(last, item_ids(batch.candidates), len(self.crosses))
        wide: Tensor = self.wide(batch.candidates).squeeze(1) + self.crosses[row] * (last >= 0)
        scores = self.of_fields.add_to(scores + wide, batch.candidates)
        return self.of_context.add_to(scores, batch)


class FieldWeights(nn.Module):
    """Weights of the values of fields of few values, which learn `SPEED_OF_FEW` times as fast as
    others."""

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


class ContextCrosses(nn.Module):
    """A hashed weight of each context value with each id; a linear map of the bag for each context
    number; the context's own weights, which count against no click."""

    speeds: Tensor

    def __init__(self, space: FeatureSpace) -> None:
        super().__init__()
        sizes, self.n_columns = context_sizes(space), len(space.categorical)
        few = [SPEED_OF_FEW if is_few(part) else 1.0 for part in space.context]
        self.register_buffer("speeds", torch.tensor(few, dtype=torch.float32), persistent=False)
        self.crosses = self.of_ids = self.by_number = self.of_numbers = None
        if sizes.n_fields:
            self.crosses = nn.Parameter(torch.zeros(CROSSES_OF_CONTEXT))
            self.of_ids = nn.Parameter(torch.zeros(space.n_ids))
        if sizes.n_numbers:
            self.by_number = BagLinear(space.n_ids, space.n_numbers, sizes.n_numbers, 0.0)
            self.by_number_of_few = FieldWeights(space, sizes.n_numbers)
            self.of_numbers = nn.Parameter(torch.zeros(sizes.n_numbers))

    def add_to(self, scores: Tensor, batch: Batch) -> Tensor:
        """The scores and what the context adds to them, (n_candidates,)."""
        offsets = batch.display_offsets
        if self.crosses is not None and self.of_ids is not None:
            context = batch.context.ids.long().view(batch.n_events, -1)
            of_events = (self.of_ids[context] * self.speeds).sum(1)
            ids = batch.candidates.ids.long().view(-1, 1, self.n_columns)
            left = expand_to_candidates(context, offsets)[:, :, None]
            weights = self.crosses[cross_rows(left, ids, CROSSES_OF_CONTEXT)].sum(2)
            scores = scores + (weights * self.speeds).sum(1)
            scores = scores + expand_to_candidates(of_events, offsets)
        if self.by_number is not None and self.of_numbers is not None:
            numbers = expand_to_candidates(batch.context_numbers, offsets)
            weights = self.by_number(batch.candidates) + self.of_numbers
            weights = self.by_number_of_few.add_to(weights, batch.candidates)
            scores = scores + (numbers * weights).sum(1)
        return scores


def cross_rows(left: Tensor, right: Tensor, n_rows: int) -> Tensor:
    """A row in [0, n_rows) for each pair of ids, by multiplicative hashing, int64."""
    # 64-bit products wrap around; the high bits are the well-mixed ones
    mixed = (left * 0x9E3779B1 + right) * 0x2545F4914F6CDD1D
    return (mixed >> 33) % n_rows

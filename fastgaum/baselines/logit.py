"""Linear conditional logit: McFadden, "Conditional logit analysis of qualitative choice behavior",
1974.

utility(a) = Σ_f w_f over the ids of a's bag + w · numbers; choice by softmax over the display set.
It has no history
encoder: under `identity` it is one weight per item, under `bags` the row of protocol.md with the
same numbers as ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from fastgaum.baselines.context_crosses import ContextCrosses
from fastgaum.baselines.gradient import FieldWeights, GradientBaseline
from fastgaum.config import Probability
from fastgaum.features.space import FeatureSpace
from fastgaum.nets.bags import BagLinear
from fastgaum.nets.tensors import BatchTensors


@dataclass(eq=False)
class ConditionalLogit(GradientBaseline):
    """The linear choice model. Strong id dropout keeps rare items' weights from standing in for the
    numbers."""

    name: ClassVar[str] = "logit"
    fit_link: ClassVar[bool] = False

    id_dropout: Probability = 0.5

    def _network(self) -> nn.Module:
        assert self.space is not None
        return _Linear(self.space)


class _Linear(nn.Module):
    def __init__(self, space: FeatureSpace) -> None:
        super().__init__()
        self.weights = BagLinear(space.n_ids, space.n_numbers, 1, 0, init_std=0.0)
        self.of_fields = FieldWeights(space)
        self.of_context = ContextCrosses(space)

    def forward(self, batch: BatchTensors) -> Tensor:
        scores: Tensor = self.weights(batch.candidates).squeeze(1)
        scores = self.of_fields.add_to(scores, batch.candidates)
        return self.of_context.add_to(scores, batch)

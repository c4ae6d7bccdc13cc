"""DFM: Guo, Tang, Ye, Li & He, "DeepFM: a factorization-machine based neural network for CTR prediction", IJCAI 2017."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from fastgaum.baselines.choices_so_far import mean_of_choices
from fastgaum.baselines.gradient import choice_nll, logistic_nll
from fastgaum.baselines.linked import LinkedGradientBaseline
from fastgaum.errors import ConfigError
from fastgaum.models.scorers import BagLinear
from fastgaum.models.tensors import Bags, BatchTensors
from fastgaum.ops.bags import bag_sum
from fastgaum.ops.segments import expand_to_candidates


@dataclass(eq=False)
class DeepFm(LinkedGradientBaseline):
    """score = linear + Σ_{i<j} ⟨v_i, v_j⟩ over the fields + a deep network over the same field vectors.

    Fields: each id of the candidate's bag (its embedding), each number (its embedding times its value), and the user. Chosen
    here, since the paper's user columns do not exist in these logs: the user's field is the mean over the choices so far of
    the sum of their field vectors, from the same embeddings. The paper's loss is logistic; `loss` offers the softmax over
    the display set too.
    """

    name: ClassVar[str] = "dfm"
    published_name: ClassVar[str | None] = "DFM"

    loss: Literal["logistic", "choice"] = "logistic"
    """logistic: each displayed item is an example; choice: each display set is one"""
    dim: int = 8
    """size of the field vectors"""
    hidden: tuple[int, ...] = (64, 64)
    """widths of the deep part's hidden layers"""
    dropout: float = 0.5
    """dropout in the deep part"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.dim, *self.hidden) < 1 or not self.hidden:
            raise ConfigError(f"dim and every hidden width must be at least 1, got {self.dim}, {self.hidden}")

    def _network(self) -> nn.Module:
        assert self.space is not None
        return _Network(self.space.n_ids, len(self.space.categorical), self.space.n_numbers, self)

    def _losses(self, scores: Tensor, batch: BatchTensors) -> Tensor:
        return logistic_nll(scores, batch) if self.loss == "logistic" else choice_nll(scores, batch, self.outside)


class _Network(nn.Module):
    def __init__(self, n_ids: int, n_categorical: int, n_numbers: int, settings: DeepFm) -> None:
        super().__init__()
        self.n_categorical = n_categorical
        self.linear = BagLinear(n_ids, n_numbers, 1, 0, init_std=0.0)
        self.of_ids = nn.Parameter(torch.randn(n_ids, settings.dim) * 0.1)
        self.of_numbers = nn.Parameter(torch.randn(n_numbers, settings.dim) * 0.1)
        widths = ((n_categorical + n_numbers + 1) * settings.dim, *settings.hidden)
        layers = [(nn.Linear(a, b), nn.ReLU(), nn.Dropout(settings.dropout)) for a, b in itertools.pairwise(widths)]
        self.deep = nn.Sequential(*itertools.chain(*layers), nn.Linear(widths[-1], 1))

    def forward(self, batch: BatchTensors) -> Tensor:
        """Scores, shape (n_candidates,)."""
        fields = self._fields(batch)
        first_order: Tensor = self.linear(batch.candidates).squeeze(1)
        deep: Tensor = self.deep(fields.flatten(1)).squeeze(1)
        return first_order + second_order(fields) + deep

    def _fields(self, batch: BatchTensors) -> Tensor:
        """Field vectors of each candidate, shape (n_candidates, n_fields, dim)."""
        candidates = batch.candidates
        ids = self.of_ids[candidates.ids.long().view(-1, self.n_categorical)]
        numbers = candidates.numbers[:, :, None] * self.of_numbers
        users = expand_to_candidates(mean_of_choices(self._summed(batch.tokens), batch), batch.display_offsets)
        return torch.cat([ids, numbers, users[:, None]], dim=1)

    def _summed(self, tokens: Bags) -> Tensor:
        """Sum of the field vectors of each token, shape (n_tokens, dim)."""
        return bag_sum(self.of_ids, tokens.ids, tokens.offsets, None) + tokens.numbers @ self.of_numbers


def second_order(fields: Tensor) -> Tensor:
    """Σ_{i<j} ⟨v_i, v_j⟩ over the fields (Rendle, "Factorization machines", ICDM 2010), (n, n_fields, d) → (n,).

    In O(n_fields · d): half of (the square of the sum − the sum of squares).
    """
    return 0.5 * (fields.sum(1).square() - fields.square().sum(1)).sum(1)

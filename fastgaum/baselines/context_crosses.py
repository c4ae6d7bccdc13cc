"""The context of an event in models whose scores are sums: weights of pairs.

What all candidates of an event share says nothing of which one is chosen, so context enters as
crosses, each a value of the context with a value of the candidate."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastgaum.baselines.field_columns import SPEED_OF_FEW, is_few
from fastgaum.baselines.gradient import FieldWeights
from fastgaum.features.space import FeatureSpace
from fastgaum.nets.bags import BagLinear
from fastgaum.nets.networks import context_sizes
from fastgaum.nets.segments import expand_to_candidates
from fastgaum.nets.tensors import BatchTensors

N_CROSSES = 1 << 18
"""rows of the table that crosses are hashed to"""


class ContextCrosses(nn.Module):
    """A weight of each context field's value with each id of the candidate, hashed; of each
    context number a linear map of the candidate's bag; and weights of the context by itself, which
    count against no click. Nothing where the log has no context.

    Weights of a context field of few values learn `SPEED_OF_FEW` times as fast as others."""

    speeds: Tensor

    def __init__(self, space: FeatureSpace) -> None:
        super().__init__()
        sizes, self.n_columns = context_sizes(space), len(space.categorical)
        few = [SPEED_OF_FEW if is_few(part) else 1.0 for part in space.context]
        self.register_buffer("speeds", torch.tensor(few), persistent=False)
        self.crosses = self.of_ids = self.by_number = self.of_numbers = None
        if sizes.n_fields:
            self.crosses = nn.Parameter(torch.zeros(N_CROSSES))
            self.of_ids = nn.Parameter(torch.zeros(space.n_ids))
        if sizes.n_numbers:
            self.by_number = BagLinear(space.n_ids, space.n_numbers, sizes.n_numbers, 0, 0.0)
            self.by_number_of_few = FieldWeights(space, sizes.n_numbers)
            self.of_numbers = nn.Parameter(torch.zeros(sizes.n_numbers))

    def add_to(self, scores: Tensor, batch: BatchTensors) -> Tensor:
        """The scores and what the context adds to them, (n_candidates,)."""
        offsets = batch.display_offsets
        if self.crosses is not None and self.of_ids is not None:
            context = batch.context.ids.long().view(batch.n_events, -1)
            of_event = (self.of_ids[context] * self.speeds).sum(1)
            ids = batch.candidates.ids.long().view(-1, 1, self.n_columns)
            left = expand_to_candidates(context, offsets)[:, :, None]
            weights = self.crosses[cross_rows(left, ids, N_CROSSES)].sum(2)
            scores = scores + (weights * self.speeds).sum(1)
            scores = scores + expand_to_candidates(of_event[:, None], offsets).squeeze(1)
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

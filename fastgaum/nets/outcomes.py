"""OutcomeHead: what will follow if a candidate is chosen, E[y | chosen, state] or P(y | chosen,
state).

It reads the states of the choice networks and gives them no gradient: choices are the same with
and without it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastgaum.nets.bags import BagLinear
from fastgaum.nets.segments import expand_to_candidates
from fastgaum.nets.tensors import Bags

N_QUANTILES = 101
"""of the residuals of a number, from which worlds draw"""


class OutcomeHead(nn.Module):
    """One hidden layer on [state; bag], and a linear path from the bag."""

    by_item: Tensor
    """what followed choices of the item in training, by its id, shrunk: means of standardised
    numbers, logarithms of shares, (n_ids, n_columns)"""
    usual: Tensor
    """the same of an item that training never chose, (n_columns,)"""
    quantiles: Tensor
    """of the residuals of validation, standardised, (N_QUANTILES, n_columns)"""
    slope: Tensor
    offset: Tensor
    """what calibrates numbers, by validation: slope · output + offset, (n_columns,)"""
    trust: Tensor
    """share of the output in the probabilities of a category, the rest being training's shares,
    (n_columns,)"""

    ridge: Tensor
    """a rival of numbers: weights of the candidate's numbers, and of 1, (n_numbers + 1, n_columns)
    """

    def __init__(
        self,
        n_ids: int,
        n_numbers: int,
        state_dim: int,
        widths: Sequence[int],
        hidden: int = 32,
        dropout: float = 0.2,
    ) -> None:
        """widths: columns of each outcome, 1 of a number."""
        super().__init__()
        n = sum(widths)
        self.first = BagLinear(n_ids, n_numbers, hidden, 0.1)
        self.from_state = nn.Linear(state_dim, hidden, bias=False)
        self.out = nn.Linear(hidden, n)
        self.wide = BagLinear(n_ids, n_numbers, n, 0.0)
        # begins as the item's mean
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("by_item", torch.zeros(n_ids, n))
        self.register_buffer("usual", torch.zeros(n))
        self.register_buffer("quantiles", torch.zeros(N_QUANTILES, n))
        self.register_buffer("slope", torch.ones(n))
        self.register_buffer("offset", torch.zeros(n))
        self.register_buffer("trust", torch.ones(n))
        self.register_buffer("ridge", torch.zeros(n_numbers + 1, n))

    def forward(self, bags: Bags, states: Tensor, offsets: Tensor) -> Tensor:
        """Standardised numbers, and logits of categories, (n_bags, n_columns); states: (n_events,
        state_dim); offsets: start of each event's bags, (n_events + 1,)."""
        return self.by_item[bags.ids[bags.offsets[:-1].long()].long()] + self.residual(
            bags, states, offsets
        )

    def residual(self, bags: Bags, states: Tensor, offsets: Tensor) -> Tensor:
        """The same less what the item says."""
        of_states = expand_to_candidates(self.from_state(states), offsets, bags.n_bags)
        x = self.dropout(torch.relu(self.first(bags) + of_states))
        found: Tensor = self.out(x) + self.wide(bags)
        return found

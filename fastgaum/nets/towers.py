"""Two towers: the user as one vector, each candidate as another, their dot product a score.

    u = [W₂ drop(relu(W₁ x + b₁)) + b₂ + D x ; 1],  x = drop(s)      once per event
    V(a) = Σ_{f ∈ bag(a)} T_f + P v(a)                               once per candidate
                  + W own(a)
    score(a) = ⟨u, V(a)⟩ + ⟨w, numbers(a)⟩

v(a) is the standardised vector of a's item (text, image), where the log has one. own(a) are the
numbers that the log itself holds of a candidate (a price, a time): ⟨u, W own(a)⟩ are tastes (Han,
Pereira, Ben-Akiva and Zegras, "A Neural-embedded Discrete Choice Model", 2020); without ids the
towers are tastes alone. The user's last unit is 1: V's last column is an item's own bias."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastgaum.nets.bags import BagLinear, BagSizes, drawn
from fastgaum.nets.segments import expand_to_candidates
from fastgaum.nets.tensors import Bags

NO_NUMBERS = range(0)
STD = 0.1
"""standard deviation of a row's first numbers"""


class TwoTower(nn.Module):
    """(state, display set) → one number per candidate."""

    def __init__(
        self,
        items: BagLinear | None,
        dim: int,
        n_numbers: int,
        state_dim: int,
        dropout: float = 0.0,
        items_at: Sequence[int] = (),
        own: range = NO_NUMBERS,
    ) -> None:
        """Draw the parameters. Another module owns `items`, T, (n_ids, dim), if there are any.

        `items_at`: where vectors of items stand in a state; likeness to each is a part of the score
        from the start. `own`: columns of the log's own numbers."""
        super().__init__()
        # in a tuple, which torch does not search for modules: the owner has its parameters
        self._items = (items,)
        self.dim, self.own = dim, own
        self.tastes = nn.Parameter(STD * torch.randn(len(own), dim)) if len(own) else None
        # tastes hold their weights, for the network beside them has a linear path of its own
        linear = n_numbers > 0 and items is not None
        self.numbers = nn.Linear(n_numbers, 1, bias=False) if linear else None
        if self.numbers is not None:
            nn.init.zeros_(self.numbers.weight)
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Linear(state_dim, 2 * dim)
        self.out = nn.Linear(2 * dim, dim - 1)
        self.direct = nn.Linear(state_dim, dim - 1, bias=False)
        nn.init.zeros_(self.direct.weight)
        with torch.no_grad():
            for start in items_at:
                self.direct.weight[:, start : start + dim - 1] += torch.eye(dim - 1)

    def users(self, states: Tensor) -> Tensor:
        """U of each event, (n_events, dim)."""
        x = self.dropout(states)
        hidden = self.dropout(functional.relu(self.hidden(x)))
        user = self.out(hidden) + self.direct(x)
        return torch.cat([user, user.new_ones(len(user), 1)], 1)

    @property
    def items(self) -> BagLinear | None:
        """T."""
        return self._items[0]

    def forward(self, candidates: Bags, states: Tensor, display_offsets: Tensor) -> Tensor:
        """Scores (n_candidates,) from states (n_events, state_dim)."""
        users, numbers = self.users(states), candidates.numbers
        scores = numbers.new_zeros(candidates.n_bags)
        pairs = [] if self.items is None else [(users, self.items(candidates))]
        if self.tastes is not None:
            pairs.append((users @ self.tastes.T, numbers[:, self.own.start : self.own.stop]))
        for of_user, of_candidate in pairs:
            expanded = expand_to_candidates(of_user, display_offsets, candidates.n_bags)
            scores = scores + (expanded * of_candidate).sum(1)
        return scores if self.numbers is None else scores + self.numbers(numbers)[:, 0]

    def scale(self, factor: float) -> None:
        """Multiply all scores by a factor."""
        numbers = None if self.numbers is None else self.numbers.weight
        items = [] if self.items is None else [self.items.table, self.items.projection]
        for weights in (*items, numbers, self.tastes):
            if weights is not None:
                weights.mul_(factor)


def vector_table(sizes: BagSizes, dim: int) -> BagLinear:
    """T: a vector per id, (n_ids, dim), and P: (vector_dim, dim); their last number starts at 0."""
    items = BagLinear(sizes.n_ids, 0, dim, STD, bias=False)
    with torch.no_grad():
        items.table[:, -1] = 0
    if sizes.vector_dim:
        items.projection = drawn(
            (sizes.vector_dim, dim), lambda: _projection(sizes.vector_dim, dim)
        )
    return items


def _projection(vector_dim: int, dim: int) -> Tensor:
    weights = torch.randn(vector_dim, dim) * (STD / math.sqrt(vector_dim))
    weights[:, -1] = 0
    return weights

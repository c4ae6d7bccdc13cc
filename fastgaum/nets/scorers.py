"""Scorers: one small network with shared weights scores every candidate, so permuting a display set
permutes its scores.

The generator and the reward model are both scorers. The first layer on the multi-hot vector [state;
bag] factorises: W [s; x_a] = W_s s (once per event) + Σ_{f ∈ bag(a)} E_f (a gather) + W_x numbers.
"""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from fastgaum.nets.bags import bag_linear
from fastgaum.nets.segments import expand_to_candidates
from fastgaum.nets.tables import TableMaker
from fastgaum.nets.tensors import Bags

ACTIVATIONS: dict[str, type[nn.Module]] = {"elu": nn.ELU, "relu": nn.ReLU, "tanh": nn.Tanh}


class Scorer(nn.Module):
    """(state, display set) → one number per candidate; no click is pinned at 0 and is not
    scored."""

    def __init__(
        self,
        n_ids: int,
        n_numbers: int,
        state_dim: int,
        hidden: tuple[int, ...],
        activation: str,
        item_dim: int = 0,
        dropout: float = 0.0,
        wide: bool = False,
        tables: TableMaker | None = None,
        name: str = "",
    ) -> None:
        super().__init__()
        widths = (*hidden, 1)
        self.first = bag_linear(n_ids, n_numbers, widths[0], item_dim, 0.1, tables, f"{name}.first")
        self.from_state = nn.Linear(state_dim, widths[0], bias=False)
        # starts at 0: the network leads, the linear path adds what it lacks
        self.wide = (
            bag_linear(n_ids, n_numbers, 1, 0, 0.0, tables, f"{name}.wide") if wide else None
        )
        self.act = ACTIVATIONS[activation]()
        self.dropout = nn.Dropout(dropout)
        self.rest = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, candidates: Bags, states: Tensor, display_offsets: Tensor) -> Tensor:
        """Return scores, shape (n_candidates,); `states` has shape (n_events, state_dim)."""
        x: Tensor = self.first(candidates) + expand_to_candidates(
            self.from_state(states), display_offsets, candidates.n_bags
        )
        for layer in self.rest:
            x = layer(self.dropout(self.act(x)))
        if self.wide is not None:
            x = x + self.wide(candidates)
        return x.squeeze(1)

"""Scorers: one small network with shared weights scores every candidate, so permuting a display set
permutes its scores.

The generator and the reward model are both scorers. The first layer on the multi-hot vector [state;
bag] factorises: W [s; x_a] = W_s s (once per event) + Σ_{f ∈ bag(a)} E_f (a gather) + W_x numbers.
"""

from __future__ import annotations

import itertools
import math
from typing import cast

import torch
from torch import Tensor, nn

from fastgaum.nets.ops.bags import bag_sum
from fastgaum.nets.ops.segments import expand_to_candidates
from fastgaum.nets.scorer_layout import scores_of
from fastgaum.nets.tables import OwnTable, TableMaker, drawn, normal_table
from fastgaum.nets.tensors import Bags

ACTIVATIONS: dict[str, type[nn.Module]] = {"elu": nn.ELU, "relu": nn.ReLU, "tanh": nn.Tanh}


class _AboveTable(nn.Module):
    """What a bag's linear map does after its table: from an embedding up, numbers, bias."""

    def make(self, n_numbers: int, out: int, item_dim: int, bias: bool = True) -> None:
        """Draw the parameters, after the table's."""
        self.up: nn.Parameter | None = None
        if item_dim:
            self.up = drawn(
                (item_dim, out), lambda: torch.randn(item_dim, out) / math.sqrt(item_dim)
            )
        self.numbers = nn.Linear(n_numbers, out) if n_numbers else None
        self.bias = nn.Parameter(torch.zeros(out)) if bias and not n_numbers else None

    def add_to(self, x: Tensor, bags: Bags) -> Tensor:
        """Return the mapped bags, shape (n_bags, out), from the sums of their rows."""
        if self.up is not None:
            x = x @ self.up
        if self.numbers is not None:
            x = x + self.numbers(bags.numbers)
        if self.bias is not None:
            x = x + self.bias
        return x


class BagLinear(_AboveTable):
    """The linear map of a bag: Σ_f E_f + W numbers + b, never through a dense one-hot.

    With `item_dim` > 0 the ids pass through an embedding of that size first, E = U V with U of
    shape (n_ids, item_dim). Without numbers and bias it is a table alone."""

    sparse_grad = False
    """whether the table's gradient is sparse; an optimiser that takes it sets this"""

    def __init__(
        self,
        n_ids: int,
        n_numbers: int,
        out: int,
        item_dim: int,
        init_std: float,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.table = normal_table(n_ids, item_dim or out, init_std)
        self.make(n_numbers, out, item_dim, bias)

    def forward(self, bags: Bags) -> Tensor:
        """Return the mapped bags, shape (n_bags, out)."""
        return self.add_to(
            bag_sum(self.table, bags.ids, bags.offsets, None, self.sparse_grad), bags
        )


class OwnBagLinear(_AboveTable):
    """`BagLinear` over a table of the user's own."""

    def __init__(self, rows: OwnTable, n_numbers: int, out: int, item_dim: int) -> None:
        super().__init__()
        self.rows = rows
        self.make(n_numbers, out, item_dim)

    @property
    def table(self) -> Tensor:
        """All rows, (n_rows, width), without gradient; slow where they lie elsewhere."""
        return self.rows.weight()

    def forward(self, bags: Bags) -> Tensor:
        """Return the mapped bags, shape (n_bags, out)."""
        return self.add_to(self.rows(bags.ids, bags.offsets), bags)


def bag_linear(
    n_ids: int,
    n_numbers: int,
    out: int,
    item_dim: int,
    init_std: float,
    tables: TableMaker | None,
    name: str,
) -> BagLinear:
    """The linear map of a bag over a table of ours, or over one that `tables` makes.

    The second is no `BagLinear`, and is declared as one: it has the same attributes, and those who
    need to write to the table itself, the engine's passes, are kept from it by the class of its
    networks' encoders."""
    if tables is None:
        return BagLinear(n_ids, n_numbers, out, item_dim, init_std)
    rows = OwnTable(tables, name, n_ids, item_dim or out, init_std)
    return cast(BagLinear, OwnBagLinear(rows, n_numbers, out, item_dim))


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
        if (
            not (self.training or torch.is_grad_enabled())
            and states.device.type == "cpu"
            and self._has_kernel()
        ):
            return scores_of(self, candidates, states, display_offsets)
        x: Tensor = self.first(candidates) + expand_to_candidates(
            self.from_state(states), display_offsets
        )
        for layer in self.rest:
            x = layer(self.dropout(self.act(x)))
        if self.wide is not None:
            x = x + self.wide(candidates)
        return x.squeeze(1)

    def _has_kernel(self) -> bool:
        return isinstance(self.first, BagLinear) and self.first.table.dtype is torch.float32

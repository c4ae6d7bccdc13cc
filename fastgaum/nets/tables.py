"""Tables with a row per id: how ours are made, and what a table of the user's own must do to stand
in their place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from fastgaum.errors import ConfigError


class Table(Protocol):
    """Rows of numbers by id, as a torch module: sharded, quantised, on other machines, whatever is
    yours.

    Autograd trains it. A parameter that gets an ordinary gradient moves with AdamW as all dense
    ones do; `BagLinear(…, bias=False)` inside it moves by touched rows, as our own tables; one that
    moves itself in its backward pass and leaves no gradient is left alone, and then neither
    clipping nor the refusal of a step that is not finite reaches it."""

    def __call__(self, ids: Tensor, offsets: Tensor) -> Tensor:
        """Sum of each bag's rows: ids int32 (nnz,), bag i being ids[offsets[i]:offsets[i+1]],
        offsets int32 (n_bags + 1,).

        Returns float32 (n_bags, width), differentiable; zeros for an empty bag.
        """

    def weight(self) -> Tensor:
        """All rows in the order of ids, (n_rows, width), without gradient: what a saved model and a
        world are made of."""


TableMaker = Callable[[str, int, int, float], nn.Module]
"""tables(name, n_rows, width, std): a new `Table`, its rows drawn from N(0, std²); `name` is where
it stands, as in "reward.first", and unlike any other of the same networks"""


class OwnTable(nn.Module):
    """A table of the user's own, and a check of what it gives."""

    def __init__(self, tables: TableMaker, name: str, n_rows: int, width: int, std: float) -> None:
        """Make it. Raises ConfigError where what was made is no module with the methods of
        `Table`."""
        super().__init__()
        self.name, self.shape = name, (n_rows, width)
        made: object = tables(name, n_rows, width, std)
        # the weight of a torch embedding is a parameter, no method
        if not isinstance(made, nn.Module) or not callable(getattr(made, "weight", None)):
            raise ConfigError(
                f"the table '{name}' is a {type(made).__name__}: a torch module that is called "
                "with ids and offsets and has a"
                " method weight() is required (fastgaum.nets.tables.Table)"
            )
        self.own: Any = made

    def forward(self, ids: Tensor, offsets: Tensor) -> Tensor:
        """Sums of bags, (n_bags, width). Raises ConfigError for another shape."""
        return self._checked(
            self.own(ids, offsets), (len(offsets) - 1, self.shape[1]), "sums of bags"
        )

    def weight(self) -> Tensor:
        """All rows, without gradient. Raises ConfigError for another shape than (n_rows, width)."""
        return self._checked(self.own.weight(), self.shape, "rows").detach()

    def _checked(self, values: object, shape: tuple[int, int], what: str) -> Tensor:
        if not isinstance(values, Tensor) or values.shape != shape:
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ConfigError(
                f"the table '{self.name}' gives {what} of shape {got}, a tensor of shape {shape} "
                "is required"
            )
        return values


def plain_state(networks: nn.Module) -> dict[str, Tensor]:
    """A module's state with the rows of tables of the user's own where ours have theirs: what a
    model file holds."""
    own = {
        name: module for name, module in networks.named_modules() if isinstance(module, OwnTable)
    }
    state = networks.state_dict()
    for name, module in own.items():
        state = {key: value for key, value in state.items() if not key.startswith(f"{name}.")}
        state[f"{name.removesuffix('rows')}table"] = module.weight()
    return dict(state)


def drawn(shape: tuple[int, ...], values: Callable[[], Tensor]) -> nn.Parameter:
    """Return a parameter with these initial values; on the meta device, where networks are only
    measured, with none.

    There is nothing to draw there, and to draw it torch would import its compiler: a second of
    every first training."""
    room = torch.empty(shape)
    return nn.Parameter(room if room.is_meta else values())


def normal_table(n_rows: int, width: int, std: float) -> nn.Parameter:
    """Return a (n_rows, width) table drawn from N(0, std²), the values of `torch.randn(n_rows,
    width) * std`.

    The memory is numpy's, which asks the kernel for huge pages where torch does not: rows are read
    at random, and in a table of 250 MB the search for their small pages costs more than the rows
    themselves."""
    values = torch.empty(n_rows, width)
    if values.is_meta:
        return nn.Parameter(values)
    if values.device.type == "cpu" and values.dtype is torch.float32:
        values = torch.from_numpy(np.empty((n_rows, width), np.float32))
    return nn.Parameter(values.normal_().mul_(std))

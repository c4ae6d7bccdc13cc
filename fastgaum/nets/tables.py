"""Tables with a row per id: ours, and what one of the user's own must do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from fastgaum.errors import ConfigError


class Table(Protocol):
    """Rows of numbers by id, as a torch module that autograd trains: sharded, quantised, whatever
    is yours.

    A parameter with an ordinary gradient moves with AdamW; `BagLinear(…, bias=False)` inside it
    moves by touched rows; one that moves itself in its backward pass and leaves no gradient is left
    alone."""

    def __call__(self, ids: Tensor, offsets: Tensor) -> Tensor:
        """Sum of each bag's rows, float32 (n_bags, width), zeros for an empty bag: ids int32
        (nnz,), bag i being ids[offsets[i]:offsets[i+1]], offsets int32 (n_bags + 1,)."""

    def weight(self) -> Tensor:
        """All rows in the order of ids, (n_rows, width), without gradient."""


TableMaker = Callable[[str, int, int, float], nn.Module]
"""tables(name, n_rows, width, std): a new `Table`, its rows drawn from N(0, std²); `name` is where
it stands, as in "reward.first", and unlike any other of the same networks"""


class OwnTable(nn.Module):
    """A table of the user's own, and a check of what it gives."""

    def __init__(self, tables: TableMaker, name: str, n_rows: int, width: int, std: float) -> None:
        """Make it. Raises ConfigError for what is no module with the methods of `Table`."""
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
        """All rows, (n_rows, width), without gradient. Raises ConfigError for another shape."""
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
    """A module's state for a model file, with rows of own tables where ours have theirs."""
    own = {
        name: module for name, module in networks.named_modules() if isinstance(module, OwnTable)
    }
    state = networks.state_dict()
    for name, module in own.items():
        state = {key: value for key, value in state.items() if not key.startswith(f"{name}.")}
        state[f"{name.removesuffix('rows')}table"] = module.weight()
    return dict(state)


def drawn(shape: tuple[int, ...], values: Callable[[], Tensor]) -> nn.Parameter:
    """Return a parameter with these initial values, or none on the meta device."""
    room = torch.empty(shape)
    return nn.Parameter(room if room.is_meta else values())


def normal_table(n_rows: int, width: int, std: float) -> nn.Parameter:
    """Return a (n_rows, width) table drawn from N(0, std²), as `torch.randn(n_rows, width) * std`
    is, in numpy's memory, which has huge pages."""
    values = torch.empty(n_rows, width)
    if values.is_meta:
        return nn.Parameter(values)
    if values.device.type == "cpu" and values.dtype is torch.float32:
        values = torch.from_numpy(np.empty((n_rows, width), np.float32))
    return nn.Parameter(values.normal_().mul_(std))

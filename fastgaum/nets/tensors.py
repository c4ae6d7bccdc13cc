"""Bags of ids and numbers as torch tensors, and the dtype and device that networks are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fastgaum.logs.cut import pick_rows

_OF_NUMBERS = {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.eye}
_MAKES = {*_OF_NUMBERS, torch.full, torch.tensor, torch.arange, torch.randint, torch.randperm}


class _Float32(TorchFunctionMode):
    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func in _MAKES and given.get("device") is None:
            given["device"] = self.device
        if func in _OF_NUMBERS and given.get("dtype") is None:
            given["dtype"] = torch.float32
        return func(*args, **given)


@contextmanager
def float32_on(device: str = "cpu") -> Iterator[None]:
    """Within, on this thread, networks are made of float32 on a device, whatever default dtype and
    device of torch a user has set; what is made in steps says both itself."""
    with _Float32(device):
        yield


@dataclass(frozen=True)
class BagVectors:
    """Vectors of the items of bags, each once."""

    values: Tensor
    """(n_distinct, dim)"""
    rows: Tensor
    """row of each bag's item, -1 for none, int32, (n_bags,)"""

    def projected(self, weight: Tensor) -> Tensor:
        """Each bag's vector times weights (dim, out), (n_bags, out); zeros without one."""
        rows = torch.cat(
            [self.values.to(weight.dtype) @ weight, weight.new_zeros(1, weight.shape[1])]
        )
        return rows[self.rows.long()]


@dataclass(frozen=True)
class Bags:
    """Bags of candidates or tokens."""

    ids: Tensor
    """feature ids, int32, (nnz,)"""
    offsets: Tensor
    """start of each bag in ids, int32, (n_bags + 1,)"""
    numbers: Tensor
    """(n_bags, n_numbers)"""
    vectors: BagVectors | None = None
    """of the bags' items, where networks read them"""
    width: int | None = None
    """ids of each bag, where all have as many"""
    displays: dict[tuple[int, int], Any] = field(default_factory=dict, init=False, repr=False)
    """display sets made of these bags (`ops.displays`), by how they are cut"""

    @property
    def n_bags(self) -> int:
        """Number of bags."""
        return self.offsets.shape[0] - 1


def join_bags(left: Bags, right: Bags) -> Bags:
    """The bags of `left` followed by those of `right`, without vectors."""
    return Bags(
        torch.cat([left.ids, right.ids]),
        torch.cat([left.offsets, right.offsets[1:] + left.offsets[-1]]),
        torch.cat([left.numbers, right.numbers]),
    )


def gather_bags(bags: Bags, rows: Tensor) -> Bags:
    """Bags of the given rows, in the given order, without vectors."""
    offsets, index = pick_rows(bags.offsets.cpu().numpy(), rows.cpu().numpy().astype(np.int32))
    flat = torch.from_numpy(index).long().to(rows.device)
    return Bags(bags.ids[flat], torch.from_numpy(offsets).to(rows.device), bags.numbers[rows])

"""Bags of feature ids: sums of table rows, and the linear map that networks read them through."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fastgaum import ops
from fastgaum.nets.segments import has_triton, segment_sum
from fastgaum.nets.tensors import Bags


def random_key() -> np.uint32:
    """A key of dropout (`kernels/draws.py`), drawn from torch's stream."""
    return np.uint32(int(torch.randint(2**31, (), device="cpu")))


@dataclass(frozen=True)
class IdDropout:
    """Replaces ids by their field's unknown row."""

    unknown_of_id: Tensor
    """unknown row of each id, int32, (n_ids,)"""
    rate: float

    def __call__(self, bags: Bags) -> Bags:
        """Bags with each id dropped with probability `rate`."""
        if self.rate == 0:
            return bags
        ids = bags.ids
        if ids.is_cuda:
            keep = torch.rand(ids.shape, dtype=torch.float32, device=ids.device) >= self.rate
            return replace(bags, ids=torch.where(keep, ids, self.unknown_of_id[ids.long()]))
        from fastgaum.kernels.draws import drop_ids

        values, key = ids.numpy(), random_key()
        dropped = np.empty_like(values)
        threshold = np.uint32(min(int(self.rate * 2**32), 2**32 - 1))
        drop_ids(values, self.unknown_of_id.numpy(), key, threshold, dropped)
        return Bags(torch.from_numpy(dropped), bags.offsets, bags.numbers, bags.vectors, bags.width)


def bag_sum(
    table: Tensor,
    ids: Tensor,
    offsets: Tensor,
    weights: Tensor | None = None,
    sparse_grad: bool = False,
) -> Tensor:
    """The weighted sum of each bag's rows, (n_bags, d): multi-hot @ table, never built.

    Args:
        table: (n_rows, d), float32 or float64.
        ids: (nnz,) int32, rows of the table; repeats add up.
        offsets: (n_bags + 1,) int32, the start of each bag in `ids`.
        weights: (nnz,) in the table's dtype; 1 if None.
        sparse_grad: whether the table's gradient is a sparse COO tensor, not yet coalesced.

    Raises RuntimeError for an id that is not a row of the table.

    >>> table = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> bag_sum(table, torch.tensor([0, 1, 1]).int(), torch.tensor([0, 3, 3]).int())
    tensor([[1., 2.],
            [0., 0.]])"""
    if table.is_cuda and weights is None and has_triton():
        from fastgaum.nets import cuda_ops

        return cuda_ops.sum_bags(table, ids, offsets, sparse_grad)
    if sparse_grad or not torch.is_grad_enabled():
        return functional.embedding_bag(
            ids,
            table,
            offsets,
            mode="sum",
            per_sample_weights=weights,
            include_last_offset=True,
            sparse=sparse_grad,
        )
    # the same sum; the gradient of this gather is one scatter, where embedding_bag's dense gradient
    # takes a call per row on the CPU: 3 to 100 times as long
    rows = table.gather(0, ids.long()[:, None].expand(-1, table.shape[1]))
    return segment_sum(rows if weights is None else rows * weights[:, None], offsets)


def drawn(shape: tuple[int, ...], values: Callable[[], Tensor]) -> nn.Parameter:
    """A parameter with these initial values, or none on the meta device."""
    room = torch.empty(shape)
    return nn.Parameter(room if room.is_meta else values())


def normal_table(n_rows: int, width: int, std: float) -> nn.Parameter:
    """A (n_rows, width) table drawn from N(0, std²), as `torch.randn(n_rows, width) * std` is, in
    numpy's memory."""
    values = torch.empty(n_rows, width)
    if values.is_meta:
        return nn.Parameter(values)
    if values.device.type == "cpu" and values.dtype is torch.float32:
        values = torch.from_numpy(np.empty((n_rows, width), np.float32))
    return nn.Parameter(values.normal_().mul_(std))


class _AboveTable(nn.Module):
    """A bag's linear map above its table: + W numbers + b."""

    projection: nn.Parameter | None
    """P, from an item's vector to a row of the table, (vector_dim, width)"""
    up: nn.Parameter | None
    """U, from a shared row to the result, (width, out)"""

    def __init__(self) -> None:
        super().__init__()
        self.projection = self.up = None

    def make(self, n_numbers: int, out: int, bias: bool = True) -> None:
        """Draw the parameters, after the table's."""
        self.numbers = nn.Linear(n_numbers, out) if n_numbers else None
        self.bias = nn.Parameter(torch.zeros(out)) if bias and not n_numbers else None

    @property
    def projection_of_rows(self) -> nn.Parameter | None:
        """The projection from vectors of items to its table's rows."""
        return self.projection

    def add_to(self, x: Tensor, bags: Bags) -> Tensor:
        """The mapped bags, (n_bags, out), from the sums of their rows."""
        if self.projection is not None and bags.vectors is not None:
            x = x + bags.vectors.projected(self.projection)
        if self.numbers is not None:
            x = x + self.numbers(bags.numbers)
        if self.bias is not None:
            x = x + self.bias
        return x


class BagLinear(_AboveTable):
    """The linear map of a bag: Σ_f E_f + W numbers + b."""

    sparse_grad = False
    """whether the table's gradient is sparse, set by an optimiser"""

    def __init__(
        self, n_ids: int, n_numbers: int, out: int, init_std: float, bias: bool = True
    ) -> None:
        super().__init__()
        self.table = normal_table(n_ids, out, init_std)
        self.make(n_numbers, out, bias)

    def forward(self, bags: Bags) -> Tensor:
        """The mapped bags, (n_bags, out)."""
        if not self._is_taken():
            sums = bag_sum(self.table, bags.ids, bags.offsets, None, self.sparse_grad)
            return self.add_to(sums, bags)
        from fastgaum.ops.bag_linear import bag_linear

        weight, bias = None, self.bias
        if self.numbers is not None:
            weight, bias = self.numbers.weight, self.numbers.bias
        x = bag_linear(self.table, weight, bias, bags.ids, bags.offsets, bags.numbers)
        if self.projection is not None and bags.vectors is not None:
            x = x + bags.vectors.projected(self.projection)
        return x

    def _is_taken(self) -> bool:
        """Whether a kernel takes this map, and leaves a gradient that is wanted to an optimiser."""
        learned = self.sparse_grad or not torch.is_grad_enabled()
        return learned and ops.takes(self.table)


class SharedBagLinear(_AboveTable):
    """`BagLinear` over rows of another module, which U maps to the result's width."""

    up: nn.Parameter

    def __init__(self, items: BagLinear, n_numbers: int, out: int) -> None:
        super().__init__()
        # in a tuple, which torch does not search for modules: the owner has its parameters
        self._items = (items,)
        width = items.table.shape[1]
        self.up = drawn((width, out), lambda: torch.randn(width, out) / math.sqrt(width))
        self.make(n_numbers, out)

    @property
    def table(self) -> Tensor:
        """All rows, (n_ids, width)."""
        return self._items[0].table

    @property
    def sparse_grad(self) -> bool:
        """The owner's."""
        return self._items[0].sparse_grad

    @property
    def projection_of_rows(self) -> nn.Parameter | None:
        """The owner's."""
        return self._items[0].projection

    def forward(self, bags: Bags) -> Tensor:
        """The mapped bags, (n_bags, out)."""
        return self.add_to(self._items[0](bags) @ self.up, bags)


@dataclass(frozen=True)
class BagSizes:
    """Contents of a network's bags."""

    n_ids: int
    n_numbers: int
    vector_dim: int = 0
    """numbers of an item's vector that is projected; 0: none"""
    places: tuple[float, ...] = ()
    """first logit of each place; none: places not kept apart"""
    own: range = range(0)
    """columns of the log's own numbers, which tastes read"""
    signed: tuple[tuple[int, int], ...] = ()
    """direction of each number with a sign, and its columns behind `n_numbers`"""

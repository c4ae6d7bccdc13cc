"""The linear map of bags over kernels; the gradient of its table is left beside (`ops.tables`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastgaum import threads
from fastgaum.arrays import FloatArray
from fastgaum.kernels import bag_linear as kernels
from fastgaum.ops.tables import OfBags, learned_table

BAGS_OF_PART = 2048


class _BagLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        bias: Tensor,
        weight: Tensor,
        table: Tensor,
        ids: Tensor,
        offsets: Tensor,
        numbers: Tensor,
    ) -> Tensor:
        bags = kernels.BagArrays(ids.numpy(), offsets.numpy(), numbers.contiguous().numpy())
        rows: FloatArray = table.detach().numpy()
        up = np.empty((0, rows.shape[1]), np.float32)
        weights = kernels.BagMap(rows, up, weight.detach().numpy(), bias.detach().numpy())
        n = len(bags.offsets) - 1
        result = np.empty((n, rows.shape[1]), np.float32)
        parts = [(at, min(at + BAGS_OF_PART, n)) for at in range(0, n, BAGS_OF_PART)]
        threads.run(kernels.bag_linear, [(*part, bags, weights, result) for part in parts])
        ctx.inputs = bags, weights, learned_table(table)
        return torch.from_numpy(result)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        bags, weights, table = ctx.inputs
        of_result = grad.contiguous().numpy()
        grads = kernels.BagMap(
            of_result, weights.up, np.empty_like(weights.weight), np.empty_like(weights.bias)
        )
        kernels.bag_linear_backward(of_result, bags, weights, grads)
        table.give(OfBags(bags.ids, bags.offsets, of_result))
        return torch.from_numpy(grads.bias), torch.from_numpy(grads.weight), *(4 * (None,))


def bag_linear(
    table: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    ids: Tensor,
    offsets: Tensor,
    numbers: Tensor,
) -> Tensor:
    """Σ_f E_f + W numbers + b of each bag, (n_bags, out), float32 on the CPU; where a gradient is
    wanted an optimiser has the table (`tables.learned_table`).

    Args:
        table: E, (n_ids, out).
        weight: W, (out, n_numbers); None: numbers are not read.
        bias: b, (out,); None: 0.
        ids: (nnz,) int32, rows of the table.
        offsets: (n_bags + 1,) int32.
        numbers: (n_bags, n_numbers)."""
    out = table.shape[1]
    if bias is None:
        # the node of autograd is made for an argument that wants a gradient
        bias = table.new_zeros(out).requires_grad_(table.requires_grad)
    if weight is None:
        weight, numbers = table.new_empty(out, 0), numbers[:, :0]
    found: Tensor = _BagLinear.apply(bias, weight, table, ids, offsets, numbers)  # type: ignore[no-untyped-call]
    return found

"""The embedding bag: the first layer of every network, without a dense one-hot anywhere.

CPU tensors run through Numba, CUDA tensors through torch's own embedding bag.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fastgaum.kernels import bags as kernels
from fastgaum.nets.ops._dispatch import check_rows, operator, segment_ids, sparse_rows


def bag_sum(
    table: Tensor,
    ids: Tensor,
    offsets: Tensor,
    weights: Tensor | None = None,
    sparse_grad: bool = False,
) -> Tensor:
    """Return the weighted sum of each bag's rows, (n_bags, d): multi-hot @ table, whose multi-hot
    is never built.

    table (n_rows, d), float32 or float64; ids (nnz,) int32, rows of the table, repeats add up;
    offsets (n_bags + 1,) int32; weights (nnz,) in the table's dtype, 1 if None. An empty bag is
    zeros. Differentiable in table and weights, to first order; with `sparse_grad` the table's
    gradient is a sparse COO tensor of the named rows, not yet coalesced.

    On the CPU, raises IndexError when an id is not a row of the table, ValueError when lengths do
    not fit, and TypeError for other dtypes.

    >>> table = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> bag_sum(table, torch.tensor([0, 1, 1]).int(), torch.tensor([0, 3, 3]).int())
    tensor([[1., 2.],
            [0., 0.]])
    """
    result: Tensor = _bag_sum(table, ids, offsets, weights, sparse_grad)
    return result


def _bag_sum_cpu(
    table: Tensor, ids: Tensor, offsets: Tensor, weights: Tensor | None, sparse_grad: bool = False
) -> Tensor:
    check_rows(ids, offsets, "ids", (torch.int32,))
    if weights is not None and (weights.dtype is not table.dtype or weights.shape != ids.shape):
        raise ValueError(
            f"weights are {weights.dtype} of shape {tuple(weights.shape)}: one {table.dtype} per "
            "id is "
            f"required, shape {tuple(ids.shape)}"
        )
    result = _empty_bags(table, ids, offsets, weights)
    bad = kernels.bag_sum(
        table.contiguous().numpy(),
        ids.contiguous().numpy(),
        offsets.numpy(),
        _weights(weights, table),
        result.numpy(),
    )
    if bad >= 0:
        raise IndexError(
            f"id {int(ids[bad])} at position {bad} is not a row of a table of {table.shape[0]} rows"
        )
    return result


def _bag_scatter_add_cpu(
    grad_out: Tensor, ids: Tensor, offsets: Tensor, weights: Tensor | None, n_rows: int
) -> Tensor:
    grad_table = grad_out.new_zeros((n_rows, grad_out.shape[1]))
    kernels.bag_scatter_add(
        grad_out.contiguous().numpy(),
        ids.contiguous().numpy(),
        offsets.numpy(),
        _weights(weights, grad_out),
        grad_table.numpy(),
    )
    return grad_table


def _bag_weight_grad_cpu(grad_out: Tensor, table: Tensor, ids: Tensor, offsets: Tensor) -> Tensor:
    grad_weights = _empty_weights(grad_out, table, ids, offsets)
    kernels.bag_weight_grad(
        grad_out.contiguous().numpy(),
        table.contiguous().numpy(),
        ids.contiguous().numpy(),
        offsets.numpy(),
        grad_weights.numpy(),
    )
    return grad_weights


def _weights(weights: Tensor | None, like: Tensor) -> Any:
    """Return the kernel's form of the weights: length 0 stands for all ones."""
    return (like.new_empty(0) if weights is None else weights.contiguous()).numpy()


def _bag_sum_stock(
    table: Tensor, ids: Tensor, offsets: Tensor, weights: Tensor | None, sparse_grad: bool = False
) -> Tensor:
    if ids.shape[0] == 0:
        return table.new_zeros((offsets.shape[0] - 1, table.shape[1]))
    return functional.embedding_bag(
        ids, table, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
    )


def _bag_scatter_add_stock(
    grad_out: Tensor, ids: Tensor, offsets: Tensor, weights: Tensor | None, n_rows: int
) -> Tensor:
    rows = grad_out[segment_ids(offsets, ids.shape[0])]
    if weights is not None:
        rows = rows * weights[:, None]
    return grad_out.new_zeros((n_rows, grad_out.shape[1])).index_add_(0, ids, rows)


def _bag_weight_grad_stock(grad_out: Tensor, table: Tensor, ids: Tensor, offsets: Tensor) -> Tensor:
    return (grad_out[segment_ids(offsets, ids.shape[0])] * table[ids]).sum(1)


def _empty_bags(
    table: Tensor, ids: Tensor, offsets: Tensor, weights: Tensor | None, sparse_grad: bool = False
) -> Tensor:
    return table.new_empty((offsets.shape[0] - 1, table.shape[1]))


def _empty_table(
    grad_out: Tensor, ids: Tensor, offsets: Tensor, weights: Tensor | None, n_rows: int
) -> Tensor:
    return grad_out.new_empty((n_rows, grad_out.shape[1]))


def _empty_weights(grad_out: Tensor, table: Tensor, ids: Tensor, offsets: Tensor) -> Tensor:
    return grad_out.new_empty(ids.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    table, ids, offsets, weights, ctx.sparse_grad = inputs
    ctx.n_rows = table.shape[0]
    # The sum is linear in the table, which is kept (and guarded against in-place change) only for
    # the weights' sake.
    learned_weights = weights is not None and ctx.needs_input_grad[3]
    ctx.save_for_backward(ids, offsets, weights, table if learned_weights else None)


def _gradient(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, None, None, Tensor | None, None]:
    ids, offsets, weights, table = ctx.saved_tensors
    grad_table = grad_weights = None
    if ctx.needs_input_grad[0] and ctx.sparse_grad:
        rows = grad_out[segment_ids(offsets, ids.shape[0])]
        rows = rows if weights is None else rows * weights[:, None]
        grad_table = sparse_rows(ids, rows, ctx.n_rows)
    elif ctx.needs_input_grad[0]:
        grad_table = _bag_scatter_add(grad_out, ids, offsets, weights, ctx.n_rows)
    if table is not None:
        grad_weights = _bag_weight_grad(grad_out, table, ids, offsets)
    return grad_table, None, None, grad_weights, None


_bag_sum = operator(
    "bag_sum",
    "(Tensor table, Tensor ids, Tensor offsets, Tensor? weights, bool sparse_grad) -> Tensor",
    _bag_sum_cpu,
    _bag_sum_stock,
    _empty_bags,
    (_save, _gradient),
)
_bag_scatter_add = operator(
    "bag_scatter_add",
    "(Tensor grad_out, Tensor ids, Tensor offsets, Tensor? weights, SymInt n_rows) -> Tensor",
    _bag_scatter_add_cpu,
    _bag_scatter_add_stock,
    _empty_table,
)
_bag_weight_grad = operator(
    "bag_weight_grad",
    "(Tensor grad_out, Tensor table, Tensor ids, Tensor offsets) -> Tensor",
    _bag_weight_grad_cpu,
    _bag_weight_grad_stock,
    _empty_weights,
)

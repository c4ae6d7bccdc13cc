"""The position-weight history (Chen et al., ICML 2019, §4.1) without its dense state: see
`kernels/position_weight.py`.

The state after a token is a bag of the distinct feature ids of the last `window` tokens, each with
n weights; a linear readout of the state is a sum of table rows. CPU tensors run through Numba, CUDA
tensors through stock torch."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastgaum.errors import did_you_mean
from fastgaum.kernels import position_weight as kernels
from fastgaum.nets.ops import _position_stock as stock
from fastgaum.nets.ops._dispatch import FLOATS, check_offsets, operator, segment_ids, sparse_rows

ACTIVATIONS = {"identity": kernels.IDENTITY, "tanh": kernels.TANH, "elu": kernels.ELU}


class LagStructure(NamedTuple):
    """Which ids stand in the state after each token, and at which lags (1 is that token itself);
    int32 throughout."""

    state_offsets: Tensor
    """start of each state in the entries, shape (n_tokens + 1,)"""
    state_ids: Tensor
    """feature id of each entry, distinct within a state, newest token first, shape (n_entries,)"""
    entries: Tensor
    """entry of each occurrence of an id in a state's window, shape (n_occurrences,)"""
    lags: Tensor
    """lag of each occurrence, 1 to `window`, shape (n_occurrences,)"""
    window: int
    """how many tokens a state covers at most"""


def lag_structure(offsets: Tensor, ids: Tensor, id_offsets: Tensor, window: int) -> LagStructure:
    """Return the ids and lags of the state after each token: they depend on the data alone, one
    call serves a batch.

    offsets (n_sequences + 1,) int32 cuts the tokens into sequences, id_offsets (n_tokens + 1,)
    int32 the ids (nnz,) int32 into the tokens' bags; an id repeated in a bag counts again. Raises
    ValueError when window < 1 or the offsets do not fit, and TypeError for other dtypes.

    >>> arrays = map(torch.IntTensor, ([0, 3], [5, 7, 5, 7], [0, 1, 2, 4]))
    >>> lag_structure(*arrays, window=2).state_ids
    tensor([5, 7, 5, 5, 7], dtype=torch.int32)
    """
    if window < 1:
        raise ValueError(f"window is {window}, at least 1 token is required")
    if offsets.is_cuda:
        return _structure(stock.lag_structure(offsets, ids, id_offsets, window), window)
    if ids.dtype is not torch.int32:
        raise TypeError(f"ids are {ids.dtype}, int32 is required: convert them with .int()")
    check_offsets(offsets, id_offsets.shape[0] - 1, "tokens")
    check_offsets(id_offsets, ids.shape[0], "ids")
    arrays = offsets.contiguous().numpy(), ids.contiguous().numpy(), id_offsets.contiguous().numpy()
    n_occurrences, widest = kernels.count_occurrences(arrays[0], arrays[2], window)
    # at most half of the slots are ever live, so that probes stay short
    n_slots = 1 << (2 * int(widest)).bit_length()
    state_offsets = np.empty(len(arrays[2]), dtype=np.int32)
    state_ids, entries, lags = (np.empty(n_occurrences, dtype=np.int32) for _ in range(3))
    slots = np.empty(n_slots, dtype=np.int32), np.full(n_slots, -1, dtype=np.int32)
    n_entries = kernels.fill_structure(
        *arrays, window, *slots, state_offsets, state_ids, entries, lags
    )
    arrays_of_states = (state_offsets, state_ids[:n_entries], entries, lags)
    return _structure(tuple(torch.from_numpy(part) for part in arrays_of_states), window)


def _structure(parts: tuple[Tensor, ...], window: int) -> LagStructure:
    state_offsets, state_ids, entries, lags = parts
    return LagStructure(state_offsets, state_ids, entries, lags, window)


def lag_weighted(
    structure: LagStructure, lag_weights: Tensor, bias: Tensor, activation: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the state bags: ids (n_entries,), offsets (n_tokens + 1,) and weights (n_entries, n).

    A weight is σ(u + bias) − σ(bias): u the sum of lag_weights (window, n) over the lags at which
    the id occurs, bias (n,), σ (`activation`) one of identity, tanh, elu. An absent id weighs
    exactly 0; the constant σ(bias) belongs in the readout's bias. Differentiable in lag_weights and
    bias, to first order. Raises ValueError for an unknown activation or shapes that do not fit."""
    if activation not in ACTIVATIONS:
        hint = did_you_mean(activation, ACTIVATIONS)
        raise ValueError(
            f"activation is {activation!r}: one of {', '.join(ACTIVATIONS)} is required{hint}"
        )
    if lag_weights.shape != (structure.window, bias.shape[0]):
        raise ValueError(
            f"lag_weights is {tuple(lag_weights.shape)}, but a window of {structure.window} and "
            f"{bias.shape[0]} biases "
            f"need {(structure.window, bias.shape[0])}"
        )
    weights = _weigh(
        structure.entries,
        structure.lags,
        lag_weights,
        bias,
        ACTIVATIONS[activation],
        structure.state_ids.shape[0],
    )
    return structure.state_ids, structure.state_offsets, weights


def bag_outer_sum(
    table: Tensor,
    state_ids: Tensor,
    state_offsets: Tensor,
    state_weights: Tensor,
    sparse_grad: bool = False,
) -> Tensor:
    """Return Σ_k Σ_j state_weights[k, j] · table[state_ids[k] · n + j] per state, (n_states, D).

    table (n_rows · n, D); state_weights (n_entries, n). Differentiable in both, to first order. On
    the CPU raises IndexError when an id has no rows in the table, ValueError when shapes do not
    fit, TypeError for other dtypes. With `sparse_grad` the table's gradient is a sparse COO tensor
    of the named rows, not yet coalesced."""
    result: Tensor = _outer_sum(table, state_ids, state_offsets, state_weights, sparse_grad)
    return result


def _weigh_cpu(
    entries: Tensor,
    lags: Tensor,
    lag_weights: Tensor,
    bias: Tensor,
    activation: int,
    n_entries: int,
) -> Tensor:
    if lag_weights.dtype not in FLOATS or bias.dtype is not lag_weights.dtype:
        raise TypeError(
            f"lag_weights are {lag_weights.dtype}, bias {bias.dtype}: float32 or float64 is "
            "required, alike"
        )
    weights = bias.new_empty(n_entries, bias.shape[0])
    kernels.weigh(
        entries.numpy(),
        lags.numpy(),
        lag_weights.contiguous().numpy(),
        bias.contiguous().numpy(),
        activation,
        weights.numpy(),
    )
    return weights


def _weigh_backward_cpu(
    grad: Tensor,
    entries: Tensor,
    lags: Tensor,
    bias: Tensor,
    activation: int,
    weights: Tensor,
    window: int,
) -> tuple[Tensor, Tensor]:
    grad_lag_weights, grad_bias = bias.new_empty(window, bias.shape[0]), torch.empty_like(bias)
    kernels.weigh_backward(
        grad.contiguous().numpy(),
        entries.numpy(),
        lags.numpy(),
        bias.contiguous().numpy(),
        activation,
        weights.numpy(),
        torch.empty_like(weights).numpy(),
        grad_lag_weights.numpy(),
        grad_bias.numpy(),
    )
    return grad_lag_weights, grad_bias


def _outer_sum_cpu(
    table: Tensor, ids: Tensor, offsets: Tensor, weights: Tensor, sparse_grad: bool
) -> Tensor:
    check_offsets(offsets, ids.shape[0], "ids")
    if (
        table.dtype not in FLOATS
        or weights.dtype is not table.dtype
        or ids.dtype is not torch.int32
    ):
        raise TypeError(
            f"table is {table.dtype}, weights {weights.dtype}, ids {ids.dtype}: "
            "float32 or float64 is required for the first two, alike, and int32 for ids"
        )
    n = weights.shape[1]
    if weights.shape[0] != ids.shape[0] or n < 1 or table.shape[0] % n:
        raise ValueError(
            f"weights are {tuple(weights.shape)} for {ids.shape[0]} ids and a table of "
            f"{table.shape[0]} rows: one row "
            "of n weights per id and n table rows per feature are required"
        )
    result = _empty_sums(table, ids, offsets, weights, sparse_grad)
    bad = kernels.outer_sum(
        _blocks(table, n),
        ids.contiguous().numpy(),
        offsets.numpy(),
        weights.contiguous().numpy(),
        result.numpy(),
    )
    if bad >= 0:
        raise IndexError(
            f"id {int(ids[bad])} at position {bad} has no rows in a table of {table.shape[0] // n} "
            "features"
        )
    return result


def _blocks(table: Tensor, n: int) -> Any:
    """The table as an array (n_rows, n, D): one feature's rows lie side by side."""
    return table.contiguous().view(-1, n, table.shape[1]).numpy()


def _outer_table_grad_cpu(
    grad: Tensor, ids: Tensor, offsets: Tensor, weights: Tensor, n_rows: int
) -> Tensor:
    grad_table = grad.new_zeros(n_rows, grad.shape[1])
    kernels.outer_sum_scatter(
        grad.contiguous().numpy(),
        ids.contiguous().numpy(),
        offsets.numpy(),
        weights.contiguous().numpy(),
        _blocks(grad_table, weights.shape[1]),
    )
    return grad_table


def _outer_weight_grad_cpu(
    grad: Tensor, table: Tensor, ids: Tensor, offsets: Tensor, n: int
) -> Tensor:
    grad_weights = grad.new_empty(ids.shape[0], n)
    kernels.outer_sum_backward(
        grad.contiguous().numpy(),
        _blocks(table, n),
        ids.contiguous().numpy(),
        offsets.numpy(),
        grad_weights.numpy(),
    )
    return grad_weights


def _empty_weights(
    entries: Tensor,
    lags: Tensor,
    lag_weights: Tensor,
    bias: Tensor,
    activation: int,
    n_entries: int,
) -> Tensor:
    return bias.new_empty(n_entries, bias.shape[0])


def _empty_weigh_grads(
    grad: Tensor,
    entries: Tensor,
    lags: Tensor,
    bias: Tensor,
    activation: int,
    weights: Tensor,
    window: int,
) -> tuple[Tensor, Tensor]:
    return bias.new_empty(window, bias.shape[0]), torch.empty_like(bias)


def _outer_sum_stock(
    table: Tensor, ids: Tensor, offsets: Tensor, weights: Tensor, sparse_grad: bool
) -> Tensor:
    return stock.outer_sum(table, ids, offsets, weights)


def _empty_sums(
    table: Tensor, ids: Tensor, offsets: Tensor, weights: Tensor, sparse_grad: bool
) -> Tensor:
    return table.new_empty(offsets.shape[0] - 1, table.shape[1])


def _empty_table(
    grad: Tensor, ids: Tensor, offsets: Tensor, weights: Tensor, n_rows: int
) -> Tensor:
    return grad.new_empty(n_rows, grad.shape[1])


def _empty_weight_grad(grad: Tensor, table: Tensor, ids: Tensor, offsets: Tensor, n: int) -> Tensor:
    return grad.new_empty(ids.shape[0], n)


def _save_weigh(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    entries, lags, lag_weights, bias, ctx.activation, _ = inputs
    ctx.window = lag_weights.shape[0]
    ctx.save_for_backward(entries, lags, bias, output)


def _weigh_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    entries, lags, bias, weights = ctx.saved_tensors
    grads = _weigh_backward(grad, entries, lags, bias, ctx.activation, weights, ctx.window)
    return None, None, *grads, None, None


def _save_outer_sum(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.sparse_grad = inputs
    ctx.save_for_backward(*tensors)


def _outer_sum_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    table, ids, offsets, weights = ctx.saved_tensors
    grad_table = grad_weights = None
    if ctx.needs_input_grad[0] and ctx.sparse_grad:
        n = weights.shape[1]
        rows = ids.long()[:, None] * n + torch.arange(n, device=ids.device)
        values = weights[:, :, None] * grad[segment_ids(offsets, ids.shape[0])][:, None]
        grad_table = sparse_rows(
            rows.reshape(-1), values.reshape(-1, grad.shape[1]), table.shape[0]
        )
    elif ctx.needs_input_grad[0]:
        grad_table = _outer_table_grad(grad, ids, offsets, weights, table.shape[0])
    if ctx.needs_input_grad[3]:
        grad_weights = _outer_weight_grad(grad, table, ids, offsets, weights.shape[1])
    return grad_table, None, None, grad_weights, None


_weigh = operator(
    "lag_weigh",
    "(Tensor entries, Tensor lags, Tensor lag_weights, Tensor bias, int activation, SymInt "
    "n_entries) -> Tensor",
    _weigh_cpu,
    stock.weigh,
    _empty_weights,
    (_save_weigh, _weigh_gradient),
)
_weigh_backward = operator(
    "lag_weigh_backward",
    "(Tensor grad, Tensor entries, Tensor lags, Tensor bias, int activation, Tensor weights, "
    "SymInt window)"
    " -> (Tensor, Tensor)",
    _weigh_backward_cpu,
    stock.weigh_backward,
    _empty_weigh_grads,
)
_outer_sum = operator(
    "bag_outer_sum",
    "(Tensor table, Tensor ids, Tensor offsets, Tensor weights, bool sparse_grad) -> Tensor",
    _outer_sum_cpu,
    _outer_sum_stock,
    _empty_sums,
    (_save_outer_sum, _outer_sum_gradient),
)
_outer_table_grad = operator(
    "bag_outer_table_grad",
    "(Tensor grad, Tensor ids, Tensor offsets, Tensor weights, SymInt n_rows) -> Tensor",
    _outer_table_grad_cpu,
    stock.outer_table_grad,
    _empty_table,
)
_outer_weight_grad = operator(
    "bag_outer_weight_grad",
    "(Tensor grad, Tensor table, Tensor ids, Tensor offsets, SymInt n) -> Tensor",
    _outer_weight_grad_cpu,
    stock.outer_weight_grad,
    _empty_weight_grad,
)

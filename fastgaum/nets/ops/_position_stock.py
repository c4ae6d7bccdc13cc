"""The position-weight operators through stock torch, for CUDA tensors; they also run on the CPU,
for the tests.

Activations are numbered as in `kernels/position_weight.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from fastgaum.kernels.position_weight import ELU, TANH
from fastgaum.nets.ops._dispatch import segment_ids


def lag_structure(
    offsets: Tensor, ids: Tensor, id_offsets: Tensor, window: int
) -> tuple[Tensor, ...]:
    """Return state_offsets, state_ids, entries and lags, as `position_weight.lag_structure`
    does."""
    n_tokens = id_offsets.shape[0] - 1
    device = offsets.device
    tokens = torch.arange(n_tokens, device=device)
    positions = tokens - offsets[segment_ids(offsets, n_tokens)]
    # pairs (state, lag), then occurrences (state, lag, id); both newest token first
    states, pair_lags = _expand((positions + 1).clamp(max=window))
    pair_lags = pair_lags + 1
    pair_tokens = states - pair_lags + 1
    pairs, within = _expand(id_offsets.diff().long()[pair_tokens])
    occurring = ids[id_offsets[pair_tokens][pairs] + within].long()
    n_ids = int(occurring.max()) + 1 if len(occurring) else 1
    keys, inverse = torch.unique(states[pairs] * n_ids + occurring, return_inverse=True)
    # number the distinct (state, id) in order of their first occurrence
    first = torch.full_like(keys, len(occurring)).scatter_reduce_(
        0, inverse, torch.arange(len(occurring), device=device), "amin"
    )
    by_occurrence = first.argsort()
    rank = torch.empty_like(by_occurrence)
    rank[by_occurrence] = torch.arange(len(keys), device=device)
    kept = keys[by_occurrence]
    counts = torch.bincount(kept // n_ids, minlength=n_tokens)
    state_offsets = torch.cat((counts.new_zeros(1), counts.cumsum(0)))
    return tuple(
        part.int() for part in (state_offsets, kept % n_ids, rank[inverse], pair_lags[pairs])
    )


def weigh(
    entries: Tensor,
    lags: Tensor,
    lag_weights: Tensor,
    bias: Tensor,
    activation: int,
    n_entries: int,
) -> Tensor:
    """Return σ(u + bias) − σ(bias), (n_entries, n)."""
    sums = bias.new_zeros(n_entries, bias.shape[0]).index_add_(0, entries, lag_weights[lags - 1])
    return (
        sums
        if activation not in (TANH, ELU)
        else _activate(sums + bias, activation) - _activate(bias, activation)
    )


def weigh_backward(
    grad: Tensor,
    entries: Tensor,
    lags: Tensor,
    bias: Tensor,
    activation: int,
    weights: Tensor,
    window: int,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of lag_weights and bias."""
    rest = _activate(bias, activation)
    slope = _slope(weights + rest, activation)
    grad_lag_weights = grad.new_zeros(window, bias.shape[0]).index_add_(
        0, lags - 1, (grad * slope)[entries]
    )
    return grad_lag_weights, (grad * (slope - _slope(rest, activation))).sum(0)


def outer_sum(table: Tensor, ids: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sums, (n_states, D): an embedding bag of n rows per id."""
    n = weights.shape[1]
    if ids.shape[0] == 0:
        return table.new_zeros(offsets.shape[0] - 1, table.shape[1])
    return functional.embedding_bag(
        _rows(ids, n),
        table,
        offsets.long() * n,
        mode="sum",
        per_sample_weights=weights.reshape(-1),
        include_last_offset=True,
    )


def outer_table_grad(
    grad: Tensor, ids: Tensor, offsets: Tensor, weights: Tensor, n_rows: int
) -> Tensor:
    """Return the table's gradient, (n_rows, D)."""
    n, width = weights.shape[1], grad.shape[1]
    terms = weights[:, :, None] * grad[segment_ids(offsets, ids.shape[0])][:, None, :]
    return grad.new_zeros(n_rows, width).index_add_(0, _rows(ids, n), terms.reshape(-1, width))


def outer_weight_grad(grad: Tensor, table: Tensor, ids: Tensor, offsets: Tensor, n: int) -> Tensor:
    """Return the gradient of the weights, (n_entries, n)."""
    blocks = table.view(-1, n, table.shape[1])[ids.long()]
    return torch.einsum("knd,kd->kn", blocks, grad[segment_ids(offsets, ids.shape[0])])


def _expand(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Owner of each item and its place within the owner: counts [2, 1] → [0, 0, 1], [0, 1, 0]."""
    owners = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    starts = counts.cumsum(0) - counts
    return owners, torch.arange(len(owners), device=counts.device) - starts[owners]


def _rows(ids: Tensor, n: int) -> Tensor:
    """Table rows of each id: n = 2, ids [3, 0] → [6, 7, 0, 1]."""
    return (ids.long()[:, None] * n + torch.arange(n, device=ids.device)).reshape(-1)


def _activate(values: Tensor, activation: int) -> Tensor:
    if activation == TANH:
        return values.tanh()
    return functional.elu(values) if activation == ELU else values


def _slope(values: Tensor, activation: int) -> Tensor:
    if activation == TANH:
        return 1 - values * values
    return (
        torch.where(values < 0, values + 1, 1.0) if activation == ELU else torch.ones_like(values)
    )

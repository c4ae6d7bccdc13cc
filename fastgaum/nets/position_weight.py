"""The position-weight history (Chen et al., ICML 2019, §4.1) without its dense state; plain torch,
any device.

The state after a token is a bag of the distinct feature ids of the last `window` tokens, each with
n weights; a linear readout of the state is a sum of table rows."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastgaum.nets.bags import bag_sum
from fastgaum.nets.segments import segment_ids


class LagStructure(NamedTuple):
    """Which ids the state after each token holds, and at which lags (1 is that token itself); int32
    throughout."""

    state_offsets: Tensor
    """start of each state in the entries, shape (n_tokens + 1,)"""
    state_ids: Tensor
    """feature id of each entry, distinct within a state, newest token first, shape (n_entries,)"""
    entries: Tensor
    """entry of each occurrence of an id in a state's window, shape (n_occurrences,)"""
    lags: Tensor
    """lag of each occurrence, 1 to `window`, shape (n_occurrences,)"""


def lag_structure(offsets: Tensor, ids: Tensor, id_offsets: Tensor, window: int) -> LagStructure:
    """Return the ids and lags of the state after each token: they depend on the data alone, one
    call serves a batch.

    offsets (n_sequences + 1,) int32 cuts the tokens into sequences, id_offsets (n_tokens + 1,)
    int32 the ids (nnz,) int32 into the tokens' bags; an id repeated in a bag counts again.

    >>> tokens = map(torch.IntTensor, ([0, 3], [5, 7, 5, 7], [0, 1, 2, 4]))
    >>> lag_structure(*tokens, window=2).state_ids
    tensor([5, 7, 5, 5, 7], dtype=torch.int32)
    """
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
    found = (state_offsets, kept % n_ids, rank[inverse], pair_lags[pairs])
    return LagStructure(*(part.int() for part in found))


def lag_weighted(structure: LagStructure, lag_weights: Tensor, bias: Tensor) -> Tensor:
    """Return the weights of each state's ids, (n_entries, n): tanh(u + bias) − tanh(bias), u the
    sum of lag_weights (window, n) over the lags at which the id occurs, bias (n,).

    An absent id weighs exactly 0; the constant tanh(bias) belongs in the readout's bias."""
    of_lags = lag_weights.index_select(0, structure.lags.long() - 1)
    zeros = bias.new_zeros(structure.state_ids.shape[0], bias.shape[0])
    return (zeros.index_add(0, structure.entries.long(), of_lags) + bias).tanh() - bias.tanh()


def lag_readout(
    table: Tensor, structure: LagStructure, weights: Tensor, sparse_grad: bool = False
) -> Tensor:
    """Return Σ_k Σ_j weights[k, j] · table[state_ids[k] · n + j] per state, (n_states, D).

    table (n_ids · n, D); weights (n_entries, n). With `sparse_grad` the table's gradient is a
    sparse COO tensor of the named rows, not yet coalesced."""
    n = weights.shape[1]
    columns = torch.arange(n, dtype=torch.int32, device=table.device)
    rows = (structure.state_ids[:, None] * n + columns).reshape(-1)
    return bag_sum(table, rows, structure.state_offsets * n, weights.reshape(-1), sparse_grad)


def _expand(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Owner of each item and its place within the owner: counts [2, 1] → [0, 0, 1], [0, 1, 0]."""
    owners = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    starts = counts.cumsum(0) - counts
    return owners, torch.arange(len(owners), device=counts.device) - starts[owners]

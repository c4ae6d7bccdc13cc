"""What is computed over ragged sequences of tokens, each at its own length, without a padded
tensor; plain torch, any device: LSTM, prefixes, and the lags of position weights.

Tokens are session-major: sequence i owns rows offsets[i]:offsets[i + 1], in time order; a sequence
may be empty. In a recurrence `gates_x` already holds the input projection and its bias, so that the
first layer may be a gather. The longest sequences come first: those that still run at a step are
then a prefix of the state. The position weights of Chen et al. (ICML 2019, §4.1) have no dense
state: the state after a token is a bag of the distinct feature ids of the last `window` tokens,
each with n weights, and its linear readout is a sum of table rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fastgaum.errors import ConfigError
from fastgaum.nets.bags import bag_sum
from fastgaum.nets.segments import segment_ids


def lstm(
    gates_x: Tensor, offsets: Tensor, weight_hh: Tensor, h0: Tensor, c0: Tensor
) -> tuple[Tensor, Tensor]:
    """Return h and c after each token, (n_tokens, H) each.

    gates_x (n_tokens, 4H) holds W_ih x + b_ih + b_hh; offsets (n_sequences + 1,) int32; weight_hh
    (4H, H); h0, c0 (n_sequences, H). Gates are in the order i, f, g, o: weights and formulas are
    those of torch.nn.LSTM."""
    order, running, tokens = time_major(offsets, gates_x.shape[0])
    h, c = h0[order], c0[order]
    h_steps, c_steps = [h[:0]], [c[:0]]
    for step in torch.split(gates_x[tokens], running):
        n = step.shape[0]
        i, f, g, o = torch.addmm(step, h[:n], weight_hh.t()).chunk(4, 1)
        c = f.sigmoid() * c[:n] + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        h_steps.append(h)
        c_steps.append(c)
    back = torch.argsort(tokens)
    return torch.cat(h_steps)[back], torch.cat(c_steps)[back]


def time_major(offsets: Tensor, n_tokens: int) -> tuple[Tensor, list[int], Tensor]:
    """Return sequences by falling length, the number still running at each step, and the tokens in
    step order.

    offsets [0, 1, 4, 4, 6] → order [1, 3, 0, 2], running [3, 2, 1], tokens [1, 4, 0, 2, 5, 3].
    """
    order = torch.argsort(offsets.diff(), descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    sequences = segment_ids(offsets, n_tokens)
    steps = torch.arange(n_tokens, device=order.device) - offsets[sequences]
    running = torch.bincount(steps)
    starts = running.cumsum(0) - running
    tokens = torch.empty_like(steps)
    tokens[starts[steps] + rank[sequences]] = torch.arange(n_tokens, device=order.device)
    return order, running.tolist(), tokens


MOST_POSITIONS = 1 << 24
"""positions of all prefixes of a batch: they are quadratic in a session's length, and gigabytes
beyond this"""


@dataclass(frozen=True)
class Prefixes:
    """Every prefix of every sequence, one after another.

    offsets [0, 2, 3] (tokens a0 a1 | b0) → rows [0, 0, 1, 2], offsets [0, 1, 3, 4], first [0, 1,
    3], last [0, 2, 3]"""

    rows: Tensor
    """token of each expanded position, int64"""
    offsets: Tensor
    """start of each prefix in rows, int32, shape (n_tokens + 1,)"""
    first: Tensor
    """expanded position of each prefix's first token, int64, shape (n_tokens,)"""
    last: Tensor
    """expanded position of each prefix's last token, int64, shape (n_tokens,)"""


def prefixes(offsets: Tensor, window: int | None = None) -> Prefixes:
    """Expand sequences, `offsets` (n_sequences + 1,), into their prefixes, each cut to its last
    `window` tokens."""
    lengths = torch.diff(offsets).long()
    n_tokens = int(offsets[-1])
    tokens = torch.arange(n_tokens, device=offsets.device)
    start = torch.repeat_interleave(offsets[:-1].long(), lengths)
    size = tokens - start + 1
    if window is not None:
        size = size.clamp(max=window)
    ends = size.cumsum(0)
    if n_tokens and int(ends[-1]) > MOST_POSITIONS:
        raise ConfigError(
            f"the prefixes of a batch whose longest session has {int(lengths.max()):,} choices are "
            f"{int(ends[-1]):,} positions, at most {MOST_POSITIONS:,} are read at once: lower "
            "batch_sessions, or use history = lstm or pw"
        )
    first = ends - size
    rows = torch.arange(int(ends[-1]) if n_tokens else 0, device=offsets.device)
    rows = (
        rows
        - torch.repeat_interleave(first, size)
        + torch.repeat_interleave(tokens + 1 - size, size)
    )
    all_offsets = torch.cat([ends.new_zeros(1), ends]).to(torch.int32)
    return Prefixes(rows, all_offsets, first, ends - 1)


def reverse_rows(expanded: Prefixes) -> Tensor:
    """Positions that reverse each prefix in place: offsets [0, 1, 3] → [0, 2, 1]."""
    sizes = expanded.last - expanded.first + 1
    ends = torch.repeat_interleave(expanded.first + expanded.last, sizes)
    return ends - torch.arange(len(ends), device=ends.device)


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

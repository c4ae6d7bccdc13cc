"""LSTM and prefixes of ragged sequences of tokens. Sequence i owns rows offsets[i]:offsets[i + 1],
in time order, maybe none."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgaum.errors import ConfigError
from fastgaum.nets.segments import segment_ids


def lstm(
    gates_x: Tensor, offsets: Tensor, weight_hh: Tensor, h0: Tensor, c0: Tensor
) -> tuple[Tensor, Tensor]:
    """h and c after each token, (n_tokens, H) each; formulas and gates, i, f, g, o, are
    torch.nn.LSTM's.

    gates_x (n_tokens, 4H) holds W_ih x + b_ih + b_hh; offsets (n_sequences + 1,) int32; weight_hh
    (4H, H); h0, c0 (n_sequences, H)."""
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
    """Sequences by falling length, the number running at each step, and the tokens in step order:
    offsets [0, 1, 4, 4, 6] → [1, 3, 0, 2], [3, 2, 1], [1, 4, 0, 2, 5, 3]."""
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
"""positions of all prefixes of a batch"""


def prefixes(offsets: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Expand sequences, `offsets` (n_sequences + 1,), into their prefixes, each cut to its last
    `window` tokens; return the token of each position, int64, and the start of each prefix, int32,
    (n_tokens + 1,). Raises ConfigError above MOST_POSITIONS.

    offsets [0, 2, 3] (tokens a0 a1 | b0), window 2 → tokens [0, 0, 1, 2], starts [0, 1, 3, 4]"""
    lengths = torch.diff(offsets).long()
    n_tokens = int(offsets[-1])
    tokens = torch.arange(n_tokens, device=offsets.device)
    start = torch.repeat_interleave(offsets[:-1].long(), lengths)
    size = (tokens - start + 1).clamp(max=window)
    ends = size.cumsum(0)
    if n_tokens and int(ends[-1]) > MOST_POSITIONS:
        raise ConfigError(
            f"the prefixes of a batch whose longest session has {int(lengths.max()):,} choices are "
            f"{int(ends[-1]):,} positions, at most {MOST_POSITIONS:,} are read at once: lower "
            "batch_sessions or history_window"
        )
    rows = torch.arange(int(ends[-1]) if n_tokens else 0, device=offsets.device)
    rows = rows + torch.repeat_interleave(tokens + 1 - ends, size)
    return rows, torch.cat([ends.new_zeros(1), ends]).to(torch.int32)

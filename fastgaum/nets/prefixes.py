"""Prefixes of token sequences as sequences of their own, and gathers of ragged bags: index
arithmetic only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastgaum.errors import ConfigError
from fastgaum.logs.split import pick_rows
from fastgaum.nets.tensors import Bags

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
            f"{int(ends[-1]):,} positions,"
            f" at most {MOST_POSITIONS:,} are read at once: lower batch_sessions, or use history = "
            "lstm, gru or pw"
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


def join_bags(left: Bags, right: Bags) -> Bags:
    """The bags of `left` followed by those of `right`."""
    return Bags(
        torch.cat([left.ids, right.ids]),
        torch.cat([left.offsets, right.offsets[1:] + left.offsets[-1]]),
        torch.cat([left.numbers, right.numbers]),
    )


def gather_bags(bags: Bags, rows: Tensor) -> Bags:
    """Bags of the given rows, in the given order."""
    offsets, index = pick_rows(bags.offsets.cpu().numpy(), rows.cpu().numpy().astype(np.int32))
    flat = torch.from_numpy(index).long().to(rows.device)
    return Bags(bags.ids[flat], torch.from_numpy(offsets).to(rows.device), bags.numbers[rows])

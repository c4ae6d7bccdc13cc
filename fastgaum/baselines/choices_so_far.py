"""The choices so far as fixed-size features: what feed-forward baselines read in place of a
recurrent state."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgaum.nets.tensors import Bags, BatchTensors


def mean_of_choices(embedded: Tensor, batch: BatchTensors) -> Tensor:
    """Mean over the choices before each event of their tokens' vectors, zeros before the first,
    shape (n_events, d).

    embedded (n_tokens, d). O(n_tokens): running sums, in float64 so that a session does not feel
    the others before it.

    One session, tokens [1.], [3.] → events 0, 1, 2 read [0.], [1.], [2.].
    """
    offsets = batch.token_offsets.long()
    running = torch.cat([embedded.new_zeros(1, embedded.shape[1]), embedded]).double().cumsum(0)
    lengths = torch.diff(offsets)
    start = torch.repeat_interleave(offsets[:-1], lengths)
    stop = torch.arange(1, len(embedded) + 1)
    means = (running[1:] - running[start]) / (stop - start)[:, None]
    zeros = embedded.new_zeros(batch.n_events, embedded.shape[1])
    return zeros.index_copy(0, batch.later_events, means.to(embedded.dtype))


def last_choices(batch: BatchTensors) -> Tensor:
    """Item id of the choice before each event (0 is no click), −1 before the first, int64, shape
    (n_events,)."""
    nothing = torch.full((batch.n_events,), -1, dtype=torch.int64)
    return nothing.index_copy(0, batch.later_events, item_ids(batch.tokens))


def item_ids(bags: Bags) -> Tensor:
    """The item of each bag, its first id, int64, shape (n_bags,)."""
    return bags.ids[bags.offsets[:-1].long()].long()

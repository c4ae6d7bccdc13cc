"""Drawing choices from ragged distributions."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgaum.errors import NumericsError
from fastgaum.nets.regularisers import ChoiceDistribution
from fastgaum.nets.segments import segment_argmax


@torch.no_grad()
def sample_candidates(
    dist: ChoiceDistribution, offsets: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Draw one choice per event: its row among the candidates, or -1 for no click; int64, shape
    (n_events,).

    By the Gumbel-max trick: the arg-max of log-probability plus Gumbel noise is a draw. Entries of
    probability 0 are never drawn.

    Raises:
        NumericsError: an event has no distribution: a NaN or +inf among its scores, or −inf alone.
    """
    keys = _gumbel(dist.probs, generator) + dist.probs.log()
    best = segment_argmax(keys, offsets) + offsets[:-1]
    outside = _gumbel(dist.outside_prob, generator) + dist.outside_prob.log()
    highest = torch.maximum(keys[best], outside)
    # −inf: every entry has probability 0; a NaN comes through argmax and maximum
    drawable = highest > -torch.inf
    if not bool(drawable.all()):
        event = int(torch.argmin(drawable.int()))
        raise NumericsError(
            f"event {event} of the batch has no distribution to draw from, its scores are NaN or "
            "infinite: the model has"
            " diverged, or every candidate was ruled out by −inf without a no-click option"
        )
    return torch.where(outside > keys[best], -1, best)


def _gumbel(like: Tensor, generator: torch.Generator | None) -> Tensor:
    uniform = torch.rand(like.shape, dtype=like.dtype, device=like.device, generator=generator)
    return -torch.log(-torch.log(uniform.clamp(min=1e-20, max=1 - 1e-7)))

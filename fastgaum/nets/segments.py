"""Reductions over ragged segments: the candidates of each event, flat, cut by offsets; plain torch,
any device.

`values` holds one number per candidate, (n_candidates,), float32 or float64; `offsets` (n_events +
1,) int32 says where each event's candidates start. With `outside`, no click is one more entry of
every event, with value 0. An event that has no distribution (a NaN, +inf, or −inf alone among its
entries) gets NaN, and damages no other event. Autograd differentiates all of it."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@cache
def has_triton() -> bool:
    """Return whether operators of a CUDA device run by Triton's kernels (`cuda_ops`)."""
    return find_spec("triton") is not None


def segment_ids(offsets: Tensor, n_rows: int) -> Tensor:
    """Return the segment of each row, int64, (n_rows,): offsets [0, 3, 5] → [0, 0, 0, 1, 1].

    Raises ValueError, on the CPU, for offsets that do not end at n_rows; a card is not waited for.
    """
    if not offsets.is_cuda and int(offsets[-1]) != n_rows:
        raise ValueError(
            f"offsets end at {int(offsets[-1])}, but there are {n_rows} rows: pass their own "
            "offsets"
        )
    segments = torch.arange(offsets.shape[0] - 1, device=offsets.device)
    return segments.repeat_interleave(offsets.diff(), output_size=n_rows)


def segment_sum(values: Tensor, offsets: Tensor) -> Tensor:
    """Return the sum of each event's entries, (n_candidates,) → (n_events,) or (n_candidates, d) →
    (n_events, d)."""
    return _sum(values, segment_ids(offsets, values.shape[0]), offsets.shape[0] - 1)


def expand_to_candidates(
    per_event: Tensor, offsets: Tensor, n_candidates: int | None = None
) -> Tensor:
    """Repeat each event's row for its candidates, (n_events,) or (n_events, d) → (n_candidates,) or
    (n_candidates, d).

    offsets [0, 3, 5]: [a, b] → [a, a, a, b, b]. Pass `n_candidates` where known: reading it from
    CUDA offsets waits for the device. Raises ValueError for another number of rows than events."""
    if per_event.shape[0] != offsets.shape[0] - 1:
        raise ValueError(
            f"{per_event.shape[0]} rows for {offsets.shape[0] - 1} events: pass one row per event"
        )
    if n_candidates is None:
        n_candidates = int(offsets[-1])
    return per_event.index_select(0, segment_ids(offsets, n_candidates))


def segment_logsumexp(values: Tensor, offsets: Tensor, outside: bool) -> Tensor:
    """Return log Σ exp(value) of each event, (n_events,); −inf where there is nothing to sum, with
    gradient 0."""
    if values.is_cuda and has_triton():
        from fastgaum.nets import cuda_ops

        return cuda_ops.log_sum_exp(values, offsets, outside)
    n_events = offsets.shape[0] - 1
    entries, segments = _entries(values, offsets, outside)
    maximum = _max(entries, segments, n_events)
    shift = torch.where(maximum.isfinite(), maximum, 0.0)
    total = _sum((entries - shift[segments]).exp(), segments, n_events)
    nothing = total == 0.0
    # the inner `where` keeps the logarithm's gradient finite where the outer one does not read it
    return torch.where(nothing, -torch.inf, shift + torch.where(nothing, 1.0, total).log())


def segment_log_softmax(values: Tensor, offsets: Tensor, outside: bool) -> tuple[Tensor, Tensor]:
    """Return log-probabilities of the candidates (n_candidates,) and of no click (n_events,).

    The latter is −log-sum-exp, or the constant −inf without the no-click option."""
    n_events = offsets.shape[0] - 1
    if values.is_cuda and has_triton():
        totals = segment_logsumexp(values, offsets, outside)
        log_probs = values - expand_to_candidates(totals, offsets, values.shape[0])
        return log_probs, -totals if outside else torch.full_like(totals, -torch.inf)
    entries, segments = _entries(values, offsets, outside)
    shifted = _shifted(entries, segments, n_events)
    log_probs = shifted - _sum(shifted.exp(), segments, n_events).log()[segments]
    return _split(log_probs, values.shape[0], n_events, outside, -torch.inf)


def segment_entmax(
    values: Tensor, offsets: Tensor, outside: bool, alpha: float
) -> tuple[Tensor, Tensor]:
    """Return α-entmax of each event (the Tsallis regulariser's best response), shaped as by
    `segment_log_softmax`; no click has 0 where it is not offered.

    α is 2, sparsemax, the Euclidean projection onto the simplex (Martins & Astudillo, ICML 2016),
    or 1.5; both are exact, by sorting (Peters, Niculae & Martins, ACL 2019). Not differentiable in
    α, nor twice."""
    n_events = offsets.shape[0] - 1
    entries, segments = _entries(values, offsets, outside)
    probs: Tensor
    probs = _Entmax.apply(entries, segments, n_events, alpha)  # type: ignore[no-untyped-call]
    return _split(probs, values.shape[0], n_events, outside, 0.0)


def segment_argmax(values: Tensor, offsets: Tensor) -> Tensor:
    """Return the position of the greatest value in each event, int64, (n_events,); −1 for an empty
    event.

    The **first** of tied values: for rollouts, never for metrics, which count ties exactly. A NaN
    counts as greatest. Not differentiable."""
    n_events = offsets.shape[0] - 1
    segments = segment_ids(offsets, values.shape[0])
    best = values.isnan() | (values == _max(values, segments, n_events)[segments])
    position = torch.arange(values.shape[0], device=values.device) - offsets[segments]
    candidates = torch.where(best, position, values.shape[0])
    first = candidates.new_full((n_events,), values.shape[0]).scatter_reduce_(
        0, segments, candidates, "amin"
    )
    return torch.where(offsets.diff() == 0, -1, first)


def _entries(values: Tensor, offsets: Tensor, outside: bool) -> tuple[Tensor, Tensor]:
    """Return (entries, segments): the flat values, then with `outside` one 0 per event."""
    if values.dim() != 1:
        raise ValueError(
            f"values have shape {tuple(values.shape)}, a flat (n_candidates,) is required: squeeze "
            "them"
        )
    segments = segment_ids(offsets, values.shape[0])
    if not outside:
        return values, segments
    n_events = offsets.shape[0] - 1
    events = torch.arange(n_events, device=values.device)
    return torch.cat((values, values.new_zeros(n_events))), torch.cat((segments, events))


def _split(
    entries: Tensor, n_values: int, n_events: int, outside: bool, absent: float
) -> tuple[Tensor, Tensor]:
    """Undo `_entries`: (flat values, outside value per event), the latter `absent` where there is
    no outside entry."""
    if not outside:
        return entries, entries.new_full((n_events,), absent)
    return entries[:n_values], entries[n_values:]


def _sum(entries: Tensor, segments: Tensor, n_events: int) -> Tensor:
    return entries.new_zeros((n_events, *entries.shape[1:])).index_add(0, segments, entries)


def _max(entries: Tensor, segments: Tensor, n_events: int) -> Tensor:
    """The greatest entry of each segment, −inf for none, without gradient."""
    none = entries.new_full((n_events,), -torch.inf)
    return none.scatter_reduce_(0, segments, entries.detach(), "amax")


def _shifted(entries: Tensor, segments: Tensor, n_events: int) -> Tensor:
    """Entries less the greatest of their segment; all NaN in a segment without a distribution."""
    maximum = _max(entries, segments, n_events)
    return entries - torch.where(maximum.isfinite(), maximum, torch.nan)[segments]


class _Entmax(torch.autograd.Function):
    """α-entmax of (entries, segments), whose threshold autograd cannot see through."""

    @staticmethod
    def forward(ctx: Any, entries: Tensor, segments: Tensor, n_events: int, alpha: float) -> Tensor:
        # a −inf or NaN as the greatest entry makes the whole segment NaN: −inf − (−inf)
        z = (alpha - 1.0) * (
            entries.double() - _max(entries, segments, n_events).double()[segments]
        )
        damaged = _sum(z.isnan().double(), segments, n_events)[segments] > 0.0
        z = torch.where(damaged, 0.0, z.clamp_min(-1.0))
        sizes = torch.bincount(segments, minlength=n_events)
        tau = _thresholds(z, segments, sizes, alpha)
        shares = (z - tau[segments]).clamp_min(0.0) ** (1.0 / (alpha - 1.0))
        probs = torch.where(damaged, torch.nan, shares / _sum(shares, segments, n_events)[segments])
        probs = probs.to(entries.dtype)
        ctx.save_for_backward(probs, segments)
        ctx.n_events, ctx.alpha = n_events, alpha
        return probs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        """s · (grad − ⟨s, grad⟩ / Σ s), s = p^(2−α) on the support."""
        probs, segments = ctx.saved_tensors
        # the added zero keeps a NaN a NaN where the power is 0
        s = torch.where(probs == 0.0, 0.0, probs ** (2.0 - ctx.alpha) + 0.0 * probs)
        off = s == 0.0
        mean = _sum(torch.where(off, 0.0, s * grad), segments, ctx.n_events) / _sum(
            s, segments, ctx.n_events
        )
        return torch.where(off, 0.0, s * (grad - mean[segments])), None, None, None


def _thresholds(z: Tensor, segments: Tensor, sizes: Tensor, alpha: float) -> Tensor:
    """Return τ per event in float64, for α = 2 or 1.5; z ∈ [−1, 0], where entries at −1 are never
    in the support."""
    order = z.argsort(descending=True, stable=True)
    order = order[segments[order].argsort(stable=True)]
    z, segments = z[order], segments[order]
    starts = sizes.cumsum(0) - sizes
    # Sums over the entries above each one in its segment: a running sum less its value at the
    # segment's start.
    position = torch.arange(z.shape[0], device=z.device)
    count = (position - starts[segments]).double()
    above = _above(z, starts, segments)
    squares = _above(z * z, starts, segments)
    mass = above - count * z if alpha == 2.0 else squares - 2.0 * z * above + count * z * z
    support = (mass < 1.0).double()
    size = _sum(support, segments, sizes.shape[0])
    total = _sum(support * z, segments, sizes.shape[0])
    if alpha == 2.0:
        return (total - 1.0) / size
    mean = total / size
    spread = _sum(support * z * z, segments, sizes.shape[0]) - total * mean
    return mean - ((1.0 - spread) / size).clamp_min(0.0).sqrt()


def _above(z: Tensor, starts: Tensor, segments: Tensor) -> Tensor:
    running = torch.cat((z.new_zeros(1), z.cumsum(0)))
    return running[:-1] - running[starts][segments]

"""The segment operators through stock torch, for CUDA tensors; they also run on the CPU, where
tests compare them.

Each works on the pair (entries, segment of each entry). The outside option is appended as one more
entry of value 0 per event, so that no formula needs a second case."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgaum.nets.ops._dispatch import segment_ids


def _entries(values: Tensor, offsets: Tensor, outside: bool) -> tuple[Tensor, Tensor]:
    """Return (entries, segments): the flat values, then with `outside` one 0 per event."""
    segments = segment_ids(offsets, values.shape[0])
    if not outside:
        return values, segments
    n_events = offsets.shape[0] - 1
    zeros = values.new_zeros(n_events)
    return torch.cat((values, zeros)), torch.cat(
        (segments, torch.arange(n_events, device=values.device))
    )


def _split(
    entries: Tensor, n_values: int, n_events: int, outside: bool, absent: float
) -> tuple[Tensor, Tensor]:
    """Undo `_entries`: (flat values, outside value per event), the latter `absent` where there is
    no outside entry."""
    if not outside:
        return entries, entries.new_full((n_events,), absent)
    # Clones, because outputs of an operator must not share memory.
    return entries[:n_values].clone(), entries[n_values:].clone()


def _sum(entries: Tensor, segments: Tensor, n_events: int) -> Tensor:
    return entries.new_zeros((n_events, *entries.shape[1:])).index_add_(0, segments, entries)


def _max(entries: Tensor, segments: Tensor, n_events: int) -> Tensor:
    return entries.new_full((n_events,), -torch.inf).scatter_reduce_(0, segments, entries, "amax")


def _shift_and_total(entries: Tensor, segments: Tensor, n_events: int) -> tuple[Tensor, Tensor]:
    maximum = _max(entries, segments, n_events)
    shift = torch.where(maximum.isfinite(), maximum, 0.0)
    return shift, _sum((entries - shift[segments]).exp(), segments, n_events)


def _or_nan(total: Tensor) -> Tensor:
    """Mark the totals of segments without a distribution: +inf, or −inf alone."""
    return torch.where((total > 0.0) & (total < torch.inf), total, torch.nan)


def logsumexp(values: Tensor, offsets: Tensor, outside: bool) -> Tensor:
    """See fastgaum.nets.ops.segments.segment_logsumexp."""
    shift, total = _shift_and_total(*_entries(values, offsets, outside), offsets.shape[0] - 1)
    return shift + total.log()


def logsumexp_backward(values: Tensor, grad: Tensor, result: Tensor, offsets: Tensor) -> Tensor:
    """Return grad · softmax, 0 where the value is −inf."""
    segments = segment_ids(offsets, values.shape[0])
    return torch.where(
        values == -torch.inf, 0.0, grad[segments] * (values - result[segments]).exp()
    )


def log_softmax(values: Tensor, offsets: Tensor, outside: bool) -> tuple[Tensor, Tensor]:
    """See fastgaum.nets.ops.segments.segment_log_softmax."""
    n_events = offsets.shape[0] - 1
    entries, segments = _entries(values, offsets, outside)
    shift, total = _shift_and_total(entries, segments, n_events)
    log_probs = (entries - shift[segments]) - _or_nan(total).log()[segments]
    return _split(log_probs, values.shape[0], n_events, outside, -torch.inf)


def log_softmax_backward(
    grad_log_probs: Tensor, grad_outside: Tensor, log_probs: Tensor, offsets: Tensor, outside: bool
) -> Tensor:
    """Return grad − softmax · Σ grad."""
    segments = segment_ids(offsets, log_probs.shape[0])
    total = _sum(grad_log_probs, segments, offsets.shape[0] - 1)
    if outside:
        total = total + grad_outside
    return grad_log_probs - log_probs.exp() * total[segments]


def softmax(values: Tensor, offsets: Tensor, outside: bool) -> tuple[Tensor, Tensor]:
    """See fastgaum.nets.ops.segments.segment_softmax."""
    n_events = offsets.shape[0] - 1
    entries, segments = _entries(values, offsets, outside)
    shift, total = _shift_and_total(entries, segments, n_events)
    probs = (entries - shift[segments]).exp() / _or_nan(total)[segments]
    return _split(probs, values.shape[0], n_events, outside, 0.0)


def _thresholds_by_sorting(z: Tensor, segments: Tensor, sizes: Tensor, alpha: float) -> Tensor:
    """Return τ per event in float64, for α = 2 or 1.5; z ∈ [−1, 0], where entries at −1 are never
    in the support."""
    order = z.argsort(descending=True, stable=True)
    order = order[segments[order].argsort(stable=True)]
    z, segments = z[order], segments[order]
    ends = sizes.cumsum(0)
    # Sums over the entries above each one in its segment: a running sum less its value at the
    # segment's start.
    position = torch.arange(z.shape[0], device=z.device)
    count = (position - (ends - sizes)[segments]).double()
    above = _above(z, ends - sizes, segments)
    squares = _above(z * z, ends - sizes, segments)
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


def _thresholds_by_bisection(z: Tensor, segments: Tensor, sizes: Tensor, alpha: float) -> Tensor:
    """Return τ per event in float64 for any α > 1: 55 halvings of [−1, −size^(1−α)]."""
    low = z.new_full(sizes.shape, -1.0)
    high = -(sizes.double() ** (1.0 - alpha))
    for _ in range(55):
        tau = 0.5 * (low + high)
        full = (
            _sum(
                (z - tau[segments]).clamp_min(0.0) ** (1.0 / (alpha - 1.0)),
                segments,
                sizes.shape[0],
            )
            >= 1.0
        )
        low, high = torch.where(full, tau, low), torch.where(full, high, tau)
    return low


def entmax(
    values: Tensor, offsets: Tensor, outside: bool, alpha: float, by_sorting: bool
) -> tuple[Tensor, Tensor]:
    """See fastgaum.nets.ops.segments: sparsemax, entmax15 and entmax_bisect in one."""
    n_events = offsets.shape[0] - 1
    entries, segments = _entries(values, offsets, outside)
    sizes = offsets.diff().long() + int(outside)
    # The shift must not be made finite here: −inf − (−inf) and NaN mark the segments that have no
    # distribution.
    maximum = _max(entries, segments, n_events).double()[segments]
    z = (alpha - 1.0) * (entries.double() - maximum)
    damaged = _sum(z.isnan().double(), segments, n_events)[segments] > 0.0
    z = torch.where(damaged, 0.0, z.clamp_min(-1.0))
    tau = (_thresholds_by_sorting if by_sorting else _thresholds_by_bisection)(
        z, segments, sizes, alpha
    )
    shares = (z - tau[segments]).clamp_min(0.0) ** (1.0 / (alpha - 1.0))
    probs = torch.where(damaged, torch.nan, shares / _sum(shares, segments, n_events)[segments])
    return _split(probs.to(values.dtype), values.shape[0], n_events, outside, 0.0)


def _sensitivity(probs: Tensor, alpha: float) -> Tensor:
    """Return p^(2−α) on the support, 0 off it; the added zero keeps a NaN a NaN where the power is
    0."""
    return torch.where(probs == 0.0, 0.0, probs ** (2.0 - alpha) + 0.0 * probs)


def entmax_backward(
    grad_probs: Tensor,
    grad_outside: Tensor,
    probs: Tensor,
    outside_prob: Tensor,
    offsets: Tensor,
    outside: bool,
    alpha: float,
) -> Tensor:
    """Return s · (grad − ⟨s, grad⟩ / Σ s), s = p^(2−α) on the support; α = 1 is softmax."""
    n_events = offsets.shape[0] - 1
    segments = segment_ids(offsets, probs.shape[0])
    s = _sensitivity(probs, alpha)
    total = _sum(s, segments, n_events)
    weighted = _sum(torch.where(s == 0.0, 0.0, s * grad_probs), segments, n_events)
    if outside:
        s_outside = _sensitivity(outside_prob, alpha)
        total = total + s_outside
        weighted = weighted + torch.where(s_outside == 0.0, 0.0, s_outside * grad_outside)
    return torch.where(s == 0.0, 0.0, s * (grad_probs - (weighted / total)[segments]))


def segment_sum(values: Tensor, offsets: Tensor) -> Tensor:
    """See fastgaum.nets.ops.segments.segment_sum."""
    return _sum(values, segment_ids(offsets, values.shape[0]), offsets.shape[0] - 1)


def expand(per_event: Tensor, offsets: Tensor, n_candidates: int) -> Tensor:
    """See fastgaum.nets.ops.segments.expand_to_candidates."""
    return per_event.repeat_interleave(offsets.diff(), dim=0, output_size=n_candidates)


def argmax(values: Tensor, offsets: Tensor) -> Tensor:
    """See fastgaum.nets.ops.segments.segment_argmax."""
    n_events = offsets.shape[0] - 1
    segments = segment_ids(offsets, values.shape[0])
    best = values.isnan() | (values == _max(values, segments, n_events)[segments])
    position = torch.arange(values.shape[0], device=values.device) - offsets[segments]
    candidates = torch.where(best, position, values.shape[0])
    first = candidates.new_full((n_events,), values.shape[0]).scatter_reduce_(
        0, segments, candidates, "amin"
    )
    return torch.where(offsets.diff() == 0, -1, first)

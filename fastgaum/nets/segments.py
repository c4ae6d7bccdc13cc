"""Reductions over ragged segments: the candidates of each event, flat, cut by offsets.

`values` holds one number per candidate, (n_candidates,), float32 or float64; `offsets` (n_events +
1,) int32 says where each event's candidates start. With `no_click`, no click is one more entry of
every event, with value 0. An event that has no distribution (a NaN, +inf, or −inf alone among its
entries) gets NaN, and damages no other event. Autograd differentiates all of it."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor


@cache
def has_triton() -> bool:
    """Whether operators of a CUDA device run by Triton's kernels (`cuda_ops`)."""
    return find_spec("triton") is not None


def segment_ids(offsets: Tensor, n_rows: int) -> Tensor:
    """The segment of each row, int64, (n_rows,): offsets [0, 3, 5] → [0, 0, 0, 1, 1].

    Raises ValueError, on the CPU, for offsets that do not end at n_rows.
    """
    if not offsets.is_cuda and int(offsets[-1]) != n_rows:
        raise ValueError(
            f"offsets end at {int(offsets[-1])}, but there are {n_rows} rows: pass their own "
            "offsets"
        )
    segments = torch.arange(offsets.shape[0] - 1, device=offsets.device)
    return segments.repeat_interleave(offsets.diff(), output_size=n_rows)


def segment_sum(values: Tensor, offsets: Tensor) -> Tensor:
    """The sum of each event's entries, (n_candidates,) → (n_events,) or (n_candidates, d) →
    (n_events, d)."""
    return sum_entries(values, segment_ids(offsets, values.shape[0]), offsets.shape[0] - 1)


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


def segment_logsumexp(values: Tensor, offsets: Tensor, no_click: bool) -> Tensor:
    """log Σ exp(value) of each event, (n_events,); −inf where there is nothing to sum, with
    gradient 0."""
    if values.is_cuda and has_triton():
        from fastgaum.nets import cuda_ops

        return cuda_ops.log_sum_exp(values, offsets, no_click)
    n_events = offsets.shape[0] - 1
    entries, segments = entries_of(values, offsets, no_click)
    maximum = max_entries(entries, segments, n_events)
    shift = torch.where(maximum.isfinite(), maximum, 0.0)
    total = sum_entries((entries - shift[segments]).exp(), segments, n_events)
    nothing = total == 0.0
    # the inner `where` keeps the logarithm's gradient finite where the outer one does not read it
    return torch.where(nothing, -torch.inf, shift + torch.where(nothing, 1.0, total).log())


def segment_log_softmax(values: Tensor, offsets: Tensor, no_click: bool) -> tuple[Tensor, Tensor]:
    """log-probabilities of the candidates (n_candidates,) and of no click (n_events,).

    The latter is −log-sum-exp, or the constant −inf without the no-click option."""
    n_events = offsets.shape[0] - 1
    if values.is_cuda and has_triton():
        totals = segment_logsumexp(values, offsets, no_click)
        log_probs = values - expand_to_candidates(totals, offsets, values.shape[0])
        return log_probs, -totals if no_click else torch.full_like(totals, -torch.inf)
    entries, segments = entries_of(values, offsets, no_click)
    shifted = _shifted(entries, segments, n_events)
    log_probs = shifted - sum_entries(shifted.exp(), segments, n_events).log()[segments]
    return split_entries(log_probs, values.shape[0], n_events, no_click, -torch.inf)


def segment_argmax(values: Tensor, offsets: Tensor) -> Tensor:
    """The position of the greatest value in each event, int64, (n_events,); −1 for an empty event.

    The **first** of tied values: for rollouts, never for metrics. A NaN counts as greatest. Not
    differentiable."""
    n_events = offsets.shape[0] - 1
    segments = segment_ids(offsets, values.shape[0])
    best = values.isnan() | (values == max_entries(values, segments, n_events)[segments])
    position = torch.arange(values.shape[0], device=values.device) - offsets[segments]
    candidates = torch.where(best, position, values.shape[0])
    first = candidates.new_full((n_events,), values.shape[0]).scatter_reduce_(
        0, segments, candidates, "amin"
    )
    return torch.where(offsets.diff() == 0, -1, first)


def entries_of(values: Tensor, offsets: Tensor, no_click: bool) -> tuple[Tensor, Tensor]:
    """Return (entries, segments): the flat values, then with `no_click` one 0 per event."""
    if values.dim() != 1:
        raise ValueError(
            f"values have shape {tuple(values.shape)}, a flat (n_candidates,) is required: squeeze "
            "them"
        )
    segments = segment_ids(offsets, values.shape[0])
    if not no_click:
        return values, segments
    n_events = offsets.shape[0] - 1
    events = torch.arange(n_events, device=values.device)
    return torch.cat((values, values.new_zeros(n_events))), torch.cat((segments, events))


def split_entries(
    entries: Tensor, n_values: int, n_events: int, no_click: bool, absent: float
) -> tuple[Tensor, Tensor]:
    """Undo `entries_of`: (flat values, no-click value per event), the latter `absent` where there
    is no such entry."""
    if not no_click:
        return entries, entries.new_full((n_events,), absent)
    return entries[:n_values], entries[n_values:]


def sum_entries(entries: Tensor, segments: Tensor, n_events: int) -> Tensor:
    """The sum of each segment's entries."""
    return entries.new_zeros((n_events, *entries.shape[1:])).index_add(0, segments, entries)


def max_entries(entries: Tensor, segments: Tensor, n_events: int) -> Tensor:
    """The greatest entry of each segment, −inf for none, without gradient."""
    none = entries.new_full((n_events,), -torch.inf)
    return none.scatter_reduce_(0, segments, entries.detach(), "amax")


def _shifted(entries: Tensor, segments: Tensor, n_events: int) -> Tensor:
    """Entries less the greatest of their segment; all NaN in a segment without a distribution."""
    maximum = max_entries(entries, segments, n_events)
    return entries - torch.where(maximum.isfinite(), maximum, torch.nan)[segments]

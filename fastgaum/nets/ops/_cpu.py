"""The segment operators through the Numba kernels, for CPU tensors: checks and allocation around
each kernel.

The `empty_*` functions say the shape of each operator's output; tracing uses the same ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastgaum.kernels import segments as segment_kernels
from fastgaum.kernels import simplex as simplex_kernels
from fastgaum.nets.ops._dispatch import check_offsets, check_rows, check_values


def log_softmax(values: Tensor, offsets: Tensor, outside: bool) -> tuple[Tensor, Tensor]:
    """Check, allocate and run the kernel of the same name."""
    check_values(values, offsets)
    log_probs, outside_log_prob = empty_pair(values, offsets)
    segment_kernels.log_softmax(
        values.contiguous().numpy(),
        offsets.numpy(),
        outside,
        log_probs.numpy(),
        outside_log_prob.numpy(),
    )
    return log_probs, outside_log_prob


def log_softmax_backward(
    grad_log_probs: Tensor, grad_outside: Tensor, log_probs: Tensor, offsets: Tensor, outside: bool
) -> Tensor:
    """Check, allocate and run the kernel of the same name."""
    grad_values = empty_gradient(log_probs)
    segment_kernels.log_softmax_backward(
        grad_log_probs.contiguous().numpy(),
        grad_outside.contiguous().numpy(),
        log_probs.numpy(),
        offsets.numpy(),
        outside,
        grad_values.numpy(),
    )
    return grad_values


def logsumexp(values: Tensor, offsets: Tensor, outside: bool) -> Tensor:
    """Check, allocate and run the kernel of the same name."""
    check_values(values, offsets)
    result = empty_per_event(values, offsets)
    segment_kernels.logsumexp(values.contiguous().numpy(), offsets.numpy(), outside, result.numpy())
    return result


def logsumexp_backward(values: Tensor, grad: Tensor, result: Tensor, offsets: Tensor) -> Tensor:
    """Check, allocate and run the kernel of the same name."""
    grad_values = empty_gradient(values)
    segment_kernels.logsumexp_backward(
        grad.contiguous().numpy(),
        values.contiguous().numpy(),
        result.numpy(),
        offsets.numpy(),
        grad_values.numpy(),
    )
    return grad_values


def softmax(values: Tensor, offsets: Tensor, outside: bool) -> tuple[Tensor, Tensor]:
    """Check, allocate and run the kernel of the same name."""
    check_values(values, offsets)
    probs, outside_prob = empty_pair(values, offsets)
    segment_kernels.softmax(
        values.contiguous().numpy(), offsets.numpy(), outside, probs.numpy(), outside_prob.numpy()
    )
    return probs, outside_prob


def entmax(
    values: Tensor, offsets: Tensor, outside: bool, alpha: float, by_sorting: bool
) -> tuple[Tensor, Tensor]:
    """Check, allocate and run the kernel of the same name."""
    check_values(values, offsets)
    probs, outside_prob = empty_pair(values, offsets)
    scratch = np.empty(values.shape[0] + 1)
    simplex_kernels.entmax(
        values.contiguous().numpy(),
        offsets.numpy(),
        outside,
        alpha,
        by_sorting,
        scratch,
        probs.numpy(),
        outside_prob.numpy(),
    )
    return probs, outside_prob


def entmax_backward(
    grad_probs: Tensor,
    grad_outside: Tensor,
    probs: Tensor,
    outside_prob: Tensor,
    offsets: Tensor,
    outside: bool,
    alpha: float,
) -> Tensor:
    """Check, allocate and run the kernel of the same name."""
    grad_values = empty_gradient(probs)
    simplex_kernels.entmax_backward(
        grad_probs.contiguous().numpy(),
        grad_outside.contiguous().numpy(),
        probs.numpy(),
        outside_prob.numpy(),
        offsets.numpy(),
        outside,
        alpha,
        grad_values.numpy(),
    )
    return grad_values


def segment_sum(values: Tensor, offsets: Tensor) -> Tensor:
    """Check, allocate and run the kernel of the same name."""
    check_rows(values, offsets, "values")
    result = empty_sums(values, offsets)
    segment_kernels.segment_sum(_as_rows(values), offsets.numpy(), _as_rows(result))
    return result


def expand(per_event: Tensor, offsets: Tensor, n_candidates: int) -> Tensor:
    """Check, allocate and run the kernel of the same name."""
    check_offsets(offsets, n_candidates, "candidates")
    if per_event.shape[0] != offsets.shape[0] - 1:
        raise ValueError(
            f"{per_event.shape[0]} rows for {offsets.shape[0] - 1} events: pass one row per event"
        )
    result = empty_expanded(per_event, offsets, n_candidates)
    segment_kernels.expand(_as_rows(per_event), offsets.numpy(), _as_rows(result))
    return result


def argmax(values: Tensor, offsets: Tensor) -> Tensor:
    """Check, allocate and run the kernel of the same name."""
    check_values(values, offsets)
    result = empty_positions(values, offsets)
    segment_kernels.argmax(values.contiguous().numpy(), offsets.numpy(), result.numpy())
    return result


def _as_rows(tensor: Tensor) -> np.ndarray[Any, Any]:
    """View (n,) as (n, 1), so that one compiled kernel serves both."""
    array: np.ndarray[Any, Any] = tensor.contiguous().numpy()
    return array if array.ndim == 2 else array.reshape(-1, 1)


def empty_pair(values: Tensor, offsets: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    """One entry per candidate, and one per event."""
    return values.new_empty(values.shape), values.new_empty(offsets.shape[0] - 1)


def empty_per_event(values: Tensor, offsets: Tensor, *_: object) -> Tensor:
    """One entry per event."""
    return values.new_empty(offsets.shape[0] - 1)


def empty_gradient(grad: Tensor, *_: object) -> Tensor:
    """The shape of the first argument."""
    return grad.new_empty(grad.shape)


def empty_sums(values: Tensor, offsets: Tensor) -> Tensor:
    """One row per event."""
    return values.new_empty((offsets.shape[0] - 1, *values.shape[1:]))


def empty_expanded(per_event: Tensor, offsets: Tensor, n_candidates: int) -> Tensor:
    """One row per candidate."""
    return per_event.new_empty((n_candidates, *per_event.shape[1:]))


def empty_positions(values: Tensor, offsets: Tensor) -> Tensor:
    """One int64 per event."""
    return values.new_empty(offsets.shape[0] - 1, dtype=torch.int64)

"""Registration of torch operators: Numba for CPU tensors, stock torch for CUDA tensors, one
signature."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

FLOATS = (torch.float32, torch.float64)


def operator(
    name: str,
    schema: str,
    cpu: Callable[..., Any],
    cuda: Callable[..., Any],
    fake: Callable[..., Any],
    autograd: tuple[Callable[..., Any], Callable[..., Any]] | None = None,
) -> OpOverload:
    """Define fastgaum::<name>; `fake` returns empty outputs of the right shape, for tracing.

    `autograd` is (setup_context, backward), as torch.library.register_autograd takes them; without
    it the operator refuses to be differentiated, where torch would only warn. These are the parts
    that torch.library.custom_op is made of, less its wrappers: about 52 µs for a forward and
    backward pass against 58."""
    qualname = f"fastgaum::{name}"
    torch.library.define(qualname, schema)
    torch.library.impl(qualname, "cpu", cpu)
    torch.library.impl(qualname, "cuda", cuda)
    torch.library.register_fake(qualname, fake)
    if autograd is None:
        torch.library.register_autograd(qualname, partial(_refuse, name))
    else:
        torch.library.register_autograd(qualname, autograd[1], setup_context=autograd[0])
    op: OpOverload = getattr(torch.ops.fastgaum, name).default
    return op


def _refuse(name: str, *_: object) -> None:
    raise NotImplementedError(
        f"fastgaum::{name} has no derivative: its gradients are of first order only"
    )


def check_rows(
    rows: Tensor, offsets: Tensor, what: str, dtypes: tuple[torch.dtype, ...] = FLOATS
) -> None:
    """Raise TypeError or ValueError unless int32 `offsets` cut exactly `rows`, a tensor of one of
    the dtypes.

    The kernels do not check bounds: offsets that belong to another array would read foreign memory.
    """
    if rows.dtype not in dtypes:
        raise TypeError(
            f"{what} are {rows.dtype}, but the CPU kernels take {' or '.join(map(str, dtypes))}"
        )
    check_offsets(offsets, rows.shape[0], what)


def check_values(values: Tensor, offsets: Tensor) -> None:
    """Raise as `check_rows` does, and ValueError unless values are flat."""
    if values.dim() != 1:
        raise ValueError(
            f"values have shape {tuple(values.shape)}, a flat (n_candidates,) is required: squeeze "
            "them"
        )
    check_rows(values, offsets, "values")


def check_offsets(offsets: Tensor, n_rows: int, what: str) -> None:
    """Raise TypeError or ValueError unless `offsets` is int32 and ends at n_rows."""
    if offsets.dtype is not torch.int32:
        raise TypeError(f"offsets are {offsets.dtype}, int32 is required: convert them with .int()")
    if offsets.numpy()[-1] != n_rows:
        raise ValueError(
            f"offsets end at {int(offsets[-1])}, but there are {n_rows} {what}: pass their own "
            "offsets"
        )


def segment_ids(offsets: Tensor, n_rows: int) -> Tensor:
    """Return the segment of each row, int64, shape (n_rows,): offsets [0, 3, 5] → [0, 0, 0, 1,
    1]."""
    segments = torch.arange(offsets.shape[0] - 1, device=offsets.device)
    return segments.repeat_interleave(offsets.diff(), output_size=n_rows)


def sparse_rows(ids: Tensor, rows: Tensor, n_rows: int) -> Tensor:
    """Return a sparse gradient of a table, (n_rows, d), from rows (nnz, d) and their ids (nnz,);
    repeats add up."""
    size = (n_rows, rows.shape[1])
    return torch.sparse_coo_tensor(ids.long()[None], rows, size, check_invariants=False)

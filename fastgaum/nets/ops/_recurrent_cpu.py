"""The recurrent operators on the CPU: checks and allocation over the kernels, in tiles and parts
(`ops/_tiles.py`).

`lstm_run` and `lstm_back` take numpy arrays and write into given ones; what torch calls stands on
them. Sums over parts are taken in order: any number of threads gives the same bits."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastgaum import threads
from fastgaum.kernels import gru as gru_kernels
from fastgaum.kernels import lstm as lstm_kernels
from fastgaum.kernels import packing
from fastgaum.kernels._jit import Array
from fastgaum.nets.ops._dispatch import check_rows
from fastgaum.nets.ops._tiles import (
    SMALL_PRODUCT,
    Plan,
    column_blocks,
    gate_blocks,
    n_parts,
    outer_blocks,
    plan,
)

NO_SOURCE = np.empty(0, dtype=np.int32)


def lstm_run(
    cut: Plan,
    offsets: Array,
    weight: Array,
    bias: Array,
    x: Array,
    source: Array,
    h0: Array,
    c0: Array,
    gates: Array,
    h: Array,
    c: Array,
) -> None:
    """Write the activated gates (n_tokens, 4H), h and c (n_tokens, H); arguments as in
    `kernels.lstm.lstm_tiles`.

    `weight` is W_hh (4H, H), or [W_hh, W_ih] (4H, H + D) where x are inputs of the projection.
    """
    fixed = (
        cut.order,
        offsets,
        gate_blocks(weight, 4, weight.shape[1]),
        bias,
        x,
        source,
        h0,
        c0,
        gates,
        h,
        c,
    )
    threads.run(lstm_kernels.lstm_tiles, [(tiles, *fixed) for tiles in cut.parts])


def lstm_back(
    cut: Plan,
    offsets: Array,
    weight: Array,
    x: Array,
    source: Array,
    grad_h: Array,
    grad_c: Array,
    h0: Array,
    c0: Array,
    gates: Array,
    h: Array,
    c: Array,
    grad_gates: Array,
    grad_x: Array,
    grad_weight: Array,
    grad_bias: Array,
    grad_h0: Array,
    grad_c0: Array,
) -> None:
    """Write all gradients; arguments as in `lstm_run` and in `kernels.lstm.lstm_tiles_backward`.

    `grad_weight` is as `weight`. `grad_gates` may be `gates`, which are then gone.
    """
    width, depth = weight.shape
    n_outer, outer, most = outer_blocks(width, depth)
    whole = n_outer == 1 and len(cut.parts) == 1
    sums = [
        (
            grad_weight[None] if whole else np.empty((n_outer, width, outer), weight.dtype),
            np.empty_like(grad_bias),
        )
        for _ in cut.parts
    ]
    read = (x, source, grad_h, grad_c, h0, c0, gates, h, c, grad_gates, grad_x)
    fixed = (cut.order, offsets, column_blocks(weight), depth, most, *read)
    threads.run(
        lstm_kernels.lstm_tiles_backward,
        [
            (tiles, *fixed, *own, grad_h0, grad_c0)
            for tiles, own in zip(cut.parts, sums, strict=True)
        ],
    )
    (total, bias), *others = sums
    for other, other_bias in others:
        total += other
        bias += other_bias
    grad_bias[...] = bias
    if not whole:
        grad_weight[...] = total.transpose(1, 0, 2).reshape(width, -1)[:, :depth]


def lstm_forward(
    gates_x: Tensor, offsets: Tensor, weight_hh: Tensor, h0: Tensor, c0: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return h, c (n_tokens, H) and the activated gates (n_tokens, 4H) that the backward pass
    reads."""
    _check(4, gates_x, offsets, weight_hh=weight_hh, h0=h0, c0=c0)
    bias = np.zeros(gates_x.shape[1], _array(gates_x).dtype)
    return _lstm(_array(gates_x), offsets, _array(weight_hh), bias, h0, c0)


def lstm_backward(
    grad_h: Tensor | None,
    grad_c: Tensor | None,
    offsets: Tensor,
    weight_hh: Tensor,
    h0: Tensor,
    c0: Tensor,
    gates: Tensor,
    h: Tensor,
    c: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of gates_x, weight_hh, h0 and c0; a missing gradient stands for
    zeros."""
    none = gates.numpy()[:0]
    results = _empty_like(gates), _empty_like(weight_hh), _empty_like(h0), _empty_like(c0)
    of_gates, of_weight, of_h0, of_c0 = (part.numpy() for part in results)
    grads = of_gates, none, of_weight, none[0:0, 0], of_h0, of_c0
    _lstm_back(grad_h, grad_c, offsets, _array(weight_hh), none, h0, c0, gates, h, c, grads)
    return results


def lstm_layer_forward(
    x: Tensor,
    offsets: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor,
    h0: Tensor,
    c0: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `lstm_forward`, the projection W_ih x + bias inside the kernel's products."""
    _check_layer(x, offsets, weight_ih, weight_hh, bias, h0, c0)
    return _lstm(_array(x), offsets, _joined(weight_hh, weight_ih), _array(bias), h0, c0)


def lstm_layer_backward(
    grad_h: Tensor | None,
    grad_c: Tensor | None,
    x: Tensor,
    offsets: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    h0: Tensor,
    c0: Tensor,
    gates: Tensor,
    h: Tensor,
    c: Tensor,
    wanted: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x (of no row where it is not wanted), weight_ih, weight_hh, bias, h0
    and c0."""
    size, width = h0.shape[1], len(weight_hh)
    of_x, of_bias = x.new_empty(x.shape[0] if wanted else 0, x.shape[1]), x.new_empty(width)
    of_weight, of_h0, of_c0 = (
        x.new_empty(width, size + x.shape[1]),
        _empty_like(h0),
        _empty_like(c0),
    )
    arrays = tuple(part.numpy() for part in (of_x, of_weight, of_bias, of_h0, of_c0))
    weight = _joined(weight_hh, weight_ih)
    _lstm_back(
        grad_h,
        grad_c,
        offsets,
        weight,
        _array(x),
        h0,
        c0,
        gates,
        h,
        c,
        (gates.numpy()[:0], *arrays),
    )
    return (
        of_x,
        of_weight[:, size:].contiguous(),
        of_weight[:, :size].contiguous(),
        of_bias,
        of_h0,
        of_c0,
    )


def _lstm(
    x: Array, offsets: Tensor, weight: Array, bias: Array, h0: Tensor, c0: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    size, starts = h0.shape[1], _array(offsets)
    results = h0.new_empty(len(x), size), h0.new_empty(len(x), size), h0.new_empty(len(x), 4 * size)
    h, c, gates = (part.numpy() for part in results)
    lstm_run(
        plan(starts, size), starts, weight, bias, x, NO_SOURCE, _array(h0), _array(c0), gates, h, c
    )
    return results


def _lstm_back(
    grad_h: Tensor | None,
    grad_c: Tensor | None,
    offsets: Tensor,
    weight: Array,
    x: Array,
    h0: Tensor,
    c0: Tensor,
    gates: Tensor,
    h: Tensor,
    c: Tensor,
    grads: tuple[Array, ...],
) -> None:
    starts, states, memory = _array(offsets), h.numpy(), c.numpy()
    # a length of 0 tells the kernel that a gradient is missing
    given = [memory[:0] if grad is None else _array(grad) for grad in (grad_h, grad_c)]
    read = (*given, _array(h0), _array(c0), gates.numpy(), states, memory)
    lstm_back(plan(starts, h0.shape[1]), starts, weight, x, NO_SOURCE, *read, *grads)


def gru_forward(
    gates_x: Tensor, offsets: Tensor, weight_hh: Tensor, bias_hh: Tensor, h0: Tensor
) -> tuple[Tensor, Tensor]:
    """Return h (n_tokens, H) and r, z, n and n's recurrent sum (n_tokens, 4H) that the backward
    pass reads."""
    _check(3, gates_x, offsets, weight_hh=weight_hh, bias_hh=bias_hh, h0=h0)
    size = h0.shape[1]
    n_tokens = gates_x.shape[0]
    saved, h = h0.new_empty(n_tokens, 4 * size), h0.new_empty(n_tokens, size)
    starts = _array(offsets)
    weights, bias = (
        gate_blocks(_array(weight_hh), 3, size),
        gate_blocks(_array(bias_hh)[:, None], 3, size)[:, 0],
    )
    arrays = tuple(map(_array, (gates_x, h0, saved, h)))
    cut = plan(starts, size)
    threads.run(
        gru_kernels.gru_tiles,
        [(tiles, cut.order, starts, weights, bias, *arrays) for tiles in cut.parts],
    )
    return h, saved


def gru_backward(
    grad_h: Tensor, offsets: Tensor, weight_hh: Tensor, h0: Tensor, saved: Tensor, h: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of gates_x, weight_hh, bias_hh and h0."""
    starts, weights = _array(offsets), column_blocks(_array(weight_hh))
    n_tokens, width = h.shape[0], len(weight_hh)
    of_x, of_weight, of_bias = (
        h0.new_empty(shape) for shape in ((n_tokens, width), weight_hh.shape, (width,))
    )
    of_h0 = _empty_like(h0)
    grad_q = np.empty((n_tokens, width), dtype=weights.dtype)
    first, states = _array(h0), h.numpy()
    arrays = (
        starts,
        weights,
        _array(grad_h),
        first,
        saved.numpy(),
        states,
        of_x.numpy(),
        grad_q,
        of_h0.numpy(),
    )
    cut = plan(starts, h0.shape[1])
    threads.run(
        gru_kernels.gru_tiles_backward, [(tiles, cut.order, *arrays) for tiles in cut.parts]
    )
    _weight_gradient(grad_q, states, first, starts, of_weight.numpy(), of_bias.numpy())
    return of_x, of_weight, of_bias, of_h0


def _array(tensor: Tensor) -> Array:
    """Rows side by side in memory: the kernels are compiled for that layout alone."""
    return tensor.contiguous().numpy()


def _empty_like(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


def _joined(weight_hh: Tensor, weight_ih: Tensor) -> Array:
    """[W_hh, W_ih], (4H, H + D)."""
    return np.concatenate([_array(weight_hh), _array(weight_ih)], axis=1)


def _weight_gradient(
    grad_sums: Array, h: Array, h0: Array, offsets: Array, grad_weight: Array, grad_bias: Array
) -> None:
    """Write Σ over tokens of grad_sums ⊗ h', and Σ grad_sums unless `grad_bias` is empty: for each
    part, then in all.

    Tokens enter a product 60 at a time at 64 hidden units and up to 512 elsewhere, which was
    fastest at 20 to 512."""
    n_tokens = len(grad_sums)
    count = n_parts(n_tokens, h.shape[1])
    small = SMALL_PRODUCT // grad_weight.size
    chunk = 512 if small < 48 else min(small, 512) // 4 * 4
    sums = [(grad_weight, grad_bias)]
    sums += [(np.empty_like(grad_weight), np.empty_like(grad_bias)) for _ in range(1, count)]
    cuts = [n_tokens * part // count for part in range(count + 1)]
    parts = [
        (first, last, chunk, grad_sums, h, h0, offsets, weight, bias)
        for first, last, (weight, bias) in zip(cuts[:-1], cuts[1:], sums, strict=True)
    ]
    threads.run(packing.weight_gradient, parts)
    for weight, bias in sums[1:]:
        grad_weight += weight
        grad_bias += bias


def _check(n_gates: int, gates_x: Tensor, offsets: Tensor, **others: Tensor) -> None:
    """Raise TypeError or ValueError unless all shapes and dtypes fit: the kernels do not check
    bounds."""
    check_rows(gates_x, offsets, "tokens")
    n_sequences, size = offsets.shape[0] - 1, others["h0"].shape[-1]
    expected = {
        "weight_hh": (n_gates * size, size),
        "bias_hh": (n_gates * size,),
        "h0": (n_sequences, size),
        "c0": (n_sequences, size),
    }
    if gates_x.shape[1:] != (n_gates * size,):
        raise ValueError(
            f"gates_x is {tuple(gates_x.shape)}, but {size} hidden units need {n_gates * size} "
            "columns"
        )
    for name, tensor in others.items():
        if tensor.shape != expected[name]:
            raise ValueError(
                f"{name} is {tuple(tensor.shape)}, but {n_sequences} sequences of {size} hidden "
                "units need "
                f"{expected[name]}"
            )
        if tensor.dtype != gates_x.dtype:
            raise TypeError(
                f"{name} is {tensor.dtype}, but gates_x is {gates_x.dtype}: convert one of them"
            )


def _check_layer(
    x: Tensor,
    offsets: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor,
    h0: Tensor,
    c0: Tensor,
) -> None:
    """Raise TypeError or ValueError unless all shapes and dtypes fit."""
    gates = x.new_empty(x.shape[0], len(weight_hh))
    _check(4, gates, offsets, weight_hh=weight_hh, h0=h0, c0=c0)
    expected = {
        "weight_ih": (weight_ih, (len(weight_hh), x.shape[-1])),
        "bias": (bias, (len(weight_hh),)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor.shape != shape:
            raise ValueError(
                f"{name} is {tuple(tensor.shape)}, but x {tuple(x.shape)} and these gates need "
                f"{shape}"
            )
        if tensor.dtype != x.dtype:
            raise TypeError(f"{name} is {tensor.dtype}, but x is {x.dtype}: convert one of them")

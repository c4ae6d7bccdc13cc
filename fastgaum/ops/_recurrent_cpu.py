"""The recurrent operators on the CPU: checks, allocation, and the cut of a packed batch into tiles and parts.

A tile of sequences of similar length advances together (`kernels/packing.py`), its states in cache; neighbouring tiles
make a part, and parts run on all threads, each from its first token to its last without waiting for another. Tiles and
parts depend on lengths and hidden size alone and sums over parts are taken in order: any number of threads gives the
same bits.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from fastgaum.kernels import gru as gru_kernels
from fastgaum.kernels import lstm as lstm_kernels
from fastgaum.kernels import packing
from fastgaum.kernels._jit import Array
from fastgaum.ops import threads
from fastgaum.ops._dispatch import check_rows

ROWS = 28
"""Sequences of a tile; on one core the speed at 64 and 128 hidden units is the same from 16 to 28."""
NARROW = 50
"""Hidden units up to which a tile has only four sequences: their rows are too short for more to be prefetched side by
side. Out of cache, 4 rows for 28 take 20 % less time at 20 units, 14 % at 32, 7 % at 48 and as much at 64."""
SMALL_PRODUCT = 1_000_000
"""Multiplications up to which OpenBLAS runs a product without copying the weights first: with 28 rows on one core,
(28, 128) @ (128, 256) then reaches 112 GFLOP/s, where (28, 128) @ (128, 512) reaches 70 and torch.mm 84."""
PART = 0.1e-3
"""Seconds of forward pass below which a part is not worth its 5 to 10 µs of dispatch."""
MOST_PARTS = 8


def lstm_forward(
    gates_x: Tensor, offsets: Tensor, weight_hh: Tensor, h0: Tensor, c0: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return h, c (n_tokens, H) and the activated gates (n_tokens, 4H) that the backward pass reads."""
    check_rows(gates_x, offsets, "tokens")
    _check(4, gates_x, offsets, weight_hh=weight_hh, h0=h0, c0=c0)
    size = h0.shape[1]
    gates = _empty_like(gates_x)
    h, c = h0.new_empty(gates.shape[0], size), h0.new_empty(gates.shape[0], size)
    starts, weights = _array(offsets), _gate_blocks(_array(weight_hh), 4)
    arrays = tuple(map(_array, (gates_x, h0, c0, gates, h, c)))
    order, parts = _parts(starts, size)
    threads.run(lstm_kernels.lstm_tiles, [(tiles, order, starts, weights, *arrays) for tiles in parts])
    return h, c, gates


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
    """Return the gradients of gates_x, weight_hh, h0 and c0; a missing gradient stands for zeros."""
    starts, weights = _array(offsets), _unit_blocks(_array(weight_hh), 4)
    results = _empty_like(gates), _empty_like(weight_hh), _empty_like(h0), _empty_like(c0)
    grad_gates, grad_weight, grad_h0, grad_c0 = (part.numpy() for part in results)
    states, first_c, activated, memory = h.numpy(), _array(c0), gates.numpy(), c.numpy()
    # a length of 0 tells the kernels that a gradient is missing or not wanted
    grads = [memory[:0] if grad is None else _array(grad) for grad in (grad_h, grad_c)]
    arrays = starts, weights, *grads, first_c, activated, memory, grad_gates, grad_h0, grad_c0
    order, parts = _parts(starts, h0.shape[1])
    threads.run(lstm_kernels.lstm_tiles_backward, [(tiles, order, *arrays) for tiles in parts])
    _weight_gradient(grad_gates, states, _array(h0), starts, grad_weight, grad_weight[0, :0])
    return results


def gru_forward(
    gates_x: Tensor, offsets: Tensor, weight_hh: Tensor, bias_hh: Tensor, h0: Tensor
) -> tuple[Tensor, Tensor]:
    """Return h (n_tokens, H) and r, z, n and n's recurrent sum (n_tokens, 4H) that the backward pass reads."""
    check_rows(gates_x, offsets, "tokens")
    _check(3, gates_x, offsets, weight_hh=weight_hh, bias_hh=bias_hh, h0=h0)
    size = h0.shape[1]
    n_tokens = gates_x.shape[0]
    saved, h = h0.new_empty(n_tokens, 4 * size), h0.new_empty(n_tokens, size)
    starts = _array(offsets)
    weights, bias = _gate_blocks(_array(weight_hh), 3), _gate_blocks(_array(bias_hh)[:, None], 3)[:, 0]
    arrays = tuple(map(_array, (gates_x, h0, saved, h)))
    order, parts = _parts(starts, size)
    threads.run(gru_kernels.gru_tiles, [(tiles, order, starts, weights, bias, *arrays) for tiles in parts])
    return h, saved


def gru_backward(
    grad_h: Tensor, offsets: Tensor, weight_hh: Tensor, h0: Tensor, saved: Tensor, h: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of gates_x, weight_hh, bias_hh and h0."""
    starts, weights = _array(offsets), _unit_blocks(_array(weight_hh), 3)
    n_tokens, width = h.shape[0], len(weight_hh)
    of_x, of_weight, of_bias = (h0.new_empty(shape) for shape in ((n_tokens, width), weight_hh.shape, (width,)))
    of_h0 = _empty_like(h0)
    grad_q = np.empty((n_tokens, width), dtype=weights.dtype)
    first, states = _array(h0), h.numpy()
    arrays = starts, weights, _array(grad_h), first, saved.numpy(), states, of_x.numpy(), grad_q, of_h0.numpy()
    order, parts = _parts(starts, h0.shape[1])
    threads.run(gru_kernels.gru_tiles_backward, [(tiles, order, *arrays) for tiles in parts])
    _weight_gradient(grad_q, states, first, starts, of_weight.numpy(), of_bias.numpy())
    return of_x, of_weight, of_bias, of_h0


def _array(tensor: Tensor) -> Array:
    """Rows side by side in memory: the kernels are compiled for that layout alone."""
    return tensor.contiguous().numpy()


def _empty_like(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


def _units(size: int, n_gates: int) -> int:
    """Hidden units in a block of weights: as many as keep a tile's product small, in blocks of about equal width."""
    most = max(SMALL_PRODUCT // (ROWS * n_gates * size) // 4 * 4, 4)
    if most >= size:
        return size
    n_blocks = -(-size // most)
    return -(-size // (4 * n_blocks)) * 4


def _gate_blocks(weight: Array, n_gates: int) -> Array:
    """(n_gates · H, k) → (n_blocks, k, n_gates · units): each block has all gates of its units, then zeros."""
    size, k = len(weight) // n_gates, weight.shape[1]
    units = _units(size, n_gates)
    if units == size:
        return np.ascontiguousarray(weight.T)[None]
    gates = weight.reshape(n_gates, size, k)
    blocks = np.zeros((-(-size // units), k, n_gates, units), dtype=weight.dtype)
    for block, first in zip(blocks, range(0, size, units), strict=True):
        part = gates[:, first : first + units]
        block[..., : part.shape[1]] = part.transpose(2, 0, 1)
    return blocks.reshape(-1, k, n_gates * units)


def _unit_blocks(weight: Array, n_gates: int) -> Array:
    """(n_gates · H, H) → (n_blocks, n_gates · H, units): the columns of each block's units, then zeros."""
    width, size = weight.shape
    units = _units(size, n_gates)
    if units == size:
        return weight[None]
    blocks = np.zeros((-(-size // units), width, units), dtype=weight.dtype)
    for block, first in zip(blocks, range(0, size, units), strict=True):
        part = weight[:, first : first + units]
        block[:, : part.shape[1]] = part
    return blocks


def _n_parts(n_tokens: int, size: int) -> int:
    """Parts of at least `PART` seconds: a token takes about (H + 125) H · 8e-11 s forward (0.2 µs at 20, 28 µs at 512)."""
    return min(max(int(n_tokens * size * (size + 125) * 8e-11 / PART), 1), MOST_PARTS)


def _parts(offsets: Array, size: int) -> tuple[Array, list[Array]]:
    """Sequences by falling length, and for each part the starts of its tiles within them."""
    n_sequences, n_tokens = len(offsets) - 1, int(offsets[-1])
    order, tiles = np.empty(n_sequences, dtype=np.int32), np.empty(n_sequences + 1, dtype=np.int32)
    packing.order_by_length(offsets, order)
    n_parts = _n_parts(n_tokens, size)
    most_rows = 4 if size <= NARROW else ROWS
    most_tokens = -(-n_tokens // n_parts)
    tiles = tiles[: packing.cut_tiles(offsets, order, most_rows, most_tokens, tiles) + 1]
    if n_parts == 1:
        return order, [tiles]
    parts = np.empty_like(tiles)
    n_parts = packing.group_tiles(offsets, order, tiles, most_tokens, parts)
    return order, [tiles[first : last + 1] for first, last in pairwise(parts[: n_parts + 1].tolist())]


def _weight_gradient(
    grad_sums: Array, h: Array, h0: Array, offsets: Array, grad_weight: Array, grad_bias: Array
) -> None:
    """Write Σ over tokens of grad_sums ⊗ h', and Σ grad_sums unless `grad_bias` is empty: for each part, then in all.

    Tokens enter a product 60 at a time at 64 hidden units and up to 512 elsewhere, which was fastest at 20 to 512.
    """
    n_tokens = len(grad_sums)
    n_parts = _n_parts(n_tokens, h.shape[1])
    small = SMALL_PRODUCT // grad_weight.size
    chunk = 512 if small < 48 else min(small, 512) // 4 * 4
    sums = [(grad_weight, grad_bias)]
    sums += [(np.empty_like(grad_weight), np.empty_like(grad_bias)) for _ in range(1, n_parts)]
    cuts = [n_tokens * part // n_parts for part in range(n_parts + 1)]
    parts = [
        (first, last, chunk, grad_sums, h, h0, offsets, weight, bias)
        for first, last, (weight, bias) in zip(cuts[:-1], cuts[1:], sums, strict=True)
    ]
    threads.run(packing.weight_gradient, parts)
    for weight, bias in sums[1:]:
        grad_weight += weight
        grad_bias += bias


def _check(n_gates: int, gates_x: Tensor, offsets: Tensor, **others: Tensor) -> None:
    """Raise TypeError or ValueError unless all shapes and dtypes fit: the kernels do not check bounds."""
    n_sequences, size = offsets.shape[0] - 1, others["h0"].shape[-1]
    expected = {
        "weight_hh": (n_gates * size, size),
        "bias_hh": (n_gates * size,),
        "h0": (n_sequences, size),
        "c0": (n_sequences, size),
    }
    if gates_x.shape[1:] != (n_gates * size,):
        raise ValueError(f"gates_x is {tuple(gates_x.shape)}, but {size} hidden units need {n_gates * size} columns")
    for name, tensor in others.items():
        if tensor.shape != expected[name]:
            raise ValueError(
                f"{name} is {tuple(tensor.shape)}, but {n_sequences} sequences of {size} hidden units need "
                f"{expected[name]}"
            )
        if tensor.dtype != gates_x.dtype:
            raise TypeError(f"{name} is {tensor.dtype}, but gates_x is {gates_x.dtype}: convert one of them")

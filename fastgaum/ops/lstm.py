"""One layer of an LSTM over ragged sequences: forward, then at most one backward pass. Results stay
valid until the layer's next pass.

Parts of tiles (`kernels/packing.py`) run on threads. They depend on lengths and hidden size alone,
and sums over parts are in order: any number of threads gives the same bits."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastgaum import threads
from fastgaum.arrays import FloatArray, IntArray
from fastgaum.kernels import lstm as lstm_kernels
from fastgaum.kernels import packing
from fastgaum.ops.tables import Buffer

SEQUENCES_OF_TILE = 28
"""sequences of a tile; 16 to 28 take the same time"""
SMALL_PRODUCT = 1_000_000
"""multiplications up to which OpenBLAS does not copy the weights first"""
SECONDS_OF_PART = 0.1e-3
"""seconds of forward pass that a part is worth"""
MOST_PARTS = 8
OUTER_ROWS = 60
"""tokens that a product of the weights' gradient takes at least"""
WIDE_WEIGHTS = 1024
"""rows of recurrent weights from which their gradient is taken whole"""


def plan(offsets: IntArray, size: int) -> tuple[packing.Sequences, list[IntArray]]:
    """Sort sequences of `size` hidden units by falling length, and cut them into parts, of each of
    which there are the starts of its tiles in the order."""
    n_sequences, n_tokens = len(offsets) - 1, int(offsets[-1])
    order = np.argsort(-np.diff(offsets), kind="stable").astype(np.int32)
    tiles = np.empty(n_sequences + 1, dtype=np.int32)
    # a token takes about (H + 125) H · 8e-11 s forward: 0.2 µs at 20, 28 µs at 512
    seconds = n_tokens * size * (size + 125) * 8e-11
    count = min(max(int(seconds / SECONDS_OF_PART), 1), MOST_PARTS)
    most_tokens, sequences = -(-n_tokens // count), packing.Sequences(order, offsets)
    tiles = tiles[: packing.cut_tiles(offsets, order, SEQUENCES_OF_TILE, most_tokens, tiles) + 1]
    if count == 1:
        return sequences, [tiles]
    parts = np.empty_like(tiles)
    count = packing.group_tiles(offsets, order, tiles, most_tokens, parts)
    cuts = pairwise(parts[: count + 1].tolist())
    return sequences, [tiles[first : last + 1] for first, last in cuts]


def gate_blocks(weight: FloatArray, n_gates: int, depth: int) -> FloatArray:
    """(n_gates · H, k) → (n_blocks, k, n_gates · units), the last with zeros. `depth`: of the
    products."""
    size, k = len(weight) // n_gates, weight.shape[1]
    units = _cut(size, n_gates * depth * SEQUENCES_OF_TILE)
    if units == size:
        return np.ascontiguousarray(weight.T)[None]
    gates = weight.reshape(n_gates, size, k)
    blocks = np.zeros((-(-size // units), k, n_gates, units), dtype=weight.dtype)
    for block, first in zip(blocks, range(0, size, units), strict=True):
        part = gates[:, first : first + units]
        block[..., : part.shape[1]] = part.transpose(2, 0, 1)
    return blocks.reshape(-1, k, n_gates * units)


def column_blocks(weight: FloatArray) -> FloatArray:
    """(n_gates · H, depth) → (n_blocks, n_gates · H, units), then zeros."""
    width, depth = weight.shape
    units = _cut(depth, width * SEQUENCES_OF_TILE)
    if units == depth:
        return np.ascontiguousarray(weight)[None]
    blocks = np.zeros((-(-depth // units), width, units), dtype=weight.dtype)
    for block, first in zip(blocks, range(0, depth, units), strict=True):
        part = weight[:, first : first + units]
        block[:, : part.shape[1]] = part
    return blocks


def outer_blocks(width: int, depth: int) -> tuple[int, int, int]:
    """Blocks, their columns, and tokens at a time, of the gradient of weights (width, depth)."""
    tokens = SMALL_PRODUCT // (width * depth)
    if tokens >= OUTER_ROWS:
        return 1, depth, min(tokens, 512)
    if width > WIDE_WEIGHTS:
        return 1, depth, 512
    columns = _cut(depth, width * OUTER_ROWS)
    return -(-depth // columns), columns, OUTER_ROWS


def _cut(n: int, others: int) -> int:
    most = max(SMALL_PRODUCT // others // 4 * 4, 4)
    if most >= n:
        return n
    n_blocks = -(-n // most)
    return -(-n // (4 * n_blocks)) * 4


NO_SOURCE: IntArray = np.empty(0, dtype=np.int32)


class LstmLayer:
    """Gates i, f, g, o as in torch.nn.LSTM; the input comes projected, or is projected here."""

    def __init__(self, size: int, dtype: type[np.floating] = np.float32) -> None:
        """size: hidden units H; dtype: of all arrays."""
        self.size = size
        self._gates, self._h, self._c, self._grad_x = (Buffer(dtype) for _ in range(4))

    def forward(
        self,
        offsets: IntArray,
        weight: FloatArray,
        bias: FloatArray,
        x: FloatArray,
        source: IntArray = NO_SOURCE,
    ) -> tuple[FloatArray, FloatArray]:
        """h and c after each token, (n_tokens, H).

        Args:
            offsets: start of each sequence in the tokens, (n_sequences + 1,).
            weight: W_hh (4H, H), or [W_hh, W_ih] (4H, H + D).
            bias: (4H,).
            x: sums of gates (·, 4H), overwritten by the gates without a `source`, or inputs (·, D).
            source: row of x of each token, (n_tokens,); its own where none is given."""
        n_tokens, size = int(offsets[-1]), self.size
        own_sums = len(source) == 0 and weight.shape[1] == size
        gates = x if own_sums else self._gates(n_tokens, 4 * size)
        h, c = self._h(n_tokens, size), self._c(n_tokens, size)
        self.sequences, self.parts = plan(offsets, size)
        self.weight = weight
        self.last_pass = lstm_kernels.LstmPass(x, source, gates, h, c, h[:0], c[:0])
        blocks = gate_blocks(weight, 4, weight.shape[1])
        fixed = (self.sequences, blocks, bias, self.last_pass)
        threads.run(lstm_kernels.lstm_tiles, [(tiles, *fixed) for tiles in self.parts])
        return h, c

    def backward(
        self,
        grad_h: FloatArray,
        grad_weight: FloatArray,
        grad_bias: FloatArray,
        of_x: bool = False,
    ) -> tuple[FloatArray, FloatArray]:
        """Write the gradients of the weights and, unless it is (0,), of the bias (4H,); return
        those of the sums of gates (n_tokens, 4H) and, `of_x`, of a projection's inputs, else (0,
        D)."""
        gates, h = self.last_pass.gates, self.last_pass.h
        grad_x = self._grad_x(len(h) if of_x else 0, self.last_pass.x.shape[1])
        width, depth = self.weight.shape
        n_outer, outer, most = outer_blocks(width, depth)
        parts = self.parts
        whole = n_outer == 1 and len(parts) == 1
        sums = [
            (
                grad_weight[None] if whole else np.empty((n_outer, width, outer), h.dtype),
                np.empty_like(grad_bias),
            )
            for _ in parts
        ]
        blocks = column_blocks(self.weight)
        fixed = (self.sequences, blocks, depth, most, self.last_pass)
        # the gates' gradients overwrite the gates
        threads.run(
            lstm_kernels.lstm_tiles_backward,
            [
                (tiles, *fixed, lstm_kernels.LstmGrads(grad_h, gates, grad_x, *own))
                for tiles, own in zip(parts, sums, strict=True)
            ],
        )
        (total, bias), *others = sums
        for other, other_bias in others:
            total += other
            bias += other_bias
        grad_bias[...] = bias
        if not whole:
            grad_weight[...] = total.transpose(1, 0, 2).reshape(width, -1)[:, :depth]
        return gates, grad_x


class _States(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
        ctx.layer, size = LstmLayer(weight.shape[1]), len(weight)
        x, bias = gates.detach().contiguous().numpy(), np.zeros(size, np.float32)
        h, _ = ctx.layer.forward(offsets.numpy(), weight.detach().numpy(), bias, x)
        return torch.from_numpy(h)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        of_weight = np.empty(ctx.layer.weight.shape, np.float32)
        none = of_weight[0, :0]
        sums = ctx.layer.backward(grad.contiguous().numpy(), of_weight, none)[0]
        return torch.from_numpy(sums), torch.from_numpy(of_weight), None


def lstm_states(gates_x: Tensor, offsets: Tensor, weight_hh: Tensor) -> Tensor:
    """h after each token, (n_tokens, H), of sequences that begin at zero; arguments as of
    `nets.sequences.lstm`, its twin. The array of `gates_x` is overwritten."""
    states: Tensor = _States.apply(gates_x, weight_hh, offsets)  # type: ignore[no-untyped-call]
    return states

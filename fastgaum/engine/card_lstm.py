"""A packed LSTM on a card, over Triton's kernels: one layer, forward, then at most one backward
pass.

Each program takes a tile of sequences from their first token to their last, so nothing is padded
and no launch waits for the longest sequence. Weights are read from the card's cache at every step;
what is not a recurrence, the products over all tokens, is left to torch."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 16
"""sequences of a program: the least that `tl.dot` takes"""
BLOCK = 32
"""units, and terms of a product, that a program holds at a time"""


class TokenSequences(NamedTuple):
    """Sequences of tokens."""

    order: Tensor
    """in which they are put into tiles, int32, (n,)"""
    offsets: Tensor
    """start of each in the tokens, int32, (n + 1,)"""
    n: int


class CardLstmPass(NamedTuple):
    """Weights of an LSTM, and what its forward pass writes."""

    weight: Tensor
    """W_hh, (4 · size, size)"""
    gates: Tensor
    """i, f, g, o, (n_tokens, 4 · size)"""
    h: Tensor
    """(n_tokens, size)"""
    c: Tensor
    """(n_tokens, size)"""


class CardLstmGrads(NamedTuple):
    """Gradients of an LSTM."""

    h: Tensor
    """read, (n_tokens, size)"""
    q: Tensor
    """of the gates' sums, written, and read at the step before, (n_tokens, 4 · size)"""
    carry: Tensor
    """room for that of c', (n, size)"""


@triton.jit
def _tanh(x: tl.tensor) -> tl.tensor:
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0


@triton.jit
def lstm_forward(
    x: tl.tensor,
    sequences: TokenSequences,
    written: CardLstmPass,
    size: int,
    TILE: tl.constexpr,
    UNITS: tl.constexpr,
    DEPTH: tl.constexpr,
) -> None:
    """Write gates i, f, g, o, h and c after each token; a program per TILE of sequences.

        i, f, o = logistic(q),  g = tanh(q),  q = W_hh h' + x,  c = f c' + i g,  h = o tanh(c)

    A tile's sequences advance together, of similar length where `order` sorts them: the loop over
    time is in the program, whatever the lengths of others are.

    x: W_ih x + b of each token, (n_tokens, 4 · size)."""
    ranks = tl.program_id(0) * TILE + tl.arange(0, TILE)
    there = ranks < sequences.n
    sequence = tl.load(sequences.order + ranks, mask=there, other=0)
    first = tl.load(sequences.offsets + sequence, mask=there, other=0)
    length = tl.load(sequences.offsets + sequence + 1, mask=there, other=0) - first
    kind = x.dtype.element_ty
    for step in range(0, tl.max(length, 0)):
        token = (first + step).to(tl.int64)
        running = (step < length)[:, None]
        later = running & (token > first)[:, None]
        for start in range(0, size, UNITS):
            units = start + tl.arange(0, UNITS)
            inside = (units < size)[None, :]
            q_i = tl.zeros((TILE, UNITS), kind)
            q_f = tl.zeros((TILE, UNITS), kind)
            q_g = tl.zeros((TILE, UNITS), kind)
            q_o = tl.zeros((TILE, UNITS), kind)
            for deep in range(0, size, DEPTH):
                k = deep + tl.arange(0, DEPTH)
                places = (token - 1)[:, None] * size + k[None, :]
                state = tl.load(written.h + places, mask=later & (k < size)[None, :], other=0.0)
                places = units[None, :] * size + k[:, None]
                held = inside & (k < size)[:, None]
                block = size * size
                w = tl.load(written.weight + places, mask=held, other=0.0)
                q_i += tl.dot(state, w, input_precision="ieee")
                w = tl.load(written.weight + block + places, mask=held, other=0.0)
                q_f += tl.dot(state, w, input_precision="ieee")
                w = tl.load(written.weight + 2 * block + places, mask=held, other=0.0)
                q_g += tl.dot(state, w, input_precision="ieee")
                w = tl.load(written.weight + 3 * block + places, mask=held, other=0.0)
                q_o += tl.dot(state, w, input_precision="ieee")
            here = running & inside
            at = token[:, None] * (4 * size) + units[None, :]
            i = tl.sigmoid(q_i + tl.load(x + at, mask=here, other=0.0))
            f = tl.sigmoid(q_f + tl.load(x + at + size, mask=here, other=0.0))
            g = _tanh(q_g + tl.load(x + at + 2 * size, mask=here, other=0.0))
            o = tl.sigmoid(q_o + tl.load(x + at + 3 * size, mask=here, other=0.0))
            place = token[:, None] * size + units[None, :]
            memory = tl.load(written.c + place - size, mask=later & inside, other=0.0)
            memory = f * memory + i * g
            tl.store(written.gates + at, i, mask=here)
            tl.store(written.gates + at + size, f, mask=here)
            tl.store(written.gates + at + 2 * size, g, mask=here)
            tl.store(written.gates + at + 3 * size, o, mask=here)
            tl.store(written.c + place, memory, mask=here)
            tl.store(written.h + place, o * _tanh(memory), mask=here)
        # the next step reads what other threads of this program have written
        tl.debug_barrier()


@triton.jit
def lstm_backward(
    grads: CardLstmGrads,
    sequences: TokenSequences,
    written: CardLstmPass,
    size: int,
    TILE: tl.constexpr,
    UNITS: tl.constexpr,
    DEPTH: tl.constexpr,
) -> None:
    """Write the gradient of q at each token, (n_tokens, 4 · size); a program per TILE.

    That of x is the same; those of the weights are products of it with the states, which the
    caller takes."""
    ranks = tl.program_id(0) * TILE + tl.arange(0, TILE)
    there = ranks < sequences.n
    sequence = tl.load(sequences.order + ranks, mask=there, other=0)
    first = tl.load(sequences.offsets + sequence, mask=there, other=0)
    length = tl.load(sequences.offsets + sequence + 1, mask=there, other=0) - first
    longest = tl.max(length, 0)
    for back in range(0, longest):
        step = longest - 1 - back
        token = (first + step).to(tl.int64)
        running, followed = (step < length)[:, None], (step + 1 < length)[:, None]
        later = (token > first)[:, None]
        for start in range(0, size, UNITS):
            units = start + tl.arange(0, UNITS)
            inside = (units < size)[None, :]
            here = running & inside
            place = token[:, None] * size + units[None, :]
            grad = tl.load(grads.h + place, mask=here, other=0.0)
            for deep in range(0, 4 * size, DEPTH):
                k = deep + tl.arange(0, DEPTH)
                places = (token + 1)[:, None] * (4 * size) + k[None, :]
                after = tl.load(
                    grads.q + places, mask=followed & (k < 4 * size)[None, :], other=0.0
                )
                places = k[:, None] * size + units[None, :]
                w = tl.load(
                    written.weight + places, mask=(k < 4 * size)[:, None] & inside, other=0.0
                )
                grad += tl.dot(after, w, input_precision="ieee")
            at = token[:, None] * (4 * size) + units[None, :]
            i = tl.load(written.gates + at, mask=here, other=0.0)
            f = tl.load(written.gates + at + size, mask=here, other=0.0)
            g = tl.load(written.gates + at + 2 * size, mask=here, other=0.0)
            o = tl.load(written.gates + at + 3 * size, mask=here, other=0.0)
            squashed = _tanh(tl.load(written.c + place, mask=here, other=0.0))
            before = tl.load(written.c + place - size, mask=here & later, other=0.0)
            own = ranks[:, None] * size + units[None, :]
            grad_c = tl.load(grads.carry + own, mask=followed & inside, other=0.0)
            grad_c += grad * o * (1.0 - squashed * squashed)
            tl.store(grads.q + at, grad_c * g * i * (1.0 - i), mask=here)
            tl.store(grads.q + at + size, grad_c * before * f * (1.0 - f), mask=here)
            tl.store(grads.q + at + 2 * size, grad_c * i * (1.0 - g * g), mask=here)
            tl.store(grads.q + at + 3 * size, grad * squashed * o * (1.0 - o), mask=here)
            tl.store(grads.carry + own, grad_c * f, mask=here)
        tl.debug_barrier()


class CardLstmLayer:
    """Gates i, f, g, o as in torch.nn.LSTM; the input comes projected."""

    def forward(self, x: Tensor, weight: Tensor, sequences: TokenSequences) -> Tensor:
        """Return h after each token, (n_tokens, H); 0 at tokens of no sequence.

        x: W_ih x + b of each token, (n_tokens, 4H); weight: W_hh, (4H, H)."""
        n_tokens, size = len(x), weight.shape[1]
        gates, h, c = x.new_empty(x.shape), x.new_zeros(n_tokens, size), x.new_empty(n_tokens, size)
        self.sequences = sequences
        self.last_pass = CardLstmPass(weight.contiguous(), gates, h, c)
        lstm_forward[_programs(sequences)](x, sequences, self.last_pass, size, TILE, BLOCK, BLOCK)
        return h

    def backward(self, grad_h: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of x, (n_tokens, 4H), and of the weight.

        `before`: the token before each one in its sequence, int64, (n_tokens,), −1 for none."""
        weight, gates, h, _ = self.last_pass
        size = weight.shape[1]
        q = torch.zeros_like(gates)
        grads = CardLstmGrads(grad_h.contiguous(), q, h.new_empty(self.sequences.n, size))
        programs = _programs(self.sequences)
        lstm_backward[programs](grads, self.sequences, self.last_pass, size, TILE, BLOCK, BLOCK)
        former = h.index_select(0, before.clamp(min=0)) * (before >= 0)[:, None]
        return q, q.T @ former


def _programs(sequences: TokenSequences) -> tuple[int]:
    return (-(-sequences.n // TILE),)

"""One packed LSTM with its arrays in scratch: a forward pass, then at most one backward pass."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastgaum.engine.scratch import Array, Scratch
from fastgaum.nets.ops._recurrent_cpu import NO_SOURCE, lstm_back, lstm_run
from fastgaum.nets.ops._tiles import plan


class PackedLstm:
    """Keeps what the backward pass reads; all results stay valid until the next pass of the same
    name."""

    def __init__(self, name: str, scratch: Scratch, size: int) -> None:
        self.name, self.scratch, self.size = name, scratch, size

    def forward(
        self,
        offsets: Any,
        weight: Array,
        bias: Array,
        x: Array,
        source: Any = NO_SOURCE,
        before: tuple[Array, Array] | None = None,
    ) -> tuple[Array, Array]:
        """Return h and c after each token, (n_tokens, H); arguments as in
        `ops._recurrent_cpu.lstm_run`.

        `before` holds h0 and c0, zeros if None. Sums of gates that are read without a `source` make
        room for the gates."""
        n_tokens, size, take = int(offsets[-1]), self.size, self.scratch.floats
        self.own_sums = len(source) == 0 and weight.shape[1] == size
        gates = x if self.own_sums else take(f"{self.name}.gates", n_tokens, 4 * size)
        h, c = take(f"{self.name}.h", n_tokens, size), take(f"{self.name}.c", n_tokens, size)
        if before is None:
            zeros = np.zeros((len(offsets) - 1, size), np.float32)
            before = zeros, zeros
        self.inputs = plan(offsets, size), offsets, weight
        self.read = x, source, before
        self.kept = gates, h, c
        lstm_run(*self.inputs, bias, x, source, *before, gates, h, c)
        return h, c

    def backward(
        self,
        grad_h: Array,
        grad_weight: Array,
        grad_bias: Array,
        grad_c: Array | None = None,
        of_x: bool = False,
    ) -> tuple[Array, Array, Array, Array]:
        """Write the gradients of the weights and, unless it is (0,), of the bias; return those of
        others.

        These are of the sums of gates (n_tokens, 4H), of a projection's inputs (n_tokens, D) or (0,
        D) unless `of_x`, of h0 and of c0."""
        x, source, before = self.read
        gates, h, _ = self.kept
        take, n = self.scratch.floats, len(before[0])
        grad_x = take(f"{self.name}.grad x", len(h) if of_x else 0, x.shape[1])
        grads = (
            take(f"{self.name}.grad h0", n, self.size),
            take(f"{self.name}.grad c0", n, self.size),
        )
        given = grad_h, h[:0] if grad_c is None else grad_c, *before
        # the gates give way to their gradients
        lstm_back(
            *self.inputs,
            x,
            source,
            *given,
            *self.kept,
            gates,
            grad_x,
            grad_weight,
            grad_bias,
            *grads,
        )
        return gates, grad_x, *grads

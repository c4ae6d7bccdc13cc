"""The packed LSTM, forward and backward: gates i, f, g, o as in torch.nn.LSTM.

    i, f, o = logistic(x + W h'),  g = tanh(x + W h'),  c = f c' + i g,  h = o tanh(c)

Tokens are session-major; h' and c' are the previous token's, or h0 and c0. Two regimes share the cells: `*_sequences`
walks one sequence at a time with the weights hot in cache; `*_step` advances all active sequences by one token around
a matrix product made outside. Both keep the activated gates (n_tokens, 4H) for the backward pass.
"""

from __future__ import annotations

from ._jit import Array, jit_fast, jit_part
from .cells import HALF, ONE, add_product, add_products, tanh


@jit_part
def _cell(gate: Array, c_before: Array, c: Array, h: Array) -> None:
    """Turn a token's gate sums into activated gates (in place), c and h."""
    size = len(c)
    # one loop over all four gates, by logistic(x) = ½ + ½ tanh(x / 2), vectorises twice as well as one for each
    for j in range(4 * size):
        is_g = 2 * size <= j < 3 * size
        squashed = tanh(gate[j] if is_g else HALF * gate[j])
        gate[j] = squashed if is_g else HALF + HALF * squashed
    for j in range(size):
        c[j] = gate[size + j] * c_before[j] + gate[j] * gate[2 * size + j]
        h[j] = gate[3 * size + j] * tanh(c[j])


@jit_part
def _cell_backward(gate: Array, c_before: Array, c: Array, carry_h: Array, carry_c: Array, grad_gate: Array) -> None:
    """Turn the gradients of a token's h and c (the carries) into those of its gate sums; carry_c becomes that of c'.

    A loop for each gate: every array that a vectorised loop touches must first be proved apart from those it writes,
    which for all gates at once costs more than the arithmetic.
    """
    size = len(c)
    for j in range(size):
        o, squashed = gate[3 * size + j], tanh(c[j])
        grad_gate[3 * size + j] = carry_h[j] * squashed * o * (ONE - o)
        carry_c[j] += carry_h[j] * o * (ONE - squashed * squashed)
    for j in range(size):
        i = gate[j]
        grad_gate[j] = carry_c[j] * gate[2 * size + j] * i * (ONE - i)
    for j in range(size):
        g = gate[2 * size + j]
        grad_gate[2 * size + j] = carry_c[j] * gate[j] * (ONE - g * g)
    for j in range(size):
        f = gate[size + j]
        grad_gate[size + j] = carry_c[j] * c_before[j] * f * (ONE - f)
        carry_c[j] *= f


@jit_fast
def lstm_sequences(
    gates_x: Array,
    offsets: Array,
    weight_t: Array,
    h0: Array,
    c0: Array,
    gates: Array,
    h: Array,
    c: Array,
) -> None:
    """Write gates (n_tokens, 4H), h and c (n_tokens, H); `weight_t` is weight_hh transposed, (H, 4H)."""
    width = gates_x.shape[1]
    for sequence in range(len(offsets) - 1):
        h_before, c_before = h0[sequence], c0[sequence]
        for row in range(offsets[sequence], offsets[sequence + 1]):
            gate = gates[row]
            for j in range(width):
                gate[j] = gates_x[row, j]
            add_product(h_before, weight_t, gate)
            _cell(gate, c_before, c[row], h[row])
            h_before, c_before = h[row], c[row]


@jit_fast
def lstm_sequences_backward(
    grad_h: Array,
    grad_c: Array,
    offsets: Array,
    weight_t: Array,
    c0: Array,
    gates: Array,
    c: Array,
    grad_gates: Array,
    grad_h0: Array,
    grad_c0: Array,
) -> None:
    """Write the gradients of the gate sums (n_tokens, 4H), h0 and c0; `weight_t` is weight_hh transposed, (H, 4H).

    `grad_h` or `grad_c` of length 0 stands for zeros.
    """
    size = c.shape[1]
    has_h, has_c = len(grad_h) > 0, len(grad_c) > 0
    for sequence in range(len(offsets) - 1):
        carry_h, carry_c = grad_h0[sequence], grad_c0[sequence]
        for j in range(size):
            carry_h[j] = 0
            carry_c[j] = 0
        first = offsets[sequence]
        for row in range(offsets[sequence + 1] - 1, first - 1, -1):
            c_before = c[row - 1] if row > first else c0[sequence]
            if has_h:
                for j in range(size):
                    carry_h[j] += grad_h[row, j]
            if has_c:
                for j in range(size):
                    carry_c[j] += grad_c[row, j]
            _cell_backward(gates[row], c_before, c[row], carry_h, carry_c, grad_gates[row])
            for j in range(size):
                carry_h[j] = 0
            add_products(grad_gates[row], weight_t, carry_h)


@jit_fast
def lstm_step(
    step: int,
    active: int,
    order: Array,
    offsets: Array,
    product: Array,
    gates_x: Array,
    c0: Array,
    gates: Array,
    h: Array,
    c: Array,
    state: Array,
) -> None:
    """Advance the first `active` sequences of `order` by their token `step`.

    `product` (n_sequences, 4H) holds W h' in that order; `state` (n_sequences, H) receives the new h in that order.
    """
    size = c.shape[1]
    for rank in range(active):
        sequence = order[rank]
        row = offsets[sequence] + step
        gate = gates[row]
        for j in range(4 * size):
            gate[j] = gates_x[row, j] + product[rank, j]
        c_before = c[row - 1] if step > 0 else c0[sequence]
        _cell(gate, c_before, c[row], h[row])
        for j in range(size):
            state[rank, j] = h[row, j]


@jit_fast
def lstm_step_backward(
    step: int,
    active: int,
    order: Array,
    offsets: Array,
    grad_h: Array,
    grad_c: Array,
    c0: Array,
    gates: Array,
    c: Array,
    grad_gates: Array,
    step_gates: Array,
    carry_h: Array,
    carry_c: Array,
) -> None:
    """Go back over token `step` of the first `active` sequences of `order`.

    `carry_h`, `carry_c` (n_sequences, H) hold the gradients from the next step in that order; `step_gates`
    (n_sequences, 4H) receives this step's gate gradients in that order, for the product with the weights outside.
    """
    size = c.shape[1]
    has_h, has_c = len(grad_h) > 0, len(grad_c) > 0
    for rank in range(active):
        sequence = order[rank]
        row = offsets[sequence] + step
        c_before = c[row - 1] if step > 0 else c0[sequence]
        if has_h:
            for j in range(size):
                carry_h[rank, j] += grad_h[row, j]
        if has_c:
            for j in range(size):
                carry_c[rank, j] += grad_c[row, j]
        _cell_backward(gates[row], c_before, c[row], carry_h[rank], carry_c[rank], grad_gates[row])
        for j in range(4 * size):
            step_gates[rank, j] = grad_gates[row, j]

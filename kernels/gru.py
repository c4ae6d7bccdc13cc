"""The packed GRU, forward and backward: gates r, z, n as in torch.nn.GRU.

    r, z = logistic(x + q),  n = tanh(x + r q),  h = (1 − z) n + z h',  q = W h' + b

x (with b_ih) and q (with b_hh) have a part for each gate. Saved for the backward pass, as one row of 4H per token:
r, z, n and the n-part of q. The regimes are those of the LSTM: see `kernels/lstm.py`.
"""

from __future__ import annotations

from ._jit import Array, jit_fast, jit_part
from .cells import ONE, add_product, add_products, logistic, tanh


@jit_part
def _cell(gates_x: Array, saved: Array, h_before: Array, h: Array) -> None:
    """Turn x and q into r, z, n and h; `saved` enters as q in its slots 0, 1 and 3."""
    size = len(h)
    for j in range(2 * size):
        saved[j] = logistic(saved[j] + gates_x[j])
    for j in range(size):
        z, n = saved[size + j], tanh(gates_x[2 * size + j] + saved[j] * saved[3 * size + j])
        saved[2 * size + j] = n
        h[j] = (ONE - z) * n + z * h_before[j]


@jit_part
def _cell_backward(saved: Array, h_before: Array, carry: Array, grad_x: Array, grad_q: Array) -> None:
    """Turn the gradient of h (`carry`) into those of x and q, (3H,) each; carry becomes z · carry, h's direct path."""
    size = len(carry)
    # several short loops, for the reason given in the LSTM's cell
    for j in range(size):
        n = saved[2 * size + j]
        grad_x[2 * size + j] = carry[j] * (ONE - saved[size + j]) * (ONE - n * n)
    for j in range(size):
        z = saved[size + j]
        grad_x[size + j] = carry[j] * (h_before[j] - saved[2 * size + j]) * z * (ONE - z)
        carry[j] *= z
    for j in range(size):
        r = saved[j]
        grad_x[j] = grad_x[2 * size + j] * saved[3 * size + j] * r * (ONE - r)
    for j in range(2 * size):
        grad_q[j] = grad_x[j]
    for j in range(size):
        grad_q[2 * size + j] = grad_x[2 * size + j] * saved[j]


@jit_fast
def gru_sequences(
    gates_x: Array,
    offsets: Array,
    weight_t: Array,
    bias: Array,
    h0: Array,
    saved: Array,
    h: Array,
) -> None:
    """Write saved (n_tokens, 4H) and h (n_tokens, H); `weight_t` is weight_hh transposed, (H, 3H)."""
    size = h.shape[1]
    for sequence in range(len(offsets) - 1):
        h_before = h0[sequence]
        for row in range(offsets[sequence], offsets[sequence + 1]):
            keep = saved[row]
            for j in range(3 * size):
                keep[j] = bias[j]
            add_product(h_before, weight_t, keep)
            for j in range(size):
                keep[3 * size + j] = keep[2 * size + j]
            _cell(gates_x[row], keep, h_before, h[row])
            h_before = h[row]


@jit_fast
def gru_sequences_backward(
    grad_h: Array,
    offsets: Array,
    weight_t: Array,
    h0: Array,
    saved: Array,
    h: Array,
    grad_x: Array,
    grad_q: Array,
    grad_h0: Array,
) -> None:
    """Write the gradients of x and q (n_tokens, 3H) and of h0; `weight_t` is weight_hh transposed, (H, 3H)."""
    size = h.shape[1]
    for sequence in range(len(offsets) - 1):
        carry = grad_h0[sequence]
        for j in range(size):
            carry[j] = 0
        first = offsets[sequence]
        for row in range(offsets[sequence + 1] - 1, first - 1, -1):
            for j in range(size):
                carry[j] += grad_h[row, j]
            h_before = h[row - 1] if row > first else h0[sequence]
            _cell_backward(saved[row], h_before, carry, grad_x[row], grad_q[row])
            add_products(grad_q[row], weight_t, carry)


@jit_fast
def gru_step(
    step: int,
    active: int,
    order: Array,
    offsets: Array,
    product: Array,
    gates_x: Array,
    h0: Array,
    saved: Array,
    h: Array,
    state: Array,
) -> None:
    """Advance the first `active` sequences of `order` by their token `step`.

    `product` (n_sequences, 3H) holds q in that order; `state` (n_sequences, H) receives the new h in that order.
    """
    size = h.shape[1]
    for rank in range(active):
        sequence = order[rank]
        row = offsets[sequence] + step
        keep = saved[row]
        for j in range(2 * size):
            keep[j] = product[rank, j]
        for j in range(size):
            keep[3 * size + j] = product[rank, 2 * size + j]
        h_before = h[row - 1] if step > 0 else h0[sequence]
        _cell(gates_x[row], keep, h_before, h[row])
        for j in range(size):
            state[rank, j] = h[row, j]


@jit_fast
def gru_step_backward(
    step: int,
    active: int,
    order: Array,
    offsets: Array,
    grad_h: Array,
    h0: Array,
    saved: Array,
    h: Array,
    grad_x: Array,
    grad_q: Array,
    step_gates: Array,
    carry: Array,
) -> None:
    """Go back over token `step` of the first `active` sequences of `order`.

    `carry` (n_sequences, H) holds the gradient from the next step in that order and keeps h's direct path;
    `step_gates` (n_sequences, 3H) receives q's gradients in that order, for the product with the weights outside.
    """
    size = h.shape[1]
    for rank in range(active):
        sequence = order[rank]
        row = offsets[sequence] + step
        for j in range(size):
            carry[rank, j] += grad_h[row, j]
        h_before = h[row - 1] if step > 0 else h0[sequence]
        _cell_backward(saved[row], h_before, carry[rank], grad_x[row], grad_q[row])
        for j in range(3 * size):
            step_gates[rank, j] = grad_q[row, j]

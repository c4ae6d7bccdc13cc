"""The recurrent operators through stock torch, for CUDA tensors; they also run on the CPU, where
tests compare them.

Tokens are permuted into time-major order with the longest sequences first: the sequences still
running are then a prefix of the state, and nothing is padded."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgaum.nets.ops._dispatch import segment_ids


def time_major(offsets: Tensor, n_tokens: int) -> tuple[Tensor, list[int], Tensor]:
    """Return sequences by falling length, the number still running at each step, and the tokens in
    step order.

    offsets [0, 1, 4, 4, 6] → order [1, 3, 0, 2], running [3, 2, 1], tokens [1, 4, 0, 2, 5, 3].
    """
    order = torch.argsort(offsets.diff(), descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    sequences = segment_ids(offsets, n_tokens)
    steps = torch.arange(n_tokens, device=order.device) - offsets[sequences]
    running = torch.bincount(steps)
    starts = running.cumsum(0) - running
    tokens = torch.empty_like(steps)
    tokens[starts[steps] + rank[sequences]] = torch.arange(n_tokens, device=order.device)
    return order, running.tolist(), tokens


def lstm_states(gates_x: Tensor, offsets: Tensor, weight_hh: Tensor) -> Tensor:
    """Return h after each token from zero states, (n_tokens, H), through torch.lstm on sequences of
    equal length.

    Unpacked and unpadded: cuDNN bars packed input from its persistent kernels. cuDNN insists on an
    input product, so it is given the gates and an identity. Differentiable by autograd; c, which
    cuDNN keeps to itself, is not to be had."""
    n_tokens, width = gates_x.shape
    size = width // 4
    lengths = offsets.diff()
    identity = torch.eye(width, dtype=gates_x.dtype, device=gates_x.device)
    rows, states = [], []
    for length in torch.unique(lengths).tolist():
        if length == 0:
            continue
        starts = offsets[:-1][lengths == length].long()
        tokens = starts[:, None] + torch.arange(length, device=starts.device)
        zeros = gates_x.new_zeros(1, len(starts), size)
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            h, _, _ = torch.lstm(
                gates_x[tokens],
                (zeros, zeros),
                [identity, weight_hh],
                False,
                1,
                0.0,
                True,
                False,
                True,
            )
        rows.append(tokens.reshape(-1))
        states.append(h.reshape(-1, size))
    if not rows:
        return gates_x.new_zeros(0, size)
    return gates_x.new_zeros(n_tokens, size).index_copy(0, torch.cat(rows), torch.cat(states))


def lstm_forward(
    gates_x: Tensor, offsets: Tensor, weight_hh: Tensor, h0: Tensor, c0: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_recurrent_cpu.lstm_forward`."""
    order, running, tokens = time_major(offsets, gates_x.shape[0])
    h, c = h0[order], c0[order]
    gate_steps, h_steps, c_steps = [], [], []
    for sums in torch.split(gates_x[tokens], running):
        count = sums.shape[0]
        i, f, g, o = torch.addmm(sums, h[:count], weight_hh.t()).chunk(4, 1)
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        c = f * c[:count] + i * g
        h = o * c.tanh()
        gate_steps.append(torch.cat((i, f, g, o), 1))
        h_steps.append(h)
        c_steps.append(c)
    like_h = h0.new_empty(gates_x.shape[0], h0.shape[1])
    return (
        _join(h_steps, tokens, like_h),
        _join(c_steps, tokens, like_h),
        _join(gate_steps, tokens, gates_x),
    )


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
    """As `_recurrent_cpu.lstm_backward`."""
    order, running, tokens = time_major(offsets, h.shape[0])
    grad_h = torch.zeros_like(h) if grad_h is None else grad_h
    grad_c = torch.zeros_like(c) if grad_c is None else grad_c
    rows = (grad_h, grad_c, gates, previous(c, offsets, c0), c.tanh())
    carry_h, carry_c = torch.zeros_like(h0), torch.zeros_like(c0)
    steps = list(zip(*(torch.split(part[tokens], running) for part in rows), strict=True))
    grad_steps = []
    for step_h, step_c, gate, c_before, squashed in reversed(steps):
        count = step_h.shape[0]
        i, f, g, o = gate.chunk(4, 1)
        of_h = carry_h[:count] + step_h
        of_c = carry_c[:count] + step_c + of_h * o * (1 - squashed * squashed)
        sums = torch.cat(
            (
                of_c * g * i * (1 - i),
                of_c * c_before * f * (1 - f),
                of_c * i * (1 - g * g),
                of_h * squashed * o * (1 - o),
            ),
            1,
        )
        carry_h[:count] = sums @ weight_hh
        carry_c[:count] = of_c * f
        grad_steps.append(sums)
    grad_gates = _join(grad_steps[::-1], tokens, gates)
    grad_weight = grad_gates.t() @ previous(h, offsets, h0)
    return grad_gates, grad_weight, _unsort(carry_h, order), _unsort(carry_c, order)


def lstm_layer_forward(
    x: Tensor,
    offsets: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor,
    h0: Tensor,
    c0: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_recurrent_cpu.lstm_layer_forward`."""
    return lstm_forward(torch.addmm(bias, x, weight_ih.t()), offsets, weight_hh, h0, c0)


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
    """As `_recurrent_cpu.lstm_layer_backward`."""
    sums, of_hh, of_h0, of_c0 = lstm_backward(
        grad_h, grad_c, offsets, weight_hh, h0, c0, gates, h, c
    )
    of_x = sums @ weight_ih if wanted else x.new_empty(0, x.shape[1])
    return of_x, sums.t() @ x, of_hh, sums.sum(0), of_h0, of_c0


def gru_forward(
    gates_x: Tensor, offsets: Tensor, weight_hh: Tensor, bias_hh: Tensor, h0: Tensor
) -> tuple[Tensor, Tensor]:
    """As `_recurrent_cpu.gru_forward`."""
    order, running, tokens = time_major(offsets, gates_x.shape[0])
    h = h0[order]
    saved_steps, h_steps = [], []
    for sums in torch.split(gates_x[tokens], running):
        count = sums.shape[0]
        x_r, x_z, x_n = sums.chunk(3, 1)
        q_r, q_z, q_n = torch.addmm(bias_hh, h[:count], weight_hh.t()).chunk(3, 1)
        r, z = (x_r + q_r).sigmoid(), (x_z + q_z).sigmoid()
        n = (x_n + r * q_n).tanh()
        h = (1 - z) * n + z * h[:count]
        saved_steps.append(torch.cat((r, z, n, q_n), 1))
        h_steps.append(h)
    size = h0.shape[1]
    n_tokens = gates_x.shape[0]
    return (
        _join(h_steps, tokens, h0.new_empty(n_tokens, size)),
        _join(saved_steps, tokens, h0.new_empty(n_tokens, 4 * size)),
    )


def gru_backward(
    grad_h: Tensor, offsets: Tensor, weight_hh: Tensor, h0: Tensor, saved: Tensor, h: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `_recurrent_cpu.gru_backward`."""
    order, running, tokens = time_major(offsets, h.shape[0])
    h_before = previous(h, offsets, h0)
    steps = list(
        zip(
            *(torch.split(part[tokens], running) for part in (grad_h, saved, h_before)), strict=True
        )
    )
    carry = torch.zeros_like(h0)
    x_steps, q_steps = [], []
    for step_h, keep, before in reversed(steps):
        count = step_h.shape[0]
        r, z, n, q = keep.chunk(4, 1)
        of_h = carry[:count] + step_h
        of_n = of_h * (1 - z) * (1 - n * n)
        of_r = of_n * q * r * (1 - r)
        of_z = of_h * (before - n) * z * (1 - z)
        x_steps.append(torch.cat((of_r, of_z, of_n), 1))
        q_steps.append(torch.cat((of_r, of_z, of_n * r), 1))
        carry[:count] = torch.addmm(of_h * z, q_steps[-1], weight_hh)
    like = h0.new_empty(h.shape[0], weight_hh.shape[0])
    grad_x, grad_q = _join(x_steps[::-1], tokens, like), _join(q_steps[::-1], tokens, like)
    return grad_x, grad_q.t() @ h_before, grad_q.sum(0), _unsort(carry, order)


def previous(rows: Tensor, offsets: Tensor, start: Tensor) -> Tensor:
    """Each token's row one step earlier, and `start` at the first step: a0 a1 | b0 → start_a a0 |
    start_b."""
    shifted = rows.roll(1, 0)
    filled = offsets.diff() > 0
    shifted[offsets[:-1][filled].long()] = start[filled]
    return shifted


def _join(steps: list[Tensor], tokens: Tensor, like: Tensor) -> Tensor:
    """Put time-major steps back into session-major order."""
    result = torch.empty_like(like, memory_format=torch.contiguous_format)
    if steps:
        result[tokens] = torch.cat(steps)
    return result


def _unsort(rows: Tensor, order: Tensor) -> Tensor:
    result = torch.empty_like(rows)
    result[order] = rows
    return result

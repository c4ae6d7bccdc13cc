"""LSTM and GRU over ragged sequences: each at its own length, without a padded tensor; plain torch,
any device.

Tokens are session-major: sequence i owns rows offsets[i]:offsets[i + 1], in time order; a sequence
may be empty. `gates_x` already holds the input projection and its bias, so that the first layer may
be a gather. The longest sequences come first: those that still run at a step are then a prefix of
the state."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgaum.nets.segments import segment_ids


def lstm(
    gates_x: Tensor, offsets: Tensor, weight_hh: Tensor, h0: Tensor, c0: Tensor
) -> tuple[Tensor, Tensor]:
    """Return h and c after each token, (n_tokens, H) each.

    gates_x (n_tokens, 4H) holds W_ih x + b_ih + b_hh; offsets (n_sequences + 1,) int32; weight_hh
    (4H, H); h0, c0 (n_sequences, H). Gates are in the order i, f, g, o: weights and formulas are
    those of torch.nn.LSTM."""
    order, running, tokens = time_major(offsets, gates_x.shape[0])
    h, c = h0[order], c0[order]
    h_steps, c_steps = [h[:0]], [c[:0]]
    for step in torch.split(gates_x[tokens], running):
        n = step.shape[0]
        i, f, g, o = torch.addmm(step, h[:n], weight_hh.t()).chunk(4, 1)
        c = f.sigmoid() * c[:n] + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        h_steps.append(h)
        c_steps.append(c)
    back = torch.argsort(tokens)
    return torch.cat(h_steps)[back], torch.cat(c_steps)[back]


def gru(gates_x: Tensor, offsets: Tensor, weight_hh: Tensor, bias_hh: Tensor, h0: Tensor) -> Tensor:
    """Return h after each token, (n_tokens, H).

    gates_x (n_tokens, 3H) holds W_ih x + b_ih; offsets (n_sequences + 1,) int32; weight_hh (3H, H);
    bias_hh (3H,), kept apart because the reset gate multiplies it; h0 (n_sequences, H). Gates are
    in the order r, z, n: weights and formulas are those of torch.nn.GRU."""
    order, running, tokens = time_major(offsets, gates_x.shape[0])
    h = h0[order]
    h_steps = [h[:0]]
    for step in torch.split(gates_x[tokens], running):
        n = step.shape[0]
        x_r, x_z, x_n = step.chunk(3, 1)
        q_r, q_z, q_n = torch.addmm(bias_hh, h[:n], weight_hh.t()).chunk(3, 1)
        z = (x_z + q_z).sigmoid()
        h = (1 - z) * (x_n + (x_r + q_r).sigmoid() * q_n).tanh() + z * h[:n]
        h_steps.append(h)
    return torch.cat(h_steps)[torch.argsort(tokens)]


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
    equal length: what a card is quick at.

    Unpacked and unpadded: cuDNN bars packed input from its persistent kernels. cuDNN insists on an
    input product, so it is given the gates and an identity. c, which cuDNN keeps to itself, is not
    to be had."""
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

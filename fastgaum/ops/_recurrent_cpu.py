"""The recurrent operators on the CPU: checks, allocation, and the choice between two ways to walk a packed batch.

Up to `SEQUENTIAL_SIZE` hidden units the Numba kernel takes one sequence after the other, its weights in cache; above,
all sequences still running advance together, one BLAS product and one fused pass over their rows per step. Measured on
one core with 512 sequences of Zipf lengths (mean 20, at most 200), the two cross between 64 and 96 units, for LSTM and
GRU alike; with 50 sequences the first still leads at 128.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastgaum.kernels import gru as gru_kernels
from fastgaum.kernels import lstm as lstm_kernels
from fastgaum.kernels._jit import Array
from fastgaum.kernels.packing import longest_sequence, order_by_length, previous_rows
from fastgaum.ops._dispatch import check_rows

SEQUENTIAL_SIZE = 80


def lstm_forward(
    gates_x: Tensor, offsets: Tensor, weight_hh: Tensor, h0: Tensor, c0: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return h, c (n_tokens, H) and the activated gates (n_tokens, 4H) that the backward pass reads."""
    check_rows(gates_x, offsets, "tokens")
    _check(4, gates_x, offsets, weight_hh=weight_hh, h0=h0, c0=c0)
    size = h0.shape[1]
    gates = torch.empty_like(gates_x, memory_format=torch.contiguous_format)
    h, c = h0.new_empty(gates.shape[0], size), h0.new_empty(gates.shape[0], size)
    rows, starts, first_c = _array(gates_x), _array(offsets), _array(c0)
    outputs = gates.numpy(), h.numpy(), c.numpy()
    if size <= SEQUENTIAL_SIZE:
        lstm_kernels.lstm_sequences(rows, starts, _array(weight_hh.t()), _array(h0), first_c, *outputs)
        return h, c, gates
    order, active = _order(starts)
    state = h0[torch.from_numpy(order)]
    product = h0.new_empty(h0.shape[0], 4 * size)
    product_array, state_array = product.numpy(), state.numpy()
    transposed = weight_hh.t()
    for step, count in enumerate(active):
        torch.mm(state[:count], transposed, out=product[:count])
        lstm_kernels.lstm_step(step, count, order, starts, product_array, rows, first_c, *outputs, state_array)
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
    size = h0.shape[1]
    nothing = h0.new_empty(0, size)
    grads = _array(nothing if grad_h is None else grad_h), _array(nothing if grad_c is None else grad_c)
    grad_gates = torch.empty_like(gates)
    starts, first_c = _array(offsets), _array(c0)
    saved = first_c, gates.numpy(), c.numpy(), grad_gates.numpy()
    if size <= SEQUENTIAL_SIZE:
        grad_h0, grad_c0 = h0.new_empty(h0.shape), h0.new_empty(h0.shape)
        lstm_kernels.lstm_sequences_backward(
            *grads, starts, _array(weight_hh.t()), *saved, grad_h0.numpy(), grad_c0.numpy()
        )
    else:
        order, active = _order(starts)
        carry_h, carry_c = h0.new_zeros(h0.shape), h0.new_zeros(h0.shape)
        step_gates = h0.new_empty(h0.shape[0], 4 * size)
        buffers = step_gates.numpy(), carry_h.numpy(), carry_c.numpy()
        for step in range(len(active) - 1, -1, -1):
            count = active[step]
            lstm_kernels.lstm_step_backward(step, count, order, starts, *grads, *saved, *buffers)
            torch.mm(step_gates[:count], weight_hh, out=carry_h[:count])
        grad_h0, grad_c0 = _unsort(carry_h, order), _unsort(carry_c, order)
    return grad_gates, _weight_grad(grad_gates, h, starts, h0), grad_h0, grad_c0


def gru_forward(
    gates_x: Tensor, offsets: Tensor, weight_hh: Tensor, bias_hh: Tensor, h0: Tensor
) -> tuple[Tensor, Tensor]:
    """Return h (n_tokens, H) and r, z, n and n's recurrent sum (n_tokens, 4H) that the backward pass reads."""
    check_rows(gates_x, offsets, "tokens")
    _check(3, gates_x, offsets, weight_hh=weight_hh, bias_hh=bias_hh, h0=h0)
    size = h0.shape[1]
    n_tokens = gates_x.shape[0]
    saved, h = h0.new_empty(n_tokens, 4 * size), h0.new_empty(n_tokens, size)
    rows, starts, first = _array(gates_x), _array(offsets), _array(h0)
    if size <= SEQUENTIAL_SIZE:
        weights = _array(weight_hh.t()), _array(bias_hh)
        gru_kernels.gru_sequences(rows, starts, *weights, first, saved.numpy(), h.numpy())
        return h, saved
    order, active = _order(starts)
    state = h0[torch.from_numpy(order)]
    product = h0.new_empty(h0.shape[0], 3 * size)
    arrays = product.numpy(), rows, first, saved.numpy(), h.numpy(), state.numpy()
    transposed = weight_hh.t()
    for step, count in enumerate(active):
        torch.addmm(bias_hh, state[:count], transposed, out=product[:count])
        gru_kernels.gru_step(step, count, order, starts, *arrays)
    return h, saved


def gru_backward(
    grad_h: Tensor, offsets: Tensor, weight_hh: Tensor, h0: Tensor, saved: Tensor, h: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of gates_x, weight_hh, bias_hh and h0."""
    size = h0.shape[1]
    grad_x, grad_q = h0.new_empty(h.shape[0], 3 * size), h0.new_empty(h.shape[0], 3 * size)
    starts = _array(offsets)
    arrays = _array(h0), saved.numpy(), h.numpy(), grad_x.numpy(), grad_q.numpy()
    if size <= SEQUENTIAL_SIZE:
        grad_h0 = h0.new_empty(h0.shape)
        gru_kernels.gru_sequences_backward(_array(grad_h), starts, _array(weight_hh.t()), *arrays, grad_h0.numpy())
    else:
        order, active = _order(starts)
        carry = h0.new_zeros(h0.shape)
        step_gates = h0.new_empty(h0.shape[0], 3 * size)
        buffers = step_gates.numpy(), carry.numpy()
        grads = _array(grad_h)
        for step in range(len(active) - 1, -1, -1):
            count = active[step]
            gru_kernels.gru_step_backward(step, count, order, starts, grads, *arrays, *buffers)
            carry[:count].addmm_(step_gates[:count], weight_hh)
        grad_h0 = _unsort(carry, order)
    return grad_x, _weight_grad(grad_q, h, starts, h0), grad_q.sum(0), grad_h0


def _array(tensor: Tensor) -> Array:
    """Rows side by side in memory: the kernels are compiled for that layout alone."""
    return tensor.contiguous().numpy()


def _order(offsets: Array) -> tuple[Array, list[int]]:
    """Sequences by falling length, and how many of them are longer than each step."""
    order = np.empty(len(offsets) - 1, dtype=np.int32)
    active = np.empty(longest_sequence(offsets), dtype=np.int32)
    order_by_length(offsets, order, active)
    return order, active.tolist()


def _unsort(rows: Tensor, order: Array) -> Tensor:
    result = torch.empty_like(rows)
    result[torch.from_numpy(order)] = rows
    return result


def _weight_grad(grad_sums: Tensor, h: Tensor, offsets: Array, h0: Tensor) -> Tensor:
    """Σ over tokens of grad_sums ⊗ h', as one tall product."""
    previous = torch.empty_like(h)
    previous_rows(h.numpy(), offsets, _array(h0), previous.numpy())
    return torch.mm(grad_sums.t(), previous)


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

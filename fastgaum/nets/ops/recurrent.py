"""Packed recurrent operators: every sequence of a ragged batch at its own length, without a padded
tensor.

Tokens are session-major: sequence i owns rows offsets[i]:offsets[i + 1], in time order; a sequence
may be empty. `gates_x` already holds the input projection and its bias, so that the first layer may
be a gather. CPU tensors run through Numba, CUDA tensors through stock torch. Gradients are of first
order.

On the CPU, offsets that are not int32, mixed or other dtypes than float32 and float64 raise
TypeError; offsets that do not end at n_tokens and shapes that do not fit raise ValueError."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastgaum.nets.ops import _recurrent_cpu, _recurrent_stock
from fastgaum.nets.ops._dispatch import operator
from fastgaum.nets.ops._recurrent_stock import lstm_states
from fastgaum.nets.ops.position_weight import (
    LagStructure,
    bag_outer_sum,
    lag_structure,
    lag_weighted,
)

__all__ = [
    "LagStructure",
    "bag_outer_sum",
    "gru",
    "lag_structure",
    "lag_weighted",
    "lstm",
    "lstm_layer",
    "lstm_states",
]


def lstm(
    gates_x: Tensor, offsets: Tensor, weight_hh: Tensor, h0: Tensor, c0: Tensor
) -> tuple[Tensor, Tensor]:
    """Return h and c after each token, (n_tokens, H) each.

    gates_x (n_tokens, 4H) holds W_ih x + b_ih + b_hh; offsets (n_sequences + 1,) int32; weight_hh
    (4H, H); h0, c0 (n_sequences, H). Gates stand in the order i, f, g, o: weights and formulas are
    those of torch.nn.LSTM."""
    h, c, _ = _lstm(gates_x, offsets, weight_hh, h0, c0)
    return h, c


def lstm_layer(
    x: Tensor,
    offsets: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor,
    h0: Tensor,
    c0: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return h and c after each token, (n_tokens, H) each, of a layer with a dense input x
    (n_tokens, D).

    weight_ih (4H, D), bias (4H,) = b_ih + b_hh; all else as in `lstm`, of which this is lstm(W_ih x
    + bias, …): on the CPU the projection is part of the recurrence's products and never written
    down."""
    h, c, _ = _lstm_layer(x, offsets, weight_ih, weight_hh, bias, h0, c0)
    return h, c


def gru(gates_x: Tensor, offsets: Tensor, weight_hh: Tensor, bias_hh: Tensor, h0: Tensor) -> Tensor:
    """Return h after each token, (n_tokens, H).

    gates_x (n_tokens, 3H) holds W_ih x + b_ih; offsets (n_sequences + 1,) int32; weight_hh (3H, H);
    bias_hh (3H,), kept apart because the reset gate multiplies it; h0 (n_sequences, H). Gates stand
    in the order r, z, n: weights and formulas are those of torch.nn.GRU."""
    h, _ = _gru(gates_x, offsets, weight_hh, bias_hh, h0)
    result: Tensor = h
    return result


def _lstm_fake(
    gates_x: Tensor, offsets: Tensor, weight_hh: Tensor, h0: Tensor, c0: Tensor
) -> tuple[Tensor, ...]:
    h = h0.new_empty(gates_x.shape[0], h0.shape[1])
    return h, torch.empty_like(h), gates_x.new_empty(gates_x.shape)


def _lstm_backward_fake(*arguments: Tensor) -> tuple[Tensor, ...]:
    weight_hh, h0, c0, gates = arguments[3:7]
    return tuple(part.new_empty(part.shape) for part in (gates, weight_hh, h0, c0))


def _lstm_setup(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    _, offsets, weight_hh, h0, c0 = inputs
    h, c, gates = output
    ctx.mark_non_differentiable(gates)
    # an output that nobody reads then has gradient None instead of a tensor of zeros
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(offsets, weight_hh, h0, c0, gates, h, c)


def _lstm_grad(
    ctx: Any, grad_h: Tensor | None, grad_c: Tensor | None, _: None
) -> tuple[Tensor | None, ...]:
    grad_gates, grad_weight, grad_h0, grad_c0 = _lstm_backward(grad_h, grad_c, *ctx.saved_tensors)
    return grad_gates, None, grad_weight, grad_h0, grad_c0


def _lstm_layer_fake(x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    h0 = others[4]
    h = h0.new_empty(x.shape[0], h0.shape[1])
    return h, torch.empty_like(h), h0.new_empty(x.shape[0], 4 * h0.shape[1])


def _lstm_layer_backward_fake(*arguments: Any) -> tuple[Tensor, ...]:
    x, _, weight_ih, weight_hh, h0, c0 = arguments[2:8]
    of_x = x.new_empty(x.shape[0] if arguments[-1] else 0, x.shape[1])
    return of_x, *(
        part.new_empty(part.shape) for part in (weight_ih, weight_hh, weight_hh[:, 0], h0, c0)
    )


def _lstm_layer_setup(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    x, offsets, weight_ih, weight_hh, _, h0, c0 = inputs
    h, c, gates = output
    ctx.mark_non_differentiable(gates)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, offsets, weight_ih, weight_hh, h0, c0, gates, h, c)


def _lstm_layer_grad(
    ctx: Any, grad_h: Tensor | None, grad_c: Tensor | None, _: None
) -> tuple[Tensor | None, ...]:
    wanted = ctx.needs_input_grad[0]
    of_x, of_ih, of_hh, of_bias, of_h0, of_c0 = _lstm_layer_backward(
        grad_h, grad_c, *ctx.saved_tensors, wanted
    )
    return of_x if wanted else None, None, of_ih, of_hh, of_bias, of_h0, of_c0


def _gru_fake(
    gates_x: Tensor, offsets: Tensor, weight_hh: Tensor, bias_hh: Tensor, h0: Tensor
) -> tuple[Tensor, ...]:
    n_tokens, size = gates_x.shape[0], h0.shape[1]
    return h0.new_empty(n_tokens, size), h0.new_empty(n_tokens, 4 * size)


def _gru_backward_fake(
    grad_h: Tensor, offsets: Tensor, weight_hh: Tensor, h0: Tensor, saved: Tensor, h: Tensor
) -> tuple[Tensor, ...]:
    width = weight_hh.shape[0]
    return (
        h.new_empty(h.shape[0], width),
        h.new_empty(weight_hh.shape),
        h.new_empty(width),
        h.new_empty(h0.shape),
    )


def _gru_setup(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    _, offsets, weight_hh, _, h0 = inputs
    h, saved = output
    ctx.mark_non_differentiable(saved)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(offsets, weight_hh, h0, saved, h)


def _gru_grad(ctx: Any, grad_h: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if grad_h is None:
        return None, None, None, None, None
    grad_x, grad_weight, grad_bias, grad_h0 = _gru_backward(grad_h, *ctx.saved_tensors)
    return grad_x, None, grad_weight, grad_bias, grad_h0


_lstm = operator(
    "lstm",
    "(Tensor gates_x, Tensor offsets, Tensor weight_hh, Tensor h0, Tensor c0) -> (Tensor, Tensor, "
    "Tensor)",
    _recurrent_cpu.lstm_forward,
    _recurrent_stock.lstm_forward,
    _lstm_fake,
    (_lstm_setup, _lstm_grad),
)
_lstm_backward = operator(
    "lstm_backward",
    "(Tensor? grad_h, Tensor? grad_c, Tensor offsets, Tensor weight_hh, Tensor h0, Tensor c0, "
    "Tensor gates, Tensor h,"
    " Tensor c) -> (Tensor, Tensor, Tensor, Tensor)",
    _recurrent_cpu.lstm_backward,
    _recurrent_stock.lstm_backward,
    _lstm_backward_fake,
)
_lstm_layer = operator(
    "lstm_layer",
    "(Tensor x, Tensor offsets, Tensor weight_ih, Tensor weight_hh, Tensor bias, Tensor h0, "
    "Tensor c0)"
    " -> (Tensor, Tensor, Tensor)",
    _recurrent_cpu.lstm_layer_forward,
    _recurrent_stock.lstm_layer_forward,
    _lstm_layer_fake,
    (_lstm_layer_setup, _lstm_layer_grad),
)
_lstm_layer_backward = operator(
    "lstm_layer_backward",
    "(Tensor? grad_h, Tensor? grad_c, Tensor x, Tensor offsets, Tensor weight_ih, Tensor "
    "weight_hh, Tensor h0, Tensor c0,"
    " Tensor gates, Tensor h, Tensor c, bool wanted) -> (Tensor, Tensor, Tensor, Tensor, Tensor, "
    "Tensor)",
    _recurrent_cpu.lstm_layer_backward,
    _recurrent_stock.lstm_layer_backward,
    _lstm_layer_backward_fake,
)
_gru = operator(
    "gru",
    "(Tensor gates_x, Tensor offsets, Tensor weight_hh, Tensor bias_hh, Tensor h0) -> (Tensor, "
    "Tensor)",
    _recurrent_cpu.gru_forward,
    _recurrent_stock.gru_forward,
    _gru_fake,
    (_gru_setup, _gru_grad),
)
_gru_backward = operator(
    "gru_backward",
    "(Tensor grad_h, Tensor offsets, Tensor weight_hh, Tensor h0, Tensor saved, Tensor h)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    _recurrent_cpu.gru_backward,
    _recurrent_stock.gru_backward,
    _gru_backward_fake,
)

"""One direction of an LSTM layer over ragged sequences: torch.nn.LSTM on each sequence alone, in
float64."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fastgaum.kernels import direction, packing


@settings(max_examples=30)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.booleans())
def test_states_and_gradients_are_those_of_torch(lengths: list[int], reverse: bool) -> None:
    size, width, n = 3, 4, sum(lengths)
    torch.manual_seed(len(lengths))
    lstm = nn.LSTM(width, size, batch_first=True, dtype=torch.float64)
    x = torch.randn(n, width, dtype=torch.float64, requires_grad=True)
    flip = (lambda part: part.flip(0)) if reverse else (lambda part: part)
    expected = torch.cat([flip(lstm(flip(part)[None])[0][0]) for part in x.split(lengths)])
    grad = torch.randn_like(expected)
    torch.autograd.backward(expected, grad)

    offsets = np.cumsum([0, *lengths]).astype(np.int32)
    order = np.empty(len(lengths), np.int32)
    packing.order_by_length(offsets, order)
    w_ih, w_hh = lstm.weight_ih_l0.detach().numpy(), lstm.weight_hh_l0.detach().numpy()
    bias = (lstm.bias_ih_l0 + lstm.bias_hh_l0).detach().numpy()
    gates, c, h = np.empty((n, 4 * size)), np.empty((n, size)), np.full((n, 2 * size), np.nan)
    walk = direction.Walk(packing.Sequences(order, offsets), reverse)
    weights = direction.DirectionWeights(w_ih, bias, w_hh)
    forward = direction.DirectionPass(gates, c, h)
    direction.direction_forward(walk, x.detach().numpy(), weights, forward, size)
    np.testing.assert_allclose(h[:, size:], expected.detach().numpy(), atol=1e-12)
    assert np.isnan(h[:, :size]).all()

    # a first layer's gates come projected
    projected, again = x.detach().numpy() @ w_ih.T + bias, np.empty_like(h)
    of_input = np.empty((0, 1)), np.empty(0)
    direction.direction_forward(
        walk,
        np.empty((0, 1)),
        direction.DirectionWeights(*of_input, w_hh),
        direction.DirectionPass(projected, c, again),
        0,
    )
    np.testing.assert_allclose(again[:, :size], h[:, size:], atol=1e-12)

    grad_h = np.concatenate([np.full((n, size), np.nan), grad.numpy()], axis=1)
    sums, grad_x = np.empty((n, 4 * size)), np.empty((n, width))
    direction.direction_backward(walk, weights, forward, grad_h, size, (sums, grad_x))
    assert x.grad is not None
    assert lstm.weight_ih_l0.grad is not None
    assert lstm.bias_ih_l0.grad is not None
    np.testing.assert_allclose(grad_x, x.grad.numpy(), atol=1e-12)
    np.testing.assert_allclose(
        sums.T @ x.detach().numpy(), lstm.weight_ih_l0.grad.numpy(), atol=1e-12
    )
    np.testing.assert_allclose(sums.sum(0), lstm.bias_ih_l0.grad.numpy(), atol=1e-12)


@given(st.lists(st.integers(0, 4), max_size=12), st.integers(1, 3))
def test_rows_are_summed_at_their_positions(positions: list[int], width: int) -> None:
    rows = np.random.default_rng(0).standard_normal((len(positions), width))
    result, expected = np.full((5, width), np.nan), np.zeros((5, width))
    direction.add_rows_at(rows, np.array(positions, np.int32), result)
    np.add.at(expected, np.array(positions, np.int32), rows)
    np.testing.assert_allclose(result, expected, atol=1e-12)

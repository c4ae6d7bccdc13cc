"""States of events by an LSTM over past choices, in one operator: the bags' linear map, the layers,
and the places where events read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastgaum import threads
from fastgaum.arrays import FloatArray, IntArray
from fastgaum.kernels import bag_linear as kernels
from fastgaum.ops.lstm import NO_SOURCE, LstmLayer
from fastgaum.ops.tables import OfBags, table_of

TOKENS_OF_PART = 2048
"""tokens per part"""


class _States(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        anchor: Tensor,
        weights: Sequence[Tensor],
        bags: kernels.BagArrays,
        starts: IntArray,
        places: tuple[int, IntArray, IntArray | None],
    ) -> Tensor:
        table, matrix, bias, *of_layers = weights
        of_bags = kernels.BagMap(
            table.detach().numpy(),
            np.empty((0, table.shape[1]), np.float32),
            matrix.detach().numpy(),
            bias.detach().numpy(),
        )
        x, source, first_bias = of_bags.table, bags.ids, of_bags.bias
        n = len(bags.offsets) - 1
        if of_bags.weight.shape[1] or len(bags.ids) != n:
            x, source = np.empty((n, table.shape[1]), np.float32), NO_SOURCE
            first_bias = np.zeros_like(first_bias)
            parts = [(at, min(at + TOKENS_OF_PART, n)) for at in range(0, n, TOKENS_OF_PART)]
            threads.run(kernels.bag_linear, [(*part, bags, of_bags, x) for part in parts])
        layers, h = [LstmLayer(of_layers[0].shape[1])], x
        first = of_layers[0].detach().numpy()
        h = layers[0].forward(starts, first, first_bias, x, source)[0]
        for hh, ih, own in zip(of_layers[1::3], of_layers[2::3], of_layers[3::3], strict=True):
            layers.append(LstmLayer(hh.shape[1]))
            joined = np.concatenate([hh.detach().numpy(), ih.detach().numpy()], axis=1)
            h = layers[-1].forward(starts, joined, own.detach().numpy(), h)[0]
        n_events, later, read = places
        states = np.zeros((n_events, h.shape[1]), np.float32)
        states[later] = h if read is None else h[read]
        ctx.made = weights, of_bags, bags, layers, places
        return torch.from_numpy(states)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, ...]:
        weights, of_bags, bags, layers, (_, later, read) = ctx.made
        table, matrix, bias, *of_layers = weights
        of_h: FloatArray = grad.numpy().take(later, 0)
        if read is not None:
            # a token that no event reads, an action before another one, has none of its own
            whole = np.zeros((len(bags.offsets) - 1, of_h.shape[1]), np.float32)
            whole[read] = of_h
            of_h = whole
        for at in range(len(layers) - 1, 0, -1):
            hh, ih, own = of_layers[3 * at - 2 : 3 * at + 1]
            joined = np.empty((len(hh), hh.shape[1] + ih.shape[1]), np.float32)
            of_bias = np.empty(len(own), np.float32)
            of_h = layers[at].backward(of_h, joined, of_bias, of_x=True)[1]
            _add(hh, joined[:, : hh.shape[1]])
            _add(ih, joined[:, hh.shape[1] :])
            _add(own, of_bias)
        of_first = np.empty(of_layers[0].shape, np.float32)
        sums = layers[0].backward(of_h, of_first, of_first[0, :0])[0]
        _add(of_layers[0], of_first)
        grads = kernels.BagMap(
            sums, of_bags.up, np.empty_like(of_bags.weight), np.empty_like(of_bags.bias)
        )
        kernels.bag_linear_backward(sums, bags, of_bags, grads)
        if matrix.grad is not None:
            _add(matrix, grads.weight)
        _add(bias, grads.bias)
        owner = table_of(table)
        assert owner is not None
        owner.give(OfBags(bags.ids, bags.offsets, sums))
        return (None,) * 5


def _add(parameter: Tensor, grad: FloatArray) -> None:
    assert parameter.grad is not None
    of_parameter = parameter.grad.numpy()
    of_parameter += grad


def states_of_events(
    weights: Sequence[Tensor],
    bags: kernels.BagArrays,
    starts: IntArray,
    places: tuple[int, IntArray, IntArray | None],
) -> Tensor:
    """h before each event, (n_events, H), zero without a token; float32 on the CPU. Gradients of
    the weights are added where their optimiser reads them.

    Args:
        weights: the table (n_ids, 4H), W of numbers (4H, n_numbers), b (4H,), W_hh (4H, H) of the
            first layer, then W_hh, W_ih and b of each further one.
        bags: the tokens.
        starts: start of each sequence in the tokens, (n_sequences + 1,).
        places: how many events; those with a token before them; the last token before each of
            these, None: all tokens in turn."""
    found: Tensor = _States.apply(weights[3], weights, bags, starts, places)  # type: ignore[no-untyped-call]
    return found

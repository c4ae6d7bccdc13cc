"""States of events by an LSTM over past choices, in one operator: the bags' linear map, the layers,
and the places where events read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastgaum import threads
from fastgaum.arrays import FloatArray, IntArray, LongArray
from fastgaum.kernels import bag_linear as kernels
from fastgaum.kernels import lstm as lstm_kernels
from fastgaum.ops.lstm import NO_SOURCE, LstmLayer, gate_blocks, plan
from fastgaum.ops.tables import OfBags, learned_table, pointers_of

TOKENS_OF_PART = 2048
"""tokens per part"""


class Tokens(NamedTuple):
    """Past choices of a batch, and the events that read the states after them."""

    bags: kernels.BagArrays
    starts: IntArray
    """start of each sequence in the tokens, (n_sequences + 1,)"""
    n_events: int
    later: LongArray
    """events with a token before them"""
    read: LongArray | None
    """last token before each of those; None: all tokens in turn"""


class HistoryKernels:
    """An LSTM's parameters as kernels read them, and where they leave gradients."""

    def __init__(
        self,
        table: Tensor,
        up: Tensor | None,
        numbers: Tensor | None,
        bias: Tensor,
        layers: Sequence[Sequence[Tensor]],
    ) -> None:
        """The table (n_ids, 4H), or (n_ids, width) with U (width, 4H); W of numbers (4H, n_numbers)
        and b (4H,); W_hh of the first layer, then W_hh, W_ih and b of each further one."""
        self.table, self.up, self.numbers, self.layers = table, up, numbers, layers
        self.dense = [bias, *(one for one in (up, numbers) if one is not None)]
        self.dense += [one for layer in layers for one in layer]
        self.size = layers[0][0].shape[1]
        self.lstm = [LstmLayer(self.size) for _ in layers]
        self.parameters, self.key = [*self.dense, table], [0]

    def bind(self) -> None:
        """Find the parameters where they are now."""
        if (key := pointers_of(self.parameters)) == self.key:
            return
        bias = _array(self.dense[0])
        up, matrix = np.empty((0, len(bias)), np.float32), np.empty((len(bias), 0), np.float32)
        if self.up is not None:
            up = _array(self.up)
        if self.numbers is not None:
            matrix = _array(self.numbers)
        self.map = kernels.BagMap(_array(self.table), up, matrix, bias)
        self.weights = [[_array(one) for one in layer] for layer in self.layers]
        self.no_bias, self.owner = np.zeros_like(bias), learned_table(self.table)
        self.grads: dict[int, FloatArray] = {}
        if self.owner is not None:
            self.grads = {id(one): _gradient(one) for one in self.dense}
        self.key = key


class HistoryPass:
    """One pass forward, then at most one back.

    Attributes:
        states: h before each event, (n_events, H), zero without a token."""

    def __init__(self, of: HistoryKernels, tokens: Tokens, alone: bool) -> None:
        """alone: whether no other pass goes forward before this one goes back."""
        of.bind()
        self.of, self.tokens = of, tokens
        (ids, offsets, _), starts, n_events, later, read = tokens
        x, source, bias, n = of.map.table, ids, of.map.bias, len(offsets) - 1
        if of.map.weight.shape[1] or len(of.map.up) or len(ids) != n:
            x, source, bias = np.empty((n, len(bias)), np.float32), NO_SOURCE, of.no_bias
            _map_bags(tokens.bags, of.map, x)
        self.lstm = of.lstm if alone else [LstmLayer(one.size) for one in of.lstm]
        h = self.lstm[0].forward(starts, of.weights[0][0], bias, x, source)[0]
        for layer, (hh, ih, own) in zip(self.lstm[1:], of.weights[1:], strict=True):
            h = layer.forward(starts, np.concatenate([hh, ih], axis=1), own, h)[0]
        self.states: FloatArray = np.zeros((n_events, h.shape[1]), np.float32)
        self.states[later] = h if read is None else h[read]

    def backward(self, grad_states: FloatArray) -> None:
        """Add the gradients of the parameters where their optimiser reads them."""
        of, (bags, _, _, later, read) = self.of, self.tokens
        grad: FloatArray = grad_states.take(later, 0)
        if read is not None:
            # a token that no event reads, an action before another one, has none of its own
            whole = np.zeros((len(bags.offsets) - 1, grad.shape[1]), np.float32)
            whole[read] = grad
            grad = whole
        for at in range(len(self.lstm) - 1, 0, -1):
            hh, ih, own = of.layers[at]
            joined = np.empty((len(hh), hh.shape[1] + ih.shape[1]), np.float32)
            of_bias = np.empty(len(own), np.float32)
            grad = self.lstm[at].backward(grad, joined, of_bias, of_x=True)[1]
            of.grads[id(hh)] += joined[:, : hh.shape[1]]
            of.grads[id(ih)] += joined[:, hh.shape[1] :]
            of.grads[id(own)] += of_bias
        first = of.layers[0][0]
        of_first = np.empty(first.shape, np.float32)
        sums = self.lstm[0].backward(grad, of_first, of.no_bias[:0])[0]
        of.grads[id(first)] += of_first
        up, matrix, bias = (np.empty_like(one) for one in of.map[1:])
        rows = sums
        if of.up is not None:
            rows = np.empty((len(sums), len(up)), np.float32)
        kernels.bag_linear_backward(sums, bags, of.map, kernels.BagMap(rows, up, matrix, bias))
        of.grads[id(of.dense[0])] += bias
        for parameter, one in ((of.up, up), (of.numbers, matrix)):
            if parameter is not None:
                of.grads[id(parameter)] += one
        assert of.owner is not None
        of.owner.give(OfBags(bags.ids, bags.offsets, rows))


Carries = list[tuple[FloatArray, FloatArray]]
"""h and c of each layer, (n_sequences, H) each"""


class HistorySteps:
    """An LSTM whose weights do not change, moved on by one token of each sequence."""

    def __init__(self, of: HistoryKernels) -> None:
        of.bind()
        (first,), *above = of.weights
        self.size, self.map = of.size, of.map
        self.planned = plan(np.arange(2, dtype=np.int32), of.size)
        self.layers = [(gate_blocks(first, 4, of.size), of.no_bias)]
        for hh, ih, own in above:
            joined = np.concatenate([hh, ih], axis=1)
            self.layers.append((gate_blocks(joined, 4, joined.shape[1]), own))

    def initial(self, n: int) -> Carries:
        """Of n sequences without a token."""
        zeros = np.zeros((2 * len(self.layers), n, self.size), np.float32)
        return list(zip(zeros[::2], zeros[1::2], strict=True))

    def advance(self, carries: Carries, tokens: kernels.BagArrays) -> Carries:
        """After one more token of each sequence."""
        n = len(tokens.numbers)
        x = np.empty((n, 4 * self.size), np.float32)
        _map_bags(tokens, self.map, x)
        planned = self.planned
        if len(planned[0].offsets) != n + 1:
            # on a variable of its own: users of several threads share this
            self.planned = planned = plan(np.arange(n + 1, dtype=np.int32), self.size)
        (sequences, cut), gates, after = planned, x, []
        for (blocks, bias), (first_h, first_c) in zip(self.layers, carries, strict=True):
            h, c = np.empty_like(first_h), np.empty_like(first_c)
            layer = lstm_kernels.LstmPass(x, NO_SOURCE, gates, h, c, first_h, first_c)
            fixed = (sequences, blocks, bias, layer)
            threads.run(lstm_kernels.lstm_tiles, [(tiles, *fixed) for tiles in cut])
            after.append((h, c))
            x = h
        return after


def _map_bags(bags: kernels.BagArrays, weights: kernels.BagMap, result: FloatArray) -> None:
    n = len(result)
    parts = [(at, min(at + TOKENS_OF_PART, n)) for at in range(0, n, TOKENS_OF_PART)]
    threads.run(kernels.bag_linear, [(*part, bags, weights, result) for part in parts])


class _States(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchor: Tensor, of: HistoryKernels, tokens: Tokens) -> Tensor:
        ctx.made = HistoryPass(of, tokens, alone=False)
        return torch.from_numpy(ctx.made.states)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, ...]:
        ctx.made.backward(grad.contiguous().numpy())
        return None, None, None


def states_of_events(of: HistoryKernels, tokens: Tokens) -> Tensor:
    """h before each event, (n_events, H), zero without a token, as a node of autograd; float32 on
    the CPU. Gradients of the weights are added where their optimiser reads them."""
    found: Tensor = _States.apply(of.dense[0], of, tokens)  # type: ignore[no-untyped-call]
    return found


def _array(value: Tensor) -> FloatArray:
    found: FloatArray = value.detach().numpy()
    return found


def _gradient(value: Tensor) -> FloatArray:
    assert value.grad is not None
    found: FloatArray = value.grad.numpy()
    return found

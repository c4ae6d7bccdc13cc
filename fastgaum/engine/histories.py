"""The history encoder by hand: an LSTM of any number of layers."""

from __future__ import annotations

from typing import cast

import numpy as np
from torch import nn

from fastgaum import threads
from fastgaum.arrays import FloatArray, IntArray
from fastgaum.engine.optimiser import PlayerOptimiser
from fastgaum.engine.recurrence import NO_SOURCE, LstmLayer
from fastgaum.engine.tables import Buffer, Named, NamedRoom, SparseTable
from fastgaum.kernels import bag_linear as kernels
from fastgaum.nets.bags import SharedBagLinear
from fastgaum.nets.histories import Recurrent
from fastgaum.nets.tensors import Bags, BatchTensors

TOKENS_OF_PART = 2048
"""tokens per part"""


class RecurrentHistory:
    """`Recurrent` by hand: states at events, and the way back; its table is sparse."""

    table: SparseTable

    def __init__(self, encoder: Recurrent) -> None:
        self.encoder, self.state_dim = encoder, encoder.state_dim
        self.shared = isinstance(encoder.input, SharedBagLinear)
        self.room = NamedRoom()
        self._projected, self._rows = Buffer(), Buffer()
        self._states, self._grad_after = Buffer(), Buffer()
        self._joined = [Buffer() for _ in range(encoder.layers)]

    def _input_parameters(self) -> list[nn.Parameter | None]:
        """Up, weights of numbers and bias of the input projection, None for one not there."""
        source, numbers = self.encoder.input, self.encoder.input.numbers
        of_numbers = (None, source.bias) if numbers is None else (numbers.weight, numbers.bias)
        return cast("list[nn.Parameter | None]", [source.up, *of_numbers])

    def dense_parameters(self) -> list[nn.Parameter]:
        """Input projection, recurrent weights, biases."""
        e, own = self.encoder, [part for part in self._input_parameters() if part is not None]
        return [*own, *e.weight_hh, *e.weight_ih, *e.bias_ih]

    def own_tables(self, n_ids: int) -> list[SparseTable]:
        """Make the input table sparse, unless others share it."""
        if self.shared:
            return []
        self.table = SparseTable(self.encoder.input.table, n_ids)
        return [self.table]

    def bind(self, optimiser: PlayerOptimiser) -> None:
        """Find the dense parameters in the flat block."""
        self.optimiser, e, width = optimiser, self.encoder, 4 * self.state_dim
        empty = [np.empty(shape, np.float32) for shape in ((0, width), (width, 0), (0,))]
        views = optimiser.value_of, optimiser.grad_of
        self.values, self.input_grads = (
            [
                none if part is None else view(part)
                for part, none in zip(self._input_parameters(), empty, strict=True)
            ]
            for view in views
        )
        # the first layer has no input weights and bias: its input comes from the table
        above = [(), *zip(e.weight_ih, e.bias_ih, strict=True)]
        self.weights, self.grads = (
            [(view(hh), *map(view, own)) for hh, own in zip(e.weight_hh, above, strict=True)]
            for view in views
        )
        self.lstm = [LstmLayer(e.state_dim) for _ in range(e.layers)]
        self.no_bias = np.zeros(width, np.float32)

    def forward(self, batch: BatchTensors, tokens: Bags) -> FloatArray:
        """State before each event, (n_events, state_dim), zero for a first event."""
        self.later, read = batch.later_events.numpy(), batch.read_tokens
        self.n_tokens, self.read = tokens.n_bags, None if read is None else read.numpy()
        states = self._states(batch.n_events, self.state_dim)
        states[:] = 0
        if len(self.later):
            starts = batch.token_offsets.numpy()
            bias, x, source = self._first_input(tokens)
            h = self.lstm[0].forward(starts, self.weights[0][0], bias, x, source)[0]
            for layer, (hh, ih, own) in zip(self.lstm[1:], self.weights[1:], strict=True):
                h = layer.forward(starts, np.concatenate([hh, ih], axis=1), own, h)[0]
            states[self.later] = h if self.read is None else h[self.read]
        return states

    def _first_input(self, tokens: Bags) -> tuple[FloatArray, FloatArray, IntArray]:
        """Bias, rows and source of the first LSTM."""
        (up, matrix, bias), n = self.values, tokens.n_bags
        ids, offsets = tokens.ids.numpy(), tokens.offsets.numpy()
        self.tokens = kernels.BagArrays(ids, offsets, tokens.numbers.numpy())
        self.map = kernels.BagMap(self.table.values, up, matrix, bias)
        if not self.shared and len(up) == 0 and matrix.shape[1] == 0 and len(ids) == n:
            return bias, self.table.values, ids
        x = self._projected(n, len(bias))
        parts = [(at, min(at + TOKENS_OF_PART, n)) for at in range(0, n, TOKENS_OF_PART)]
        threads.run(kernels.bag_linear, [(*part, self.tokens, self.map, x) for part in parts])
        return self.no_bias, x, NO_SOURCE

    def backward(self, grad_states: FloatArray, slot_of: IntArray) -> None:
        """Leave all gradients where the optimiser reads them, that of a shared table's rows in
        `grad_rows`."""
        if not len(self.later):
            for parameter in self.dense_parameters():
                self.optimiser.grad_of(parameter)[...] = 0
            return
        grad = self._grad_after(len(self.later), self.state_dim)
        np.take(grad_states, self.later, 0, grad, "clip")
        if self.read is not None:
            # a token that no event reads, an action before another one, has none of its own
            of_tokens = np.zeros((self.n_tokens, self.state_dim), np.float32)
            of_tokens[self.read] = grad
            grad = of_tokens
        for layer in range(len(self.lstm) - 1, 0, -1):
            of_hh, of_ih, of_bias = self.grads[layer]
            joined = self._joined[layer](len(of_hh), of_hh.shape[1] + of_ih.shape[1])
            grad = self.lstm[layer].backward(grad, joined, of_bias, of_x=True)[1]
            of_hh[...], of_ih[...] = joined[:, : of_hh.shape[1]], joined[:, of_hh.shape[1] :]
        sums = self.lstm[0].backward(grad, self.grads[0][0], self.no_bias[:0])[0]
        rows = self._rows(len(sums), self.table.width) if len(self.map.up) else sums
        grads = kernels.BagMap(rows, *self.input_grads)
        kernels.bag_linear_backward(sums, self.tokens, self.map, grads)
        self.grad_rows = rows
        if not self.shared:
            ids, offsets, _ = self.tokens
            self.table.add(Named(ids, offsets, slot_of, self.room), rows)

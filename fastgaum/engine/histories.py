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
from fastgaum.nets.bags import BagLinear, SharedBagLinear
from fastgaum.nets.histories import Recurrent
from fastgaum.nets.tensors import Bags, BatchTensors

TOKENS_OF_PART = 2048
"""tokens per part"""


class BagLayer:
    """One input projection's passes."""

    def __init__(self, source: BagLinear) -> None:
        self.source, self.shared = source, isinstance(source, SharedBagLinear)
        self._projected, self._rows = Buffer(), Buffer()
        self.bias = cast(
            nn.Parameter, source.bias if source.numbers is None else source.numbers.bias
        )

    def dense_parameters(self) -> list[nn.Parameter]:
        """All parameters but the table."""
        numbers = self.source.numbers
        weight = None if numbers is None else cast(nn.Parameter, numbers.weight)
        return [part for part in (self.source.up, weight, self.bias) if part is not None]

    def own_table(self, n_ids: int) -> SparseTable:
        """Make the table sparse."""
        self.table = SparseTable(self.source.table, n_ids)
        return self.table

    def bind(self, optimiser: PlayerOptimiser) -> None:
        """Find the dense parameters in the flat block."""
        up, numbers, width = self.source.up, self.source.numbers, self.bias.numel()
        weight = None if numbers is None else cast(nn.Parameter, numbers.weight)
        none, empty = np.empty((0, width), np.float32), np.empty((width, 0), np.float32)
        self.values, self.grads = (
            (
                none if up is None else view(up),
                empty if weight is None else view(weight),
                view(self.bias),
            )
            for view in (optimiser.value_of, optimiser.grad_of)
        )

    def forward(self, tokens: Bags) -> FloatArray:
        """The projection of each token, (n_tokens, width); valid until the next forward pass."""
        n = tokens.n_bags
        result = self._projected(n, self.bias.numel())
        fixed = (_arrays(tokens), kernels.BagMap(self.table.values, *self.values), result)
        threads.run(
            kernels.bag_linear,
            [
                (first, min(first + TOKENS_OF_PART, n), *fixed)
                for first in range(0, n, TOKENS_OF_PART)
            ],
        )
        return result

    def backward(self, tokens: Bags, grad: FloatArray, named: Named | None) -> None:
        """Leave all gradients where the optimiser reads them, that of a shared table's rows in
        `grad_rows`; grad: (n_tokens, width); named: None for a shared table."""
        up = self.values[0]
        rows = self._rows(len(grad), self.table.width) if len(up) else grad
        weights = kernels.BagMap(self.table.values, *self.values)
        grads = kernels.BagMap(rows, *self.grads)
        kernels.bag_linear_backward(grad, _arrays(tokens), weights, grads)
        self.grad_rows = rows
        if named is not None:
            self.table.add(named, rows)


def _arrays(bags: Bags) -> kernels.BagArrays:
    return kernels.BagArrays(bags.ids.numpy(), bags.offsets.numpy(), bags.numbers.numpy())


class RecurrentHistory:
    """`Recurrent` by hand: states at events, and the way back."""

    def __init__(self, encoder: Recurrent) -> None:
        self.encoder, self.state_dim = encoder, encoder.state_dim
        self.input = BagLayer(encoder.input)
        self.room = NamedRoom()
        self._states, self._grad_after = Buffer(), Buffer()
        self._joined = [Buffer() for _ in range(encoder.layers)]

    def dense_parameters(self) -> list[nn.Parameter]:
        """Input projection, recurrent weights, biases."""
        e = self.encoder
        return [*self.input.dense_parameters(), *e.weight_hh, *e.weight_ih, *e.bias_ih]

    def own_tables(self, n_ids: int) -> list[SparseTable]:
        """Make the input table sparse, unless others share it."""
        self.tables = [] if self.input.shared else [self.input.own_table(n_ids)]
        return self.tables

    def share(self, items: SparseTable) -> None:
        """Read the table of items, where it is shared."""
        if self.input.shared:
            self.input.table = items

    def bind(self, optimiser: PlayerOptimiser) -> None:
        """Find the dense parameters in the flat block."""
        self.optimiser = optimiser
        self.input.bind(optimiser)
        e = self.encoder
        # the first layer has no input weights and bias: its input comes from the table
        above = [(), *zip(e.weight_ih, e.bias_ih, strict=True)]
        self.weights, self.grads = (
            [(view(hh), *map(view, own)) for hh, own in zip(e.weight_hh, above, strict=True)]
            for view in (optimiser.value_of, optimiser.grad_of)
        )
        self.lstm = [LstmLayer(e.state_dim) for _ in range(e.layers)]
        self.no_bias = np.zeros(4 * e.state_dim, np.float32)

    def forward(self, batch: BatchTensors, tokens: Bags) -> FloatArray:
        """State before each event, (n_events, state_dim), zero for a first event."""
        self.later, read = batch.later_events.numpy(), batch.read_tokens
        self.n_tokens, self.read = tokens.n_bags, None if read is None else read.numpy()
        states = self._states(batch.n_events, self.state_dim)
        states[:] = 0
        if len(self.later):
            self.tokens, starts = tokens, batch.token_offsets.numpy()
            bias, x, source = self._first_input(tokens)
            h = self.lstm[0].forward(starts, self.weights[0][0], bias, x, source)[0]
            for layer, (hh, ih, own) in zip(self.lstm[1:], self.weights[1:], strict=True):
                h = layer.forward(starts, np.concatenate([hh, ih], axis=1), own, h)[0]
            states[self.later] = h if self.read is None else h[self.read]
        return states

    def backward(self, grad_states: FloatArray, slot_of: IntArray) -> None:
        """Leave all gradients where the optimiser reads them."""
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
        named = None
        if not self.input.shared:
            ids, offsets = self.tokens.ids.numpy(), self.tokens.offsets.numpy()
            named = Named(ids, offsets, slot_of, self.room)
        self.input.backward(self.tokens, sums, named)

    def _first_input(self, tokens: Bags) -> tuple[FloatArray, FloatArray, IntArray]:
        up, matrix, bias = self.input.values
        if len(up) == 0 and matrix.shape[1] == 0 and len(tokens.ids) == tokens.n_bags:
            return bias, self.tables[0].values, tokens.ids.numpy()
        return self.no_bias, self.input.forward(tokens), NO_SOURCE

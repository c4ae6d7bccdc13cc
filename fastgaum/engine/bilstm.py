"""`PrefixBiLstm` by hand: all prefixes of a batch together, the two directions of a layer side by
side on two threads.

A prefix's backward states differ from any other's, so that all layers but the first read other
inputs for each prefix: only the first layer's projection is shared. What is saved: the weights are
read once for all prefixes, those that end in generated choices included; a prefix's first step has
no recurrent product; no weight's gradient is written (`ProductWeight`)."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import nn

from fastgaum import threads
from fastgaum.engine.histories import BagLayer, EngineHistory
from fastgaum.engine.optimiser import PlayerOptimiser, ProductWeight
from fastgaum.engine.tables import Array, Buffer, Ints, LongInts, Named, Rule, SparseTable
from fastgaum.kernels import direction as kernels
from fastgaum.kernels import packing
from fastgaum.nets.bags import BagLinear
from fastgaum.nets.histories import PrefixBiLstm
from fastgaum.nets.sequences import prefixes
from fastgaum.nets.tensors import Bags

_NO_INPUT: tuple[Array, Array, Array] = (
    np.empty((0, 1), np.float32),
    np.empty((0, 1), np.float32),
    np.empty(0, np.float32),
)
"""the first layer's: its gates come projected"""


class BiLstmHistory(EngineHistory):
    """Prefixes as sequences of their own, each layer's two directions as one kernel call each."""

    encoder: PrefixBiLstm

    def __init__(self, encoder: PrefixBiLstm) -> None:
        super().__init__(encoder)
        self.size = encoder.dim
        self.inputs = [BagLayer(cast(BagLinear, source)) for source in encoder.inputs]
        n = encoder.layers
        self._gates, self._memory, self._sums = ([_pair() for _ in range(n)] for _ in range(3))
        self._hidden = [Buffer() for _ in range(n)]
        self._back_hidden, self._below, self._at_tokens_grad = Buffer(), _pair(), Buffer()

    def dense_parameters(self) -> list[nn.Parameter]:
        """Input projections and biases."""
        return [p for part in self.inputs for p in part.dense_parameters()] + list(
            self.encoder.bias_ih
        )

    def own_tables(self, n_ids: int, rule: Rule) -> list[SparseTable]:
        """Both directions' input tables."""
        self.tables = [part.own_table(n_ids, rule) for part in self.inputs]
        return self.tables

    def own_products(self) -> list[ProductWeight]:
        """The layers' matrices."""
        self.weight_hh = [ProductWeight(weight) for weight in self.encoder.weight_hh]
        self.weight_ih = [ProductWeight(weight) for weight in self.encoder.weight_ih]
        return [*self.weight_hh, *self.weight_ih]

    def bind(self, optimiser: PlayerOptimiser) -> None:
        """Find the dense parameters in the flat block."""
        super().bind(optimiser)
        for part in self.inputs:
            part.bind(optimiser)
        self.biases = [optimiser.value_of(bias) for bias in self.encoder.bias_ih]
        self.grad_biases = [optimiser.grad_of(bias) for bias in self.encoder.bias_ih]

    def _after_tokens(self, tokens: Bags, offsets: torch.Tensor) -> Array:
        expanded = prefixes(offsets)
        return self._run(tokens, *(part.numpy() for part in (expanded.rows, expanded.offsets)))

    def _back(self, grad: Array, slot_of: Ints) -> None:
        self._run_back(grad, slot_of)

    def _nothing(self) -> None:
        super()._nothing()
        for weight in (*self.weight_hh, *self.weight_ih):
            weight.clear_gradient()

    def _run(self, tokens: Bags, rows: LongInts, offsets: Ints) -> Array:
        """State at the end of each sequence of token rows, (n_sequences, 2 · size)."""
        self.tokens, self.rows = tokens, rows
        order = np.empty(len(offsets) - 1, np.int32)
        packing.order_by_length(offsets, order)
        self.sequences = packing.Sequences(order, offsets)
        size, n = self.size, len(rows)
        self.gates: list[list[Array]] = []
        self.memory: list[list[Array]] = []
        self.hidden: list[Array] = []
        for layer in range(self.encoder.layers):
            gates = [room(n, 4 * size) for room in self._gates[layer]]
            memory = [room(n, size) for room in self._memory[layer]]
            hidden: Array = self._hidden[layer](n, 2 * size)
            calls = []
            for way in range(2):
                at, inputs = 2 * layer + way, _NO_INPUT
                if layer:
                    inputs = self.hidden[-1], self.weight_ih[at - 2].values, self.biases[at - 2]
                else:
                    np.take(
                        self.inputs[way].forward(tokens), rows, axis=0, out=gates[way], mode="clip"
                    )
                x, w_ih, bias = inputs
                weights = kernels.DirectionWeights(w_ih, bias, self.weight_hh[at].values)
                written = kernels.DirectionPass(gates[way], memory[way], hidden)
                walk = kernels.Walk(self.sequences, way == 1)
                calls.append((walk, x, weights, written, way * size))
            threads.run(kernels.direction_forward, calls)
            self.gates.append(gates)
            self.memory.append(memory)
            self.hidden.append(hidden)
        self.first, self.last = offsets[:-1], offsets[1:] - 1
        return np.concatenate([hidden[self.last, :size], hidden[self.first, size:]], axis=1)

    def _run_back(self, grad: Array, slot_of: Ints) -> None:
        size, n = self.size, len(self.rows)
        back = self._back_hidden(n, 2 * size)
        back[:] = 0
        back[self.last, :size] = grad[:, :size]
        back[self.first, size:] = grad[:, size:]
        # positions that have one before them in either direction, and which that is
        later, earlier = (np.delete(np.arange(n), ends) for ends in (self.first, self.last))
        steps = [(later, later - 1), (earlier, earlier + 1)]
        for layer in range(self.encoder.layers - 1, -1, -1):
            sums = [room(n, 4 * size) for room in self._sums[layer]]
            below = [room(n if layer else 0, 2 * size) for room in self._below]
            calls = []
            for way in range(2):
                at = 2 * layer + way
                matrix = self.weight_ih[at - 2].values if layer else _NO_INPUT[1]
                weights = kernels.DirectionWeights(matrix, _NO_INPUT[2], self.weight_hh[at].values)
                forward = kernels.DirectionPass(
                    self.gates[layer][way], self.memory[layer][way], self.hidden[layer]
                )
                walk = kernels.Walk(self.sequences, way == 1)
                calls.append((walk, weights, forward, back, way * size, (sums[way], below[way])))
            threads.run(kernels.direction_backward, calls)
            for way, (here, before) in enumerate(steps):
                at, hidden = 2 * layer + way, self.hidden[layer][:, way * size : (way + 1) * size]
                self.weight_hh[at].set_gradient(sums[way][here], hidden[before])
                if layer:
                    self.weight_ih[at - 2].set_gradient(sums[way], self.hidden[layer - 1])
                    self.grad_biases[at - 2][...] = sums[way].sum(0)
            if layer:
                np.add(below[0], below[1], out=back)
        ids, offsets = self.tokens.ids.numpy(), self.tokens.offsets.numpy()
        named = Named(ids, offsets, slot_of, self.room)
        for way, part in enumerate(self.inputs):
            at_tokens = self._at_tokens_grad(self.tokens.n_bags, 4 * size)
            kernels.add_rows_at(sums[way], self.rows, at_tokens)
            part.backward(self.tokens, at_tokens, named)


def _pair() -> tuple[Buffer, Buffer]:
    """One for each direction."""
    return Buffer(), Buffer()

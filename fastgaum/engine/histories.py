"""History encoders by hand: recurrent (LSTM, GRU, any number of layers) and position weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from fastgaum import threads
from fastgaum.engine.optimiser import Named, PlayerOptimiser, SparseTable
from fastgaum.engine.packed_lstm import PackedLstm
from fastgaum.engine.product import ProductWeight
from fastgaum.engine.scratch import Array, Scratch
from fastgaum.kernels import bag_linear as kernels
from fastgaum.kernels import position_weight as lag_kernels
from fastgaum.nets.histories import HistoryEncoder, PositionWeight, Recurrent, shift_within
from fastgaum.nets.ops import _recurrent_cpu as recurrent
from fastgaum.nets.ops._recurrent_cpu import NO_SOURCE
from fastgaum.nets.ops.position_weight import ACTIVATIONS, LagStructure, lag_structure
from fastgaum.nets.prefixes import gather_bags, join_bags, prefixes
from fastgaum.nets.tensors import Bags, BatchTensors

PART = 2048
"""tokens per part of the input projection"""


class FusedHistory(ABC):
    """Base: states at events, and the way back, around what happens at tokens."""

    tables: list[SparseTable]

    def __init__(self, encoder: HistoryEncoder, name: str, scratch: Scratch) -> None:
        self.encoder, self.name, self.scratch = encoder, name, scratch
        self.state_dim = encoder.state_dim

    @abstractmethod
    def dense_parameters(self) -> list[nn.Parameter]:
        """All parameters but the tables over ids and the products."""

    @abstractmethod
    def own_tables(self, n_ids: int, rule: Any) -> list[SparseTable]:
        """Make the tables over ids sparse."""

    def own_products(self) -> list[ProductWeight]:
        """Matrices whose gradient is never written; all others are dense parameters."""
        return []

    @abstractmethod
    def _after_tokens(self, tokens: Bags, offsets: torch.Tensor) -> Array: ...

    @abstractmethod
    def _back(self, grad: Array, slot_of: Any) -> None: ...

    @abstractmethod
    def _after_both(
        self, tokens: Bags, offsets: torch.Tensor, generated: Bags
    ) -> tuple[Array, Array]: ...

    @abstractmethod
    def _back_both(self, grad: Array, grad_branch: Array, slot_of: Any) -> None: ...

    def bind(self, optimiser: PlayerOptimiser) -> None:
        """Find the dense parameters in the flat block."""
        self.optimiser = optimiser

    def forward(self, batch: BatchTensors, tokens: Bags) -> Array:
        """State before each event, (n_events, state_dim), zero for a first event."""
        self.later = batch.later_events.numpy()
        states = self.scratch.floats(f"{self.name}.states", batch.n_events, self.state_dim)
        if len(self.later):
            kernels.place_rows(self._after_tokens(tokens, batch.token_offsets), self.later, states)
        else:
            states[:] = 0
        return states

    def forward_both(
        self, batch: BatchTensors, tokens: Bags, generated: Bags
    ) -> tuple[Array, Array]:
        """States before each event, on logged histories and with the last choice replaced by the
        generated one."""
        self.later = batch.later_events.numpy()
        names = f"{self.name}.states", f"{self.name}.branch states"
        states = [self.scratch.floats(name, batch.n_events, self.state_dim) for name in names]
        after = (
            self._after_both(tokens, batch.token_offsets, generated) if len(self.later) else None
        )
        for i, result in enumerate(states):
            if after is None:
                result[:] = 0
            else:
                kernels.place_rows(after[i], self.later, result)
        return states[0], states[1]

    def backward(self, grad_states: Array, slot_of: Any) -> None:
        """Leave all gradients where the optimiser reads them."""
        if len(self.later):
            self._back(self._at_tokens(grad_states, "token gradients"), slot_of)
        else:
            self._nothing()

    def backward_both(self, grad_states: Array, grad_branch: Array, slot_of: Any) -> None:
        """As `backward`, after `forward_both`."""
        if len(self.later):
            logged, branch = (
                self._at_tokens(grad_states, "token gradients"),
                self._at_tokens(grad_branch, "branch gradients"),
            )
            self._back_both(logged, branch, slot_of)
        else:
            self._nothing()

    def _at_tokens(self, grad_states: Array, name: str) -> Array:
        grad = self.scratch.floats(name, len(self.later), self.state_dim)
        kernels.take_rows(grad_states, self.later, grad)
        return grad

    def _nothing(self) -> None:
        for parameter in self.dense_parameters():
            self.optimiser.grad_of(parameter)[...] = 0


class FusedRecurrent(FusedHistory):
    """`Recurrent`: the input projection a gather of table rows, then the packed recurrence of each
    layer."""

    encoder: Recurrent

    def dense_parameters(self) -> list[nn.Parameter]:
        """Input projection, recurrent weights, biases."""
        e, first = self.encoder, self.encoder.input
        parts = (
            [first.up, first.bias]
            if first.numbers is None
            else [first.up, first.numbers.weight, first.numbers.bias]
        )
        return [
            p for p in (*parts, *e.weight_hh, *e.weight_ih, *e.bias_ih, *e.bias_hh) if p is not None
        ]

    def own_tables(self, n_ids: int, rule: Any) -> list[SparseTable]:
        """The input table."""
        self.tables = [
            SparseTable(self.encoder.input.table, n_ids, rule, self.scratch, f"{self.name}.table")
        ]
        return self.tables

    def bind(self, optimiser: PlayerOptimiser) -> None:
        """Find the dense parameters in the flat block."""
        super().bind(optimiser)
        first, e = self.encoder.input, self.encoder
        bias = cast(nn.Parameter, first.bias if first.numbers is None else first.numbers.bias)
        none, empty = (
            np.empty((0, bias.numel()), np.float32),
            np.empty((bias.numel(), 0), np.float32),
        )
        matrix = None if first.numbers is None else cast(nn.Parameter, first.numbers.weight)
        self.input, self.grad_input = (
            (
                none if first.up is None else view(first.up),
                empty if matrix is None else view(matrix),
                view(bias),
            )
            for view in (optimiser.value_of, optimiser.grad_of)
        )
        self.weights, self.grads = (
            [
                (view(hh), *map(view, above))
                for hh, above in zip(e.weight_hh, self._above(), strict=True)
            ]
            for view in (optimiser.value_of, optimiser.grad_of)
        )
        self.layers = [
            PackedLstm(f"{self.name}.{layer}", self.scratch, e.state_dim)
            for layer in range(e.layers)
        ]
        self.branch = PackedLstm(f"{self.name}.branch", self.scratch, e.state_dim)
        self.no_bias = np.zeros(e.gates * e.state_dim, np.float32)

    def _above(self) -> list[tuple[nn.Parameter, ...]]:
        """Each layer's input weights and bias; the first has none, its input comes from the
        table."""
        return [(), *zip(self.encoder.weight_ih, self.encoder.bias_ih, strict=True)]

    def _gates(self, tokens: Bags, name: str) -> Array:
        """The first layer's input gates of each token."""
        e, n = self.encoder, tokens.n_bags
        gates = self.scratch.floats(f"{self.name}.{name}", n, e.gates * e.state_dim)
        fixed = (self.tables[0].values, *_arrays(tokens), *self.input, gates)
        threads.run(
            kernels.bag_linear,
            [(first, min(first + PART, n), *fixed) for first in range(0, n, PART)],
        )
        return gates

    def _first_input(self, tokens: Bags, name: str) -> tuple[Array, Array, Any]:
        """Bias, rows and source of the first LSTM: bags of one id each are gathered inside the
        recurrence."""
        up, matrix, bias = self.input
        if len(up) == 0 and matrix.shape[1] == 0 and len(tokens.ids) == tokens.n_bags:
            return bias, self.tables[0].values, tokens.ids.numpy()
        return self.no_bias, self._gates(tokens, name), NO_SOURCE

    def _after_tokens(self, tokens: Bags, offsets: torch.Tensor) -> Array:
        self.tokens, self.offsets = tokens, offsets
        return (
            self._lstm_forward(tokens) if self.encoder.kind == "lstm" else self._gru_forward(tokens)
        )

    def _lstm_forward(self, tokens: Bags) -> Array:
        starts, h = self.offsets.numpy(), None
        for layer, (hh, *above) in zip(self.layers, self.weights, strict=True):
            if h is None:
                bias, x, source = self._first_input(tokens, "gates")
                h = layer.forward(starts, hh, bias, x, source)[0]
            else:
                h = layer.forward(starts, np.concatenate([hh, above[0]], axis=1), above[1], h)[0]
        assert h is not None
        return h

    def _gru_forward(self, tokens: Bags) -> Array:
        e = self.encoder
        # not torch.zeros: a large one wakes torch's OpenMP threads, which then spin on the core
        # that the next kernel needs
        self.zeros = torch.from_numpy(np.zeros((len(self.offsets) - 1, e.state_dim), np.float32))
        self.outputs: list[tuple[torch.Tensor, torch.Tensor]] = []
        x = torch.from_numpy(self._gates(tokens, "gates"))
        for layer in range(e.layers):
            if layer:
                below = self.outputs[-1][0]
                x = torch.addmm(
                    e.bias_ih[layer - 1].detach(), below, e.weight_ih[layer - 1].detach().t()
                )
            arguments = (
                x,
                self.offsets,
                e.weight_hh[layer].detach(),
                e.bias_hh[layer].detach(),
                self.zeros,
            )
            self.outputs.append(recurrent.gru_forward(*arguments))
        return self.outputs[-1][0].numpy()

    def _back(self, grad: Array, slot_of: Any) -> None:
        sums = self._lstm_back(grad) if self.encoder.kind == "lstm" else self._gru_back(grad)
        self._gates_back(self.tokens, sums, slot_of)

    def _lstm_back(self, grad: Array, grad_c: Array | None = None) -> Array:
        """Gradients of all layers; returns that of the first one's sums of gates."""
        for layer in range(len(self.layers) - 1, 0, -1):
            of_hh, of_ih, of_bias = self.grads[layer]
            joined = self.scratch.floats(
                f"{self.name}.joined", len(of_hh), of_hh.shape[1] + of_ih.shape[1]
            )
            grad = self.layers[layer].backward(grad, joined, of_bias, of_x=True)[1]
            of_hh[...], of_ih[...] = joined[:, : of_hh.shape[1]], joined[:, of_hh.shape[1] :]
        return self.layers[0].backward(grad, self.grads[0][0], self.no_bias[:0], grad_c)[0]

    def _gru_back(self, grad: Array) -> Array:
        e, o = self.encoder, self.optimiser
        back = torch.from_numpy(grad)
        for layer in range(e.layers - 1, -1, -1):
            h, kept = self.outputs[layer]
            weight = e.weight_hh[layer].detach()
            sums, weights, bias, _ = recurrent.gru_backward(
                back, self.offsets, weight, self.zeros, kept, h
            )
            o.grad_of(e.bias_hh[layer])[...] = bias.numpy()
            self.grads[layer][0][...] = weights.numpy()
            if layer:
                below = self.outputs[layer - 1][0]
                torch.mm(sums.t(), below, out=torch.from_numpy(self.grads[layer][1]))
                self.grads[layer][2][...] = sums.sum(0).numpy()
                back = sums @ e.weight_ih[layer - 1].detach()
        return sums.numpy()

    def _gates_back(self, tokens: Bags, gates: Array, slot_of: Any) -> None:
        up, table, (ids, offsets, numbers) = self.input[0], self.tables[0], _arrays(tokens)
        rows = (
            self.scratch.floats("token row gradients", len(gates), table.width)
            if len(up)
            else gates
        )
        kernels.bag_linear_backward(
            gates, table.values, ids, offsets, numbers, up, *self.grad_input, rows
        )
        table.add(Named(ids, offsets, slot_of, self.scratch, f"{self.name}.named"), rows)

    def _after_both(
        self, tokens: Bags, offsets: torch.Tensor, generated: Bags
    ) -> tuple[Array, Array]:
        """One recurrent step from the state before each token, beside the logged pass; one layer
        only."""
        after = self._after_tokens(tokens, offsets)
        self.generated, alone = generated, np.arange(tokens.n_bags + 1, dtype=np.int32)
        if self.encoder.kind == "lstm":
            _, h, c = self.layers[0].kept
            before = _shift_within(h, offsets), _shift_within(c, offsets)
            bias, x, source = self._first_input(generated, "branch gates")
            return after, self.branch.forward(alone, self.weights[0][0], bias, x, source, before)[0]
        self.before = torch.from_numpy(_shift_within(after, offsets))
        gates = torch.from_numpy(self._gates(generated, "branch gates"))
        weight, bias = self.encoder.weight_hh[0].detach(), self.encoder.bias_hh[0].detach()
        self.alone = torch.from_numpy(alone)
        self.gru_branch = recurrent.gru_forward(gates, self.alone, weight, bias, self.before)
        return after, self.gru_branch[0].numpy()

    def _back_both(self, grad: Array, grad_branch: Array, slot_of: Any) -> None:
        if self.encoder.kind == "lstm":
            weights = np.empty_like(self.grads[0][0])
            of_branch, _, of_h, of_c = self.branch.backward(grad_branch, weights, self.no_bias[:0])
            of_h, of_c = _unshift_within(of_h, self.offsets), _unshift_within(of_c, self.offsets)
            of_logged = self._lstm_back(grad + of_h, of_c)
            self.grads[0][0][...] += weights
        else:
            h, kept = self.gru_branch
            weight = self.encoder.weight_hh[0].detach()
            branch = recurrent.gru_backward(
                torch.from_numpy(grad_branch), self.alone, weight, self.before, kept, h
            )
            of_logged = self._gru_back(grad + _unshift_within(branch[3].numpy(), self.offsets))
            of_branch = branch[0].numpy()
            self.grads[0][0][...] += branch[1].numpy()
            self.optimiser.grad_of(self.encoder.bias_hh[0])[...] += branch[2].numpy()
        self._gates_back(
            join_bags(self.tokens, self.generated), np.concatenate([of_logged, of_branch]), slot_of
        )


class FusedPositionWeight(FusedHistory):
    """`PositionWeight`: each state a bag of the last choices' ids, weighted by their lags."""

    encoder: PositionWeight

    def dense_parameters(self) -> list[nn.Parameter]:
        """Lag weights and their bias."""
        return [self.encoder.lag_weights, self.encoder.bias]

    def own_tables(self, n_ids: int, rule: Any) -> list[SparseTable]:
        """The readout: one block of a row per column and id."""
        self.tables = [
            SparseTable(self.encoder.table, n_ids, rule, self.scratch, f"{self.name}.table")
        ]
        return self.tables

    def bind(self, optimiser: PlayerOptimiser) -> None:
        """Find the dense parameters in the flat block."""
        super().bind(optimiser)
        e = self.encoder
        self.lag_weights, self.bias = optimiser.value_of(e.lag_weights), optimiser.value_of(e.bias)
        self.grads = optimiser.grad_of(e.lag_weights), optimiser.grad_of(e.bias)
        self.blocks = self._blocks(self.tables[0].values)

    def _after_tokens(self, tokens: Bags, offsets: torch.Tensor) -> Array:
        e = self.encoder
        self.structure: LagStructure = lag_structure(offsets, tokens.ids, tokens.offsets, e.window)
        starts, ids, entries, lags = (part.numpy() for part in self.structure[:4])
        self.weights = self.scratch.floats(f"{self.name}.weights", len(ids), len(self.bias))
        lag_kernels.weigh(
            entries, lags, self.lag_weights, self.bias, ACTIVATIONS["tanh"], self.weights
        )
        after = self.scratch.floats(f"{self.name}.after", tokens.n_bags, self.state_dim)
        bad = lag_kernels.outer_sum(self.blocks, ids, starts, self.weights, after)
        if bad >= 0:
            raise IndexError(
                f"id {ids[bad]} is not one of the {self.tables[0].n_ids} ids of the feature space"
            )
        return after

    def _back(self, grad: Array, slot_of: Any) -> None:
        table = self.tables[0]
        starts, ids, entries, lags = (part.numpy() for part in self.structure[:4])
        grad_weights = self.scratch.floats("lag gradients", *self.weights.shape)
        lag_kernels.outer_sum_backward(grad, self.blocks, ids, starts, grad_weights)
        lag_kernels.weigh_backward(
            grad_weights,
            entries,
            lags,
            self.bias,
            ACTIVATIONS["tanh"],
            self.weights,
            self.scratch.floats("lag sums", *self.weights.shape),
            *self.grads,
        )
        named = Named(ids, starts, slot_of, self.scratch, f"{self.name}.named")
        total = table.buffer(named)
        total[...] = 0
        lag_kernels.outer_sum_scatter(grad, named.slots, starts, self.weights, self._blocks(total))

    def _after_both(
        self, tokens: Bags, offsets: torch.Tensor, generated: Bags
    ) -> tuple[Array, Array]:
        """Both kinds of states in one pass: each prefix with its newest token replaced follows as a
        sequence of its own."""
        n = tokens.n_bags
        expanded = prefixes(offsets, self.encoder.window)
        rows = expanded.rows.index_copy(0, expanded.last, n + torch.arange(n))
        joined = join_bags(tokens, gather_bags(join_bags(tokens, generated), rows))
        after = self._after_tokens(joined, torch.cat([offsets, expanded.offsets[1:] + n]))
        self.branch_rows, self.n_joined = n + expanded.last, joined.n_bags
        return after[:n], after[self.branch_rows.numpy()]

    def _back_both(self, grad: Array, grad_branch: Array, slot_of: Any) -> None:
        joined = self.scratch.floats("joined gradients", self.n_joined, self.state_dim)
        joined[: len(grad)] = grad
        joined[len(grad) :] = 0
        joined[self.branch_rows.numpy()] = grad_branch
        self._back(joined, slot_of)

    def _blocks(self, table: Array) -> Array:
        """(n_ids, columns, state_dim): one id's rows lie side by side."""
        return table.reshape(len(table), -1, self.state_dim)


def _arrays(bags: Bags) -> tuple[Any, Any, Array]:
    return bags.ids.numpy(), bags.offsets.numpy(), bags.numbers.numpy()


def _shift_within(values: Array, offsets: torch.Tensor) -> Array:
    """Rows one step earlier within each sequence, zeros first: [a0, a1, b0] → [0, a0, 0]."""
    return shift_within(torch.from_numpy(values), offsets).numpy()


def _unshift_within(grad: Array, offsets: torch.Tensor) -> Array:
    """The way back through `_shift_within`: [ga0, ga1, gb0] → [ga1, 0, 0]."""
    back = np.zeros_like(grad)
    back[:-1] = grad[1:]
    starts = offsets.numpy()
    back[starts[1:][starts[1:] > starts[:-1]] - 1] = 0
    return back

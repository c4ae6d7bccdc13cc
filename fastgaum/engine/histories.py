"""History encoders by hand: recurrent (LSTM, GRU, any number of layers) and position weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import cast

import numpy as np
import torch
from torch import nn

from fastgaum import threads
from fastgaum.engine.optimiser import PlayerOptimiser, ProductWeight
from fastgaum.engine.recurrence import NO_SOURCE, GruLayer, LstmLayer
from fastgaum.engine.tables import Array, Buffer, Ints, Named, NamedRoom, Rule, SparseTable
from fastgaum.kernels import bag_linear as kernels
from fastgaum.kernels import position_weight as lag_kernels
from fastgaum.nets.bags import BagLinear, SharedBagLinear
from fastgaum.nets.histories import HistoryEncoder, PositionWeight, Recurrent
from fastgaum.nets.tensors import Bags, BatchTensors

PART = 2048
"""tokens per part"""


class BagLayer:
    """One input projection's passes; its table is sparse, the rest is in its player's flat
    block."""

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

    def own_table(self, n_ids: int, rule: Rule) -> SparseTable:
        """Make the table sparse."""
        self.table = SparseTable(self.source.table, n_ids, rule, "tokens")
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

    def forward(self, tokens: Bags) -> Array:
        """The projection of each token, (n_tokens, width); valid until the next forward pass."""
        n = tokens.n_bags
        result = self._projected(n, self.bias.numel())
        fixed = (_arrays(tokens), kernels.BagMap(self.table.values, *self.values), result)
        threads.run(
            kernels.bag_linear,
            [(first, min(first + PART, n), *fixed) for first in range(0, n, PART)],
        )
        return result

    def backward(self, tokens: Bags, grad: Array, named: Named | None) -> None:
        """Leave all gradients where the optimiser reads them, that of a shared table's rows in
        `grad_rows`; `grad` (n_tokens, width), `named` of the tokens' ids, None for a shared
        table."""
        up = self.values[0]
        rows = self._rows(len(grad), self.table.width) if len(up) else grad
        weights = kernels.BagMap(self.table.values, *self.values)
        grads = kernels.BagMapGrads(*self.grads, rows)
        kernels.bag_linear_backward(grad, _arrays(tokens), weights, grads)
        self.grad_rows = rows
        if named is not None:
            self.table.add(named, rows)


def _arrays(bags: Bags) -> kernels.BagArrays:
    return kernels.BagArrays(bags.ids.numpy(), bags.offsets.numpy(), bags.numbers.numpy())


class EngineHistory(ABC):
    """Base: states at events, and the way back, around what happens at tokens."""

    tables: list[SparseTable]

    def __init__(self, encoder: HistoryEncoder) -> None:
        self.encoder, self.state_dim = encoder, encoder.state_dim
        self.room = NamedRoom()
        self._states, self._grad_after = Buffer(), Buffer()

    @abstractmethod
    def dense_parameters(self) -> list[nn.Parameter]:
        """All parameters but the tables over ids and the products."""

    @abstractmethod
    def own_tables(self, n_ids: int, rule: Rule) -> list[SparseTable]:
        """Make the tables over ids sparse."""

    reads_items = False
    """whether it reads the table of items, which others share"""

    def share(self, items: SparseTable) -> None:  # noqa: B027
        """Read the table of items, whose owner sums its gradient, where the encoder shares it."""

    def shared_rows(self) -> Array | None:
        """Of a shared table: the gradient of each token's sum of rows, (n_tokens, ·); None where
        nothing was read of it."""
        return None

    def own_products(self) -> list[ProductWeight]:
        """Matrices whose gradient is never written; all others are dense parameters."""
        return []

    @abstractmethod
    def _after_tokens(self, tokens: Bags, offsets: torch.Tensor) -> Array: ...

    @abstractmethod
    def _back(self, grad: Array, slot_of: Ints) -> None: ...

    def bind(self, optimiser: PlayerOptimiser) -> None:
        """Find the dense parameters in the flat block."""
        self.optimiser = optimiser

    def forward(self, batch: BatchTensors, tokens: Bags) -> Array:
        """State before each event, (n_events, state_dim), zero for a first event."""
        self.later, read = batch.later_events.numpy(), batch.read_tokens
        self.n_tokens, self.read = tokens.n_bags, None if read is None else read.numpy()
        self.states = states = self._states(batch.n_events, self.state_dim)
        if len(self.later):
            after = self._after_tokens(tokens, batch.token_offsets)
            after = after if self.read is None else after[self.read]
            kernels.place_rows(after, self.later, states)
        else:
            states[:] = 0
        return states

    def backward(self, grad_states: Array, slot_of: Ints) -> None:
        """Leave all gradients where the optimiser reads them."""
        if len(self.later):
            self._back(self._at_tokens(grad_states), slot_of)
        else:
            self._nothing()

    def _at_tokens(self, grad_states: Array) -> Array:
        grad = self._grad_after(len(self.later), self.state_dim)
        kernels.take_rows(grad_states, self.later, grad)
        if self.read is None:
            return grad
        # a token that no event reads, an action before another one, has none of its own
        of_tokens = np.zeros((self.n_tokens, self.state_dim), np.float32)
        of_tokens[self.read] = grad
        return of_tokens

    def _nothing(self) -> None:
        for parameter in self.dense_parameters():
            self.optimiser.grad_of(parameter)[...] = 0


class RecurrentHistory(EngineHistory):
    """`Recurrent`: the input projection a gather of table rows, then the packed recurrence of each
    layer."""

    encoder: Recurrent

    def __init__(self, encoder: Recurrent) -> None:
        super().__init__(encoder)
        self.input = BagLayer(encoder.input)
        self.reads_items = self.input.shared
        self._joined = [Buffer() for _ in range(encoder.layers)]

    def dense_parameters(self) -> list[nn.Parameter]:
        """Input projection, recurrent weights, biases."""
        e = self.encoder
        above = (*e.weight_hh, *e.weight_ih, *e.bias_ih, *e.bias_hh)
        return [*self.input.dense_parameters(), *above]

    def own_tables(self, n_ids: int, rule: Rule) -> list[SparseTable]:
        """The input table, unless others share it."""
        self.tables = [] if self.input.shared else [self.input.own_table(n_ids, rule)]
        return self.tables

    def share(self, items: SparseTable) -> None:
        """As the base says."""
        if self.input.shared:
            self.input.table = items

    def shared_rows(self) -> Array | None:
        """As the base says."""
        return self.input.grad_rows if self.reads_items and len(self.later) else None

    def bind(self, optimiser: PlayerOptimiser) -> None:
        """Find the dense parameters in the flat block."""
        super().bind(optimiser)
        self.input.bind(optimiser)
        e = self.encoder
        self.weights, self.grads = (
            [
                (view(hh), *map(view, above))
                for hh, above in zip(e.weight_hh, self._above(), strict=True)
            ]
            for view in (optimiser.value_of, optimiser.grad_of)
        )
        self.biases_hh = [optimiser.value_of(bias) for bias in e.bias_hh]
        self.grads_hh = [optimiser.grad_of(bias) for bias in e.bias_hh]
        self.lstm = [LstmLayer(e.state_dim) for _ in range(e.layers)]
        self.gru = [GruLayer(e.state_dim) for _ in range(e.layers)]
        self.no_bias = np.zeros(e.gates * e.state_dim, np.float32)

    def _above(self) -> list[tuple[nn.Parameter, ...]]:
        """Each layer's input weights and bias; the first has none, its input comes from the
        table."""
        return [(), *zip(self.encoder.weight_ih, self.encoder.bias_ih, strict=True)]

    def _first_input(self, tokens: Bags) -> tuple[Array, Array, Ints]:
        """Bias, rows and source of the first LSTM: bags of one id each are gathered inside the
        recurrence."""
        up, matrix, bias = self.input.values
        if len(up) == 0 and matrix.shape[1] == 0 and len(tokens.ids) == tokens.n_bags:
            return bias, self.tables[0].values, tokens.ids.numpy()
        return self.no_bias, self.input.forward(tokens), NO_SOURCE

    def _after_tokens(self, tokens: Bags, offsets: torch.Tensor) -> Array:
        self.tokens, self.offsets = tokens, offsets
        return (
            self._lstm_forward(tokens) if self.encoder.kind == "lstm" else self._gru_forward(tokens)
        )

    def _lstm_forward(self, tokens: Bags) -> Array:
        starts, h = self.offsets.numpy(), None
        for layer, (hh, *above) in zip(self.lstm, self.weights, strict=True):
            if h is None:
                bias, x, source = self._first_input(tokens)
                h = layer.forward(starts, hh, bias, x, source)[0]
            else:
                h = layer.forward(starts, np.concatenate([hh, above[0]], axis=1), above[1], h)[0]
        assert h is not None
        return h

    def _gru_forward(self, tokens: Bags) -> Array:
        starts, x = self.offsets.numpy(), self.input.forward(tokens)
        h = self.gru[0].forward(starts, self.weights[0][0], self.biases_hh[0], x)
        for i, layer in enumerate(self.gru[1:], start=1):
            hh, ih, bias = self.weights[i]
            h = layer.forward(starts, hh, self.biases_hh[i], h @ ih.T + bias)
        return h

    def _back(self, grad: Array, slot_of: Ints) -> None:
        sums = self._lstm_back(grad) if self.encoder.kind == "lstm" else self._gru_back(grad)
        named = None
        if not self.input.shared:
            ids, offsets = self.tokens.ids.numpy(), self.tokens.offsets.numpy()
            named = Named(ids, offsets, slot_of, self.room)
        self.input.backward(self.tokens, sums, named)

    def _lstm_back(self, grad: Array) -> Array:
        """Gradients of all layers; returns that of the first one's sums of gates."""
        for layer in range(len(self.lstm) - 1, 0, -1):
            of_hh, of_ih, of_bias = self.grads[layer]
            joined = self._joined[layer](len(of_hh), of_hh.shape[1] + of_ih.shape[1])
            grad = self.lstm[layer].backward(grad, joined, of_bias, of_x=True)[1]
            of_hh[...], of_ih[...] = joined[:, : of_hh.shape[1]], joined[:, of_hh.shape[1] :]
        return self.lstm[0].backward(grad, self.grads[0][0], self.no_bias[:0])[0]

    def _gru_back(self, grad: Array) -> Array:
        sums = grad
        for i in range(len(self.gru) - 1, -1, -1):
            of_hh, *above = self.grads[i]
            sums = self.gru[i].backward(grad, of_hh, self.grads_hh[i])
            if above:
                np.matmul(sums.T, self.gru[i - 1].last_pass.h, out=above[0])
                sums.sum(0, out=above[1])
                grad = sums @ self.weights[i][1]
        return sums


class PositionWeightHistory(EngineHistory):
    """`PositionWeight`: each state a bag of the last choices' ids, weighted by their lags."""

    encoder: PositionWeight

    def __init__(self, encoder: PositionWeight) -> None:
        super().__init__(encoder)
        self._weights, self._after, self._grad_weights, self._lag_sums = (
            Buffer() for _ in range(4)
        )

    def dense_parameters(self) -> list[nn.Parameter]:
        """Lag weights and their bias."""
        return [self.encoder.lag_weights, self.encoder.bias]

    def own_tables(self, n_ids: int, rule: Rule) -> list[SparseTable]:
        """The readout: one block of a row per column and id."""
        self.tables = [SparseTable(self.encoder.table, n_ids, rule, "tokens")]
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
        ids_of = tokens.ids.numpy(), tokens.offsets.numpy()
        self.entries = state_entries(lag_kernels.TokenBags(offsets.numpy(), *ids_of), e.window)
        starts, ids = self.entries.starts, self.entries.ids
        self.weights = self._weights(len(ids), len(self.bias))
        lag_map = lag_kernels.LagMap(self.lag_weights, self.bias)
        lag_kernels.weigh(self.entries, lag_map, self.weights)
        after = self._after(tokens.n_bags, self.state_dim)
        bad = lag_kernels.outer_sum(self.blocks, ids, starts, self.weights, after)
        if bad >= 0:
            raise IndexError(
                f"id {ids[bad]} is not one of the {self.tables[0].n_ids} ids of the feature space"
            )
        return after

    def _back(self, grad: Array, slot_of: Ints) -> None:
        table = self.tables[0]
        starts, ids = self.entries.starts, self.entries.ids
        grad_weights = self._grad_weights(*self.weights.shape)
        lag_kernels.outer_sum_backward(grad, self.blocks, ids, starts, grad_weights)
        grads = lag_kernels.LagMapGrads(self._lag_sums(*self.weights.shape), *self.grads)
        lag_kernels.weigh_backward(grad_weights, self.entries, self.bias, self.weights, grads)
        named = Named(ids, starts, slot_of, self.room)
        total = table.buffer(named)
        total[...] = 0
        lag_kernels.outer_sum_scatter(grad, named.slots, starts, self.weights, self._blocks(total))

    def _blocks(self, table: Array) -> Array:
        """(n_ids, columns, state_dim): one id's rows lie side by side."""
        return table.reshape(len(table), -1, self.state_dim)


def state_entries(bags: lag_kernels.TokenBags, window: int) -> lag_kernels.StateEntries:
    """As `nets.sequences.lag_structure`."""
    n_occurrences, widest = lag_kernels.count_occurrences(bags, window)
    # at most half of the slots are ever live, so that probes stay short
    n_slots = 1 << (2 * int(widest)).bit_length()
    table = lag_kernels.IdTable(
        np.empty(n_slots, dtype=np.int32), np.full(n_slots, -1, dtype=np.int32)
    )
    starts = np.empty(len(bags.id_offsets), dtype=np.int32)
    ids, entries, lags = (np.empty(n_occurrences, dtype=np.int32) for _ in range(3))
    found = lag_kernels.StateEntries(starts, ids, entries, lags)
    n_entries = lag_kernels.fill_entries(bags, window, table, found)
    return found._replace(ids=ids[:n_entries])

"""Networks whose weights no longer change, copied, over the kernels of training: for worlds and
online users."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from torch import Tensor

from fastgaum import threads
from fastgaum.arrays import FloatArray, IntArray
from fastgaum.kernels import bag_linear, lstm, towers
from fastgaum.kernels import scorer as kernels
from fastgaum.kernels.examination import examine
from fastgaum.nets.bags import BagLinear
from fastgaum.nets.histories import Recurrent
from fastgaum.nets.networks import Scorer
from fastgaum.ops.displays import DisplayBatch
from fastgaum.ops.lstm import NO_SOURCE, gate_blocks, plan
from fastgaum.ops.scorer import (
    KINDS,
    NO_DROPOUT,
    NO_SLOTS,
    NO_TABLE,
    ONLY_SCORES,
    dense_parameters,
    places_of,
    starts_of,
    widths_of,
)
from fastgaum.ops.towers import dense_of, weights_of

Vectors = Callable[[slice], FloatArray]
"""standardised vectors of some rows of items, (n, dim)"""
VECTORS_AT_ONCE = 65_536
TOKENS = 2048
"""tokens per part"""


def rows_of_table(layer: BagLinear, vectors: Vectors | None, n_vectors: int) -> FloatArray:
    """Rows of a layer's table, then of the vectors of items, (n_ids + n_vectors, width)."""
    projection = layer.projection_of_rows
    parts = [_array(layer.table)]
    for start in range(0, n_vectors, VECTORS_AT_ONCE):
        if projection is not None and vectors is not None:
            part = vectors(slice(start, min(start + VECTORS_AT_ONCE, n_vectors)))
            parts.append(part @ _array(projection))
    return np.concatenate(parts)


def _array(value: Tensor | None) -> FloatArray:
    assert value is not None
    return np.array(value.detach().cpu().numpy(), np.float32, order="C")


def _flat(parameters: Iterable[Tensor]) -> FloatArray:
    return np.concatenate([_array(one).ravel() for one in parameters])


class FixedScorer:
    """A scorer that no longer learns."""

    def __init__(self, scorer: Scorer, vectors: Vectors | None, n: int) -> None:
        """Copy its weights. vectors: of n items, where towers read any."""
        tower = scorer.tower
        parameters: list[Tensor] = [*dense_parameters(scorer)]
        linear = None if tower is None or tower.numbers is None else tower.numbers.weight
        own = [*parameters, *([] if linear is None else [linear])]
        dense, place = _flat(own), places_of(own)
        starts = starts_of(scorer, place)
        if linear is not None:
            starts[kernels.LINEAR] = place(linear)
        wide = NO_TABLE if scorer.wide is None else _array(scorer.wide.table)
        widths = widths_of(scorer)
        self.weights = kernels.ScorerWeights(
            _array(scorer.first.table), wide, dense, starts, widths, KINDS[type(scorer.act)]
        )
        self.towers: towers.TowerWeights | None = None
        if tower is not None:
            table = np.empty((0, tower.dim), np.float32)
            if tower.items is not None:
                table = rows_of_table(tower.items, vectors, n)
            self.towers = weights_of(tower, table, _flat(dense_of(tower)))
        self.by_place = None
        if scorer.examination is not None:
            self.by_place = _array(scorer.examination.by_place)

    def scores(
        self, shown: DisplayBatch, tower_ids: IntArray, states: FloatArray, examined: bool = True
    ) -> FloatArray:
        """Scores of the candidates, (n_candidates,), in states (n_events, state_dim).

        tower_ids: ids as towers read them; examined: whether places add to scores."""
        scores, (n, state_dim) = np.zeros(len(shown.ids), np.float32), states.shape
        none, offsets = scores[:0], shown.offsets
        inputs = kernels.ScorerInputs(offsets, shown.ids, shown.numbers, states, NO_SLOTS)
        written = kernels.ScorerPass(scores, none, none, none, NO_TABLE, NO_TABLE, NO_TABLE)
        fixed = (inputs, self.weights, NO_DROPOUT, ONLY_SCORES, written)
        chains: list[list[threads.Call]] = [[] for _ in shown.parts]
        if self.towers is not None:
            widths = state_dim, self.towers.width, self.towers.table.shape[1]
            x, hidden, users = (np.empty((n, width), np.float32) for width in widths)
            room = towers.TowerPass(x, hidden, users, scores)
            if not len(self.towers.table):
                tower_ids = tower_ids[:, :0]
            of_tower = inputs._replace(ids=tower_ids), self.towers
            for chain, part in zip(chains, shown.parts, strict=True):
                call = (*part, *of_tower, (NO_DROPOUT, NO_DROPOUT), room)
                chain.append((towers.tower_forward, call))
        for chain, (first, last) in zip(chains, shown.parts, strict=True):
            if self.by_place is not None and examined:
                chain.append((examine, (offsets[first : last + 1], self.by_place, scores)))
            chain.append((kernels.scorer_pass, (first, last, *fixed)))
        threads.run_chains(chains)
        return scores


class FixedRecurrent:
    """An LSTM that no longer learns."""

    def __init__(self, encoder: Recurrent, vectors: Vectors | None, n: int) -> None:
        """Copy its weights. vectors: of n items, where it reads a table that has some."""
        self.size, layer, gates = encoder.state_dim, encoder.input, 4 * encoder.state_dim
        bias = layer.bias if layer.numbers is None else layer.numbers.bias
        assert bias is not None
        self.input = bag_linear.BagMap(
            rows_of_table(layer, vectors, n),
            np.empty((0, gates), np.float32) if layer.up is None else _array(layer.up),
            np.empty((gates, 0), np.float32)
            if layer.numbers is None
            else _array(layer.numbers.weight),
            _array(bias),
        )
        self.layers = [(gate_blocks(_array(encoder.weight_hh[0]), 4, self.size), 0 * _array(bias))]
        above = zip(encoder.weight_hh[1:], encoder.weight_ih, encoder.bias_ih, strict=True)
        for hh, ih, own in above:
            joined = np.concatenate([_array(hh), _array(ih)], axis=1)
            self.layers.append((gate_blocks(joined, 4, joined.shape[1]), _array(own)))

    def initial(self, n: int) -> list[tuple[FloatArray, FloatArray]]:
        """h and c of each layer of n sequences without a token."""
        zeros = np.zeros((2 * len(self.layers), n, self.size), np.float32)
        return list(zip(zeros[::2], zeros[1::2], strict=True))

    def advance(
        self, carries: list[tuple[FloatArray, FloatArray]], tokens: bag_linear.BagArrays
    ) -> list[tuple[FloatArray, FloatArray]]:
        """h and c of each layer after one more token of each sequence."""
        n = len(tokens.numbers)
        x = np.empty((n, 4 * self.size), np.float32)
        parts = [(first, min(first + TOKENS, n)) for first in range(0, n, TOKENS)]
        threads.run(bag_linear.bag_linear, [(*part, tokens, self.input, x) for part in parts])
        offsets, after, source = np.arange(n + 1, dtype=np.int32), [], NO_SOURCE
        (sequences, cut), gates = plan(offsets, self.size), x
        for (blocks, bias), (first_h, first_c) in zip(self.layers, carries, strict=True):
            h, c = np.empty_like(first_h), np.empty_like(first_c)
            layer = lstm.LstmPass(x, source, gates, h, c, first_h, first_c)
            fixed = (sequences, blocks, bias, layer)
            threads.run(lstm.lstm_tiles, [(tiles, *fixed) for tiles in cut])
            after.append((h, c))
            x = h
        return after

"""A `Scorer` by hand: forward and backward over packed display sets, shared over threads by
events."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import cast

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from fastgaum import threads
from fastgaum.engine.optimiser import PlayerOptimiser
from fastgaum.engine.tables import Array, Buffer, Ints, LongInts, Named, Rule, SparseTable
from fastgaum.kernels import scorer as kernels
from fastgaum.kernels.draws import DropoutRule
from fastgaum.nets.bags import BagLinear
from fastgaum.nets.networks import Scorer

KINDS = {nn.ReLU: 0, nn.ELU: 1, nn.Tanh: 2}
PART = 1024
"""candidates per part: fewer are not worth a second thread"""
WIDE = 1 << 14
"""multiplications per candidate up to which `PART` holds: layers of 128"""
NO_TABLE: npt.NDArray[np.float32] = np.empty((0, 1), np.float32)
NO_DROPOUT = DropoutRule(np.uint32(0), np.uint32(0), np.float32(1))


class ScorerLayer:
    """One scorer's passes; its dense parameters lie in its player's flat block."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self._activations, self._sums, self._scores, self._rows, self._score_grads = (
            Buffer() for _ in range(5)
        )
        self._grad_states, self._blocks = Buffer(), Buffer()
        self.widths = widths_of(scorer)
        self.share = part_of_widths(self.widths)
        self.kind = KINDS[type(scorer.act)]
        self.state_dim = scorer.from_state.in_features
        self.rate = scorer.dropout.p
        self.tables: list[SparseTable] = []

    def own_tables(self, n_ids: int, rule: Rule) -> list[SparseTable]:
        """Make the tables over ids sparse."""
        parts = [self.scorer.first, *([] if self.scorer.wide is None else [self.scorer.wide])]
        self.tables = [SparseTable(part.table, n_ids, rule, "candidates") for part in parts]
        return self.tables

    def dense_parameters(self) -> list[nn.Parameter]:
        """All parameters but the tables over ids."""
        return dense_parameters(self.scorer)

    def bind(self, optimiser: PlayerOptimiser) -> None:
        """Find the dense parameters in the flat block."""
        self.optimiser = optimiser
        self.starts = starts_of(self.scorer, optimiser.place)
        self.n_dense = sum(parameter.numel() for parameter in dense_parameters(self.scorer))
        wide = self.tables[1].values if len(self.tables) > 1 else NO_TABLE
        self.weights = kernels.ScorerWeights(
            self.tables[0].values,
            wide,
            optimiser.values,
            self.starts,
            self.widths,
            self.kind,
        )
        self.width, self.total_width = int(self.widths[0]), int(self.widths.sum())

    def forward(
        self,
        display_offsets: Ints,
        ids: Ints,
        numbers: Array,
        states: Array,
        key: int | None = None,
    ) -> Array:
        """Scores, (n_candidates,); a `key` turns dropout on. The result stays valid until the next
        forward pass."""
        n, n_events = len(ids), len(states)
        self.dropout = dropout_rule(self.rate, key)
        self.inputs = kernels.ScorerInputs(display_offsets, ids, numbers, states)
        self.activations = self._activations(n * self.total_width)
        self.scores = self._scores(n)
        sums = self._sums(n_events, self.width)
        written = kernels.ScorerPass(sums, self.activations, self.scores)
        fixed = (self.inputs, self.weights, self.dropout, written)
        self.parts = parts_of(display_offsets, *self.share)
        threads.run(kernels.scorer_forward, [(*part, *fixed) for part in self.parts])
        return self.scores

    def backward(self, grad_scores: Array, named: Named) -> Array:
        """Leave all gradients where the optimiser reads them; returns that of the states,
        (n_events, state_dim).

        `named` holds the ids that the forward pass read. Destroys what the forward pass kept."""
        ids, states = self.inputs.ids, self.inputs.states
        table = self.tables[0]
        rows = self._rows(len(ids), table.width)
        sums, grad_states = (
            self._sums(len(states), self.width),
            self._grad_states(*states.shape),
        )
        # a scorer's parameters are the first in its player's block
        total = self.optimiser.grad[: self.n_dense]
        alone = len(self.parts) == 1
        blocks = total[None] if alone else self._blocks(len(self.parts), self.n_dense)
        fixed = (self.inputs, self.weights, self.dropout, self.activations)
        others = (rows, sums, grad_states)
        threads.run(
            kernels.scorer_backward,
            [
                (*part, *fixed, kernels.ScorerGrads(grad_scores, blocks[i], *others))
                for i, part in enumerate(self.parts)
            ],
        )
        if not alone:
            np.add.reduce(blocks, axis=0, out=total)
        table.add(named, rows)
        if len(self.tables) > 1:
            # a copy: the game writes the next gradient of its scores where it wrote this one
            grads = self._score_grads(len(ids), 1)
            grads[:, 0] = grad_scores
            self.tables[1].add(named, grads)
        return grad_states


def dropout_rule(rate: float, key: int | None) -> DropoutRule:
    """Dropout at a rate; none without a key."""
    if key is None or not rate:
        return NO_DROPOUT
    threshold, scale = np.uint32(math.floor(rate * 2**32)), np.float32(1 / (1 - rate))
    return DropoutRule(np.uint32(key), threshold, scale)


def dense_parameters(scorer: Scorer) -> list[nn.Parameter]:
    """All parameters but the tables over ids, in the order of the kernel's `starts`."""
    first, wide = scorer.first, scorer.wide
    parts: list[Tensor | None] = [
        _bias(first),
        None if first.numbers is None else first.numbers.weight,
        scorer.from_state.weight,
        first.up,
    ]
    if wide is not None:
        parts += [_bias(wide), None if wide.numbers is None else wide.numbers.weight]
    for layer in linears(scorer):
        parts += [layer.weight, layer.bias]
    return cast("list[nn.Parameter]", [part for part in parts if part is not None])


def starts_of(scorer: Scorer, place: Callable[[Tensor], int]) -> LongInts:
    """Where the kernel finds each dense parameter; −1 for one that is not there."""
    first, wide = scorer.first, scorer.wide
    numbers = -1 if first.numbers is None else place(first.numbers.weight)
    starts = [
        place(_bias(first)),
        numbers,
        place(scorer.from_state.weight),
        -1 if first.up is None else place(first.up),
    ]
    starts.append(-1 if wide is None else place(_bias(wide)))
    starts += [place(layer.weight) for layer in linears(scorer)]
    return np.array(starts, dtype=np.int64)


def parts_of(display_offsets: Ints, least: int = PART, most: int = 16) -> list[tuple[int, int]]:
    """Cut events into at most `most` ranges of about `least` candidates and more; the cut depends
    on the batch alone."""
    n_candidates, n_events = int(display_offsets[-1]), len(display_offsets) - 1
    # an even number: two threads then end together
    n_parts = min(most, n_candidates // least) // 2 * 2
    if n_parts == 0:
        return [(0, n_events)]
    bounds = np.searchsorted(
        display_offsets, np.arange(1, n_parts) * (n_candidates / n_parts)
    ).tolist()
    cuts = sorted({0, n_events, *bounds})
    return list(pairwise(cuts))


def part_of_widths(widths: LongInts) -> tuple[int, int]:
    """`least` and `most` for `parts_of`: wide layers are shared from fewer candidates on, among few
    parts.

    Each part has gradients of its own for all dense parameters, which for wide layers are
    megabytes."""
    products = sum(a * b for a, b in pairwise(widths.tolist()))
    if products <= WIDE:
        return PART, 16
    return max(PART * WIDE // products, 32), 4


def linears(scorer: Scorer) -> list[nn.Linear]:
    """The layers after the first."""
    return cast("list[nn.Linear]", list(scorer.rest))


def widths_of(scorer: Scorer) -> LongInts:
    """Width of each hidden layer, int64."""
    return np.array([layer.in_features for layer in linears(scorer)], dtype=np.int64)


def _bias(layer: BagLinear) -> Tensor:
    bias = layer.bias if layer.numbers is None else layer.numbers.bias
    assert bias is not None
    return bias

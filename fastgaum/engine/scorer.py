"""A `Scorer` by hand, over packed display sets, shared over threads by events."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from fastgaum import threads
from fastgaum.arrays import FloatArray, IntArray, LongArray
from fastgaum.engine.optimiser import PlayerOptimiser
from fastgaum.engine.tables import Buffer, NamedParts, SparseTable
from fastgaum.kernels import scorer as kernels
from fastgaum.kernels.choice import GIVEN, SCORES, Loss
from fastgaum.kernels.draws import DropoutRule
from fastgaum.nets.bags import BagLinear
from fastgaum.nets.networks import Scorer

KINDS = {nn.ReLU: 0, nn.ELU: 1}
CANDIDATES_OF_PART = 1024
"""candidates per part that are worth a thread"""
MOST_SUMMED_PARTS = 4
"""parts at most, whose gradients are added up"""
WIDE_SCORER = 1 << 14
"""multiplications per candidate up to which `CANDIDATES_OF_PART` holds"""
NO_TABLE: npt.NDArray[np.float32] = np.empty((0, 1), np.float32)
NO_SLOTS: npt.NDArray[np.int32] = np.empty((0, 1), np.int32)
NO_DROPOUT = DropoutRule(np.uint32(0), np.uint32(0), np.float32(1))


Chains = list[list[threads.Call]]
"""calls in turn for each part of the display sets"""


class DisplayBatch(NamedTuple):
    """Display sets of a batch."""

    offsets: IntArray
    """each event's first candidate, (n_events + 1,)"""
    ids: IntArray
    """(n_candidates, n_fields)"""
    numbers: FloatArray
    """(n_candidates, n_numbers)"""
    parts: list[tuple[int, int]]
    """ranges of events that threads share"""
    named: NamedParts | None = None
    """the rows that `ids` name, where something is learned"""


_NONE = np.empty(0, np.float32)
ONLY_SCORES = Loss(SCORES, np.float32(1), False, np.empty(0, np.int32), _NONE, _NONE)
GRADIENT_GIVEN = ONLY_SCORES._replace(kind=GIVEN)


class ScorerLayer:
    """One scorer's passes."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self._scores, self._totals, self._grad_scores = (Buffer() for _ in range(3))
        self._grad_states, self._blocks = Buffer(), Buffer()
        self.widths = widths_of(scorer)
        self.share = part_of_widths(self.widths)
        self.kind = KINDS[type(scorer.act)]
        self.state_dim = scorer.from_state.in_features
        self.rate, self.of_states = scorer.dropout.p, True
        self.tables: list[SparseTable] = []

    def own_tables(self, n_ids: int) -> list[SparseTable]:
        """Make the tables over ids sparse."""
        parts = [self.scorer.first, *([] if self.scorer.wide is None else [self.scorer.wide])]
        self.tables = [SparseTable(part.table, n_ids) for part in parts]
        return self.tables

    def dense_parameters(self) -> list[nn.Parameter]:
        """All parameters but the tables over ids."""
        return dense_parameters(self.scorer)

    def bind(self, optimiser: PlayerOptimiser, linear: Tensor | None = None) -> None:
        """Find the dense parameters in the flat block. linear: of the numbers, behind them."""
        starts = starts_of(self.scorer, optimiser.place)
        own = sum(part.numel() for part in dense_parameters(self.scorer))
        if linear is not None:
            starts[kernels.LINEAR] = own
            assert optimiser.place(linear) == own
            own += linear.numel()
        # a scorer's parameters are the first in its player's block
        self.grad = optimiser.grad[:own]
        wide = self.tables[1].values if len(self.tables) > 1 else NO_TABLE
        self.weights = kernels.ScorerWeights(
            self.tables[0].values, wide, optimiser.values, starts, self.widths, self.kind
        )

    def take(self, shown: DisplayBatch, states: FloatArray, key: int | None = None) -> None:
        """Take the inputs of the next passes."""
        self.shown, self.states, self.dropout = shown, states, dropout_rule(self.rate, key)

    def begin(self, shown: DisplayBatch, states: FloatArray, key: int | None = None) -> FloatArray:
        """Take the inputs, with dropout where there is a `key`; return what `run` adds the scores
        to, (n_candidates,), valid until the next pass that begins."""
        self.take(shown, states, key)
        scores = self._scores(len(shown.ids))
        scores[:] = 0
        return scores

    def run(
        self,
        loss: Loss,
        scores: FloatArray,
        grad_scores: FloatArray | None = None,
        before: Chains | None = None,
    ) -> None:
        """Add the scores to `scores`, and learn by `loss`: gradients of parameters lie where the
        optimiser reads them, others in attributes. before: calls for each part, before it is
        scored."""
        calls = self.calls(loss, scores, grad_scores)
        threads.run_chains(joined(before, [[call] for call in calls]))
        self.sum_parts(loss)

    def calls(
        self, loss: Loss, scores: FloatArray, grad_scores: FloatArray | None = None
    ) -> list[threads.Call]:
        """The call of each part that does what `run` says."""
        shown, states = self.shown, self.states
        if grad_scores is None:
            grad_scores = self._grad_scores(len(scores))
        self.log_totals, self.grad_scores = self._totals(len(states)), grad_scores
        named, slots, rows = shown.named, NO_SLOTS, [NO_TABLE]
        self.blocks, of_states = self.grad[None], NO_TABLE
        if loss.kind != SCORES:
            assert named is not None
            slots, rows = named.slots, [table.rows_of(named) for table in self.tables]
            if len(shown.parts) > 1:
                self.blocks = self._blocks(len(shown.parts), len(self.grad))
            if self.of_states:
                of_states = self._grad_states(*states.shape)
        inputs = kernels.ScorerInputs(shown.offsets, shown.ids, shown.numbers, states, slots)
        fixed = inputs, self.weights, self.dropout, loss
        of_tables = rows[0], rows[1] if len(rows) > 1 else NO_TABLE
        written = kernels.ScorerPass(
            scores, self.log_totals, grad_scores, self.blocks[0], *of_tables, of_states
        )
        self.scores, self.grad_states = scores, of_states
        n = len(self.blocks)
        return [
            (
                kernels.scorer_pass,
                (*part, *fixed, written._replace(dense=self.blocks[i % n])),
            )
            for i, part in enumerate(shown.parts)
        ]

    def sum_parts(self, loss: Loss) -> None:
        """Sum over the parts what they have learned."""
        if len(self.blocks) > 1:
            np.add.reduce(self.blocks, axis=0, out=self.grad)
        if loss.kind != SCORES and self.shown.named is not None:
            for table in self.tables:
                table.add_parts(self.shown.named)


def joined(*chains: Chains | None) -> Chains:
    """Each part's calls one after another."""
    found = [one for one in chains if one is not None]
    return [[call for calls in of_part for call in calls] for of_part in zip(*found, strict=True)]


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
    ]
    if wide is not None:
        parts += [_bias(wide), None if wide.numbers is None else wide.numbers.weight]
    for layer in linears(scorer):
        parts += [layer.weight, layer.bias]
    return cast("list[nn.Parameter]", [part for part in parts if part is not None])


def starts_of(scorer: Scorer, place: Callable[[Tensor], int]) -> LongArray:
    """Where the kernel finds each dense parameter; −1 for one that is not there."""
    first, wide = scorer.first, scorer.wide
    numbers = -1 if first.numbers is None else place(first.numbers.weight)
    starts = [
        place(_bias(first)),
        numbers,
        place(scorer.from_state.weight),
    ]
    starts.append(-1 if wide is None else place(_bias(wide)))
    starts.append(-1 if wide is None or wide.numbers is None else place(wide.numbers.weight))
    starts += [place(layer.weight) for layer in linears(scorer)]
    return np.array(starts, dtype=np.int64)


def parts_of(
    display_offsets: IntArray, least: int = CANDIDATES_OF_PART, most: int = 16
) -> list[tuple[int, int]]:
    """Cut events into at most `most` ranges of about `least` candidates and more."""
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


def part_of_widths(widths: LongArray) -> tuple[int, int]:
    """`least` and `most` for `parts_of`."""
    products = sum(a * b for a, b in pairwise(widths.tolist()))
    if products <= WIDE_SCORER:
        return CANDIDATES_OF_PART, MOST_SUMMED_PARTS
    return max(CANDIDATES_OF_PART * WIDE_SCORER // products, 32), MOST_SUMMED_PARTS


def linears(scorer: Scorer) -> list[nn.Linear]:
    """The layers after the first."""
    return cast("list[nn.Linear]", list(scorer.rest))


def widths_of(scorer: Scorer) -> LongArray:
    """Width of each hidden layer, int64."""
    return np.array([layer.in_features for layer in linears(scorer)], dtype=np.int64)


def _bias(layer: BagLinear) -> Tensor:
    bias = layer.bias if layer.numbers is None else layer.numbers.bias
    assert bias is not None
    return bias

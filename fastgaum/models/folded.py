"""A model's networks as users run them who are shown one slate after another, simulated ones and
online ones.

Parameters are folded once for the kernels: what a row of ids says to a layer is summed before. A
history is moved in place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastgaum.engine.scorer import KINDS, linears, widths_of
from fastgaum.features.encoder import NO_CLICK_ID
from fastgaum.kernels import slates as kernels
from fastgaum.kernels import towers, user_steps
from fastgaum.kernels.candidate_formulas import Slates
from fastgaum.kernels.examination import examine_slates
from fastgaum.logs.log import FloatArray, IntArray
from fastgaum.nets.bags import BagLinear
from fastgaum.nets.histories import Recurrent
from fastgaum.nets.networks import Scorer, TowerScorer
from fastgaum.nets.regularisers import L2, Regulariser, Shannon, Tsallis

ROWS_AT_ONCE = 65_536
Vectors = Callable[[slice], FloatArray]
"""standardised vectors of some rows, (n, dim)"""


@dataclass(frozen=True)
class TableRows:
    """What the rows of folded tables stand for."""

    ids: IntArray
    """feature ids that each row is the sum of, shape (n_rows, ·)"""
    n_items: int
    """the first so many rows are those of which a displayed place has exactly one"""
    n_numbers: int
    """numbers of a candidate"""
    positions: IntArray | None = None
    """feature ids of places, the unknown one first, a row each after the others, (n, ·); None where
    the place is no field"""
    vectors: Vectors | None = None
    """standardised vectors of the items of some rows of `ids`, (n, dim); None where networks read
    none"""
    n_ids: int = 0
    """the first so many feature ids have a row each behind those: what actions are made of"""


def folded_table(layer: BagLinear, of: TableRows) -> FloatArray:
    """What each row adds to a layer: those of `of.ids`, then positions, single ids, and no click.

    Shape (n_rows + n_positions + n_ids + 1, out)."""

    # read once: a table of the user's own may have to be fetched
    table, projection = layer.table.detach(), layer.projection_of_rows

    def mapped(ids: Any, vectors: Vectors | None = None) -> FloatArray:
        parts = []
        for start in range(0, len(ids), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            rows = table[torch.from_numpy(ids[part].astype(np.int64))].sum(1)
            if projection is not None and vectors is not None:
                rows += _projected(vectors(part), projection)
            parts.append((rows if layer.up is None else rows @ layer.up.detach()).cpu().numpy())
        return np.concatenate(parts)

    parts = [mapped(of.ids, of.vectors)]
    if of.positions is not None:
        parts.append(mapped(of.positions))
    if of.n_ids:
        parts.append(mapped(np.arange(of.n_ids)[:, None]))
    parts.append(mapped(np.full((1, 1), NO_CLICK_ID)))
    return np.ascontiguousarray(np.concatenate(parts), np.float32)


def projected_vectors(layer: BagLinear, vectors: Vectors, n_rows: int) -> FloatArray:
    """What the vectors of rows add to rows of a layer's table, shape (n_rows, width); zeros where
    it reads no vectors."""
    found = np.zeros((n_rows, layer.table.shape[1]), np.float32)
    projection = layer.projection_of_rows
    for start in range(0, n_rows if projection is not None else 0, ROWS_AT_ONCE):
        part = slice(start, min(start + ROWS_AT_ONCE, n_rows))
        assert projection is not None
        found[part] = _projected(vectors(part), projection).cpu().numpy()
    return found


def _projected(vectors: FloatArray, projection: Tensor) -> Tensor:
    return torch.from_numpy(vectors).to(projection.device) @ projection.detach()


def _numbers(layer: BagLinear, n_numbers: int, out: int) -> tuple[FloatArray, FloatArray]:
    """A layer's weights of numbers, (n_numbers, out), and its bias (out,)."""
    if layer.numbers is None:
        assert layer.bias is not None
        return np.zeros((n_numbers, out), np.float32), _array(layer.bias)
    return _array(layer.numbers.weight.t()), _array(layer.numbers.bias)


def _array(value: Tensor) -> FloatArray:
    return np.ascontiguousarray(value.detach().cpu().numpy(), np.float32).copy()


class FoldedScorer:
    """A scorer over the rows of tables; `write` scores every displayed place of a range of
    users."""

    reads_slate = False
    """whether a score depends on the rest of the slate, or on the place in it"""

    def __init__(self, scorer: Scorer, of: TableRows) -> None:
        n_numbers = of.n_numbers
        self.widths: npt.NDArray[np.int64] = widths_of(scorer)
        width = int(self.widths[0])
        self.table = folded_table(scorer.first, of)
        from_numbers, bias = _numbers(scorer.first, n_numbers, width)
        wide, wide_numbers = np.zeros(len(self.table), np.float32), np.zeros(n_numbers, np.float32)
        if scorer.wide is not None:
            # an item's row holds the path's bias too: every displayed place has one item
            wide = folded_table(scorer.wide, of)[:, 0]
            weights, wide_bias = _numbers(scorer.wide, n_numbers, 1)
            wide[: of.n_items] += wide_bias[0]
            wide_numbers = np.ascontiguousarray(weights[:, 0])
        later = [
            part
            for layer in linears(scorer)
            for part in (_array(layer.weight.t()).ravel(), _array(layer.bias))
        ]
        self.weights = kernels.ScorerTables(
            self.table,
            np.ascontiguousarray(wide),
            _array(scorer.from_state.weight.t()),
            from_numbers,
            wide_numbers,
            bias,
            np.concatenate(later),
            self.widths,
            KINDS[type(scorer.act)],
        )

    def write(
        self,
        first: int,
        last: int,
        slates: Slates,
        numbers: FloatArray,
        states: FloatArray,
        scores: FloatArray,
    ) -> None:
        """Scores of the places of users first to last − 1."""
        kernels.slate_scores(first, last, slates.rows, numbers, states, self.weights, scores)


class FoldedTowerScorer:
    """As `FoldedScorer`, with two towers."""

    reads_slate = False

    def __init__(self, scorer: TowerScorer, of: TableRows) -> None:
        tower = scorer.tower
        self.deep = FoldedScorer(scorer.deep, of)
        self.table = folded_table(tower.items, of)
        numbers = np.zeros(of.n_numbers, np.float32)
        if tower.numbers is not None:
            numbers = _array(tower.numbers.weight[0])
        self.weights = towers.TowerTables(
            self.table,
            _array(tower.hidden.weight.t()),
            _array(tower.hidden.bias),
            _with_column(tower.out.weight.t()),
            _with_column(tower.direct.weight.t()),
            np.append(_array(tower.out.bias), np.float32(1)),
            numbers,
        )

    def write(
        self,
        first: int,
        last: int,
        slates: Slates,
        numbers: FloatArray,
        states: FloatArray,
        scores: FloatArray,
    ) -> None:
        """Scores of the places of users first to last − 1."""
        towers.slate_tower_scores(first, last, slates.rows, numbers, states, self.weights, scores)
        deep, part = np.empty_like(scores[first:last]), slice(first, last)
        of_part = Slates(slates.rows[part], slates.set_size)
        self.deep.write(0, last - first, of_part, numbers[part], states[part], deep)
        scores[part] += deep


class ExaminedScorer:
    """A folded scorer, and what each place adds to its scores."""

    reads_slate = True

    def __init__(self, scorer: FoldedScorer | FoldedTowerScorer, by_place: FloatArray) -> None:
        self.scorer, self.by_place, self.table = scorer, by_place, scorer.table

    def write(
        self,
        first: int,
        last: int,
        slates: Slates,
        numbers: FloatArray,
        states: FloatArray,
        scores: FloatArray,
    ) -> None:
        """Scores of the places of users first to last − 1; an item of a pool is at the first place
        of its slate, which adds nothing."""
        self.scorer.write(first, last, slates, numbers, states, scores)
        if not slates.set_size:
            examine_slates(first, last, slates.rows, self.by_place, scores)


SlateScorer = FoldedScorer | FoldedTowerScorer | ExaminedScorer


def folded_scorer(scorer: Scorer | TowerScorer, of: TableRows) -> SlateScorer:
    """The scorer over the rows of tables."""
    folded = (
        FoldedTowerScorer(scorer, of)
        if isinstance(scorer, TowerScorer)
        else FoldedScorer(scorer, of)
    )
    if scorer.examination is None:
        return folded
    return ExaminedScorer(folded, _array(scorer.examination.by_place))


def _with_column(weights: Tensor) -> FloatArray:
    """(n, d − 1) and a last column of zeros."""
    return np.ascontiguousarray(np.pad(_array(weights), ((0, 0), (0, 1))))


class UserHistories(Protocol):
    """Histories of n users."""

    states: FloatArray
    """each user's state, shape (n, state_dim)"""
    in_parts: bool
    """whether `advance` may be called for ranges of users, on several threads; otherwise once, for
    all"""

    def reset(self, rows: IntArray | slice) -> None:
        """Forget those users' choices."""

    def advance(
        self,
        first: int,
        last: int,
        active: npt.NDArray[np.bool_],
        chosen: IntArray,
        numbers: FloatArray,
    ) -> None:
        """Move the active users' states on by a choice: table rows (n, 1, ·), -1 for no click, and
        numbers (n, 1, d)."""


class FoldedRecurrent:
    """An LSTM's parameters over the rows of tables, any number of layers."""

    def __init__(self, encoder: Recurrent, of: TableRows) -> None:
        self.size, gates = encoder.state_dim, 4 * encoder.state_dim
        table = folded_table(encoder.input, of)
        nothing = len(table) - 1
        self.layers: list[user_steps.StepTables] = []
        for layer in range(encoder.layers):
            if layer == 0:
                into = table, *_numbers(encoder.input, of.n_numbers, gates)
            else:
                below = _array(encoder.weight_ih[layer - 1].t()), _array(encoder.bias_ih[layer - 1])
                into = np.zeros((0, gates), np.float32), *below
            table, from_numbers, bias = into
            weight = _array(encoder.weight_hh[layer].t())
            self.layers.append(user_steps.StepTables(table, nothing, from_numbers, bias, weight))


class RecurrentHistories:
    """Histories of n users that advance in place."""

    in_parts = True

    def __init__(self, folded: FoldedRecurrent, n: int) -> None:
        self.folded = folded
        self.carries = [
            tuple(np.zeros((n, folded.size), np.float32) for _ in range(2)) for _ in folded.layers
        ]
        self.states: FloatArray = self.carries[-1][0]
        self.no_rows: IntArray = np.zeros((n, 1, 0), np.int32)

    def reset(self, rows: IntArray | slice) -> None:
        """Forget those users' choices."""
        for carry in self.carries:
            for part in carry:
                part[rows] = 0

    def advance(
        self,
        first: int,
        last: int,
        active: npt.NDArray[np.bool_],
        chosen: IntArray,
        numbers: FloatArray,
    ) -> None:
        """One recurrent step of users first to last − 1."""
        for layer, carry in zip(self.folded.layers, self.carries, strict=True):
            inputs = user_steps.StepInputs(chosen, numbers)
            user_steps.lstm_step(first, last, active, inputs, layer, *carry)
            chosen, numbers = self.no_rows, carry[0][:, None, :]


class SlateProbabilities(NamedTuple):
    """Scores of n users' slates, and what they become."""

    rows: IntArray
    """-1 first where nothing is displayed, shape (n, k, ·)"""
    scores: FloatArray
    """shape (n, k)"""
    probs: FloatArray
    """written: probability of each place, shape (n, k)"""
    none: FloatArray
    """written: probability of no click, shape (n,)"""


def slate_distribution(
    rule: Regulariser, eta: float, outside: bool, head: Literal["reward", "generator"]
) -> Callable[[int, int, SlateProbabilities], None] | None:
    """What turns the scores of users first to last − 1 into probabilities; None for a regulariser
    that has no kernel here."""
    # whatever a regulariser of the user's own is, the generator's own distribution under it is a
    # softmax
    if isinstance(rule, Shannon) or (head == "generator" and not isinstance(rule, L2 | Tsallis)):
        return partial(_distribute, kernels.ChoiceRule(eta, outside))
    return None


def _distribute(
    rule: kernels.ChoiceRule, first: int, last: int, slates: SlateProbabilities
) -> None:
    # a function of the module, which pickle finds by its name
    kernels.softmax_slates(first, last, slates.scores, slates.rows, rule, slates.probs, slates.none)

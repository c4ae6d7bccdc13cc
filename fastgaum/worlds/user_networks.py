"""A model's networks as simulated users run them.

Parameters are folded once for the kernels, so that a step gathers one row per item. A history is
moved in place, or read again where its encoder allows no other way."""

from __future__ import annotations

from typing import Any, Protocol

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
from fastgaum.nets.bags import BagLinear
from fastgaum.nets.histories import Carry, HistoryEncoder, Recurrent
from fastgaum.nets.networks import Scorer, TowerScorer
from fastgaum.nets.tensors import Bags
from fastgaum.worlds.catalogue import Catalogue
from fastgaum.worlds.world import FloatArray, IntArray

ROWS_AT_ONCE = 65_536


def folded_table(layer: BagLinear, catalogue: Catalogue) -> FloatArray:
    """What each table row adds to a layer: items, the unknown item, then positions, the unknown one
    first, and no click.

    Shape (n_items + 1 + n_positions + 1 + 1, out), without the positions' rows where order is no
    feature."""

    # read once: a table of the user's own may have to be fetched
    table = layer.table.detach()

    def mapped(ids: Any) -> FloatArray:
        parts = []
        for start in range(0, len(ids), ROWS_AT_ONCE):
            rows = table[torch.from_numpy(ids[start : start + ROWS_AT_ONCE].astype(np.int64))].sum(
                1
            )
            parts.append((rows if layer.up is None else rows @ layer.up.detach()).cpu().numpy())
        return np.concatenate(parts)

    own = [
        column for column in range(catalogue.ids.shape[1]) if column != catalogue.position_column
    ]
    parts = [mapped(catalogue.ids[:, own])]
    if catalogue.position_column >= 0:
        position = catalogue.space.categorical[catalogue.position_column]
        parts.append(mapped(np.arange(position.start, position.stop)[:, None]))
    parts.append(mapped(np.full((1, 1), NO_CLICK_ID)))
    return np.ascontiguousarray(np.concatenate(parts), np.float32)


def _numbers(layer: BagLinear, n_numbers: int, out: int) -> tuple[FloatArray, FloatArray]:
    """A layer's weights of numbers, (n_numbers, out), and its bias (out,)."""
    if layer.numbers is None:
        assert layer.bias is not None
        return np.zeros((n_numbers, out), np.float32), _array(layer.bias)
    return _array(layer.numbers.weight.t()), _array(layer.numbers.bias)


def _array(value: Tensor) -> FloatArray:
    return np.ascontiguousarray(value.detach().cpu().numpy(), np.float32).copy()


class FoldedScorer:
    """A scorer over a catalogue; `write` scores every displayed place of a range of users."""

    reads_slate = False
    """whether a score depends on the rest of the slate, or on the place in it"""

    def __init__(self, scorer: Scorer, catalogue: Catalogue) -> None:
        n_numbers = catalogue.space.n_numbers
        self.widths: npt.NDArray[np.int64] = widths_of(scorer)
        width = int(self.widths[0])
        self.table = folded_table(scorer.first, catalogue)
        from_numbers, bias = _numbers(scorer.first, n_numbers, width)
        wide, wide_numbers = np.zeros(len(self.table), np.float32), np.zeros(n_numbers, np.float32)
        if scorer.wide is not None:
            # an item's row holds the path's bias too: every displayed place has one item
            wide = folded_table(scorer.wide, catalogue)[:, 0]
            weights, wide_bias = _numbers(scorer.wide, n_numbers, 1)
            wide[: len(catalogue.ids)] += wide_bias[0]
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

    def __init__(self, scorer: TowerScorer, catalogue: Catalogue) -> None:
        tower = scorer.tower
        self.deep = FoldedScorer(scorer.deep, catalogue)
        self.table = folded_table(tower.items, catalogue)
        numbers = np.zeros(catalogue.space.n_numbers, np.float32)
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


WorldScorer = FoldedScorer | FoldedTowerScorer | ExaminedScorer


def folded_scorer(scorer: Scorer | TowerScorer, catalogue: Catalogue) -> WorldScorer:
    """The scorer over a catalogue."""
    folded = (
        FoldedTowerScorer(scorer, catalogue)
        if isinstance(scorer, TowerScorer)
        else FoldedScorer(scorer, catalogue)
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
    """An LSTM's or GRU's parameters over a catalogue, any number of layers."""

    def __init__(self, encoder: Recurrent, catalogue: Catalogue) -> None:
        self.size, gates = encoder.state_dim, encoder.gates * encoder.state_dim
        table = folded_table(encoder.input, catalogue)
        nothing = len(table) - 1
        self.kind = encoder.kind
        self.n_parts = 2 if encoder.kind == "lstm" else 1
        self.layers: list[user_steps.StepTables] = []
        for layer in range(encoder.layers):
            if layer == 0:
                into = table, *_numbers(encoder.input, catalogue.space.n_numbers, gates)
            else:
                below = _array(encoder.weight_ih[layer - 1].t()), _array(encoder.bias_ih[layer - 1])
                into = np.zeros((0, gates), np.float32), *below
            table, from_numbers, bias = into
            weight = _array(encoder.weight_hh[layer].t())
            bias_hh = np.zeros(0, np.float32)
            if encoder.kind == "gru":
                bias_hh = _array(encoder.bias_hh[layer])
            self.layers.append(
                user_steps.StepTables(table, nothing, from_numbers, bias, weight, bias_hh)
            )


class RecurrentHistories:
    """Histories of n users that advance in place."""

    in_parts = True

    def __init__(self, folded: FoldedRecurrent, n: int) -> None:
        self.folded = folded
        self.carries = [
            tuple(np.zeros((n, folded.size), np.float32) for _ in range(folded.n_parts))
            for _ in folded.layers
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
        folded = self.folded
        step = user_steps.lstm_step if folded.kind == "lstm" else user_steps.gru_step
        for layer, carry in zip(folded.layers, self.carries, strict=True):
            step(first, last, active, user_steps.StepInputs(chosen, numbers), layer, *carry)
            chosen, numbers = self.no_rows, carry[0][:, None, :]


class ChoiceHistory:
    """The choices of n users, as bags; the oldest are forgotten beyond `most`."""

    def __init__(self, catalogue: Catalogue, n: int, most: int | None = None) -> None:
        self.catalogue, self.most = catalogue, most
        self.ids: IntArray = np.zeros((n, 8, catalogue.ids.shape[1]), np.int32)
        self.numbers: FloatArray = np.zeros((n, 8, catalogue.space.n_numbers), np.float32)
        self.clicked = np.zeros((n, 8), bool)
        self.lengths: npt.NDArray[np.int64] = np.zeros(n, np.int64)

    def reset(self, rows: IntArray | slice) -> None:
        """Forget those users' choices."""
        self.lengths[rows] = 0

    def append(self, active: npt.NDArray[np.bool_], chosen: IntArray, numbers: FloatArray) -> None:
        """Add a choice of each active user: table rows (n, 1, ·), -1 for no click, and numbers (n,
        1, d)."""
        if self.most is not None:
            full = np.flatnonzero(active & (self.lengths == self.most))
            for values in (self.ids, self.numbers, self.clicked) if len(full) else ():
                values[full, : self.most - 1] = values[full, 1 : self.most]
            self.lengths[full] -= 1
        if self.lengths.max(initial=0) == self.ids.shape[1]:
            self.ids, self.numbers, self.clicked = (
                np.concatenate([values, np.zeros_like(values)], axis=1)
                for values in (self.ids, self.numbers, self.clicked)
            )
        users = np.flatnonzero(active)
        at = self.lengths[users]
        rows = chosen[users, 0]
        self.ids[users, at] = self.catalogue.bags(rows)
        self.numbers[users, at] = numbers[users, 0]
        self.clicked[users, at] = rows[:, 0] >= 0
        self.lengths[users] += 1

    def bags(self, users: IntArray | slice, at: int) -> Bags:
        """The choice number `at`, of those remembered, of users who all have so many."""
        clicked, ids = self.clicked[users, at], self.ids[users, at]
        offsets = np.concatenate([[0], np.cumsum(np.where(clicked, ids.shape[1], 1))]).astype(
            np.int32
        )
        # no click has one id instead of all the others
        kept = clicked[:, None] | (np.arange(ids.shape[1]) == 0)
        flat = np.where(clicked[:, None], ids, np.int32(NO_CLICK_ID))[kept]
        return Bags(*(torch.from_numpy(part) for part in (flat, offsets, self.numbers[users, at])))


class ReplayedHistories:
    """Histories whose encoder must read past choices again: bilstm, position weights, and a user's
    own encoder.

    While all users move together, one `advance` of the encoder makes a step. When some were started
    anew or did not move, the encoder reads their choices again from the first one remembered: the
    last m for position weights, all for bilstm. bilstm reads all choices in any case: O(t) at step
    t."""

    in_parts = False

    def __init__(self, encoder: HistoryEncoder, catalogue: Catalogue, n: int) -> None:
        self.encoder, self.n = encoder, n
        self.choices = ChoiceHistory(catalogue, n, encoder.window)
        self.states: FloatArray = np.zeros((n, encoder.state_dim), np.float32)
        self.together: Carry | None = encoder.initial(n)

    def reset(self, rows: IntArray | slice) -> None:
        """Forget those users' choices."""
        self.choices.reset(rows)
        self.states[rows] = 0
        self.together = None if self.choices.lengths.any() else self.encoder.initial(self.n)

    @torch.no_grad()
    def advance(
        self,
        first: int,
        last: int,
        active: npt.NDArray[np.bool_],
        chosen: IntArray,
        numbers: FloatArray,
    ) -> None:
        """Append the active users' choices and read their states; `first` and `last` are those of
        all users."""
        self.choices.append(active, chosen, numbers)
        if self.together is not None and active.all():
            latest = self.choices.bags(slice(None), int(self.choices.lengths[0]) - 1)
            self.together = self.encoder.advance(self.together, latest)
            self.states[:] = self.encoder.state_of(self.together).numpy()
            return
        self.together = None
        for length in np.unique(self.choices.lengths[active]).tolist():
            users = np.flatnonzero(active & (self.choices.lengths == length)).astype(np.int32)
            carry = self.encoder.initial(len(users))
            for at in range(length):
                carry = self.encoder.advance(carry, self.choices.bags(users, at))
            self.states[users] = self.encoder.state_of(carry).numpy()

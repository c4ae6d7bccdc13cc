"""Calls of the kernels of two towers, and the rows of their table that a batch's vectors take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from torch import nn

from fastgaum import threads
from fastgaum.arrays import FloatArray, IntArray
from fastgaum.kernels import towers as kernels
from fastgaum.kernels.draws import DropoutRule
from fastgaum.kernels.optimiser import add_rows, group_bags
from fastgaum.kernels.scorer import ScorerInputs, ScorerOutputs
from fastgaum.ops.displays import DisplayBatch
from fastgaum.ops.tables import (
    NamedParts,
    NamedRoom,
    OfBags,
    OfParts,
    learned_table,
    parts_of_slots,
)

HIDDEN_KEY = 1
"""added to a pass's key for the hidden layer's dropout"""
NO_SLOTS: IntArray = np.empty((0, 1), np.int32)
NO_ROWS: FloatArray = np.empty((0, 1), np.float32)


def tower_parameters(tower: Any) -> list[nn.Parameter]:
    """All parameters but the table and w, in the order of the kernel's `dense`."""
    own = [part for one in (tower.hidden, tower.out, tower.direct) for part in one.parameters()]
    return cast("list[nn.Parameter]", own if tower.tastes is None else [*own, tower.tastes])


def weights_of(tower: Any, table: FloatArray, dense: FloatArray) -> kernels.TowerWeights:
    """Towers (`nets.towers.TwoTower`) as the kernel reads them."""
    width, own = tower.hidden.out_features, tower.own
    return kernels.TowerWeights(table, dense, width, own.start, len(own))


class TowerCalls:
    """The towers' part of a scorer's pass."""

    def __init__(
        self,
        tower: Any,
        flat: FloatArray,
        room: Callable[..., FloatArray],
        shown: DisplayBatch,
        numbers: FloatArray,
        states: FloatArray,
        vectors: FloatArray | None,
        dropouts: tuple[DropoutRule, DropoutRule],
    ) -> None:
        """flat: the parameters `tower_parameters(tower)`; numbers: those of candidates that are
        read; dropouts: of the state, and of the user's hidden layer; others as of
        `ops.scorer.ScorerPass`."""
        self.tower, self.room, self.shown, self.vectors = tower, room, shown, vectors
        self.numbers = numbers
        self.states, self.dropouts = states, dropouts
        self.ids = shown.ids if shown.vector_ids is None else shown.vector_ids
        self.parameter = None if tower.items is None else tower.items.table
        rows = np.empty((0, tower.dim), np.float32)
        if self.parameter is None:
            self.ids = shown.ids[:, :0]
        else:
            rows = self.parameter.detach().numpy()
        self.n_ids = len(rows)
        if vectors is not None:
            assert shown.vector_rows is not None
            further = shown.vector_rows + np.int32(self.n_ids)
            self.ids = np.concatenate([shown.ids, further[:, None]], axis=1)
            table = learned_table(self.parameter)
            rows = np.concatenate([rows, vectors]) if table is None else table.followed_by(vectors)
        self.weights = weights_of(tower, rows, flat)

    def forward(self, scores: FloatArray) -> list[threads.Call]:
        """The call of each part that writes its scores."""
        n, state_dim = self.states.shape
        self.written = kernels.TowerPass(
            self.room("x", n, state_dim),
            self.room("hidden", n, self.weights.width),
            self.room("users", n, self.tower.dim),
            scores,
        )
        fixed = self._inputs(NO_SLOTS), self.weights, self.dropouts, self.written
        return [(kernels.tower_forward, (*part, *fixed)) for part in self.shown.parts]

    def backward(
        self, grad: FloatArray, grad_scores: FloatArray, grad_states: FloatArray
    ) -> list[threads.Call]:
        """The call of each part that leaves its gradients, of the parameters in `grad`, and adds
        that of its states."""
        parts, room = self.shown.parts, self.room
        rows, slots, none = self.weights.table[:0], NO_SLOTS, grad[:0]
        self.named: NamedParts | None = None
        if self.parameter is not None:
            table = learned_table(self.parameter)
            assert table is not None
            if self.vectors is None:
                self.named = self.shown.named(table.slot_of)
            else:
                slot_of = np.full(len(self.weights.table), -1, np.int32)
                rooms = NamedRoom(), NamedRoom()
                self.named = NamedParts(self.ids, self.shown.offsets, parts, slot_of, rooms)
            rows = room("tower rows", self.named.count, table.width)
            slots = self.named.slots
        self.grad, self.rows, self.blocks = grad, rows, grad[None]
        if len(parts) > 1:
            self.blocks = room("tower blocks", len(parts), len(grad))
        grads = ScorerOutputs(none, none, grad_scores, none, rows, NO_ROWS, grad_states)
        fixed = self._inputs(slots), self.weights, self.dropouts, self.written
        return [
            (kernels.tower_backward, (*part, *fixed, grads._replace(dense=block)))
            for part, block in zip(parts, self.blocks, strict=True)
        ]

    def end(self) -> FloatArray | None:
        """Give the table its gradient; return that of the vectors' rows, (n_distinct, d)."""
        named, rows = self.named, self.rows
        if len(self.blocks) > 1:
            np.add.reduce(self.blocks, axis=0, out=self.grad)
        if named is None:
            return None
        table = learned_table(self.parameter)
        assert table is not None
        if self.vectors is None:
            table.give(OfParts(named, rows))
            return None
        is_id = named.rows < self.n_ids
        table.give(OfBags(named.rows[is_id], starts_of_held(is_id), rows))
        slots = named.rows[~is_id] - np.int32(self.n_ids)
        return sum_of_named(slots, starts_of_held(~is_id), rows, len(self.vectors))

    def _inputs(self, slots: IntArray) -> ScorerInputs:
        return ScorerInputs(self.shown.offsets, self.ids, self.numbers, self.states, slots)


def starts_of_held(held: np.ndarray) -> IntArray:
    """Where bags of one id, or none where it is not held, begin, (n + 1,)."""
    offsets = np.zeros(len(held) + 1, np.int32)
    np.cumsum(held, out=offsets[1:])
    return offsets


def sum_of_named(slots: IntArray, offsets: IntArray, rows: FloatArray, n: int) -> FloatArray:
    """The sum of the rows of the bags that name each of n slots, (n, d)."""
    starts, bags = np.empty(n + 1, np.int32), np.empty(len(slots), np.int32)
    group_bags(slots, offsets, starts, bags)
    # a slot that no bag names is not written
    total = np.zeros((n, rows.shape[1]), np.float32)
    parts = parts_of_slots(starts, rows.shape[1])
    threads.run(add_rows, [(rows, starts, bags, *part, total) for part in parts])
    return total

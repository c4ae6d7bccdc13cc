"""A `Scorer` by hand: forward and backward over packed display sets, shared over threads by
events."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastgaum import threads
from fastgaum.engine.optimiser import Named, PlayerOptimiser, SparseTable
from fastgaum.engine.scratch import Array, Scratch
from fastgaum.kernels import scorer as kernels
from fastgaum.nets.scorer_layout import (
    KINDS,
    NO_DROPOUT,
    NO_TABLE,
    dense_parameters,
    part_of_widths,
    parts_of,
    starts_of,
    widths_of,
)
from fastgaum.nets.scorers import Scorer


class FusedScorer:
    """One scorer's passes; its dense parameters lie in its player's flat block."""

    def __init__(self, scorer: Scorer, name: str, scratch: Scratch) -> None:
        self.scorer, self.name, self.scratch = scorer, name, scratch
        self.widths = widths_of(scorer)
        self.share = part_of_widths(self.widths)
        self.kind = KINDS[type(scorer.act)]
        self.state_dim = scorer.from_state.in_features
        self.rate = scorer.dropout.p
        self.tables: list[SparseTable] = []

    def own_tables(self, n_ids: int, rule: Any) -> list[SparseTable]:
        """Make the tables over ids sparse."""
        self.tables = [
            SparseTable(self.scorer.first.table, n_ids, rule, self.scratch, f"{self.name}.table")
        ]
        if self.scorer.wide is not None:
            wide = SparseTable(
                self.scorer.wide.table, n_ids, rule, self.scratch, f"{self.name}.wide"
            )
            self.tables.append(wide)
        return self.tables

    def bind(self, optimiser: PlayerOptimiser) -> None:
        """Find the dense parameters in the flat block."""
        self.optimiser = optimiser
        self.starts = starts_of(self.scorer, optimiser.place)
        self.n_dense = sum(parameter.numel() for parameter in dense_parameters(self.scorer))
        wide = self.tables[1].values if len(self.tables) > 1 else NO_TABLE
        self.weights = (
            self.tables[0].values,
            wide,
            optimiser.values,
            self.starts,
            self.widths,
            self.kind,
        )
        self.width, self.total_width = int(self.widths[0]), int(self.widths.sum())

    def forward(
        self, display_offsets: Any, ids: Any, numbers: Array, states: Array, key: int | None = None
    ) -> Array:
        """Scores, (n_candidates,); a `key` turns dropout on. The result stays valid until the next
        forward pass."""
        n, n_events, take = len(ids), len(states), self.scratch.floats
        rate = self.rate if key is not None else 0.0
        self.dropout = NO_DROPOUT
        if rate:
            self.dropout = (
                np.uint32(key or 0),
                np.uint32(math.floor(rate * 2**32)),
                np.float32(1 / (1 - rate)),
            )
        self.inputs = display_offsets, ids, numbers, states
        self.activations = take(f"{self.name}.activations", n * self.total_width)
        sums, scores = take("state sums", n_events, self.width), take(f"{self.name}.scores", n)
        fixed = (*self.inputs, *self.weights, *self.dropout, sums, self.activations, scores)
        self.parts = parts_of(display_offsets, *self.share)
        threads.run(kernels.scorer_forward, [(*part, *fixed) for part in self.parts])
        return scores

    def backward(self, grad_scores: Array, named: Named, add: bool = False) -> Array:
        """Leave all gradients where the optimiser reads them; returns that of the states,
        (n_events, state_dim).

        `named` holds the ids that the forward pass read; with `add` the gradients of the pass
        before, over the same candidates, are added. Destroys what the forward pass kept."""
        _, ids, _, states = self.inputs
        take, n, width = self.scratch.floats, len(ids), self.width
        table = self.tables[0]
        held = (take("candidate gradients", n, table.width), take("all score gradients", n))
        rows = take("more candidate gradients", n, table.width) if add else held[0]
        sums, grad_states = (
            take("state sums", len(states), width),
            take("state gradients", *states.shape),
        )
        # a scorer's parameters are the first in its player's block
        total = self.optimiser.grad[: self.n_dense]
        alone = len(self.parts) == 1 and not add
        blocks = total[None] if alone else take("dense gradients", len(self.parts), self.n_dense)
        fixed = (
            *self.inputs,
            table.values,
            len(self.tables) > 1,
            self.optimiser.values,
            self.starts,
            self.widths,
            self.kind,
            *self.dropout,
            self.activations,
            grad_scores,
        )
        threads.run(
            kernels.scorer_backward,
            [
                (*part, *fixed, blocks[i], rows, sums, grad_states)
                for i, part in enumerate(self.parts)
            ],
        )
        if add:
            for block in blocks:
                total += block
            rows += held[0]
            held[1][:] += grad_scores
        else:
            if not alone:
                np.add.reduce(blocks, axis=0, out=total)
            held[1][:] = grad_scores
        table.add(named, rows)
        if len(self.tables) > 1:
            self.tables[1].add(named, held[1][:, None])
        return grad_states

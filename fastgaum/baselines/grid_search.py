"""GridBaseline: settings chosen from small grids on the validation split, all after one fit."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from fastgaum.baselines.base import (
    Arrays,
    Baseline,
    Float64Array,
    Rows,
    Values,
    validation_nll,
    validation_prec1,
)
from fastgaum.features.sessions import EncodedSessions
from fastgaum.nets.tensors import BatchTensors

T = TypeVar("T")


@dataclass(eq=False)
class GridBaseline(Baseline):
    """A baseline that scores with every combination of its open settings after one fit.

    `fit` returns a row for each, the best first; `chosen` holds it. With select = prec@1 the
    likelihood decides between equals and is computed for those alone; what then still ties is taken
    in the order of the grids."""

    select: Literal["loss", "prec@1"] = "prec@1"
    """the validation score that chooses the open settings"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.memo: dict[tuple[object, ...], Any] | None = None

    @abstractmethod
    def _learn(self, train: EncodedSessions) -> None:
        """Count what the scores of every combination need."""

    @abstractmethod
    def _scores_with(self, batch: BatchTensors, chosen: Values) -> Float64Array:
        """Score a batch's candidates under these values of the settings in `grids`, shape
        (n_candidates,)."""

    def _fit(self, train: EncodedSessions, validation: EncodedSessions) -> Rows:
        self._learn(train)
        fixed, self.memo = list(self._batches(validation)), {}

        def scores_with(values: Values) -> Float64Array:
            return np.concatenate([self._scores_with(batch, values) for batch in fixed])

        rows: Rows = []
        for values in self.combinations():
            # rounded so that equal precisions are equal floats
            prec1 = round(validation_prec1(scores_with(values), validation), 9)
            rows.append(values | {"val_loss": None, "val_prec1": prec1})
        most = max(row["val_prec1"] for row in rows)
        for row in rows:
            if self.select == "loss" or row["val_prec1"] == most:
                row["val_loss"] = validation_nll(scores_with(row), validation, self.outside)
        self.memo, self.settings_tried = None, len(rows)
        rows.sort(key=self._order)
        self.chosen = {name: rows[0][name] for name in self.grids}
        return rows

    def _order(self, row: Values) -> tuple[float, float]:
        loss = math.inf if row["val_loss"] is None else row["val_loss"]
        return (loss, 0.0) if self.select == "loss" else (-row["val_prec1"], loss)

    def _kept(self, batch: BatchTensors, key: tuple[object, ...], make: Callable[[], T]) -> T:
        """What `make` returns, made once for each batch and key while the settings are chosen."""
        if self.memo is None:
            return make()
        where = (id(batch), *key)
        if where not in self.memo:
            self.memo[where] = make()
        kept: T = self.memo[where]
        return kept

    def _scores(self, batch: BatchTensors) -> Float64Array:
        return self._scores_with(batch, self.chosen)

    def _arrays(self) -> Arrays:
        # a word is kept as its place in the grid
        places = {
            name: grid.index(self.chosen[name])
            for name, grid in self.grids.items()
            if isinstance(grid[0], str)
        }
        return {
            f"chosen.{name}": np.array([places.get(name, value)])
            for name, value in self.chosen.items()
        }

    def _restore(self, arrays: Arrays) -> None:
        values = {name: arrays[f"chosen.{name}"].item() for name in self.grids}
        self.chosen = {
            name: dict(enumerate(grid))[values[name]] if isinstance(grid[0], str) else values[name]
            for name, grid in self.grids.items()
        }

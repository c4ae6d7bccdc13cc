"""Settings chosen from small grids on the validation split: GridBaseline scores with every
combination after one fit, GridNetworkBaseline fits with every combination and keeps the best
network."""

from __future__ import annotations

import dataclasses
import itertools
import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch

from fastgaum.baselines.base import (
    Arrays,
    Baseline,
    Float64Array,
    Grids,
    Rows,
    Values,
    validation_nll,
    validation_prec1,
)
from fastgaum.baselines.gradient import GradientBaseline
from fastgaum.config import Probability
from fastgaum.features.sessions import EncodedSessions
from fastgaum.nets.tensors import BatchTensors


def combinations(grids: Grids) -> list[Values]:
    """Every combination of the values of each setting.

    >>> combinations({"a": (1, 2), "b": ("x",)})
    [{'a': 1, 'b': 'x'}, {'a': 2, 'b': 'x'}]
    """
    return [dict(zip(grids, values, strict=True)) for values in itertools.product(*grids.values())]


@dataclass(eq=False)
class GridBaseline(Baseline):
    """A baseline whose settings in `grids` may be left open: None for a number, "auto" for a word.

    `fit` tries every combination of the open settings' values and returns a row for each, the best
    first; `chosen` holds it. With select = prec@1 the likelihood decides between equals and is
    computed for those alone; what then still ties is taken in the order of the grids."""

    grids: ClassVar[Grids]
    """values tried for each open setting, the published one first"""

    select: Literal["loss", "prec@1"] = "prec@1"
    """the validation score that chooses the open settings"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.memo: dict[tuple[object, ...], Float64Array] | None = None

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

        rows: Rows = [
            values | {"val_loss": None, "val_prec1": _prec1(scores_with(values), validation)}
            for values in combinations({name: self._grid(name) for name in self.grids})
        ]
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

    def _grid(self, name: str) -> tuple[object, ...]:
        """The values to try: a setting that is not open has one."""
        value, grid = getattr(self, name), self.grids[name]
        return grid if value in (None, "auto") else (type(grid[0])(value),)

    def _kept(
        self, batch: BatchTensors, key: tuple[object, ...], make: Callable[[], Float64Array]
    ) -> Float64Array:
        """What `make` returns, made once for each batch and key while the settings are chosen."""
        if self.memo is None:
            return make()
        where = (id(batch), *key)
        if where not in self.memo:
            self.memo[where] = make()
        return self.memo[where]

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


def _prec1(scores: Float64Array, validation: EncodedSessions) -> float:
    """Validation prec@1 in percent, rounded so that equal precisions are equal floats."""
    return round(validation_prec1(scores, validation), 9)


@dataclass(eq=False)
class GridNetworkBaseline(GradientBaseline):
    """A GradientBaseline fitted with every combination in `grids`; the one of the lowest validation
    score is kept.

    Where the training loss is not the display set's (per item, or over the catalogue), the
    validation score is the NLL of the choices after the best link, for the epoch too: a loss of its
    own scale says little of how candidates of one display set stand to one another, and nothing
    across settings that change the loss. The search also makes `fit` right for inputs as different
    as a bare identity, which ids must explain, and bags of numbers, beside which ids mostly
    mislead."""

    grids: ClassVar[Grids] = {"id_dropout": (0.8, 0.05)}
    """values tried for settings, the default first; a setting that is not at its default is taken
    as it is"""

    id_dropout: Probability = 0.8
    search: bool = True
    """False fits once, with all settings as they are"""

    def _fit(self, train: EncodedSessions, validation: EncodedSessions) -> Rows:
        rows: Rows = []
        best = np.inf
        tried = combinations(
            {
                name: grid
                for name, grid in self.grids.items()
                if self.search and getattr(self, name) == grid[0]
            }
        )
        self.settings_tried = len(tried)
        for values in tried:
            trial = dataclasses.replace(self, **values)
            trial.space, trial.outside, trial.session_name = (
                self.space,
                self.outside,
                self.session_name,
            )
            torch.manual_seed(self.seed)
            epochs = GradientBaseline._fit(trial, train, validation)
            value = min(row["val_loss"] for row in epochs)
            if value < best:
                best, self.network = value, trial.network
            rows += [values | row for row in epochs]
        return [row | {"best": row["val_loss"] == best} for row in rows]

    def _validate(
        self, fixed: list[BatchTensors], validation: EncodedSessions
    ) -> tuple[float, float]:
        """The score to be minimised (NLL, linked where the model's scores need it, or −prec@1), and
        prec@1 in percent."""
        if not self.fit_link:
            return super()._validate(fixed, validation)
        scores = np.concatenate([self._scores(batch) for batch in fixed])
        prec1 = validation_prec1(scores, validation)
        return validation_nll(
            scores, validation, self.outside
        ) if self.select == "loss" else -prec1, prec1

"""TunedBaseline: baselines without gradients, whose open settings are chosen on the validation
split from small grids."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from fastgaum.baselines.base import Arrays, Baseline, Float64Array, validation_nll, validation_prec1
from fastgaum.errors import ConfigError
from fastgaum.features.space import EncodedSessions
from fastgaum.nets.tensors import BatchTensors

Values = dict[str, Any]


@dataclass(eq=False)
class TunedBaseline(Baseline):
    """A baseline whose settings in `grids` may be left open: None for a number, "auto" for a word.

    `fit` tries every combination of the open settings' values and returns a row for each, the best
    first; `chosen` holds it. With select = prec@1 the likelihood decides between equals and is
    computed for those alone; what then still ties is taken in the order of the grids."""

    grids: ClassVar[Mapping[str, tuple[Any, ...]]]
    """values tried for each open setting, the published one first"""

    select: Literal["loss", "prec@1"] = "prec@1"
    """the validation score that chooses the open settings"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.memo: dict[tuple[Any, ...], Float64Array] | None = None
        for name, grid in self.grids.items():
            value = getattr(self, name)
            if not isinstance(grid[0], str) and value is not None and not _is_number(value):
                raise ConfigError(
                    f"{name} must be a finite number, or None to choose it on validation, got "
                    f"{value!r}"
                )

    @abstractmethod
    def _learn(self, train: EncodedSessions) -> None:
        """Count what the scores of every combination need."""

    @abstractmethod
    def _scores_with(self, batch: BatchTensors, chosen: Values) -> Float64Array:
        """Score a batch's candidates under these values of the settings in `grids`, shape
        (n_candidates,)."""

    def _fit(
        self, train: EncodedSessions, validation: EncodedSessions, observer: Any
    ) -> list[dict[str, Any]]:
        self._learn(train)
        fixed, self.memo = list(self._batches(validation)), {}

        def scores_with(values: Values) -> Float64Array:
            return np.concatenate([self._scores_with(batch, values) for batch in fixed])

        rows: list[dict[str, Any]] = []
        for combination in itertools.product(*map(self._grid, self.grids)):
            values = dict(zip(self.grids, combination, strict=True))
            rows.append(
                values | {"val_loss": None, "val_prec1": _prec1(scores_with(values), validation)}
            )
        most = max(row["val_prec1"] for row in rows)
        for row in rows:
            if self.select == "loss" or row["val_prec1"] == most:
                row["val_loss"] = validation_nll(scores_with(row), validation, self.outside)
        self.memo, self.settings_tried = None, len(rows)
        rows.sort(key=self._order)
        self.chosen = {name: rows[0][name] for name in self.grids}
        return rows

    def _order(self, row: dict[str, Any]) -> tuple[float, float]:
        loss = math.inf if row["val_loss"] is None else row["val_loss"]
        return (loss, 0.0) if self.select == "loss" else (-row["val_prec1"], loss)

    def _grid(self, name: str) -> tuple[Any, ...]:
        """The values to try: a setting that is not open has one."""
        value, grid = getattr(self, name), self.grids[name]
        return grid if value in (None, "auto") else (type(grid[0])(value),)

    def _kept(
        self, batch: BatchTensors, key: tuple[Any, ...], make: Callable[[], Float64Array]
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


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)

"""Networks that are fitted with a few settings and keep the one that validates best."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from fastgaum.baselines.base import validation_nll, validation_prec1
from fastgaum.baselines.gradient import GradientBaseline
from fastgaum.features.space import EncodedSessions
from fastgaum.nets.tensors import BatchTensors


@dataclass(eq=False)
class SearchedBaseline(GradientBaseline):
    """A GradientBaseline fitted with every combination in `grids`; the one of the lowest validation
    score is kept.

    Where the training loss is not the display set's (per item, or over the catalogue), the
    validation score is the NLL of the choices after the best link, for the epoch too: a loss of its
    own scale says little of how candidates of one display set stand to one another, and nothing
    across settings that change the loss. The search also makes `fit` right for inputs as different
    as a bare identity, which ids must explain, and bags of numbers, beside which ids mostly
    mislead."""

    grids: ClassVar[Mapping[str, tuple[Any, ...]]] = {"id_dropout": (0.8, 0.05)}
    """values tried for settings, the default first; a setting that is not at its default is taken
    as it is"""

    id_dropout: float = 0.8
    search: bool = True
    """False fits once, with all settings as they are"""

    def _fit(
        self, train: EncodedSessions, validation: EncodedSessions, observer: Any
    ) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        best = np.inf
        combinations = self._combinations()
        self.settings_tried = len(combinations)
        for values in combinations:
            trial = dataclasses.replace(self, **values)
            trial.space, trial.outside, trial.session_name = (
                self.space,
                self.outside,
                self.session_name,
            )
            torch.manual_seed(self.seed)
            epochs = GradientBaseline._fit(trial, train, validation, observer)
            value = min(row["val_loss"] for row in epochs)
            if value < best:
                best, self.network = value, trial.network
            rows += [values | row for row in epochs]
        return [row | {"best": row["val_loss"] == best} for row in rows]

    def _combinations(self) -> list[dict[str, Any]]:
        open_ones = {
            name: grid
            for name, grid in self.grids.items()
            if self.search and getattr(self, name) == grid[0]
        }
        return [
            dict(zip(open_ones, values, strict=True))
            for values in itertools.product(*open_ones.values())
        ]

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

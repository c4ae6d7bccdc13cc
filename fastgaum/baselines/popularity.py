"""The floors as user models: random, train click rate, train click count; one row each, with the
verbs of every model."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fastgaum.baselines.base import Arrays, Baseline, Float64Array, item_rows
from fastgaum.features.space import EncodedSessions
from fastgaum.nets.tensors import BatchTensors


@dataclass(eq=False)
class _ByItem(Baseline):
    """Ranks by one number per training item; an unknown item counts as never displayed."""

    reads: ClassVar[tuple[str, ...]] = ("identity",)

    def _fit(
        self, train: EncodedSessions, validation: EncodedSessions, observer: Any
    ) -> list[dict[str, Any]]:
        assert self.space is not None
        displays = np.append(self.space.item_displays, 0)
        self.by_item = self._by_item(displays, np.append(self.space.item_choices, 0))
        return []

    @abstractmethod
    def _by_item(self, displays: np.ndarray, choices: np.ndarray) -> Float64Array:
        """Score items by their counts on the training split; the last entry is the unknown
        item's."""

    def _scores(self, batch: BatchTensors) -> Float64Array:
        scores: Float64Array = self.by_item[item_rows(batch.source)]
        return scores

    def _arrays(self) -> Arrays:
        return {"by_item": self.by_item}

    def _restore(self, arrays: Arrays) -> None:
        self.by_item = arrays["by_item"]


@dataclass(eq=False)
class Random(_ByItem):
    """No order at all: every candidate ties, and a choice is uniform over the display set."""

    name: ClassVar[str] = "random"

    def _by_item(self, displays: np.ndarray, choices: np.ndarray) -> Float64Array:
        return np.zeros(len(displays))


@dataclass(eq=False)
class ClickRate(_ByItem):
    """Smoothed click rate (choices + 0.3) / (displays + 1) of the training split, as the floor of
    that name."""

    name: ClassVar[str] = "click-rate"

    def _by_item(self, displays: np.ndarray, choices: np.ndarray) -> Float64Array:
        # one division of whole numbers: equal rates are equal floats, so ties stay ties
        return np.asarray((10 * choices + 3) / (10 * (displays + 1)), dtype=np.float64)


@dataclass(eq=False)
class ClickCount(_ByItem):
    """Number of times that the item was chosen in the training split."""

    name: ClassVar[str] = "click-count"

    def _by_item(self, displays: np.ndarray, choices: np.ndarray) -> Float64Array:
        return choices.astype(np.float64)

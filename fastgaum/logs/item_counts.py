"""What the training split says of each item, counted part by part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastgaum.kernels.context import count_items
from fastgaum.logs.log import SessionLog


@dataclass(frozen=True)
class ItemCounts:
    """Counts of each item over training events, shape (n_items,) each."""

    displays: npt.NDArray[np.int64]
    choices: npt.NDArray[np.int64]
    expected: npt.NDArray[np.float64]
    """choices had every training choice been uniform: the sum of 1/k over the item's displays among
    k"""

    @classmethod
    def zeros(cls, n_items: int) -> ItemCounts:
        """Nothing counted yet."""
        return cls(np.zeros(n_items, np.int64), np.zeros(n_items, np.int64), np.zeros(n_items))

    def add(self, part: SessionLog) -> None:
        """Count the training sessions of a part of the log."""
        count_items(
            part.sessions_in("train"),
            np.asarray(part.session_offsets),
            np.asarray(part.display_offsets),
            np.asarray(part.items),
            np.asarray(part.choices),
            self.displays,
            self.choices,
            self.expected,
        )

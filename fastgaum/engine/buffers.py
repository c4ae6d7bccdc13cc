"""Memory that is made once and used again, so that a step allocates nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]


class Buffer:
    """One array of its owner. It grows when a batch needs more than any before, and never
    shrinks."""

    def __init__(self, dtype: type[np.generic] = np.float32) -> None:
        self.held: npt.NDArray[Any] = np.empty(0, dtype)
        self.view: npt.NDArray[Any] = self.held
        self.shape: tuple[int, ...] = (0,)

    def __call__(self, *shape: int) -> npt.NDArray[Any]:
        """An array of that shape; it holds what was last written, in the order of memory."""
        # one step asks for the same array several times, and in a small step making the view is
        # what takes long
        if self.shape == shape:
            return self.view
        size = math.prod(shape)
        if self.held.size < size:
            self.held = np.empty(size + size // 4, self.held.dtype)
        self.view, self.shape = self.held[:size].reshape(shape), shape
        return self.view

"""Scratch arrays that are made once and used again: a step allocates nothing that the step before
has not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


class Scratch:
    """Arrays by name; one grows when a batch needs more than any before, and never shrinks."""

    def __init__(self) -> None:
        self._held: dict[str, npt.NDArray[Any]] = {}
        self._views: dict[str, tuple[tuple[int, ...], npt.NDArray[Any]]] = {}

    def floats(self, name: str, *shape: int) -> Array:
        """A float32 array of that shape; it holds what was last written under the name."""
        return self._take(name, shape, np.float32)

    def ints(self, name: str, *shape: int) -> npt.NDArray[np.int32]:
        """An int32 array of that shape."""
        return self._take(name, shape, np.int32)

    def _take(self, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> npt.NDArray[Any]:
        # one step asks for the same array several times, and in a small step making the view is
        # what takes long
        last = self._views.get(name)
        if last is not None and last[0] == shape:
            return last[1]
        size = math.prod(shape)
        held = self._held.get(name)
        if held is None or held.size < size:
            held = self._held[name] = np.empty(size + size // 4, dtype)
        view = held[:size] if len(shape) == 1 else held[:size].reshape(shape)
        self._views[name] = shape, view
        return view

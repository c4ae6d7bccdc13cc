"""Types of numpy arrays by what they hold. An array's shape stands in its docstring."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int32]
LongArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
KeyArray = npt.NDArray[np.uint64]
"""keys of counter-based draws"""

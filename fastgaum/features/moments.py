"""Moments of columns of numbers, block by block."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fastgaum.arrays import Float64Array, FloatArray
from fastgaum.kernels.candidate_counts import add_moments


@dataclass
class Moments:
    """Mean, sum of squares, least and most of each column (Chan et al. 1979)."""

    count: int = 0
    mean: Float64Array = field(default_factory=lambda: np.zeros(0))
    squares: Float64Array = field(default_factory=lambda: np.zeros(0))
    least: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))
    most: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))

    def add(self, numbers: FloatArray) -> None:
        """Count a block, (n, n_columns)."""
        if len(numbers):
            mean, squares = np.zeros((2, numbers.shape[1]))
            least, most = numbers[0].copy(), numbers[0].copy()
            add_moments(numbers, mean, squares, least, most)
            self.combine(Moments(len(numbers), mean, squares, least, most))

    def combine(self, block: Moments) -> None:
        """Count what another has counted."""
        if block.count == 0:
            return
        if self.count == 0:
            vars(self).update(vars(block))
            return
        shift, total = block.mean - self.mean, self.count + block.count
        self.mean = self.mean + shift * (block.count / total)
        between = shift**2 * (self.count * block.count / total)
        self.squares = self.squares + block.squares + between
        self.least = np.minimum(self.least, block.least)
        self.most = np.maximum(self.most, block.most)
        self.count = total

    def scale(self) -> FloatArray:
        """Standard deviation of each column, 1 where it is 0."""
        scale = np.sqrt(self.squares / max(self.count, 1)).astype(np.float32)
        return np.where(scale > 1e-6, scale, np.float32(1))

"""Weight matrices so large that their gradient is never written: it is left as the two thin factors
it is a product of.

An LSTM of 8 layers of 512 in two directions has 46 million weights, and a batch of 16 users a
handful of tokens. AdamW must read and write 24 bytes per weight in any case; writing a gradient
first and reading it twice, for its norm and for the step, would be 16 more."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from fastgaum import threads
from fastgaum.engine.buffers import Array
from fastgaum.kernels import products as kernels
from fastgaum.kernels.rows import AdamRates

PART = 1 << 19
"""weights per part of a step over threads"""


class ProductWeight:
    """A matrix (n, width) with its moments, whose gradient is left (n, terms) @ right (terms,
    width)."""

    def __init__(self, parameter: nn.Parameter) -> None:
        # numpy's memory comes in huge pages, torch's does not
        self.values: Array = parameter.detach().numpy().copy()
        self.parameter = parameter
        parameter.data = torch.from_numpy(self.values)
        self.m, self.v = np.zeros_like(self.values), np.zeros_like(self.values)
        self.clear_gradient()

    def set_gradient(self, sums: Array, inputs: Array) -> None:
        """The gradient is Σ over rows of sums ⊗ inputs, (terms, n) and (terms, width)."""
        self.left, self.right = np.ascontiguousarray(sums.T), np.ascontiguousarray(inputs)

    def clear_gradient(self) -> None:
        """The gradient is zero."""
        n, width = self.values.shape
        self.left, self.right = np.empty((n, 0), np.float32), np.empty((0, width), np.float32)

    def parts(self) -> list[tuple[int, int]]:
        """Ranges of rows to share over threads; they depend on the shape alone."""
        n, width = self.values.shape
        rows = max(PART // max(width, 1), 1)
        return [(first, min(first + rows, n)) for first in range(0, n, rows)]

    def squares(self) -> float:
        """Sum of the squares of the gradient."""
        terms, (n, width) = len(self.right), self.values.shape
        if terms * (n + width) < n * width:
            # Σ_ij (Σ_t l_ti r_tj)² = Σ_ts ⟨l_t, l_s⟩ ⟨r_t, r_s⟩
            with np.errstate(over="ignore", invalid="ignore"):
                total = float(np.vdot(self.left.T @ self.left, self.right @ self.right.T))
            return total if math.isnan(total) else max(total, 0.0)
        parts = self.parts()
        sums = np.empty(len(parts))
        threads.run(
            kernels.product_squares,
            [(*rows, self.left, self.right, part, sums) for part, rows in enumerate(parts)],
        )
        return float(sums.sum())

    def wide_squares(self) -> float:
        """`squares` in float64, for gradients whose squares overflow float32; slow."""
        with np.errstate(over="ignore", invalid="ignore"):
            return sum(
                wide_squares(self.left[first:last] @ self.right) for first, last in self.parts()
            )


def wide_squares(values: Array) -> float:
    """Σ x² in float64: finite whenever all values are."""
    return float(np.square(values, dtype=np.float64).sum())


def step_products(weights: list[ProductWeight], rates: AdamRates) -> None:
    """An AdamW step of all of them, in parts over threads."""
    held = [(w, (w.values, w.m, w.v, w.left, w.right)) for w in weights]
    threads.run(
        kernels.adam_product, [(*rows, *arrays, rates) for w, arrays in held for rows in w.parts()]
    )

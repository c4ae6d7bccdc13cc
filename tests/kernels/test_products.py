"""Products of a few rows with large matrices, against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastgaum import threads
from fastgaum.kernels import products
from fastgaum.kernels._jit import jit_fast


@jit_fast
def both(x: Any, matrix: Any, transposed: Any, x_wide: Any, sums: Any) -> None:
    products.times_transposed(x, matrix, transposed)
    products.add_times(x_wide, matrix, sums)


# 16 rows of 3,000 floats and 300 of them: cut into blocks with a rest; 40 rows: taken whole
@settings(max_examples=20)
@given(st.integers(0, 20), st.integers(1, 40), st.integers(1, 40))
@example(3, 300, 400)
@example(16, 301, 3000)
@example(40, 64, 33)
def test_products_are_numpys(n_rows: int, n: int, width: int) -> None:
    threads.run(lambda: None, [()])  # one BLAS thread, as everywhere
    rng = np.random.default_rng(0)
    x, matrix, wide = (
        rng.standard_normal(shape, dtype=np.float32)
        for shape in ((n_rows, width), (n, width), (n_rows, n))
    )
    transposed, sums = (
        np.full((n_rows, n), np.nan, np.float32),
        np.ones((n_rows, width), np.float32),
    )
    both(x, matrix, transposed, wide, sums)
    np.testing.assert_allclose(transposed, x @ matrix.T, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(sums, 1 + wide @ matrix, rtol=1e-4, atol=1e-3)

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
def add(x_wide: Any, matrix: Any, sums: Any) -> None:
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
    matrix, wide = (
        rng.standard_normal(shape, dtype=np.float32) for shape in ((n, width), (n_rows, n))
    )
    sums = np.ones((n_rows, width), np.float32)
    add(wide, matrix, sums)
    np.testing.assert_allclose(sums, 1 + wide @ matrix, rtol=1e-4, atol=1e-3)

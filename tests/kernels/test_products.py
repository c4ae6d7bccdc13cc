"""Products of a few rows with large matrices, and AdamW from a gradient's factors, against numpy
and `adam_dense`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastgaum import threads
from fastgaum.kernels import optimiser, products
from fastgaum.kernels._jit import jit_fast

RATES = optimiser.AdamRates(*map(np.float32, (0.5, 1e-2, 1e-3, 0.9, 0.999, 0.1, 0.0316, 1e-8)))


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


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 30), st.integers(0, 3))
def test_a_step_from_factors_is_adams(n: int, width: int, terms: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, m, left, right = (
        rng.standard_normal(shape, dtype=np.float32)
        for shape in ((n, width), (n, width), (n, terms), (terms, width))
    )
    v = rng.random((n, width), dtype=np.float32)
    expected = [part.copy().reshape(-1) for part in (values, m, v)]
    optimiser.adam_dense(optimiser.AdamWeights(*expected), (left @ right).reshape(-1), RATES)
    middle = n // 2
    for part in ((0, middle), (middle, n)):
        optimiser.adam_product(*part, optimiser.AdamWeights(values, m, v), left, right, RATES)
    for found, wanted in zip((values, m, v), expected, strict=True):
        np.testing.assert_allclose(found.reshape(-1), wanted, rtol=1e-4, atol=1e-5)


@settings(max_examples=20)
@given(terms=st.integers(0, 20), n=st.integers(1, 40), width=st.integers(1, 50))
def test_sum_of_squares_of_a_product(terms: int, n: int, width: int) -> None:
    rng = np.random.default_rng(terms)
    left, right = (
        rng.standard_normal((n, terms), dtype=np.float32),
        rng.standard_normal((terms, width), dtype=np.float32),
    )
    sums = np.full(2, np.nan)
    optimiser.product_squares(0, n // 2, left, right, 0, sums)
    optimiser.product_squares(n // 2, n, left, right, 1, sums)
    assert sums.sum() == pytest.approx(
        float(((left @ right).astype(np.float64) ** 2).sum()), rel=1e-5
    )

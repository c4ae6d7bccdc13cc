"""Numbers as networks read them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.kernels import candidate_formulas


@settings(max_examples=30)
@given(st.integers(0, 9), st.integers(1, 3), st.integers(1, 5))
def test_numbers_are_read_as_their_code_says(rows: int, n_raw: int, n: int) -> None:
    rng = np.random.default_rng(n)
    raw = rng.normal(size=(rows, n_raw)).astype(np.float32)
    columns = rng.integers(0, n_raw, n)
    start, scale, low = rng.normal(size=(3, n)).astype(np.float32)
    scale, high = np.abs(scale) + np.float32(1), low + np.float32(0.5)
    bend = (rng.integers(0, 2, n) * rng.uniform(0.1, 4, n)).astype(np.float32)
    found = np.empty((rows, n), np.float32)
    candidate_formulas.encode_rows(raw, columns, start, scale, low, high, bend, found)
    value = (raw[:, columns] - start) / scale
    bent = value / np.sqrt(1 + (value / np.where(bend > 0, bend, np.inf)) ** 2)
    wanted = np.clip(bent, low, high)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)

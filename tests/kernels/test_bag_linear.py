"""The linear map of a bag against dense products in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.kernels import bag_linear as kernels
from tests.naive_segments import multi_hot

N_IDS = 7
BAGS = st.lists(st.lists(st.integers(0, N_IDS - 1), max_size=4), max_size=6)


@settings(max_examples=40)
@given(BAGS, st.integers(1, 4), st.integers(0, 3), st.integers(0, 2), st.integers(0, 6))
def test_bags_are_mapped_as_their_multi_hot(
    bags: list[list[int]], out: int, n_numbers: int, low: int, cut: int
) -> None:
    """low > 0: rows of that width are summed and lifted by a matrix; else they have the width of
    the result."""
    rng = np.random.default_rng(out)
    ids, offsets = (
        np.array([i for bag in bags for i in bag], np.int32),
        np.cumsum([0, *map(len, bags)]).astype(np.int32),
    )
    table, up = rng.normal(size=(N_IDS, low or out)), rng.normal(size=(low, out))
    numbers, weight, bias = (
        rng.normal(size=(len(bags), n_numbers)),
        rng.normal(size=(out, n_numbers)),
        rng.normal(size=out),
    )
    dense, cut = multi_hot(ids, offsets, None, N_IDS), min(cut, len(bags))
    result = np.full((len(bags), out), np.nan)
    arrays = kernels.BagArrays(ids, offsets, numbers)
    weights = kernels.BagMap(table, up, weight, bias)
    for part in ((0, cut), (cut, len(bags))):
        kernels.bag_linear(*part, arrays, weights, result)
    lift: Any = up if low else np.eye(out)
    np.testing.assert_allclose(result, dense @ table @ lift + numbers @ weight.T + bias, atol=1e-12)

    grad = rng.normal(size=(len(bags), out))
    shapes = {"rows": np.empty((len(bags), low)), "up": up, "weight": weight, "bias": bias}
    found = {name: np.full_like(value, np.nan) for name, value in shapes.items()}
    kernels.bag_linear_backward(grad, arrays, weights, kernels.BagMap(*found.values()))
    expected = {
        "up": (dense @ table).T @ grad,
        "weight": grad.T @ numbers,
        "bias": grad.sum(0),
        "rows": grad @ up.T,
    }
    for name in ("up", "weight", "bias", "rows") if low else ("weight", "bias"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-12, err_msg=name)

"""The entmax kernel against its naive twin, on drawn ragged shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.kernels import simplex
from tests import naive_segments as naive

modest = settings(max_examples=50, deadline=None)
close = {"rtol": 1e-9, "atol": 1e-12}

# Few distinct values make ties; the others are what a diverged, a confident and a masked model
# would score.
VALUES = st.one_of(
    st.sampled_from([0.0, 0.5, -0.5, 1e4, -1e4, -np.inf]),
    st.floats(-3, 3, allow_nan=False),
)


@st.composite
def ragged(draw: Any) -> tuple[Any, Any, bool]:
    """Draw (values, offsets, outside) with empty, single and longer segments."""
    rows = draw(st.lists(st.lists(VALUES, max_size=7), max_size=6))
    offsets = np.cumsum([0] + [len(row) for row in rows]).astype(np.int32)
    return (
        np.array([v for row in rows for v in row], dtype=np.float64),
        offsets,
        draw(st.booleans()),
    )


def run_pair(kernel: Any, values: Any, offsets: Any, *args: Any) -> tuple[Any, Any]:
    inside, outside = np.empty_like(values), np.empty(len(offsets) - 1, values.dtype)
    kernel(values, offsets, *args, inside, outside)
    return inside, outside


def run_entmax(
    values: Any, offsets: Any, outside: bool, alpha: float, by_sorting: bool
) -> tuple[Any, Any]:
    return run_pair(
        simplex.entmax, values, offsets, outside, alpha, by_sorting, np.empty(len(values) + 1)
    )


@modest
@given(ragged(), st.sampled_from([1.05, 1.3, 1.5, 2.0, 3.5]))
def test_entmax_equals_its_twins(case: tuple[Any, Any, bool], alpha: float) -> None:
    values, offsets, outside = case
    # A third or fifth root near the threshold turns rounding of 1e-16 into 1e-6: no method can do
    # better there.
    tolerance = {"rtol": 1e-7, "atol": 1e-10 if alpha <= 2 else 2e-6}
    expected = naive.per_event(naive.entmax(alpha), values, offsets, outside)
    for found, wanted in zip(
        run_entmax(values, offsets, outside, alpha, False), expected, strict=True
    ):
        np.testing.assert_allclose(found, wanted, **tolerance)
    if alpha in (1.5, 2.0):
        for found, wanted in zip(
            run_entmax(values, offsets, outside, alpha, True), expected, strict=True
        ):
            np.testing.assert_allclose(found, wanted, **tolerance)
    if alpha == 2.0:
        expected = naive.per_event(naive.sparsemax, values, offsets, outside)
        for found, wanted in zip(
            run_entmax(values, offsets, outside, 2.0, True), expected, strict=True
        ):
            np.testing.assert_allclose(found, wanted, **tolerance)


@pytest.mark.parametrize("alpha", [1.5, 2.0])
def test_sorting_and_root_finding_agree_on_long_segments(alpha: float) -> None:
    values = np.random.default_rng(0).normal(size=3000) * 0.3
    offsets = np.array([0, 1000, 1000, 3000], np.int32)
    exact = run_entmax(values, offsets, True, alpha, True)
    np.testing.assert_allclose(
        exact[0], run_entmax(values, offsets, True, alpha, False)[0], atol=1e-12
    )
    assert 20 < np.count_nonzero(exact[0]) < 3000
    np.testing.assert_allclose(
        np.add.reduceat(exact[0], [0, 1000]) + exact[1][[0, 2]], 1.0, atol=1e-12
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_a_score_damages_its_own_event_alone(bad: float) -> None:
    values = np.array([0.0, bad, 1.0, 2.0])
    offsets = np.array([0, 3, 4], np.int32)
    with np.errstate(invalid="ignore"):  # for runs with NUMBA_DISABLE_JIT
        for alpha, by_sorting in ((2.0, True), (1.3, False)):
            probs = run_entmax(values, offsets, False, alpha, by_sorting)[0]
            assert np.isnan(probs[:3]).all()
            assert probs[3] == 1.0

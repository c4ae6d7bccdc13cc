"""The entmax kernel against its naive twin, on drawn ragged shapes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.kernels import choice
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


def run_entmax(values: Any, offsets: Any, outside: bool, alpha: float) -> tuple[Any, Any]:
    probs, none = np.empty_like(values), np.empty(len(offsets) - 1)
    for event, (first, last) in enumerate(pairwise(offsets)):
        scratch = np.empty(last - first + 1)
        none[event] = choice.entmax(values[first:last], outside, alpha, scratch, probs[first:last])
    return probs, none


@modest
@given(ragged(), st.sampled_from([1.05, 1.3, 1.5, 2.0, 3.5]))
def test_entmax_equals_its_twins(case: tuple[Any, Any, bool], alpha: float) -> None:
    values, offsets, outside = case
    # A third or fifth root near the threshold turns rounding of 1e-16 into 1e-6: no method can do
    # better there.
    tolerance = {"rtol": 1e-7, "atol": 1e-10 if alpha <= 2 else 2e-6}
    twins = [naive.entmax(alpha), *([naive.sparsemax] if alpha == 2.0 else [])]
    for twin in twins:
        expected = naive.per_event(twin, values, offsets, outside)
        for found, wanted in zip(
            run_entmax(values, offsets, outside, alpha), expected, strict=True
        ):
            np.testing.assert_allclose(found, wanted, **tolerance)


@modest
@given(
    st.lists(st.one_of(st.just(0.0), st.floats(-1, 0, exclude_min=True)), max_size=7),
    st.sampled_from([1.5, 2.0]),
)
def test_sorting_and_root_finding_agree(below: list[float], alpha: float) -> None:
    """The largest entry is 0 and none is below −1, as `entmax` gathers them."""
    z = np.array([0.0, *below])
    exact = choice._threshold_by_sorting(z.copy(), len(z), alpha)
    assert choice._threshold_by_bisection(z, len(z), alpha) == pytest.approx(exact, abs=1e-10)


@pytest.mark.parametrize("alpha", [1.5, 2.0])
def test_sorting_and_root_finding_agree_on_long_segments(alpha: float) -> None:
    values = np.random.default_rng(0).normal(size=3000) * 0.1
    probs = np.empty(3000)
    none = choice.entmax(values, True, alpha, np.empty(3001), probs)
    assert 20 < np.count_nonzero(probs) < 3000
    assert probs.sum() + none == pytest.approx(1.0, abs=1e-12)
    z = (alpha - 1) * (np.append(values, 0) - values.max())
    tau = choice._threshold_by_bisection(z, len(z), alpha)
    shares = np.maximum(z - tau, 0) ** (1 / (alpha - 1))
    np.testing.assert_allclose(np.append(probs, none), shares, atol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_a_score_damages_its_own_event_alone(bad: float) -> None:
    values = np.array([0.0, bad, 1.0, 2.0])
    offsets = np.array([0, 3, 4], np.int32)
    with np.errstate(invalid="ignore"):  # for runs with NUMBA_DISABLE_JIT
        for alpha in (2.0, 1.3):
            probs = run_entmax(values, offsets, False, alpha)[0]
            assert np.isnan(probs[:3]).all()
            assert probs[3] == 1.0

"""Choice probabilities and the closed-form gradients, against autograd through a plain softmax;
entmax against its naive twin, on drawn ragged shapes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.kernels import choice
from tests import naive_segments as naive


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    outside=st.booleans(),
    eta=st.sampled_from([0.5, 1.0, 3.0]),
    spread=st.sampled_from([0.1, 3.0, 1e4]),
    seed=st.integers(0, 50),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_against_autograd(
    sizes: list[int], outside: bool, eta: float, spread: float, seed: int, dtype: type[np.floating]
) -> None:
    rng = np.random.default_rng(seed)
    offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int32)
    scores = (spread * rng.standard_normal(offsets[-1])).astype(dtype)
    choices = np.array([rng.integers(-1 if outside else 0, n) for n in sizes], dtype=np.int32)
    probs, totals, grad = np.empty_like(scores), np.empty(len(sizes), dtype), np.empty_like(scores)
    middle, written = len(sizes) // 2, choice.Softmax(probs, totals)
    for part in ((0, middle), (middle, len(sizes))):
        choice.choice_probs(*part, scores, dtype(eta), offsets, outside, written)
    choice.logged_gradient(probs, offsets, choices, grad)

    leaf = torch.from_numpy(scores.astype(np.float64)).requires_grad_()
    loss = torch.zeros((), dtype=torch.float64)
    expected = []
    for event, n in enumerate(sizes):
        values = eta * leaf[offsets[event] : offsets[event] + n]
        values = torch.cat([values, values.new_zeros(1)]) if outside else values
        expected.append(torch.softmax(values, 0)[:n].detach())
        logged = leaf[offsets[event] + choices[event]] if choices[event] >= 0 else 0.0
        loss = loss + (torch.logsumexp(values, 0) / eta - logged) / len(sizes)
    loss.backward()
    close = (
        {"rtol": 1e-9, "atol": 1e-9}
        if dtype is np.float64
        else {"rtol": 1e-3, "atol": 1e-5 * max(1.0, spread / 10)}
    )
    np.testing.assert_allclose(probs, torch.cat(expected).numpy(), **close)
    np.testing.assert_allclose(grad, leaf.grad.numpy(), **close)  # type: ignore[union-attr]
    found = choice.mean_exact_loss(scores, dtype(eta), totals, offsets, choices)
    assert found == pytest.approx(loss.item(), rel=1e-4, abs=1e-6 * max(1.0, spread))
    mean = choice.expected_loss(scores, probs, offsets, choices)
    by_hand = float(probs.astype(np.float64) @ scores) - sum(
        float(scores[offsets[e] + c]) for e, c in enumerate(choices) if c >= 0
    )
    assert mean == pytest.approx(by_hand / len(sizes), rel=1e-6, abs=1e-9)
    choice.target_gradient(probs, probs, len(sizes), grad)
    assert not grad.any()


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


@settings(max_examples=50, deadline=None)
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


@settings(max_examples=50, deadline=None)
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

"""The segment, simplex and bag kernels against their naive twins, on drawn ragged shapes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.kernels import bags, segments, simplex
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
@given(ragged())
def test_the_softmax_family_equals_its_twins(case: tuple[Any, Any, bool]) -> None:
    values, offsets, outside = case
    for kernel, rule, absent in (
        (segments.log_softmax, naive.log_softmax, -np.inf),
        (segments.softmax, naive.softmax, 0.0),
    ):
        inside, outside_entry = run_pair(kernel, values, offsets, outside)
        expected = naive.per_event(rule, values, offsets, outside, absent)
        np.testing.assert_allclose(inside, expected[0], **close)
        np.testing.assert_allclose(outside_entry, expected[1], **close)
    totals = np.empty(len(offsets) - 1)
    segments.logsumexp(values, offsets, outside, totals)
    rows = [list(values[a:b]) + [0.0] * outside for a, b in itertools.pairwise(offsets)]
    np.testing.assert_allclose(totals, [naive.logsumexp(row) for row in rows], **close)


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


@modest
@given(ragged(), st.sampled_from([1.0, 1.3, 1.5, 2.0]), st.integers(0, 9))
def test_gradients_are_products_with_the_jacobian(
    case: tuple[Any, Any, bool], alpha: float, seed: int
) -> None:
    values, offsets, outside = case
    values = np.maximum(values, -1e4)  # a candidate of −inf alone has no gradient
    rng = np.random.default_rng(seed)
    grad, of_outside = rng.normal(size=len(values)), rng.normal(size=len(offsets) - 1)
    log_probs, outside_log_prob = run_pair(segments.log_softmax, values, offsets, outside)
    if alpha == 1.0:
        probs, outside_prob = run_pair(segments.softmax, values, offsets, outside)
    else:
        probs, outside_prob = run_entmax(values, offsets, outside, alpha, False)
    totals = np.empty(len(offsets) - 1)
    segments.logsumexp(values, offsets, outside, totals)
    found = {name: np.full(len(values), np.nan) for name in ("probs", "log_probs", "total")}
    simplex.entmax_backward(
        grad, of_outside, probs, outside_prob, offsets, outside, alpha, found["probs"]
    )
    segments.log_softmax_backward(grad, of_outside, log_probs, offsets, outside, found["log_probs"])
    segments.logsumexp_backward(of_outside, values, totals, offsets, found["total"])
    for event, (start, stop) in enumerate(itertools.pairwise(offsets)):
        upstream = np.append(grad[start:stop], of_outside[event : event + outside])
        p = np.append(probs[start:stop], outside_prob[event : event + outside])
        softmax = np.exp(
            np.append(log_probs[start:stop], outside_log_prob[event : event + outside])
        )
        weight = np.where(
            p > 0, p ** (2 - alpha), 0
        )  # Peters, Niculae & Martins, ACL 2019, proposition 2
        jacobian = (
            np.diag(weight) - np.outer(weight, weight) / weight.sum()
            if len(p)
            else np.zeros((0, 0))
        )
        expected = {
            "probs": jacobian @ upstream,
            "log_probs": upstream - softmax * upstream.sum(),
            "total": of_outside[event] * softmax,
        }
        for name, wanted in expected.items():
            np.testing.assert_allclose(
                found[name][start:stop], wanted[: stop - start], rtol=1e-7, atol=1e-9
            )


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
        log_probs, _ = run_pair(segments.log_softmax, values, offsets, False)
        probs = [
            run_pair(segments.softmax, values, offsets, False)[0],
            run_entmax(values, offsets, False, 2.0, True)[0],
            run_entmax(values, offsets, False, 1.3, False)[0],
        ]
    for inside in (np.exp(log_probs), *probs):
        assert np.isnan(inside[:3]).all()
        assert inside[3] == 1.0


@modest
@given(ragged())
def test_argmax_and_sums_equal_their_twins(case: tuple[Any, Any, bool]) -> None:
    values, offsets, _ = case
    best = np.empty(len(offsets) - 1, np.int64)
    segments.argmax(values, offsets, best)
    assert best.tolist() == naive.argmax(values, offsets)
    rows = np.stack([np.maximum(values, -1e4), np.arange(len(values))], axis=1)
    sums = np.empty((len(best), 2))
    segments.segment_sum(rows, offsets, sums)
    events = np.repeat(np.arange(len(best)), np.diff(offsets))
    expected = [rows[events == event].sum(0) for event in range(len(best))]
    np.testing.assert_allclose(sums, np.array(expected).reshape(-1, 2), rtol=1e-12, atol=1e-9)
    copies = np.empty_like(rows)
    segments.expand(sums, offsets, copies)
    np.testing.assert_array_equal(copies, sums[events])


def test_argmax_takes_a_nan_for_the_greatest_value() -> None:
    best = np.empty(1, np.int64)
    segments.argmax(np.array([1.0, np.nan, 3.0, np.nan]), np.array([0, 4], np.int32), best)
    assert best.tolist() == [1]


@modest
@given(
    st.lists(st.lists(st.integers(0, 6), max_size=5), max_size=5), st.booleans(), st.integers(0, 99)
)
def test_bags_equal_a_linear_layer_on_the_multi_hot(
    rows: list[list[int]], weighted: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    offsets = np.cumsum([0] + [len(row) for row in rows]).astype(np.int32)
    ids = np.array([i for row in rows for i in row], dtype=np.int32)
    weights = rng.normal(size=len(ids)) if weighted else np.empty(0)
    table, grad_out = rng.normal(size=(7, 3)), rng.normal(size=(len(rows), 3))
    dense = naive.multi_hot(ids, offsets, weights if weighted else None, 7)
    result, grad_table, grad_weights = (
        np.empty((len(rows), 3)),
        np.zeros((7, 3)),
        np.empty(len(ids)),
    )
    assert bags.bag_sum(table, ids, offsets, weights, result) == -1
    bags.bag_scatter_add(grad_out, ids, offsets, weights, grad_table)
    bags.bag_weight_grad(grad_out, table, ids, offsets, grad_weights)
    np.testing.assert_allclose(result, dense @ table, atol=1e-12)
    np.testing.assert_allclose(grad_table, dense.T @ grad_out, atol=1e-12)
    bag_of_entry = np.repeat(np.arange(len(rows)), np.diff(offsets))
    np.testing.assert_allclose(
        grad_weights, (grad_out[bag_of_entry] * table[ids]).sum(1), atol=1e-12
    )

"""Weights of past choices and the states that they make, with gradients, against dense sums in
float64."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.kernels import position_weight as kernels

N_ROWS, WINDOW = 5, 3


@settings(max_examples=25)
@given(
    st.lists(st.lists(st.integers(1, WINDOW), min_size=1, max_size=3), max_size=6),
    st.integers(1, 3),
    st.integers(0, 9),
)
def test_weights_of_entries(lags_of: list[list[int]], n: int, seed: int) -> None:
    """An entry's weight is tanh(Σ over its lags + bias) − tanh(bias)."""
    rng = np.random.default_rng(seed)
    entries = np.array([entry for entry, lags in enumerate(lags_of) for _ in lags], np.int32)
    lags = np.array([lag for lags in lags_of for lag in lags], np.int32)
    lag_weights, bias, grad = (
        rng.normal(size=(WINDOW, n)),
        rng.normal(size=n),
        rng.normal(size=(len(lags_of), n)),
    )
    weights, none = np.full_like(grad, np.nan), np.empty(0, np.int32)
    states = kernels.StateEntries(none, none, entries, lags)
    kernels.weigh(states, kernels.LagMap(lag_weights, bias), weights)
    counts = np.zeros((len(lags_of), WINDOW))
    np.add.at(counts, (entries, lags - 1), 1)
    values, rest = np.tanh(counts @ lag_weights + bias), np.tanh(bias)
    np.testing.assert_allclose(weights, values - rest, atol=1e-12)
    found = np.full_like(lag_weights, np.nan), np.full_like(bias, np.nan)
    grads = kernels.LagMapGrads(np.empty_like(grad), *found)
    kernels.weigh_backward(grad, states, bias, weights, grads)
    np.testing.assert_allclose(found[0], counts.T @ (grad * (1 - values**2)), atol=1e-10)
    np.testing.assert_allclose(found[1], (grad * (rest**2 - values**2)).sum(0), atol=1e-10)


@settings(max_examples=25)
@given(
    st.lists(st.lists(st.integers(0, N_ROWS - 1), max_size=4), max_size=5),
    st.integers(1, 3),
    st.integers(1, 4),
)
def test_states_are_sums_over_their_entries(ids_of: list[list[int]], n: int, width: int) -> None:
    rng = np.random.default_rng(n)
    ids = np.array([i for ids in ids_of for i in ids], np.int32)
    offsets = np.cumsum([0, *map(len, ids_of)]).astype(np.int32)
    table, weights = rng.normal(size=(N_ROWS, n, width)), rng.normal(size=(len(ids), n))
    grad, state = (
        rng.normal(size=(len(ids_of), width)),
        np.repeat(np.arange(len(ids_of)), np.diff(offsets)),
    )
    result, expected = np.full_like(grad, np.nan), np.zeros_like(grad)
    assert kernels.outer_sum(table, ids, offsets, weights, result) == -1
    np.add.at(expected, state, np.einsum("kj,kjd->kd", weights, table[ids]))
    np.testing.assert_allclose(result, expected, atol=1e-12)
    of_weights, of_table, expected = (
        np.full_like(weights, np.nan),
        np.zeros_like(table),
        np.zeros_like(table),
    )
    kernels.outer_sum_backward(grad, table, ids, offsets, of_weights)
    np.testing.assert_allclose(
        of_weights, np.einsum("kd,kjd->kj", grad[state], table[ids]), atol=1e-12
    )
    kernels.outer_sum_scatter(grad, ids, offsets, weights, of_table)
    np.add.at(expected, ids, weights[:, :, None] * grad[state][:, None])
    np.testing.assert_allclose(of_table, expected, atol=1e-12)


@given(st.integers(0, 3), st.sampled_from([-1, N_ROWS]))
def test_an_id_that_is_no_row_is_where_the_sum_stops(position: int, wrong: int) -> None:
    ids, offsets, result = np.zeros(4, np.int32), np.array([0, 2, 4], np.int32), np.empty((2, 1))
    ids[position] = wrong
    assert (
        kernels.outer_sum(np.ones((N_ROWS, 1, 1)), ids, offsets, np.ones((4, 1)), result)
        == position
    )

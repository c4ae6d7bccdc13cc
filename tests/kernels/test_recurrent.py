"""The recurrent and position-weight kernels, and how sequences are packed for them, against slow
twins."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastgaum.kernels import activations, gru, lstm, packing, position_weight, products
from fastgaum.kernels._jit import jit_fast
from tests import naive_recurrent as naive

LENGTHS = st.lists(st.integers(0, 6), max_size=8)
DTYPES = [np.float32, np.float64]


def _tolerance(dtype: type) -> float:
    return 2e-6 if dtype is np.float32 else 1e-13


def offsets_of(lengths: list[int]) -> list[int]:
    return [0, *np.cumsum(lengths, dtype=int).tolist()]


@given(LENGTHS)
def test_order_by_length_is_a_stable_sort(lengths: list[int]) -> None:
    offsets = offsets_of(lengths)
    order = np.full(len(offsets) - 1, -7, dtype=np.int32)
    packing.order_by_length(np.array(offsets, dtype=np.int32), order)
    assert order.tolist() == naive.order_by_length(offsets)


@pytest.mark.parametrize(
    ("lengths", "most_tokens", "expected"),
    [
        ([], 9, [0]),
        ([3], 1, [0, 1]),
        ([1] * 9, 99, [0, 8, 9]),
        # four sequences at least, then by tokens
        ([5, 4, 3, 2, 1, 1, 1, 1, 0, 0], 4, [0, 4, 10]),
        ([5, 4, 3, 2, 1, 1, 1, 1, 0, 0], 20, [0, 8, 10]),
    ],
)
def test_tiles_are_cut_by_rows_and_tokens(
    lengths: list[int], most_tokens: int, expected: list[int]
) -> None:
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    order, tiles = (
        np.arange(len(lengths), dtype=np.int32),
        np.empty(len(lengths) + 1, dtype=np.int32),
    )
    assert (
        tiles[: packing.cut_tiles(offsets, order, 8, most_tokens, tiles) + 1].tolist() == expected
    )


def test_tiles_are_grouped_by_tokens() -> None:
    lengths = [5, 4, 3, 2, 1, 1, 0]
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    tiles, parts = np.array([0, 1, 2, 4, 5, 7], dtype=np.int32), np.empty(6, dtype=np.int32)
    n_parts = packing.group_tiles(offsets, np.arange(7, dtype=np.int32), tiles, 6, parts)
    # tiles hold 5, 4, 5, 1 and 1 tokens
    assert parts[: n_parts + 1].tolist() == [0, 2, 4, 5]


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 9), st.integers(1, 40))
def test_tiles_and_parts_hold_every_sequence_once(
    lengths: list[int], most_rows: int, most_tokens: int
) -> None:
    lengths = sorted(lengths, reverse=True)
    offsets, order = (
        np.array(offsets_of(lengths), np.int32),
        np.arange(len(lengths), dtype=np.int32),
    )
    tiles = np.full(len(lengths) + 1, -7, np.int32)
    n_tiles = packing.cut_tiles(offsets, order, most_rows, most_tokens, tiles)
    ends = tiles[: n_tiles + 1].tolist()
    assert ends[0] == 0
    assert ends[-1] == len(lengths)
    assert all(0 < b - a <= max(most_rows, 4) for a, b in pairwise(ends))
    parts = np.full(n_tiles + 1, -7, np.int32)
    n_parts = packing.group_tiles(offsets, order, tiles[: n_tiles + 1], most_tokens, parts)
    ends = parts[: n_parts + 1].tolist()
    assert ends[0] == 0
    assert ends[-1] == n_tiles
    assert all(a < b for a, b in pairwise(ends))


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=25)
@given(LENGTHS, st.integers(1, 12))
def test_weight_gradient_equals_its_twin(dtype: type, lengths: list[int], chunk: int) -> None:
    rng, offsets = np.random.default_rng(0), offsets_of(lengths)
    n_tokens, array = offsets[-1], np.array(offsets, dtype=np.int32)
    grad_sums, h = (rng.standard_normal((n_tokens, width)).astype(dtype) for width in (8, 2))
    h0 = np.zeros((len(offsets) - 1, 2), dtype)
    for first, last in [(0, n_tokens), (n_tokens // 3, n_tokens // 2)]:
        for n_biases in (0, 8):
            weight, bias = np.full((8, 2), np.nan, dtype), np.full(n_biases, np.nan, dtype)
            packing.weight_gradient(first, last, chunk, grad_sums, h, array, (weight, bias))
            before = naive.previous_rows(h, offsets, h0)[first:last]
            np.testing.assert_allclose(
                weight, grad_sums[first:last].T @ before, atol=5 * _tolerance(dtype)
            )
            expected = grad_sums[first:last].sum(0)[:n_biases]
            np.testing.assert_allclose(bias, expected, atol=5 * _tolerance(dtype))


# parts, as kernels have them
@jit_fast
def logistic(x: Any) -> Any:
    return activations.logistic(x)


@jit_fast
def add_product(short: Any, matrix: Any, row: Any) -> None:
    products.add_product(short, matrix, row)


def test_rational_tanh_is_close_for_float32_and_exact_for_float64() -> None:
    x = np.concatenate((np.linspace(-12, 12, 20001), [0.0, -0.0, np.inf, -np.inf, 1e-6, 1e4, -1e4]))
    single = np.array([activations.tanh(value) for value in x.astype(np.float32)])
    assert np.abs(single - np.tanh(x.astype(np.float32).astype(float))).max() < 4e-7
    found = np.array([logistic(value) for value in x.astype(np.float32)])
    assert (
        np.abs(found - naive.logistic(np.clip(x, -80, 80).astype(np.float32).astype(float))).max()
        < 4e-7
    )
    assert (
        np.abs(
            np.array([logistic(value) for value in x[:-4]]) - naive.logistic(x[:-4].clip(-700))
        ).max()
        < 1e-15
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_is_not_squashed(dtype: type) -> None:
    assert np.isnan(logistic(dtype(np.nan)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("size", "width"), [(1, 3), (4, 16), (7, 21), (20, 80)])
def test_row_product(dtype: type, size: int, width: int) -> None:
    rng = np.random.default_rng(size)
    matrix, short, row = (
        rng.standard_normal(shape).astype(dtype) for shape in ((size, width), size, width)
    )
    expected = row + short @ matrix
    add_product(short, matrix, row)
    np.testing.assert_allclose(row, expected, atol=10 * _tolerance(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=25)
@given(LENGTHS, st.integers(1, 9))
def test_tile_kernels_equal_their_twins(dtype: type, lengths: list[int], size: int) -> None:
    rng, offsets = np.random.default_rng(0), offsets_of(lengths)
    array = np.array(offsets, dtype=np.int32)
    n_sequences, n_tokens = len(offsets) - 1, offsets[-1]
    order = np.array(naive.order_by_length(offsets), dtype=np.int32)
    tiles = np.array(sorted({0, n_sequences // 2, n_sequences}), dtype=np.int32)
    start = np.zeros((n_sequences, size), dtype)
    gates_x = rng.standard_normal((n_tokens, 4 * size)).astype(dtype)
    weight = rng.standard_normal((4 * size, size)).astype(dtype)
    bias = rng.standard_normal(3 * size).astype(dtype)
    gates, h, c = (
        np.empty_like(gates_x),
        np.empty((n_tokens, size), dtype),
        np.empty((n_tokens, size), dtype),
    )

    block = np.ascontiguousarray(weight.T)[None]
    zeros, own = np.zeros(4 * size, dtype), np.empty(0, np.int32)
    run = lstm.LstmPass(gates_x, own, gates, h, c)
    sequences = packing.Sequences(order, array)
    lstm.lstm_tiles(tiles, sequences, block, zeros, run)
    expected_h, expected_c = naive.lstm(gates_x, array, weight, start, start)
    np.testing.assert_allclose(h, expected_h, atol=_tolerance(dtype))
    np.testing.assert_allclose(c, expected_c, atol=_tolerance(dtype))

    x, weight = np.ascontiguousarray(gates_x[:, : 3 * size]), weight[: 3 * size]
    block = np.ascontiguousarray(weight.T)[None]
    gru.gru_tiles(tiles, sequences, block, bias[None], gru.GruPass(x, gates, h))
    np.testing.assert_allclose(h, naive.gru(x, array, weight, bias, start), atol=_tolerance(dtype))


@settings(max_examples=25)
@given(LENGTHS, st.integers(1, 8), st.integers(0, 9))
@example([0, 3, 1, 0, 20], 50, 0)
def test_lag_structure_equals_its_twin(lengths: list[int], window: int, seed: int) -> None:
    rng, offsets, n_tokens = (
        np.random.default_rng(seed),
        np.array(offsets_of(lengths), dtype=np.int32),
        sum(lengths),
    )
    # few ids, so that they repeat within bags and windows; huge ones, so that slots of the hash
    # table collide
    pool = np.array([0, 1, 2, 3, 2**31 - 1, 2**30, 65536, 131072])
    bags = [rng.choice(pool, size=rng.integers(0, 6)).tolist() for _ in range(n_tokens)]
    id_offsets = np.cumsum([0, *map(len, bags)]).astype(np.int32)
    ids = np.array([feature for bag in bags for feature in bag], dtype=np.int32)
    expected = naive.state_bags(offsets.tolist(), bags, window)

    token_bags = position_weight.TokenBags(offsets, ids, id_offsets)
    n_occurrences, widest = position_weight.count_occurrences(token_bags, window)
    counts = [sum(map(len, state.values())) for state in expected]
    assert (n_occurrences, widest) == (sum(counts), max(counts, default=0))
    state_ids, entries, lags = np.full((3, n_occurrences), -7, dtype=np.int32)
    state_offsets = np.empty(n_tokens + 1, dtype=np.int32)
    n_slots = 1 << (2 * int(widest)).bit_length()
    table = position_weight.IdTable(
        np.empty(n_slots, dtype=np.int32), np.full(n_slots, -1, dtype=np.int32)
    )
    written = position_weight.StateEntries(state_offsets, state_ids, entries, lags)
    n_entries = position_weight.fill_entries(token_bags, window, table, written)
    assert state_offsets.tolist() == np.cumsum([0, *map(len, expected)]).tolist()
    assert state_ids[:n_entries].tolist() == [feature for state in expected for feature in state]
    lags_of_entry: list[list[int]] = [[] for _ in range(n_entries)]
    for entry, lag in zip(entries, lags, strict=True):
        lags_of_entry[entry].append(int(lag))
    assert lags_of_entry == [found for state in expected for found in state.values()]

"""The recurrent kernels, and how sequences are packed for them, against slow twins."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.kernels import activations, lstm, packing

LENGTHS = st.lists(st.integers(0, 6), max_size=8)
DTYPES = [np.float32, np.float64]


def _tolerance(dtype: type) -> float:
    return 2e-6 if dtype is np.float32 else 1e-13


Array = npt.NDArray[Any]


def logistic(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def product(matrix: Array, vector: Array) -> Array:
    """matrix @ vector without BLAS, (m, n), (n,) → (m,).

    OpenBLAS's float32 product for AVX-512 loads stack that was never written and discards what it
    computes of it. Where a signalling NaN happens to lie there, the processor's flag "invalid" is
    set, and numpy warns of a result that is right."""
    return np.einsum("mn,n->m", matrix, vector)


def lstm_by_hand(
    gates_x: Array, offsets: Array, weight_hh: Array, h0: Array, c0: Array
) -> tuple[Array, Array]:
    """h and c after each token, (n_tokens, H)."""
    all_h, all_c = np.zeros((len(gates_x), h0.shape[1])), np.zeros((len(gates_x), h0.shape[1]))
    for sequence in range(len(offsets) - 1):
        h, c = h0[sequence], c0[sequence]
        for row in range(offsets[sequence], offsets[sequence + 1]):
            i, f, g, o = np.split(gates_x[row] + product(weight_hh, h), 4)
            c = logistic(f) * c + logistic(i) * np.tanh(g)
            h = logistic(o) * np.tanh(c)
            all_h[row], all_c[row] = h, c
    return all_h, all_c


def order_by_length(offsets: list[int]) -> list[int]:
    """Sequences by falling length, ties in their own order."""
    return sorted(
        range(len(offsets) - 1), key=lambda sequence: offsets[sequence] - offsets[sequence + 1]
    )


def offsets_of(lengths: list[int]) -> list[int]:
    return [0, *np.cumsum(lengths, dtype=int).tolist()]


@settings(max_examples=200)
@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 9), st.integers(1, 40))
def test_tiles_and_parts_hold_every_sequence_once(
    lengths: list[int], most_rows: int, most_tokens: int
) -> None:
    lengths = sorted(lengths, reverse=True)
    offsets = np.array(offsets_of(lengths), np.int32)
    order = np.arange(len(lengths), dtype=np.int32)
    tiles = np.full(len(lengths) + 1, -7, np.int32)
    n_tiles = packing.cut_tiles(offsets, order, most_rows, most_tokens, tiles)
    ends = tiles[: n_tiles + 1].tolist()
    assert (ends[0], ends[-1]) == (0, len(lengths))
    for a, b in pairwise(ends):
        assert 0 < b - a <= most_rows
        # four more sequences as long as one of them has room, and no fewer
        assert all(sum(lengths[a : a + m + 1]) <= most_tokens for m in range(4, b - a, 4))
        is_full = (b - a) % 4 == 0 and sum(lengths[a : b + 1]) > most_tokens
        assert b == len(lengths) or b - a == most_rows or is_full
    parts = np.full(n_tiles + 1, -7, np.int32)
    n_parts = packing.group_tiles(offsets, order, tiles[: n_tiles + 1], most_tokens, parts)
    ends = parts[: n_parts + 1].tolist()
    assert (ends[0], ends[-1]) == (0, n_tiles)
    assert all(a < b for a, b in pairwise(ends))


def test_rational_tanh_is_close_for_float32_and_exact_for_float64() -> None:
    x = np.concatenate((np.linspace(-12, 12, 20001), [0.0, -0.0, np.inf, -np.inf, 1e-6, 1e4, -1e4]))
    single = np.array([activations.tanh(value) for value in x.astype(np.float32)])
    assert np.abs(single - np.tanh(x.astype(np.float32).astype(float))).max() < 4e-7
    double = np.array([activations.tanh(value) for value in x])
    assert np.abs(double - np.tanh(x)).max() < 1e-15
    assert np.isnan(activations.tanh(np.float32(np.nan)))


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=25)
@given(LENGTHS, st.integers(1, 9))
def test_tile_kernels_equal_their_twins(dtype: type, lengths: list[int], size: int) -> None:
    rng, offsets = np.random.default_rng(0), offsets_of(lengths)
    array = np.array(offsets, dtype=np.int32)
    n_sequences, n_tokens = len(offsets) - 1, offsets[-1]
    order = np.array(order_by_length(offsets), dtype=np.int32)
    tiles = np.array(sorted({0, n_sequences // 2, n_sequences}), dtype=np.int32)
    # a sequence begins at zeros, or goes on from a state
    start, first = np.zeros((n_sequences, size), dtype), np.zeros((0, size), dtype)
    if len(lengths) % 2:
        start = first = rng.standard_normal((n_sequences, size)).astype(dtype)
    gates_x = rng.standard_normal((n_tokens, 4 * size)).astype(dtype)
    weight = rng.standard_normal((4 * size, size)).astype(dtype)
    gates, h, c = (
        np.empty_like(gates_x),
        np.empty((n_tokens, size), dtype),
        np.empty((n_tokens, size), dtype),
    )

    block = np.ascontiguousarray(weight.T)[None]
    zeros, own = np.zeros(4 * size, dtype), np.empty(0, np.int32)
    run = lstm.LstmPass(gates_x, own, gates, h, c, first, first)
    sequences = packing.Sequences(order, array)
    lstm.lstm_tiles(tiles, sequences, block, zeros, run)
    expected_h, expected_c = lstm_by_hand(gates_x, array, weight, start, start)
    np.testing.assert_allclose(h, expected_h, atol=_tolerance(dtype))
    np.testing.assert_allclose(c, expected_c, atol=_tolerance(dtype))

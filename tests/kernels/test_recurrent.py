"""The recurrent kernels, and how sequences are packed for them, against slow twins."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.kernels import activations, packing


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

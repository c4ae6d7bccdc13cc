"""Displays of the synthetic world."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fastgaum.kernels.synthetic import draw_displays


@given(
    st.lists(st.integers(0, 12), max_size=4),
    st.sampled_from([0.5, 1.0, 3.0]),
    st.permutations(range(12)),
)
def test_a_display_is_distinct_and_in_order(sizes: list[int], skew: float, keys: list[int]) -> None:
    codes = np.random.default_rng(1).permutation(12).astype(np.int32)
    offsets = np.cumsum([0, *sizes]).astype(np.int32)
    items, chances = np.empty((2, sum(sizes)), np.int32), np.full((2, len(sizes)), -1.0)
    for shuffled in (0, 1):
        rng, law = np.random.default_rng(keys), (skew, codes, np.array(keys, np.int32))
        draw_displays(rng, offsets, *law, bool(shuffled), items[shuffled], chances[shuffled])
    assert ((chances >= 0) & (chances < 1)).all()
    for first, last in pairwise(offsets.tolist()):
        ordered, shuffled = items[:, first:last].tolist()
        assert ordered == sorted(set(ordered), key=keys.__getitem__)
        assert set(ordered) <= set(range(12))
        assert first > 0 or sorted(ordered) == sorted(shuffled), "an order changes no draw of items"

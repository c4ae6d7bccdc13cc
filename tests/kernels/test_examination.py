"""What places add to scores, against loops over Python lists."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fastgaum.kernels.examination import examination_gradient, examine

SIZES = st.lists(st.integers(0, 6), max_size=6)


@given(SIZES, st.integers(1, 4), st.integers(0, 99))
def test_a_candidate_gets_what_its_place_adds(sizes: list[int], n_places: int, seed: int) -> None:
    rng, offsets = np.random.default_rng(seed), np.cumsum([0, *sizes]).astype(np.int32)
    by_place, scores = rng.normal(size=n_places), rng.normal(size=sum(sizes))
    places = [min(place, n_places - 1) for size in sizes for place in range(size)]
    expected = scores + [by_place[place] for place in places]
    examine(offsets, by_place, scores)
    np.testing.assert_allclose(scores, expected)
    grad_scores, grad = rng.normal(size=sum(sizes)), np.full(n_places, np.nan)
    examination_gradient(offsets, grad_scores, grad)
    sums = [
        sum(g for g, at in zip(grad_scores, places, strict=True) if at == place)
        for place in range(n_places)
    ]
    np.testing.assert_allclose(grad, sums, atol=1e-12)

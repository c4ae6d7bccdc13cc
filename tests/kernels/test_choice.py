"""Choice probabilities, and what places add to scores, on drawn ragged shapes."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.kernels import choice
from fastgaum.kernels.examination import examination_gradient, examine
from tests.kernels.reals import REAL, assert_near


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    no_click=st.booleans(),
    eta=st.sampled_from([0.5, 1.0, 3.0]),
    spread=st.sampled_from([0.1, 3.0, 1e4]),
    seed=st.integers(0, 50),
    dtype=st.sampled_from(sorted({np.float32, REAL}, key=str)),
)
def test_probabilities_are_torchs(
    sizes: list[int], no_click: bool, eta: float, spread: float, seed: int, dtype: type[np.floating]
) -> None:
    rng = np.random.default_rng(seed)
    offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int32)
    scores = (spread * rng.standard_normal(offsets[-1])).astype(dtype)
    probs, totals = np.empty_like(scores), np.empty(len(sizes), dtype)
    middle = len(sizes) // 2
    for a, b in ((0, middle), (middle, len(sizes))):
        own, eta_ = offsets[a : b + 1], dtype(eta)
        choice.choice_probs(scores, eta_, own, no_click, probs, totals[a:b])

    leaf, expected, log_totals = torch.from_numpy(scores.astype(np.float64)), [], []
    for event, n in enumerate(sizes):
        values = eta * leaf[offsets[event] : offsets[event] + n]
        values = torch.cat([values, values.new_zeros(1)]) if no_click else values
        expected.append(torch.softmax(values, 0)[:n])
        log_totals.append(torch.logsumexp(values, 0))
    close = (
        {"rtol": 1e-9, "atol": 1e-9}
        if dtype is np.float64
        else {"rtol": 1e-3, "atol": 1e-5 * max(1.0, spread / 10)}
    )
    np.testing.assert_allclose(probs, torch.cat(expected).numpy(), **close)
    np.testing.assert_allclose(totals, torch.stack(log_totals).numpy(), **close)


SIZES = st.lists(st.integers(0, 6), max_size=6)


@given(SIZES, st.integers(1, 4), st.integers(0, 99))
def test_a_candidate_gets_what_its_place_adds(sizes: list[int], n_places: int, seed: int) -> None:
    rng, offsets = np.random.default_rng(seed), np.cumsum([0, *sizes]).astype(np.int32)
    by_place, scores, grad_scores = (
        rng.normal(size=n).astype(REAL) for n in (n_places, sum(sizes), sum(sizes))
    )
    places = [min(place, n_places - 1) for size in sizes for place in range(size)]
    expected = scores + [by_place[place] for place in places]
    examine(offsets, by_place, scores)
    assert_near(scores, expected, rtol=1e-7)
    grad = np.full(n_places, np.nan, REAL)
    examination_gradient(offsets, grad_scores, grad)
    sums = [
        sum(g for g, at in zip(grad_scores, places, strict=True) if at == place)
        for place in range(n_places)
    ]
    assert_near(grad, sums, atol=1e-12)

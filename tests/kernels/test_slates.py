"""Slates: what is displayed, and draws, against loops in plain Python."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.kernels import slates as kernels
from tests.worlds.simulated import displayed
from tests.worlds.test_true_world import naive_uniform


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.sampled_from([1, 3, 12, 40]), st.integers(0, 10_000))
def test_what_is_displayed(n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_items = int(rng.integers(1, 15))
    slates = rng.integers(-1, n_items, (n, k)).astype(np.int32)
    users = rng.permutation(n)[: rng.integers(0, n + 1)].astype(np.int32)
    offsets, (items, places) = np.empty(len(users) + 1, np.int32), np.full((2, n * k), -7, np.int32)
    found = kernels.find_displayed(slates, users, n_items, offsets, items, places)
    shown = [displayed(slates[user]) for user in users]
    assert offsets.tolist() == np.cumsum([0, *map(len, shown)]).tolist()
    assert places[:found].tolist() == [at for one in shown for at in one]
    of_users = zip(users, shown, strict=True)
    assert items[:found].tolist() == [slates[user, at] for user, one in of_users for at in one]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=5), st.booleans(), st.integers(0, 9999))
def test_a_draw_falls_where_the_cumulated_probabilities_say(
    sizes: list[int], outside: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    offsets = np.cumsum([0, *sizes]).astype(np.int32)
    shares = [rng.dirichlet(np.ones(k + (outside or k == 0))).astype(np.float32) for k in sizes]
    probs = np.array([p for k, of in zip(sizes, shares, strict=True) for p in of[:k]], np.float32)
    none = np.array([of[k:].sum() for k, of in zip(sizes, shares, strict=True)], np.float32)
    keys = rng.integers(0, 2**63, len(sizes)).astype(np.uint64)
    chosen = np.empty(len(sizes), np.int32)
    kernels.draw_choices(offsets, probs, none, keys, chosen)
    for event, (k, of) in enumerate(zip(sizes, shares, strict=True)):
        ends = np.cumsum(of[:k].astype(np.float64))
        draw = naive_uniform(int(keys[event]))
        if np.abs(ends - draw).min(initial=1) > 1e-6:
            place = int(np.searchsorted(ends, draw, side="right"))
            beyond = -1 if none[event] > 0 else k - 1
            place = place if place < k else beyond
            assert chosen[event] == (offsets[event] + place if place >= 0 else -1)


def test_a_draw_beyond_the_mass_is_no_click_or_the_last_that_is_possible() -> None:
    keys = np.array([k for k in range(400) if naive_uniform(k) > 0.99][:2], np.uint64)
    offsets, probs = np.array([0, 3, 6], np.int32), np.array([0.5, 0.45, 0.0] * 2, np.float32)
    for none, expected in ((0.05, [-1, -1]), (0.0, [1, 4])):
        chosen = np.empty(2, np.int32)
        kernels.draw_choices(offsets, probs, np.full(2, none, np.float32), keys, chosen)
        assert chosen.tolist() == expected

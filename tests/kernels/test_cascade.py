"""The best item of a pool by blocks of items, against scores written out pair by pair in
float64."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastgaum.kernels import ranking


@settings(max_examples=15)
@given(
    n=st.integers(1, 5),
    m=st.integers(1, 12),
    d=st.integers(1, 20),
    j=st.integers(0, 3),
    seed=st.integers(0, 99),
)
@example(n=2, m=ranking.BLOCK + 1, d=9, j=2, seed=0)
def test_the_best_place_that_is_not_taken(n: int, m: int, d: int, j: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    users, items = (rng.standard_normal((size, d)).astype(np.float32) for size in (n, m))
    taken = np.array([[*rng.permutation(m)[: min(j, m - 1)], -1] for _ in range(n)], np.int32)
    n_blocks = -(-m // ranking.BLOCK)
    blocks = np.zeros((n_blocks, d, ranking.BLOCK), np.float32)
    for i in range(m):
        blocks[i // ranking.BLOCK, :, i % ranking.BLOCK] = items[i]
    scores = users.astype(np.float64) @ items.T
    best, cut = np.full(n, -7, np.int32), n // 2
    held = ranking.Best(best, np.empty(n, np.int32))
    for first, last in ((0, cut), (cut, n)) if cut else ((0, n),):
        ranking.best_items(first, last, users, blocks, m, taken, held)
    for user in range(n):
        allowed = np.setdiff1d(np.arange(m), taken[user])
        assert best[user] in allowed
        np.testing.assert_allclose(scores[user, best[user]], scores[user, allowed].max(), atol=1e-4)

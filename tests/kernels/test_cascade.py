"""The best item of a pool by blocks of items, against scores written out pair by pair in
float64."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastgaum.kernels import cascade


@settings(max_examples=15)
@given(
    n=st.integers(1, 5),
    m=st.integers(1, 12),
    halves=st.integers(1, 2),
    j=st.integers(0, 3),
    seed=st.integers(0, 99),
)
@example(n=2, m=cascade.BLOCK + 1, halves=1, j=2, seed=0)
def test_the_best_place_that_is_not_taken(n: int, m: int, halves: int, j: int, seed: int) -> None:
    rng, d = np.random.default_rng(seed), 2 * halves * cascade.UNITS
    users, items = (rng.standard_normal((size, d)).astype(np.float32) for size in (n, m))
    taken = np.array([[*rng.permutation(m)[: min(j, m - 1)], -1] for _ in range(n)], np.int32)
    n_blocks = -(-m // cascade.BLOCK)
    blocks = np.zeros((n_blocks, d, cascade.BLOCK), np.float32)
    for i in range(m):
        blocks[i // cascade.BLOCK, :, i % cascade.BLOCK] = items[i]
    pairs = np.maximum(users[:, None].astype(np.float64) + items[None], 0)
    joint = pairs[:, :, : d // 2].sum(2) - pairs[:, :, d // 2 :].sum(2)
    for kernel, scores in (
        (cascade.best_joint, joint),
        (cascade.best_inner, users.astype(np.float64) @ items.T),
    ):
        best, cut = np.full(n, -7, np.int32), n // 2
        held = cascade.Best(best, np.empty(n, np.int32))
        for first, last in ((0, cut), (cut, n)) if cut else ((0, n),):
            kernel(first, last, users, blocks, m, taken, held)
        for user in range(n):
            allowed = np.setdiff1d(np.arange(m), taken[user])
            assert best[user] in allowed
            np.testing.assert_allclose(
                scores[user, best[user]], scores[user, allowed].max(), atol=1e-4
            )

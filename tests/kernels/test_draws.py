"""Counted keys and draws without replacement against slow twins in Python's own integers."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.kernels import draws
from fastgaum.kernels.draws import counted_keys, draw_without_replacement, user_streams
from fastgaum.kernels.shown_slates import slates_of

GOLDEN, WORD = 0x9E3779B97F4A7C15, 2**64


def naive_mixed(x: int) -> int:
    x = (x + GOLDEN) % WORD
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % WORD
    return x ^ (x >> 31)


@given(
    st.integers(0, WORD - 1), st.integers(0, 10), st.integers(1, 5), st.integers(0, 3), st.data()
)
def test_keys_are_the_hash_of_their_counters(
    seed: int, first: int, n: int, use: int, data: st.DataObject
) -> None:
    streams = np.empty(n, np.uint64)
    user_streams(np.uint64(seed), first, streams)
    expected = [naive_mixed((naive_mixed(seed) + (first + i) * GOLDEN) % WORD) for i in range(n)]
    assert streams.tolist() == expected
    numbers = st.lists(st.integers(0, 2**31 - 1), min_size=n, max_size=n)
    episodes, steps = np.array(data.draw(numbers), np.int64), np.array(data.draw(numbers), np.int32)
    rows = np.array(data.draw(st.lists(st.integers(0, n - 1), unique=True)), np.int32)
    keys = np.empty(len(rows), np.uint64)
    counted_keys(streams, episodes, steps, np.uint64(use), rows, keys)
    for key, row in zip(keys.tolist(), rows, strict=True):
        twin = expected[row]
        for counter in (int(episodes[row]), int(steps[row]), use):
            twin = naive_mixed((twin + counter * GOLDEN) % WORD)
        assert key == twin


@given(st.lists(st.integers(0, WORD - 1), max_size=20), st.integers(0, 3))
def test_numbers_of_keys_are_splitmix64_s(keys: list[int], stream: int) -> None:
    """Twice: the key's output, marked with the stream, is a state again."""
    out = np.empty(len(keys))
    draws.uniforms(np.array(keys, np.uint64), np.uint64(stream), out)
    twins = [(naive_mixed(naive_mixed(key) ^ stream) >> 11) / 2**53 for key in keys]
    assert out.tolist() == twins


@given(st.integers(1, 30), st.data())
def test_draws_differ_within_a_row_and_leave_the_items_as_they_were(
    n_items: int, data: st.DataObject
) -> None:
    width, n = data.draw(st.integers(1, n_items)), data.draw(st.integers(1, 6))
    keys = np.random.default_rng(data.draw(st.integers(0, 99))).integers(
        WORD, size=n, dtype=np.uint64
    )
    items = np.random.default_rng(1).permutation(n_items).astype(np.int32)
    rows = np.arange(n, dtype=np.int32)[::-1].copy()
    kept, drawn = items.copy(), np.full((n, width), -1, np.int32)
    draw_without_replacement(keys, rows, items, np.empty(width, np.int64), drawn)
    np.testing.assert_array_equal(items, kept)
    for row, key in zip(rows, keys.tolist(), strict=True):
        left = kept.tolist()
        for j in range(width):
            other = j + ((naive_mixed((key + j * GOLDEN) % WORD) >> 32) * (n_items - j) >> 32)
            left[j], left[other] = left[other], left[j]
            assert drawn[row, j] == left[j]
        assert len(set(drawn[row].tolist())) == width


@settings(max_examples=60)
@given(
    st.integers(1, 5), st.integers(1, 4), st.integers(1, 6), st.booleans(), st.booleans(), st.data()
)
def test_slates_are_the_pool_s_items(
    n: int, width: int, size: int, shared: bool, strict: bool, data: st.DataObject
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    actions = rng.integers(-1, size + 1, (n, width))
    if data.draw(st.booleans()):
        actions = actions.clip(0, size - 1)
    pools = rng.integers(100, size=(1 if shared else n, size)).astype(np.int32)
    active = rng.random(n) < 0.7
    slates = np.full((n, width), -5, np.int32)
    refused = slates_of(actions, pools, active, strict, slates)
    for i in range(n):
        for j in range(width):
            if active[i] and not 0 <= actions[i, j] < size:
                assert refused == i * width + j
                return
        repeats = [j for j in range(width) if actions[i, j] in actions[i, :j]]
        if strict and active[i] and repeats:
            assert refused == i * width + repeats[0]
            return
        expected = pools[0 if shared else i][actions[i]] if active[i] else np.full(width, -5)
        np.testing.assert_array_equal(slates[i], expected)
    assert refused == -1


@settings(max_examples=30, deadline=None)
@given(
    n_draws=st.integers(0, 5),
    n=st.integers(0, 6),
    n_rows=st.integers(1, 4),
    k=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_sums_of_drawn_rows(n_draws: int, n: int, n_rows: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, n_rows, (n_draws, n)).astype(np.int32)
    values, sums = rng.normal(size=(n_rows, k)), np.full((n_draws, k), 7.0)
    first = n_draws // 2
    draws.sum_drawn(first, n_draws, drawn, values, sums)
    for draw in range(n_draws):
        expected = sum((values[row] for row in drawn[draw]), np.zeros(k))
        np.testing.assert_allclose(sums[draw], expected if draw >= first else 7.0)

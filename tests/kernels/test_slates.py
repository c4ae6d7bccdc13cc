"""Slates: what is displayed, scores, probabilities and draws against loops in plain Python."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.kernels import slates as kernels
from fastgaum.kernels.draws import uniforms
from tests.worlds.simulated import displayed
from tests.worlds.test_true_world import naive_uniform

ACTIVATIONS = {
    0: lambda x: np.maximum(x, 0),
    1: lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    2: np.tanh,
}


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=20))
def test_numbers_of_keys_are_splitmix64_s(keys: list[int]) -> None:
    out = np.empty((2, len(keys)))
    for stream in range(2):
        uniforms(np.array(keys, np.uint64), np.uint64(stream), out[stream])
    for i, key in enumerate(keys):
        # splitmix64 twice: the key's output, marked with the stream, is a state again
        most = 2**64 - 1
        x = (key + 0x9E3779B97F4A7C15) & most
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & most
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & most
        x ^= x >> 31
        assert out[:, i].tolist() == [naive_uniform(x ^ stream) for stream in range(2)]


def test_numbers_of_neighbouring_keys_are_uniform_and_apart() -> None:
    out = np.empty(100_000)
    uniforms(np.arange(100_000, dtype=np.uint64), np.uint64(0), out)
    counts = np.histogram(out, bins=50, range=(0, 1))[0]
    # chi-square of 49 degrees of freedom: mean 49, standard deviation 9.9
    assert ((counts - 2000) ** 2 / 2000).sum() < 49 + 5 * 9.9
    assert abs(np.corrcoef(out[1:], out[:-1])[0, 1]) < 5 / np.sqrt(100_000)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.sampled_from([1, 3, 12, 40]), st.booleans(), st.integers(0, 10_000))
def test_what_is_displayed(n: int, k: int, ordered: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_items, n_positions = int(rng.integers(1, 15)), 4
    slates = rng.integers(-1, n_items, (n, k)).astype(np.int32)
    active = rng.random(n) < 0.8
    rows = np.full((n, k, 1 + ordered), 77, np.int32)
    kernels.displayed_rows(0, n, slates, active, n_items, n_positions, rows)
    for user in range(n):
        shown = displayed(slates[user]) if active[user] else np.zeros(0, int)
        expected = np.full((k, 1 + ordered), -1)
        expected[shown, 0] = slates[user, shown]
        if ordered:
            ranks = np.arange(len(shown))
            expected[shown, 1] = np.where(ranks < n_positions, n_items + 1 + ranks, n_items)
        assert np.array_equal(rows[user], expected)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 120),
    st.integers(1, 12),
    st.sampled_from([(8,), (5, 3), (16, 4, 7)]),
    st.sampled_from([0, 1, 2]),
    st.sampled_from([0, 3]),
    st.integers(1, 2),
    st.integers(0, 10_000),
)
def test_scores(
    n: int, k: int, widths: tuple[int, ...], kind: int, n_numbers: int, n_rows: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)

    def floats(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    size, n_table = 6, 20
    rows = rng.integers(0, n_table, (n, k, n_rows)).astype(np.int32)
    rows[rng.random((n, k)) < 0.2] = -1
    numbers, states, table, wide = (
        floats(n, k, n_numbers),
        floats(n, size),
        floats(n_table, widths[0]),
        floats(n_table),
    )
    from_state, from_numbers, wide_numbers, bias = (
        floats(size, widths[0]),
        floats(n_numbers, widths[0]),
        floats(n_numbers),
        floats(widths[0]),
    )
    layers = [(floats(a, b), floats(b)) for a, b in zip(widths, (*widths[1:], 1), strict=True)]
    deeper = np.concatenate([part.ravel() for layer in layers for part in layer])
    scores = np.full((n, k), 99, np.float32)
    first = int(rng.integers(0, n))
    scorer = kernels.ScorerTables(
        table,
        wide,
        from_state,
        from_numbers,
        wide_numbers,
        bias,
        deeper,
        np.array(widths),
        kind,
    )
    kernels.slate_scores(first, n, rows, numbers, states, scorer, scores)
    assert (scores[:first] == 99).all()
    shown = rows >= 0
    x = (
        states[:, None] @ from_state
        + numbers @ from_numbers
        + (table[rows] * shown[..., None]).sum(axis=2)
        + bias
    )
    x = ACTIVATIONS[kind](x.astype(np.float64))
    for i, (weight, added) in enumerate(layers):
        x = x @ weight + added
        x = ACTIVATIONS[kind](x) if i + 1 < len(layers) else x
    expected = x[..., 0] + (wide[rows] * shown).sum(axis=2) + numbers @ wide_numbers
    expected = np.where(shown[..., 0], expected, 0)[first:]
    np.testing.assert_allclose(scores[first:], expected, atol=2e-5 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("outside", [False, True])
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.sampled_from([0.1, 1.0, 100.0, 1e4]), st.integers(0, 10_000))
def test_probabilities_are_softmax(outside: bool, k: int, size: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, eta = 4, 1.5
    scores = (size * rng.standard_normal((n, k))).astype(np.float32)
    rows = np.where(rng.random((n, k, 1)) < 0.3, -1, 5).astype(np.int32)
    probs, none = np.full((n, k), 7, np.float32), np.full(n, 7, np.float32)
    kernels.softmax_slates(0, n, scores, rows, kernels.ChoiceRule(eta, outside), probs, none)
    for user in range(n):
        shown = rows[user, :, 0] >= 0
        assert (probs[user, ~shown] == 0).all()
        if not shown.any():
            assert none[user] == 1
            continue
        values = np.append(eta * scores[user, shown].astype(np.float64), [0.0] * outside)
        p = np.append(probs[user, shown].astype(np.float64), [none[user]] * outside)
        assert outside or none[user] == 0
        weights = np.exp(values - values.max())
        np.testing.assert_allclose(p, weights / weights.sum(), atol=1e-5)


def test_a_draw_beyond_the_mass_is_no_click_or_the_last_that_is_possible() -> None:
    keys = np.array([k for k in range(400) if naive_uniform(k) > 0.99][:2], np.uint64)
    probs = np.array([[0.5, 0.45, 0.0], [0.5, 0.45, 0.0]], np.float32)
    rows, numbers = np.array([[[4], [2], [3]]] * 2, np.int32), np.ones((2, 3, 2), np.float32)
    for none, place, item in ((0.05, -1, -1), (0.0, 1, 2)):
        places, items = np.empty(2, np.int32), np.empty(2, np.int32)
        chosen, of_choice = np.empty((2, 1, 1), np.int32), np.empty((2, 1, 2), np.float32)
        kernels.draw_places(
            0,
            2,
            probs,
            np.full(2, none, np.float32),
            keys,
            kernels.Displayed(rows, numbers),
            kernels.Chosen(places, items, chosen, of_choice),
        )
        assert places.tolist() == [place] * 2
        assert items.tolist() == chosen[:, 0, 0].tolist() == [item] * 2
        assert (of_choice == (place >= 0)).all()
        taken = np.empty(2, np.float32)
        kernels.take_places(0, 2, probs, places, taken)
        assert taken.tolist() == [pytest.approx(0.45 if place >= 0 else 0.0)] * 2


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(1, 5), st.booleans(), st.integers(0, 9999))
def test_a_draw_falls_where_the_cumulated_probabilities_say(
    n: int, k: int, outside: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(k + outside), n).astype(np.float32)
    probs, none = (
        np.ascontiguousarray(shares[:, :k]),
        shares[:, k] if outside else np.zeros(n, np.float32),
    )
    keys = rng.integers(0, 2**63, n).astype(np.uint64)
    rows, numbers = (
        rng.integers(0, 9, (n, k, 2)).astype(np.int32),
        rng.random((n, k, 2)).astype(np.float32),
    )
    places, items = np.empty(n, np.int32), np.empty(n, np.int32)
    chosen, of_choice, taken = (
        np.empty((n, 1, 2), np.int32),
        np.empty((n, 1, 2), np.float32),
        np.empty(n, np.float32),
    )
    shown, made = kernels.Displayed(rows, numbers), kernels.Chosen(places, items, chosen, of_choice)
    kernels.draw_places(0, n, probs, none, keys, shown, made)
    kernels.take_places(0, n, probs, places, taken)
    for user, place in enumerate(places.tolist()):
        ends = np.cumsum(probs[user].astype(np.float64))
        draw = naive_uniform(int(keys[user]))
        if np.abs(ends - draw).min() > 1e-6:
            beyond = -1 if outside else k - 1
            assert place == (
                int(np.searchsorted(ends, draw, side="right")) if draw < ends[-1] else beyond
            )
        known = place >= 0
        assert items[user] == (rows[user, place, 0] if known else -1)
        assert chosen[user, 0].tolist() == (rows[user, place].tolist() if known else [-1, -1])
        assert of_choice[user, 0].tolist() == (numbers[user, place].tolist() if known else [0, 0])
        assert taken[user] == (probs[user, place] if known else 0)

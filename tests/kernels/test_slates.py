"""Slates: what is displayed, and draws, against loops in plain Python; twins, and their law."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from fastgaum.arrays import FloatArray, KeyArray
from fastgaum.kernels import shown_slates as kernels
from fastgaum.kernels.choice import choice_probs
from fastgaum.worlds.pools import CHOICE, Keys
from tests.worlds.simulated import displayed, naive_choice


@settings(max_examples=40, deadline=None)
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
def test_the_first_clock_chooses(sizes: list[int], no_click: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    offsets = np.cumsum([0, *sizes]).astype(np.int32)
    shares = [rng.dirichlet(np.ones(k + (no_click or k == 0))).astype(np.float32) for k in sizes]
    probs = np.array([p for k, of in zip(sizes, shares, strict=True) for p in of[:k]], np.float32)
    probs *= rng.random(len(probs)) < 0.8
    none = np.array([of[k:].sum() for k, of in zip(sizes, shares, strict=True)], np.float32)
    items = rng.integers(0, 2**31 - 1, len(probs)).astype(np.int32)
    keys = rng.integers(0, 2**64, len(sizes), dtype=np.uint64)
    chosen = np.empty(len(sizes), np.int32)
    kernels.draw_choices(offsets, items, probs, none, keys, chosen)
    for event, (start, end) in enumerate(pairwise(offsets)):
        one = slice(start, end)
        place = naive_choice(int(keys[event]), items[one], probs[one], none[event])
        assert chosen[event] == (start + place if place >= 0 else -1)


N = 1_000_000


def drawn(
    items: list[int], probs: FloatArray, none: FloatArray, keys: KeyArray
) -> npt.NDArray[np.int64]:
    """The item, -1 for none, that each key chooses of a display of its own probabilities (N, k)."""
    k = len(items)
    offsets, chosen = np.arange(0, N * k + 1, k, dtype=np.int32), np.empty(N, np.int32)
    rows = np.tile(np.array(items, np.int32), N)
    kernels.draw_choices(offsets, rows, np.ascontiguousarray(probs).ravel(), none, keys, chosen)
    return np.where(chosen < 0, -1, rows[chosen])


def keys_of_steps() -> KeyArray:
    """Keys as worlds have them: 1,000 users, the steps of one episode."""
    keys = Keys(1000)
    keys.seed(3, keys.everyone)
    keys.start(keys.everyone)
    parts = []
    for _ in range(N // 1000):
        parts.append(keys.of(CHOICE).copy())
        keys.steps += 1
    return np.concatenate(parts)


@pytest.mark.parametrize("law", [[0.5, 0.2, 0.05, 0.0, 0.25], [0.9, 0.1, 0.0], [0.3, 1e-3, 0.699]])
def test_a_million_choices_follow_their_law_and_no_order(law: list[float]) -> None:
    """The last part is that of no click."""
    keys, k = keys_of_steps(), len(law) - 1
    items = [7, 3, 12, 0][:k]
    probs = np.tile(np.array(law, np.float32), (N, 1))
    chosen = drawn(items, probs[:, :k], probs[:, k].copy(), keys)
    counts = np.array([(chosen == item).sum() for item in [*items, -1]])
    possible = np.array(law) > 0
    assert counts[~possible].sum() == 0
    assert chisquare(counts[possible], N * np.array(law)[possible]).pvalue > 1e-3
    # a user's steps are independent, and so are users who stand beside each other
    for lag in (1, 1000):
        again = np.bincount(chosen[lag:][chosen[:-lag] == items[0]] + 1, minlength=13)
        seen = again[np.array([*items, -1]) + 1][possible]
        assert chisquare(seen, seen.sum() * np.array(law)[possible]).pvalue > 1e-3
    turned = drawn(items[::-1], probs[:, :k][:, ::-1], probs[:, k].copy(), keys)
    np.testing.assert_array_equal(turned, chosen)


def test_two_laws_choose_the_same_as_often_as_twins_can() -> None:
    """No click with the smaller of its probabilities; item i, if both click, with probability 1 /
    Σ_j max(p_j / p_i, q_j / q_i) (Moulton and Jiang, "Maximally consistent sampling and the Jaccard
    index of probability distributions", 2018)."""
    keys = keys_of_steps()
    # items 0 and 1 are in both slates, at other places
    one, other = {0: 0.5, 1: 0.2, 2: 0.1, -1: 0.2}, {3: 0.25, 1: 0.2, 0: 0.25, -1: 0.3}
    laws = [np.tile(np.array(list(law.values()), np.float32), (N, 1)) for law in (one, other)]
    both = [
        drawn(list(law)[:3], p[:, :3], p[:, 3].copy(), keys)
        for law, p in zip((one, other), laws, strict=True)
    ]
    for i in (0, 1, -1):
        of_i = [[law.get(j, 0.0) / law[i] for j in range(4)] for law in (one, other)]
        expected = 0.2 if i < 0 else 0.7 / sum(max(pair) for pair in zip(*of_i, strict=True))
        share = np.mean((both[0] == i) & (both[1] == i))
        assert share == pytest.approx(expected, abs=5 * np.sqrt(expected / N))


@pytest.mark.parametrize(
    ("rule", "others"), [("softmax", "stay"), ("softmax", "fall"), ("sparsemax", "stay")]
)
def test_none_of_a_million_leaves_an_item_whose_utility_only_rose(rule: str, others: str) -> None:
    """Where the others fall, each by its own, nothing leaves it for another item, if only softmax
    has terms of items; the slate may please too little for a click then."""
    rng, k = np.random.default_rng(5), 4
    keys, items = keys_of_steps(), [5, 9, 2, 11]
    before = rng.normal(size=(N, k)).astype(np.float32)
    rises, rows = rng.integers(0, k, N), np.arange(N)
    after = (before - rng.exponential(0.5, (N, k)) * (others == "fall")).astype(np.float32)
    after[rows, rises] = before[rows, rises] + rng.exponential(0.5, N).astype(np.float32)
    was, now = (choices_of(rule, utilities, items, keys) for utilities in (before, after))
    risen = np.array(items)[rises]
    left = now[(was == risen) & (now != risen)]
    assert (now != was).mean() > 0.05
    assert (left >= 0).sum() == 0
    assert len(left) == 0 if others == "stay" else 0 < len(left) < 0.05 * N


def choices_of(
    rule: str, utilities: FloatArray, items: list[int], keys: KeyArray
) -> npt.NDArray[np.int64]:
    """Choices of displays where no click has utility 0."""
    scores = np.ascontiguousarray(utilities).ravel()
    offsets = np.arange(0, len(scores) + 1, len(items), dtype=np.int32)
    if rule == "softmax":
        probs, totals = np.empty_like(scores), np.empty(N, np.float32)
        choice_probs(scores, np.float32(1), offsets, True, probs, totals)
        none = np.exp(-totals)
    else:
        rows = np.append(utilities, np.zeros((N, 1), np.float32), axis=1)
        ranked = -np.sort(-rows, axis=1)
        sums = np.cumsum(ranked, axis=1) - 1
        size = (ranked * np.arange(1, rows.shape[1] + 1) > sums).sum(axis=1)
        shares = np.maximum(rows - (sums[np.arange(N), size - 1] / size)[:, None], 0)
        probs, none = shares[:, :-1].ravel(), shares[:, -1].copy()
    return drawn(items, probs.reshape(N, -1), none, keys)

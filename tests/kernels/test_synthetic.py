"""The synthetic user, whose rules are known: events in a row, and slates shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.kernels import synthetic
from tests import naive_segments as naive

N_ITEMS, DIM = 12, 2
RULES = {synthetic.SHANNON: naive.softmax, synthetic.L2: naive.entmax(2.0)}
VALUES = st.lists(st.floats(-4, 4), min_size=1, max_size=8)


@given(VALUES, st.booleans())
def test_probabilities_equal_their_twins(drawn: list[float], outside: bool) -> None:
    size, values = len(drawn), np.array([*drawn, np.nan])
    for rule, twin in RULES.items():
        probs, scratch = np.full(size + 1, 99.0), np.empty(size + 1)
        if rule == synthetic.L2:
            none = synthetic.l2_probabilities(values, size, outside, probs, scratch)
        else:
            none = synthetic.shannon_probabilities(values, size, outside, probs)
        expected = twin([*drawn, *[0.0] * outside])
        np.testing.assert_allclose([*probs[:size], *[none] * outside], expected, atol=1e-9)
        assert probs[size] == 99.0, "what lies beyond the candidates is left alone"
        assert outside or none == 0


@given(
    st.integers(0, 12), st.sampled_from([0.5, 1.0, 3.0]), st.permutations(range(12)), st.booleans()
)
def test_a_display_is_distinct_and_in_order(
    size: int, skew: float, keys: list[int], shuffled: bool
) -> None:
    codes = np.random.default_rng(1).permutation(N_ITEMS).astype(np.int32)
    law = synthetic.DisplayDraw(skew, codes, np.array(keys, np.int32), shuffled)
    shown = np.full((2, 13), -7, np.int32)
    for items, one in zip(shown, (law, law._replace(shuffled=False)), strict=True):
        synthetic.draw_display(np.random.default_rng(keys), size, one, items)
        assert (items[size:] == -7).all()
    drawn = [items[:size].tolist() for items in shown]
    assert drawn[1] == sorted(set(drawn[1]), key=keys.__getitem__)
    assert set(drawn[1]) <= set(range(N_ITEMS))
    assert sorted(drawn[0]) == sorted(drawn[1]), "an order changes no draw of items"
    assert shuffled or drawn[0] == drawn[1]


@settings(max_examples=25)
@given(
    st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=5), max_size=4),
    st.sampled_from(list(RULES)),
    st.booleans(),
    st.sampled_from([0.0, 2.0]),
    st.integers(0, 999),
)
def test_a_simulated_event_follows_its_utilities(
    sessions: list[list[int]], rule: int, outside: bool, repeat: float, seed: int
) -> None:
    sizes = [size for session in sessions for size in session]
    offsets = (
        np.cumsum([0, *map(len, sessions)]).astype(np.int32),
        np.cumsum([0, *sizes]).astype(np.int32),
    )
    rng, n = np.random.default_rng(seed), sum(sizes)
    base, latents = rng.normal(size=N_ITEMS), rng.normal(size=(N_ITEMS, DIM))
    items, choices = np.full(n, -7, np.int32), np.full(len(sizes), -7, np.int32)
    utility, probability, none = np.full(n, np.nan), np.full(n, np.nan), np.full(len(sizes), np.nan)
    codes, examination = np.arange(N_ITEMS, dtype=np.int32), np.array([0.0, -0.7, -0.9])
    synthetic.simulate(
        rng,
        *offsets,
        synthetic.DisplayDraw(1.5, codes, codes, repeat > 0),
        synthetic.UtilityLaw(base - 0.2, latents, 0.8, repeat, 0.7),
        synthetic.ChoiceLaw(1.3, rule, outside, examination),
        synthetic.SimulatedEvents(items, choices, utility, probability, none),
    )
    for first, last in zip(offsets[0][:-1], offsets[0][1:], strict=True):
        state, before = np.zeros(DIM), set()
        for event in range(first, last):
            part = slice(offsets[1][event], offsets[1][event + 1])
            shown = items[part]
            again = np.array([item in before for item in shown.tolist()])
            expected = base[shown] - 0.2 + 0.8 * latents[shown] @ state + repeat * again
            np.testing.assert_allclose(utility[part], expected, atol=1e-9)
            logits = 1.3 * expected + examination[np.minimum(np.arange(len(shown)), 2)]
            shares = RULES[rule]([*logits.tolist(), *[0.0] * outside])
            np.testing.assert_allclose(
                [*probability[part], *[none[event]] * outside], shares, atol=1e-9
            )
            choice = choices[event]
            assert (choice == -1 and none[event] > 0) or probability[part][choice] > 0
            state = 0.7 * state + (0.3 * latents[shown[choice]] if choice >= 0 else 0)
            before |= {int(shown[choice])} if choice >= 0 else set()


def shown_of(slate: Any) -> list[int]:
    """Places that show something: an item that does not stand earlier."""
    return [
        place
        for place, item in enumerate(slate.tolist())
        if item >= 0 and item not in slate[:place]
    ]


@settings(max_examples=25)
@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from(list(RULES)),
    st.booleans(),
    st.booleans(),
    st.integers(0, 999),
)
def test_users_shown_slates_follow_their_utilities(
    n: int, k: int, rule: int, outside: bool, shared: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    slates = rng.integers(-1, 6, (n, k)).astype(np.int32)
    slates = np.ascontiguousarray(np.broadcast_to(slates[:1], (n, k))) if shared else slates
    taste, boredom, base, latents = (
        rng.normal(size=(n, DIM)),
        rng.random(n),
        rng.normal(size=6),
        rng.normal(size=(6, DIM)),
    )
    before = rng.random((n, 6)) < 0.5
    utilities, probs, none = np.full((n, k), np.nan), np.full((n, k), np.nan), np.full(n, np.nan)
    users = synthetic.TrueUsers(taste, boredom, before)
    utility = synthetic.UtilityLaw(base, latents, 0.8, 1.7, 0.5)
    pools = slates[:1] if shared else slates
    moving = synthetic.TrueLaw(utility, before[0], 0.4, 1.0, 1.0)
    synthetic.true_utilities(0, n, pools, users, moving, utilities)
    weights = synthetic.TrueWeights(utilities, probs, none)
    examination = np.array([0.0, -0.7])
    law = synthetic.ChoiceLaw(1.3, rule, outside, examination)
    synthetic.true_probabilities(0, n, slates, law, weights)
    for user in range(n):
        place = slates[user]
        expected = (
            base[place]
            + 0.8 * latents[place] @ taste[user]
            + 1.7 * before[user, place]
            - 0.4 * boredom[user]
        )
        np.testing.assert_allclose(utilities[user], np.where(place >= 0, expected, 0), atol=1e-9)
        shown = shown_of(place)
        logits = 1.3 * expected[shown] + examination[np.minimum(np.arange(len(shown)), 1)]
        shares = RULES[rule]([*logits.tolist(), *[0.0] * outside]) if shown else [1.0]
        np.testing.assert_allclose(
            [*probs[user, shown], *[none[user]] * (outside or not shown)], shares, atol=1e-9
        )
        assert probs[user].sum() + none[user] == pytest.approx(1)


@settings(max_examples=25)
@given(st.integers(1, 5), st.integers(0, 999), st.booleans(), st.booleans())
def test_a_step_moves_active_users_by_what_they_chose(
    n: int, seed: int, repeat: bool, outside: bool
) -> None:
    rng, k = np.random.default_rng(seed), 3
    slates, active = rng.integers(0, 6, (n, k)).astype(np.int32), rng.random(n) < 0.7
    shares, bait = rng.dirichlet(np.ones(k + outside), n), rng.random(6) < 0.5
    probs, none = np.ascontiguousarray(shares[:, :k]), shares[:, k] if outside else np.zeros(n)
    taste, boredom, latents = rng.normal(size=(n, DIM)), rng.random(n), rng.normal(size=(6, DIM))
    was, bored, before = taste.copy(), boredom.copy(), np.zeros((n, 6 * repeat), np.bool_)
    places, items, of_choice = np.full(n, -1, np.int32), np.full(n, -1, np.int32), np.zeros(n)
    keys, utilities = rng.integers(0, 2**63, n).astype(np.uint64), rng.normal(size=(n, k))
    synthetic.true_step(
        np.flatnonzero(active),
        slates,
        keys,
        synthetic.TrueWeights(utilities, probs, none),
        synthetic.TrueLaw(
            synthetic.UtilityLaw(np.zeros(6), latents, 0.8, 0.0, 0.7), bait, 1.0, 0.25, 1.5
        ),
        synthetic.TrueUsers(taste, boredom, before),
        synthetic.TrueChoices(places, items, of_choice),
    )
    for user in range(n):
        chosen = items[user]
        if not active[user]:
            assert (places[user], chosen, of_choice[user], boredom[user]) == (
                -1,
                -1,
                0,
                bored[user],
            )
            assert np.array_equal(taste[user], was[user])
            continue
        if outside:
            assert (places[user] == -1) <= (none[user] > 0)
        else:
            assert places[user] >= 0
        moved = 0.7 * was[user] + (0.3 * latents[chosen] if chosen >= 0 else 0)
        np.testing.assert_allclose(taste[user], moved, atol=1e-12)
        step = 1.0 if chosen >= 0 and bait[chosen] else -0.25
        assert boredom[user] == pytest.approx(min(max(bored[user] + step, 0.0), 1.5))
        if chosen >= 0:
            assert chosen == slates[user, places[user]]
            assert of_choice[user] == utilities[user, places[user]]
        assert before[user].sum() == (repeat and chosen >= 0)

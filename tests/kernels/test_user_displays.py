"""Numbers of what users are displayed: the kernels count what a naive reading of the session so far
finds."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.features.relations import WINDOW, pairs_of, with_entries
from fastgaum.kernels import candidate_counts as counting
from fastgaum.kernels import candidate_formulas as formulas
from fastgaum.kernels.pairs import PairCounts
from fastgaum.kernels.relations import (
    LatestChoices,
    PairTables,
    RivalRule,
)
from tests import naive_candidate_formulas as naive

N_ITEMS = 9


def pair_table(rng: np.random.Generator, width: int) -> PairCounts:
    """Counts of some ordered pairs of different items."""
    keys = np.array(
        [
            a * N_ITEMS + b
            for a in range(N_ITEMS)
            for b in range(N_ITEMS)
            if a != b and rng.random() < 0.6
        ]
    )
    starts = np.searchsorted(keys, np.arange(N_ITEMS + 1) * N_ITEMS)
    counts = rng.integers(0, 5, (len(keys), width)).astype(np.int32)
    counted = starts.astype(np.int64), keys.astype(np.int64), counts
    return with_entries(pairs_of(N_ITEMS, N_ITEMS, counted))


def no_sessions(n: int, room: int) -> counting.UserTables:
    """The kernels' counts of users who have seen nothing."""
    return counting.UserTables(
        np.full((n, room), -1, np.int32),
        np.zeros((n, room, counting.N_COUNTS), np.int32),
        np.zeros(n, np.int32),
        np.zeros((n, WINDOW), np.int32),
        np.zeros(n, np.int32),
    )


def play(
    seed: int, n: int, k: int, steps: int
) -> tuple[counting.UserTables, list[naive.NaiveUser]]:
    """Random displays of some users, and random choices or none, counted both ways."""
    rng = np.random.default_rng(seed)
    tables, told = no_sessions(n, 16), [naive.NaiveUser() for _ in range(n)]
    for _ in range(steps):
        shown = random_displays(rng, rng.permutation(n)[: rng.integers(0, n + 1)], k)
        sizes = np.diff(shown.offsets)
        places = np.array([rng.integers(-1, size) for size in sizes], int)
        chosen = np.where(places < 0, -1, shown.offsets[:-1] + places).astype(np.int32)
        counting.count_displays(shown, chosen, tables)
        for user, items, place in zip(shown.users, items_of(shown), places, strict=True):
            told[user].count(items, items[place] if place >= 0 else -1)
    return tables, told


def random_displays(rng: np.random.Generator, users: np.ndarray, k: int) -> counting.UserDisplays:
    """Displays of different items, up to k each; the last row of the catalogue is an unknown
    item."""
    sizes = rng.integers(1, k + 1, len(users))
    items = [rng.choice(N_ITEMS + 1, size, replace=False) for size in sizes]
    offsets = np.cumsum([0, *sizes]).astype(np.int32)
    flat = np.concatenate([np.empty(0, int), *items]).astype(np.int32)
    return counting.UserDisplays(users.astype(np.int32), offsets, flat)


def items_of(shown: counting.UserDisplays) -> list[list[int]]:
    return [part.tolist() for part in np.split(shown.items, shown.offsets[1:-1])][
        : len(shown.users)
    ]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    k=st.integers(1, 7),
    steps=st.integers(0, 5),
    set_size=st.integers(0, 8),
)
def test_counted_numbers(seed: int, k: int, steps: int, set_size: int) -> None:
    rng = np.random.default_rng(seed)
    tables, told = play(seed, 3, k, steps)
    shown = random_displays(rng, np.array([2, 0]), k)
    before = np.full((len(shown.items), counting.N_COUNTS), -7, np.int32)
    counting.find_counts(shown, tables, before)
    out, columns = np.full((len(before), 6), 7.0, np.float32), np.array([4, 0, 2, 5])
    n_before = tables.events[shown.users]
    formulas.session_numbers(shown.offsets, n_before, before, set_size, columns, out)
    assert (out[:, [1, 3]] == 7).all()
    for event, (user, items) in enumerate(zip(shown.users, items_of(shown), strict=True)):
        part = slice(*shown.offsets[event : event + 2])
        assert before[part].tolist() == [
            [told[user].displayed.count(item), told[user].chosen.count(item)] for item in items
        ]
        np.testing.assert_allclose(
            out[part][:, columns], naive.counted(told[user], items, set_size), atol=1e-6
        )


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    k=st.integers(1, 7),
    steps=st.integers(0, 25),
    set_size=st.integers(0, 8),
    most=st.integers(1, 8),
)
def test_numbers_of_pairs(seed: int, k: int, steps: int, set_size: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    tables, told = play(seed, 3, k, steps)
    shown = random_displays(rng, np.array([1, 2]), k)
    ranks = rng.permutation(N_ITEMS).astype(np.int32)
    pairs = PairTables(pair_table(rng, 3), pair_table(rng, 2), RivalRule(most, ranks))
    latest = LatestChoices(tables.latest[shown.users], tables.n_chosen[shown.users])
    out, columns = np.zeros((len(shown.items), 7), np.float32), np.arange(1, 7)
    formulas.relation_numbers(shown.offsets, shown.items, latest, pairs, set_size, columns, out)
    for event, (user, items) in enumerate(zip(shown.users, items_of(shown), strict=True)):
        part = slice(*shown.offsets[event : event + 2])
        expected = naive.relations(told[user], items, pairs, set_size)
        np.testing.assert_allclose(out[part, 1:], expected, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 7), set_size=st.integers(0, 8))
def test_numbers_relative_to_the_set(seed: int, k: int, set_size: int) -> None:
    rng = np.random.default_rng(seed)
    shown, varying = random_displays(rng, np.array([0, 1]), k), np.array([2, 0])
    out = rng.normal(size=(len(shown.items), 5)).astype(np.float32)
    before = out.astype(np.float64)
    formulas.relate_to_sets(shown.offsets, varying, set_size, out)
    for first, last in pairwise(shown.offsets):
        expected = naive.related(before[first:last, :3], varying.tolist(), set_size)
        np.testing.assert_allclose(out[first:last], expected, atol=1e-5)


@pytest.mark.parametrize("room", [32, 64])
@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 6), steps=st.integers(0, 9))
def test_counts_survive_a_larger_table(room: int, seed: int, k: int, steps: int) -> None:
    users, told = play(seed, 4, k, steps)
    larger = no_sessions(4, room)
    counting.move_counts(users.keys, users.counts, larger.keys, larger.counts)
    held = [len(set(user.displayed)) for user in told]
    assert (larger.keys >= 0).sum(1).tolist() == held
    for user, one in enumerate(told):
        counts = {
            int(key): tuple(row.tolist())
            for key, row in zip(larger.keys[user], larger.counts[user], strict=True)
            if key >= 0
        }
        assert counts == {
            item: (one.displayed.count(item), one.chosen.count(item)) for item in set(one.displayed)
        }

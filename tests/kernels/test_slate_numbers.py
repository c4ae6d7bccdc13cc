"""Numbers of displayed places: the kernels count what a naive reading of the session so far
finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.features.relations import WINDOW, pairs_of
from fastgaum.kernels import candidate_counts as counting
from fastgaum.kernels import slate_numbers as kernels
from fastgaum.kernels.candidate_formulas import Slates
from fastgaum.kernels.pairs import PairCounts, enter_pairs
from fastgaum.kernels.relations import PairTables, RivalRule
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
    table = pairs_of(N_ITEMS, N_ITEMS, (starts.astype(np.int64), keys.astype(np.int64), counts))
    enter_pairs(table)
    return table


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
    """Random slates with empty places, and random choices or none, counted both ways."""
    rng = np.random.default_rng(seed)
    users, told = no_sessions(n, 16), [naive.NaiveUser() for _ in range(n)]
    for _ in range(steps):
        rows = random_rows(rng, n, k)
        choices = np.array(
            [rng.choice(np.append(row[row >= 0], -1)) for row in rows[:, :, 0]], np.int32
        )
        active = rng.random(n) < 0.8
        counting.count_slates(0, n, active, rows, choices, users)
        for user in np.flatnonzero(active):
            told[user].count(
                [int(item) for item in rows[user, :, 0] if item >= 0], int(choices[user])
            )
    return users, told


def random_rows(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """Slates of different items, at least one each; the last row of the catalogue is an unknown
    item."""
    rows = np.stack([rng.choice(N_ITEMS + 1, k, replace=False) for _ in range(n)]).astype(np.int32)
    rows[:, 1:][rng.random((n, k - 1)) < 0.2] = -1
    return rows[:, :, None]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    k=st.integers(1, 7),
    m=st.integers(1, 9),
    steps=st.integers(0, 5),
)
def test_counts_of_pools(seed: int, k: int, m: int, steps: int) -> None:
    users, told = play(seed, 3, k, steps)
    rng = np.random.default_rng(seed)
    pools = np.stack([rng.permutation(N_ITEMS + 1)[:m] for _ in range(3)]).astype(np.int32)
    out = np.full((3, m, counting.N_COUNTS), -1, np.int32)
    counting.counts_of_pools(0, 3, pools, users, out)
    for user, pool in enumerate(pools.tolist()):
        assert out[user].tolist() == [
            [told[user].displayed.count(item), told[user].chosen.count(item)] for item in pool
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
    users, told = play(seed, 3, k, steps)
    rows = random_rows(rng, 3, k)
    least, most = np.zeros(6, np.float32), rng.uniform(0.3, 1.5, 6).astype(np.float32)
    fixed = rng.random((N_ITEMS + 1, 6), np.float32)
    columns = np.array([4, 0, 2, 5], np.int32)
    out = np.full((3, k, 6), np.nan, np.float32)
    items_of_world = kernels.ItemNumbers(fixed, columns, least, most)
    kernels.slate_numbers(0, 3, Slates(rows, set_size), users, items_of_world, out)
    for user in range(3):
        shown = rows[user, :, 0] >= 0
        items = rows[user, shown, 0].tolist()
        assert (out[user, ~shown] == 0).all()
        assert np.array_equal(out[user, shown][:, [1, 3]], fixed[items][:, [1, 3]])
        expected = naive.counted(told[user], items, least[columns], most[columns], set_size)
        np.testing.assert_allclose(out[user, shown][:, columns], expected, atol=1e-6)


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
    users, told = play(seed, 3, k, steps)
    rows = random_rows(rng, 3, k)
    ranks = rng.permutation(N_ITEMS).astype(np.int32)
    tables = PairTables(pair_table(rng, 3), pair_table(rng, 2), RivalRule(most, ranks))
    out = np.zeros((3, k, 7), np.float32)
    slates, columns = Slates(rows, set_size), np.arange(1, 7)
    kernels.slate_relations(0, 3, slates, users, tables, columns, out)
    for user in range(3):
        shown = rows[user, :, 0] >= 0
        expected = naive.relations(told[user], rows[user, shown, 0].tolist(), tables, set_size)
        np.testing.assert_allclose(out[user, shown, 1:], expected, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 7), set_size=st.integers(0, 8))
def test_numbers_relative_to_the_set(seed: int, k: int, set_size: int) -> None:
    rng = np.random.default_rng(seed)
    rows, varying = random_rows(rng, 2, k), np.array([2, 0])
    mean, scale = rng.normal(size=(2, 5)).astype(np.float32)
    out = rng.normal(size=(2, k, 5)).astype(np.float32)
    out[rows[:, :, 0] < 0] = 0
    before = out.astype(np.float64)
    kernels.standardise_slates(
        0,
        2,
        Slates(rows, set_size),
        varying,
        mean,
        np.abs(scale) + np.float32(0.5),
        out,
    )
    for user in range(2):
        shown = rows[user, :, 0] >= 0
        expected = naive.standardised(
            before[user, shown, :3], varying.tolist(), mean, np.abs(scale) + 0.5, set_size
        )
        np.testing.assert_allclose(out[user, shown], expected, atol=1e-5)
        assert (out[user, ~shown] == 0).all()


@pytest.mark.parametrize("room", [32, 64])
@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 6), steps=st.integers(0, 9))
def test_counts_survive_a_larger_table(room: int, seed: int, k: int, steps: int) -> None:
    users, told = play(seed, 4, k, steps)
    larger = no_sessions(4, room)
    counting.move_counts(users.keys, users.counts, larger.keys, larger.counts)
    held = [len(set(user.displayed)) for user in told]
    assert counting.fullest(larger.keys) == counting.fullest(users.keys) == max(held)
    for user, one in enumerate(told):
        counts = {
            int(key): tuple(row.tolist())
            for key, row in zip(larger.keys[user], larger.counts[user], strict=True)
            if key >= 0
        }
        assert counts == {
            item: (one.displayed.count(item), one.chosen.count(item)) for item in set(one.displayed)
        }

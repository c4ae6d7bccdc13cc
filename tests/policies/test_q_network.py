"""The arg-max over large pools: kernels against the score written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum import threads
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.dqn import CascadeDqn
from fastgaum.policies.q_learning import explore
from fastgaum.policies.q_network import ItemParts, QNetwork, best_own_places, best_places, q_values
from fastgaum.worlds.pools import Pool
from tests.policies.small_world import TiringWorld, keys_at, keys_of


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 600),
    st.integers(1, 20),
    st.integers(0, 3),
    st.integers(0, 99),
)
def test_the_best_place_is_the_best(n: int, m: int, width: int, j: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    users, items = (rng.standard_normal((size, width)).astype(np.float32) for size in (n, m))
    j = min(j, m - 1)
    taken = np.array([rng.permutation(m)[:j] for _ in range(n)], np.int32).reshape(n, j)
    scores = users.astype(np.float64) @ items.T.astype(np.float64)
    for user in range(n):
        scores[user, taken[user]] = -np.inf
    own = np.broadcast_to(np.arange(m, dtype=np.int32), (n, m))
    for best in (
        best_places(users, ItemParts(items), taken),
        best_own_places(users, items, own, taken),
    ):
        assert all(best[user] not in taken[user] for user in range(n))
        np.testing.assert_allclose(scores[np.arange(n), best], scores.max(axis=1), atol=1e-4)


def test_ties_go_to_the_first_place_across_blocks() -> None:
    items = np.zeros((1000, 8), np.float32)
    items[[700, 300, 900], :4] = 1.0
    users = np.ones((3, 8), np.float32)
    none = np.empty((3, 0), np.int32)
    assert best_places(users, ItemParts(items), none).tolist() == [300] * 3
    taken = np.array([[300], [-1], [300]], np.int32)
    assert best_places(users, ItemParts(items), taken).tolist() == [700, 300, 700]


@pytest.mark.parametrize("level", [-1e4, 1e4])
def test_far_scores(level: float) -> None:
    items = np.full((5, 2), level, np.float32)
    items[3, 0] += 1
    best = best_places(np.ones((2, 2), np.float32), ItemParts(items), np.empty((2, 0), np.int32))
    assert best.tolist() == [3, 3]


def test_a_diverged_network_is_seen() -> None:
    """A NaN beats every number: it must not look like a good policy."""
    items = np.zeros((300, 8), np.float32)
    items[280] = np.nan
    best = best_places(np.ones((1, 8), np.float32), ItemParts(items), np.empty((1, 0), np.int32))
    assert best.tolist() == [280]


def test_threads_do_not_change_the_choice() -> None:
    rng = np.random.default_rng(0)
    users, items = (rng.standard_normal((size, 16)).astype(np.float32) for size in (500, 2000))
    none = np.empty((500, 0), np.int32)
    found = []
    before = threads.get_threads()
    for count in (1, 2, 3):
        threads.set_threads(count)
        found.append(best_places(users, ItemParts(items), none))
    threads.set_threads(before)
    assert (found[0] == found[1]).all()
    assert (found[0] == found[2]).all()


@pytest.mark.parametrize("towers", [(), (7,)])
@pytest.mark.parametrize("pool", [Pool(), Pool("per_user", 7)])
def test_the_cascade_is_the_arg_max_place_by_place(towers: tuple[int, ...], pool: Pool) -> None:
    """Each place against Q^j of every item, the network called pair by pair."""
    world, k, n = TiringWorld(), 3, 6
    policy = CascadeDqn(world, k, pool, PolicyConfig(width=12, towers=towers))
    states = np.random.default_rng(0).standard_normal((n, policy.n_read)).astype(np.float32)
    pools = pool.draw(pool.keys(keys_at(1, n)), world.n_items)
    places, values = policy.best_with_values(states, pools, policy.networks)
    for user in range(n):
        own = pools if pools.ndim == 1 else pools[user]
        before: list[int] = []
        for j, network in enumerate(policy.networks):
            shown = torch.from_numpy(
                policy.item_features[own[before]].reshape(1, j, policy.item_features.shape[1])
            ).expand(len(own), -1, -1)
            state = torch.from_numpy(states[user : user + 1]).expand(len(own), -1)
            scores = (
                network(state, shown, torch.from_numpy(policy.item_features[own])).detach().numpy()
            )
            value = scores[places[user, j]]
            scores[before] = -np.inf
            assert value >= scores.max() - 1e-5
            before.append(int(places[user, j]))
        assert values[user] == pytest.approx(value, abs=1e-5)
        assert len(set(before)) == k


def test_scores_of_pools_are_the_network_s() -> None:
    world = TiringWorld()
    scorer = QNetwork(world, 3, 0, PolicyConfig(width=10))
    states = np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32)
    pools = np.array([[1, 5, 2], [0, 1, 2], [11, 3, 4], [7, 8, 9]], np.int32)
    got = q_values(scorer, states, world.item_features, pools)
    shared = q_values(scorer, states, world.item_features, np.arange(12, dtype=np.int32))
    np.testing.assert_allclose(np.take_along_axis(shared, pools.astype(int), 1), got, atol=1e-5)
    for user in range(4):
        row = torch.from_numpy(states[user : user + 1]).expand(3, -1)
        features = torch.from_numpy(world.item_features[pools[user]])
        expected = scorer(row, features[:, None][:, :0], features).detach().numpy()
        np.testing.assert_allclose(got[user], expected, atol=1e-5)


@given(st.integers(1, 6), st.integers(0, 6), st.floats(0, 1), st.integers(0, 999))
def test_exploration_keeps_slates_distinct(k: int, more: int, epsilon: float, seed: int) -> None:
    n_pool = k + more
    rng = np.random.default_rng(seed)
    places = np.array([rng.permutation(n_pool)[:k] for _ in range(20)], np.int32)
    result = explore(places, keys_of(seed, 20), n_pool, epsilon)
    assert all(len(set(row)) == k for row in result.tolist())
    assert result.min() >= 0
    assert result.max() < n_pool
    if epsilon == 0:
        assert (result == places).all()


def test_exploration_fills_the_share_asked_for() -> None:
    places = np.tile(np.arange(3, dtype=np.int32), (20_000, 1))
    result = explore(places, keys_of(1, 20_000), 50, 0.3)
    assert (result != places).mean() == pytest.approx(0.3, abs=0.02)

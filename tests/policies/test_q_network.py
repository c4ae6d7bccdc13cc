"""Values of pools, the cascade and exploration, against the networks called pair by pair."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastgaum.policies.cascade_dqn import CascadeDqn
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.q_learning import explore
from fastgaum.worlds.pools import Pool
from tests.policies.small_world import TiringWorld, keys_at, keys_of


@pytest.mark.parametrize("towers", [(), (7,)])
@pytest.mark.parametrize("pool", [Pool(), Pool("per_user", 7)])
def test_the_cascade_is_the_arg_max_place_by_place(towers: tuple[int, ...], pool: Pool) -> None:
    """Each place against Q^j of every item, the network called pair by pair."""
    world, k, n = TiringWorld(), 3, 6
    policy = CascadeDqn(world, k, pool, PolicyConfig(width=12, towers=towers))
    states = np.random.default_rng(0).standard_normal((n, policy.n_read)).astype(np.float32)
    pools = pool.draw(pool.keys(keys_at(1, n)), world.n_items)
    places, values = policy.best_slates(states, pools, policy.networks)
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

"""What every policy must do: a new policy's test is `check_policy(lambda world, k: Mine(world))`
and what is its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastgaum import threads
from fastgaum.policies.base import Policy
from fastgaum.policies.rollout import Setting, play, rollout
from fastgaum.worlds.pools import POOL, Pool
from fastgaum.worlds.world import World
from tests.policies.small_world import TiringWorld, keys_at

Make = Callable[[World, int], Policy]
POOLS = (
    Pool(),
    Pool("fixed", 6),
    Pool("per_user", 7),
    Pool("per_step", 5),
    Pool("per_step", 5, items=(1, 3, 4, 6, 8, 9, 11)),
)


def check_policy(make: Make, world: World | None = None) -> None:
    """The whole contract."""
    world = world or TiringWorld()
    for k in (1, 3, 5):
        for pool in POOLS:
            _check_slates(make(world, k), world, Setting(k, 4, pool))
    _check_same_seed_same_slates(make, world)
    _check_users_do_not_matter_to_each_other(make, world)


def _check_slates(policy: Policy, world: World, setting: Setting) -> None:
    """Slates hold k distinct items of the user's own pool, int32."""
    for step, transition in enumerate(rollout(world, policy, setting, 9, seed=3)):
        slates = transition.slates
        pools = setting.pool.draw(
            keys_at(3, 9, step if setting.pool.rule == "per_step" else 0).of(POOL), world.n_items
        )
        assert slates.shape == (9, setting.k)
        assert slates.dtype == np.int32
        assert all(len(set(slate)) == setting.k for slate in slates.tolist())
        allowed = np.broadcast_to(pools, (9, pools.shape[-1]))
        assert all(
            set(slate) <= set(pool)
            for slate, pool in zip(slates.tolist(), allowed.tolist(), strict=True)
        )
        assert transition.rewards.dtype == np.float32


def _check_same_seed_same_slates(make: Make, world: World) -> None:
    """Once more, and with another number of threads: the same rewards to the bit."""
    setting = Setting(3, 5, Pool("per_step", 6))
    once = play(world, make(world, 3), setting, 300, seed=5)
    before = threads.get_threads()
    threads.set_threads(2)
    try:
        again = play(world, make(world, 3), setting, 300, seed=5)
    finally:
        threads.set_threads(before)
    np.testing.assert_array_equal(once.rewards, again.rewards)
    np.testing.assert_array_equal(once.clicks, again.clicks)


def _check_users_do_not_matter_to_each_other(make: Make, world: World) -> None:
    """A policy that does not learn serves a user among 4 as it serves that user among 40, of whom
    some leave."""
    setting = Setting(3, 5, Pool("per_user", 6), leaving=0.1)
    policies = [make(world, 3), make(world, 3)]
    for policy in policies:
        if hasattr(policy, "learning"):
            policy.learning = False
    many = play(world, policies[0], setting, 40, seed=5)
    few = play(world, policies[1], setting, 4, seed=5, first_user=11)
    np.testing.assert_array_equal(many.clicks[11:15], few.clicks)
    np.testing.assert_array_equal(many.shown[11:15], few.shown)
    np.testing.assert_allclose(many.rewards[11:15], few.rewards, atol=1e-5)

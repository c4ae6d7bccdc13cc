"""A user's trajectory is a function of its seed alone: not of its neighbours, threads, or what
happened before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastgaum import threads
from fastgaum.errors import ActionError
from fastgaum.worlds import learned_world
from fastgaum.worlds.pools import CHOICE, LEAVE, Keys, draw_uniform
from fastgaum.worlds.single_env import UserEnv
from fastgaum.worlds.vector_env import UserVectorEnv
from fastgaum.worlds.world import NO_ITEM, World
from tests.worlds.simulated import keys_of
from tests.worlds.small_world import SmallWorld

WORLD = SmallWorld()
OPTIONS: dict[str, Any] = {
    "world": WORLD,
    "slate_size": 3,
    "pool": "per_step",
    "pool_size": 6,
    "leaving": 0.2,
    "horizon": 5,
}


def actions_of(observation: Any, env: UserVectorEnv) -> np.ndarray:
    """Slates that follow from the first numbers of an observation, whatever those are."""
    mixed = np.abs(observation[:, :2]).sum(axis=1).astype(np.float64)[:, None] * 10
    return (mixed + 7 * np.arange(env.slate_size)).astype(int) % env.pools.size


def trajectory(env: UserVectorEnv, n: int, steps: int = 25, **reset: Any) -> list[np.ndarray]:
    """All that the first n users see in some steps, each user's action following from its
    observation."""
    observation, _ = env.reset(**reset)
    seen = []
    for _ in range(steps):
        actions = actions_of(observation, env)
        observation, rewards, terminated, truncated, info = env.step(actions)
        chosen = np.where(info["_item"], info["item"], -9)[:n] if "item" in info else np.full(n, -9)
        seen += [observation[:n].copy(), rewards[:n], terminated[:n], truncated[:n], chosen]
    return seen


def assert_equal(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_every_world_gives_a_user_the_same_life_in_any_company_and_on_any_threads(
    any_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 and 4,096 environments, 1 and 2 threads, as one group and as 32: the first users see the
    same."""
    monkeypatch.setattr(learned_world, "PLACES_OF_GROUP", 512)
    monkeypatch.setattr(learned_world, "PLACES_OF_PART", 64)
    options: dict[str, Any] = {"pool": "per_step", "pool_size": 8, "leaving": 0.2, "horizon": 5}
    before, lives = threads.get_threads(), []
    try:
        for n_threads, n in ((1, 64), (2, 64), (2, 4096)):
            threads.set_threads(n_threads)
            env = UserVectorEnv(n, world=any_world, slate_size=4, **options)
            lives.append(trajectory(env, 64, steps=8, seed=5))
    finally:
        threads.set_threads(before)
    for other in lives[1:]:
        assert_equal(lives[0], other)


def test_the_same_seed_gives_the_same_trajectory_whatever_came_before() -> None:
    env = UserVectorEnv(4, **OPTIONS)
    first = trajectory(env, 4, seed=5)
    other = trajectory(env, 4, seed=6)
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert_equal(first, trajectory(env, 4, seed=5))


def test_episodes_go_on_without_a_seed() -> None:
    env = UserVectorEnv(4, **OPTIONS)
    first, second = trajectory(env, 4, seed=5), trajectory(env, 4)
    assert not np.array_equal(first[0], second[0])
    again = UserVectorEnv(4, **OPTIONS)
    assert_equal(first, trajectory(again, 4, seed=5))
    assert_equal(second, trajectory(again, 4))
    # without any seed ever, one is taken from the system
    one, other = (trajectory(UserVectorEnv(4, **OPTIONS), 4) for _ in range(2))
    assert not np.array_equal(one[0], other[0])


def test_a_slate_in_another_order_changes_no_choice(any_world: World) -> None:
    """Nor does an empty place, or an item's second place."""
    if isinstance(any_world, SmallWorld):
        pytest.skip("draws its users' choices itself")
    n, rng = 300, np.random.default_rng(2)
    twins = any_world.population(n), any_world.population(n)
    for users in twins:
        users.reset(keys_of(1, n))
    for t in range(4):
        slates = rng.permuted(np.tile(np.arange(any_world.n_items), (n, 1)), axis=1)[:, :4]
        turned = np.column_stack([slates[:, ::-1], np.full(n, NO_ITEM), slates[:, 1]])
        one, other = (
            users.step(shown.astype(np.int32), keys_of(t, n))
            for users, shown in zip(twins, (slates, turned), strict=True)
        )
        np.testing.assert_array_equal(one.items, other.items)
        np.testing.assert_allclose(one.utilities, other.utilities, atol=1e-4)
        assert len(np.unique(one.places)) >= 4


def test_users_and_seeds_share_no_stream() -> None:
    """User 1 of seed 0 is not user 0 of seed 1: runs over seeds 0, 1, 2, … are independent."""
    seen = set()
    for seed in range(20):
        keys = Keys(50)
        keys.seed(seed, keys.everyone)
        keys.start(keys.everyone)
        for use in (CHOICE, LEAVE):
            seen |= set(keys.of(use).tolist())
        keys.steps += 1
        seen |= set(keys.of(CHOICE).tolist())
        keys.start(keys.everyone)
        seen |= set(keys.of(CHOICE).tolist())
    assert len(seen) == 20 * 50 * 4


def test_draws_are_uniform_and_uses_independent() -> None:
    keys = Keys(20_000)
    keys.seed(3, keys.everyone)
    keys.start(keys.everyone)
    one, other = draw_uniform(keys.of(CHOICE)), draw_uniform(keys.of(LEAVE))
    for draws in (one, other):
        counts = np.histogram(draws, 20, (0, 1))[0]
        assert (
            (counts - 1000) ** 2 / 1000
        ).sum() < 45  # chi square with 19 degrees of freedom, p < 0.001
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.03


@pytest.mark.parametrize(
    ("seed", "message"),
    [
        ([1, 2], "2 seeds for 3 users"),
        *[(seed, "numbers from 0") for seed in (-1, [1, -2, 3], 1.5, "abc", [1.5, 2.5, 3.5])],
    ],
)
def test_a_seed_that_is_none_is_refused(seed: Any, message: str) -> None:
    with pytest.raises(ActionError, match=message):
        UserVectorEnv(3, **OPTIONS).reset(seed=seed)
    with pytest.raises(ActionError, match="numbers from 0"):
        UserEnv(**OPTIONS).reset(seed=1.5)  # type: ignore[arg-type]


def test_a_seed_may_be_as_large_as_gymnasium_s_own() -> None:
    env = UserVectorEnv(2, **OPTIONS)
    assert_equal(trajectory(env, 2, seed=2**100 + 1), trajectory(env, 2, seed=2**100 + 1))

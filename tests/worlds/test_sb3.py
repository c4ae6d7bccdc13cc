"""The adapter to Stable-Baselines3: its interface, and the same numbers as the vector behind it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("stable_baselines3", reason="install fastgaum[rl]")

from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecMonitor

from fastgaum.errors import ConfigError
from fastgaum.worlds.item_by_item import VectorCascadeWrapper
from fastgaum.worlds.sb3 import SB3VecEnv
from fastgaum.worlds.single_env import UserEnv
from fastgaum.worlds.vector_env import UserVectorEnv
from tests.worlds.small_world import SmallWorld

WORLD = SmallWorld()


def made(n: int = 5, **options: object) -> UserVectorEnv:
    options = {"horizon": 4, "autoreset_mode": "SAME_STEP", **options}
    return UserVectorEnv(n, world=WORLD, slate_size=2, **options)  # type: ignore[arg-type]


def test_the_numbers_are_those_of_the_vector() -> None:
    plain, adapted = made(leaving=0.2), SB3VecEnv(made(leaving=0.2))
    assert adapted.observation_space == plain.single_observation_space
    assert adapted.action_space == plain.single_action_space
    adapted.seed(3)
    first, _ = plain.reset(seed=3)
    np.testing.assert_array_equal(adapted.reset(), first)
    rng, cut, left = np.random.default_rng(0), 0, 0
    for _ in range(30):
        actions = rng.integers(12, size=(5, 2))
        observation, rewards, terminated, truncated, info = plain.step(actions)
        seen, paid, done, infos = adapted.step(actions)
        np.testing.assert_array_equal(seen, observation)
        np.testing.assert_array_equal(paid, rewards)
        np.testing.assert_array_equal(done, terminated | truncated)
        for user in range(5):
            assert bool(infos[user]) == done[user]
            if done[user]:
                np.testing.assert_array_equal(
                    infos[user]["terminal_observation"], info["final_obs"][user]
                )
                assert infos[user]["TimeLimit.truncated"] == truncated[user]
                assert infos[user]["item"] == info["final_info"]["item"][user]
        cut, left = cut + truncated.sum(), left + terminated.sum()
    assert min(cut, left) > 5


def test_sb3_s_monitor_counts_the_cascade_s_picks() -> None:
    envs = VecMonitor(SB3VecEnv(VectorCascadeWrapper(made())))
    envs.reset()
    lengths = []
    for _ in range(16):
        _, _, _, infos = envs.step(np.zeros(5, int))
        lengths += [info["episode"]["l"] for info in infos if "episode" in info]
    assert lengths == [8] * 10


def test_methods_and_attributes_are_given_by_user() -> None:
    envs = SB3VecEnv(VectorCascadeWrapper(made()))
    envs.reset()
    envs.step(np.array([0, 1, 2, 3, 4]))
    masks = envs.env_method("action_masks", indices=[1, 3])
    assert [np.flatnonzero(~mask).tolist() for mask in masks] == [[1], [3]]
    assert envs.get_attr("num_envs", indices=0) == [5]
    assert envs.env_is_wrapped(VecMonitor) == [False] * 5
    assert not envs.has_attr("nothing")
    envs.set_attr("closed", True)
    assert envs.get_attr("closed") == [True] * 5


@pytest.mark.parametrize("observation", ["flat", "dict"])
@pytest.mark.filterwarnings("ignore:.*unconventional shape:UserWarning")
def test_sb3_s_checker_passes(observation: str) -> None:
    check_env(UserEnv(world=WORLD, slate_size=2, observation=observation, horizon=4))


@pytest.mark.filterwarnings("ignore:.*render_mode='rgb_array' that is not in the possible")
def test_sb3_s_make_vec_env_makes_users_that_its_agents_learn_from() -> None:
    """It asks for render_mode='rgb_array' first, and for none after a TypeError."""
    options = {"world": WORLD, "slate_size": 2, "horizon": 4}
    envs = make_vec_env("fastgaum.worlds:fastgaum/User-v0", 3, seed=0, env_kwargs=options)
    PPO("MlpPolicy", envs, n_steps=8, batch_size=24, device="cpu").learn(48)
    assert envs.get_attr("render_mode") == [None] * 3


@pytest.mark.parametrize("mode", ["NEXT_STEP", "DISABLED"])
def test_another_autoreset_is_refused(mode: str) -> None:
    with pytest.raises(ConfigError, match="make them with autoreset_mode='SAME_STEP'"):
        SB3VecEnv(made(autoreset_mode=mode))

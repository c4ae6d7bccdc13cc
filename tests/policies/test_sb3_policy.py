"""An agent of Stable-Baselines3 as a policy: it sees and does what it does in its environment, to
the bit, and another world's states are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("stable_baselines3", reason="install fastgaum[rl]")

from stable_baselines3 import DQN, PPO
from stable_baselines3.common.vec_env import VecFrameStack, VecMonitor, VecNormalize

from fastgaum.errors import ConfigError
from fastgaum.policies.base import Transition
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.evaluation import judge_seeds
from fastgaum.policies.registry import LEARNERS, untrained
from fastgaum.policies.rollout import Setting, play, rollout
from fastgaum.policies.sb3 import Sb3Policy
from fastgaum.policies.transfer import TransferPolicy
from fastgaum.worlds.item_by_item import VectorCascadeWrapper
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.pools import Pool
from fastgaum.worlds.sb3 import SB3VecEnv
from fastgaum.worlds.vector_env import UserVectorEnv
from fastgaum.worlds.world import World
from tests.policies.small_world import TiringWorld

K, HORIZON, N = 2, 4, 30
WORLD = TiringWorld()
SMALL: dict[str, Any] = {"n_steps": 8, "batch_size": 8, "seed": 0, "device": "cpu"}


def made(n: int = N, world: World = WORLD, cascade: bool = False, **options: Any) -> SB3VecEnv:
    options = {"slate_size": K, "horizon": HORIZON, "autoreset_mode": "SAME_STEP", **options}
    envs = UserVectorEnv(n, world=world, **options)
    return SB3VecEnv(VectorCascadeWrapper(envs) if cascade else envs)


def paid(agent: Any, envs: Any, steps: int) -> np.ndarray:
    """What the environment pays the agent, (n, steps)."""
    envs.seed(5)
    seen = envs.reset()
    rewards = []
    for _ in range(steps):
        actions, _ = agent.predict(seen, deterministic=True)
        seen, reward, _, _ = envs.step(actions)
        rewards.append(reward)
    return np.stack(rewards, axis=1)


@pytest.mark.parametrize(
    ("options", "pool", "cascade"),
    [
        ({"pool": [3, 1, 7, 8]}, Pool(items=(3, 1, 7, 8)), False),
        ({"features": True, "end": "termination"}, Pool(), True),
        ({"pool": "per_user", "pool_size": 5}, Pool("per_user", 5), False),
        ({"pool": "per_user", "pool_size": 5}, Pool("per_user", 5), True),
        ({"pool": "per_step", "pool_size": 5, "observation": "dict"}, Pool("per_step", 5), False),
        ({"pool": "per_step", "pool_size": 5, "observation": "dict"}, Pool("per_step", 5), True),
    ],
)
def test_it_plays_as_in_its_environment(options: dict[str, Any], pool: Pool, cascade: bool) -> None:
    kind = "MultiInputPolicy" if "observation" in options else "MlpPolicy"
    agent = PPO(kind, made(2, cascade=cascade, **options), **SMALL)
    at_home = paid(agent, made(cascade=cascade, **options), HORIZON * (K if cascade else 1))
    rewards = at_home.reshape(N, HORIZON, -1).sum(axis=2)
    outcome = play(WORLD, Sb3Policy(agent), Setting(K, HORIZON, pool), N, seed=5)
    np.testing.assert_array_equal(outcome.rewards, rewards)
    assert np.unique(rewards).size > N


def test_normalised_observations_are_normalised() -> None:
    """VecNormalize's means are those of the training; VecMonitor changes nothing."""
    agent = DQN(
        "MlpPolicy",
        VecNormalize(VecMonitor(made(2, cascade=True)), norm_reward=False),
        learning_starts=10,
        seed=0,
        device="cpu",
    )
    agent.learn(60)
    normaliser = agent.get_vec_normalize_env()
    assert normaliser is not None
    fresh = VecNormalize(made(cascade=True), norm_reward=False, training=False)
    fresh.obs_rms = normaliser.obs_rms
    rewards = paid(agent, fresh, HORIZON * K).reshape(N, HORIZON, K).sum(axis=2)
    setting = Setting(K, HORIZON)
    np.testing.assert_array_equal(
        play(WORLD, Sb3Policy(agent), setting, N, seed=5).rewards, rewards
    )
    raw = play(WORLD, Sb3Policy(agent, made(2, cascade=True)), setting, N, seed=5).rewards
    assert (raw != rewards).any(), "the agent does the same without its normalisation"


class Watching:
    """An agent with masks and a memory: it picks the last allowed place, and counts its calls."""

    def __init__(self, envs: SB3VecEnv) -> None:
        self.envs, self.observation_space = envs, envs.observation_space
        self.begun: list[bool] = []

    def get_env(self) -> SB3VecEnv:
        return self.envs

    def predict(
        self,
        seen: np.ndarray,
        state: int | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, int]:
        assert action_masks is not None
        assert episode_start is not None
        assert deterministic
        self.begun.append(bool(episode_start.all()))
        assert (state or 0) == (len(self.begun) - 1) % (K * HORIZON)
        return action_masks.shape[1] - 1 - action_masks[:, ::-1].argmax(axis=1), (state or 0) + 1


def test_without_a_horizon_all_of_the_episode_is_left() -> None:
    agent = PPO("MultiInputPolicy", made(2, horizon=None, leaving=0.1, observation="dict"), **SMALL)
    policy, left = Sb3Policy(agent), []
    policy._predict = lambda seen, **_: (left.append(seen["left"]), agent.predict(seen))[1]
    play(WORLD, policy, Setting(K, HORIZON), N, seed=1)
    assert (np.array(left) == 1.0).all()


def test_masks_and_memory_are_handed_on() -> None:
    agent = Watching(made(2, cascade=True))
    policy: Any = Sb3Policy(agent)  # type: ignore[arg-type]
    assert policy.name == "watching"
    for _ in range(2):
        shown = [step.slates for step in rollout(WORLD, policy, Setting(K, HORIZON), N, seed=1)]
        np.testing.assert_array_equal(np.stack(shown), np.tile([11, 10], (HORIZON, N, 1)))
    assert agent.begun == ([True] + [False] * (K * HORIZON - 1)) * 2


def test_in_another_world_it_reads_the_states_of_its_own(learned: LearnedWorld) -> None:
    """The other world's users are followed by users of the own world, whose states the agent
    sees."""
    agent = PPO("MlpPolicy", made(2, learned), **SMALL)
    setting = Setting(K, HORIZON)
    home = play(learned, Sb3Policy(agent), setting, N, seed=5)
    away = play(learned, TransferPolicy(Sb3Policy(agent), learned, learned), setting, N, seed=5)
    np.testing.assert_array_equal(home.rewards, away.rewards)
    other = TiringWorld(12)
    other.item_ids = learned.item_ids.reverse()
    reverse = Setting(K, HORIZON, Pool(items=tuple(range(11, -1, -1))))
    told: list[Transition] = list(
        rollout(other, TransferPolicy(Sb3Policy(agent), learned, other), reverse, N, seed=5)
    )
    users = learned.population(N)
    for step in told:
        expected, _ = agent.predict(users.states, deterministic=True)
        np.testing.assert_array_equal(step.slates, 11 - expected)
        users.follow(expected.astype(np.int32), step.response.places)
    earned = judge_seeds([Sb3Policy(agent)] * 2, other, reverse, N, own=learned)
    assert earned.policy == "ppo"
    assert np.isfinite(earned.returns).all()


def test_another_world_is_an_error_with_a_cure(tmp_path: Path) -> None:
    """Stepping another world with an agent, or playing it with a policy, that reads the first
    world's states."""
    other = TiringWorld()
    other.item_features = other.item_features + 1
    agent = PPO("MlpPolicy", made(2), **SMALL)
    agent.set_env(made(2, TiringWorld()))
    agent.save(tmp_path / "agent")
    for step_in in (agent.set_env, lambda envs: PPO.load(tmp_path / "agent", env=envs)):
        with pytest.raises(ValueError, match="judge it in another as Sb3Policy"):
            step_in(made(2, other))
        with pytest.raises(ValueError, match="judge it in another as Sb3Policy"):
            step_in(VecMonitor(made(2, other)))
    with pytest.raises(ConfigError, match="pass one made as in the training"):
        Sb3Policy(PPO.load(tmp_path / "agent"), made(2, other))
    loaded = PPO.load(tmp_path / "agent", env=made(2))
    setting = Setting(K, HORIZON)
    learners = [untrained(name, WORLD, K, Pool(), PolicyConfig()) for name in LEARNERS]
    for policy in (Sb3Policy(loaded), *learners):
        play(WORLD, policy, setting, 3, seed=1)
        with pytest.raises(ConfigError, match=r"own=…, its world.*TransferPolicy"):
            play(other, policy, setting, 3, seed=1)
        with pytest.raises(ConfigError, match="made in"):
            TransferPolicy(policy, other, WORLD)


def test_what_it_cannot_play_is_refused() -> None:
    agent = PPO("MlpPolicy", made(2), **SMALL)
    policy = Sb3Policy(agent)
    with pytest.raises(ConfigError, match="judge it with k = 2"):
        play(WORLD, policy, Setting(3, HORIZON), N, seed=1)
    with pytest.raises(ConfigError, match="pools of 12 items, not 5"):
        play(WORLD, policy, Setting(K, HORIZON, Pool("per_step", 5)), N, seed=1)
    with pytest.raises(ConfigError, match="by its place in the pool"):
        play(WORLD, policy, Setting(K, HORIZON, Pool(items=tuple(range(11, -1, -1)))), N, seed=1)
    with pytest.raises(ConfigError, match=r"call start\(n\)"):
        Sb3Policy(agent).act(None, K)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="VecFrameStack"):
        Sb3Policy(agent, VecFrameStack(made(2), 2))
    agent.env = None
    with pytest.raises(ConfigError, match="pass envs="):
        Sb3Policy(agent)

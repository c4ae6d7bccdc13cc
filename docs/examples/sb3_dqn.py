"""Stable-Baselines3's DQN learns slates in a world of users: `python sb3_dqn.py RUN`.

DQN has one discrete action, so the cascade lets it pick a slate item by item; γ is per pick, hence
the root."""

import sys
from typing import Any

import numpy as np
from stable_baselines3 import DQN
from stable_baselines3.common.vec_env import VecMonitor

from fastgaum.worlds.item_by_item import VectorCascadeWrapper
from fastgaum.worlds.sb3 import SB3VecEnv
from fastgaum.worlds.vector_env import UserVectorEnv

K = 3


def users(n: int, **world: Any) -> VecMonitor:
    """So many users behind SB3's interface."""
    envs = UserVectorEnv(n, slate_size=K, horizon=10, autoreset_mode="SAME_STEP", **world)
    return VecMonitor(SB3VecEnv(VectorCascadeWrapper(envs)))


def mean_return(model: Any, episodes: int = 512, **world: Any) -> float:
    """What new users pay in one episode, on average; model None: random picks."""
    envs = users(episodes, **world)
    envs.seed(10_000)
    observations = envs.reset()
    rng, total = np.random.default_rng(0), 0.0
    for _ in range(10 * K):
        if model is None:
            actions = rng.integers(envs.action_space.n, size=episodes)
        else:
            actions, _ = model.predict(observations, deterministic=True)
        observations, rewards, _, _ = envs.step(actions)
        total += rewards.mean()
    return float(total)


def main(steps: int = 60_000, **world: Any) -> tuple[float, float]:
    """Train; return the mean return of random picks and of the agent."""
    model = DQN(
        "MlpPolicy",
        users(16, **world),
        gamma=0.9 ** (1 / K),
        learning_rate=1e-3,
        buffer_size=20_000,
        batch_size=256,
        learning_starts=1_000,
        train_freq=4,
        gradient_steps=2,
        target_update_interval=500,
        exploration_fraction=0.5,
        policy_kwargs={"net_arch": [64, 64]},
        seed=0,
        device="cpu",
    )
    model.learn(steps)
    return mean_return(None, **world), mean_return(model, **world)


if __name__ == "__main__":
    print("random {:.2f}, DQN {:.2f}".format(*main(run=sys.argv[1])))

"""Stable-Baselines3's PPO learns whole slates in a world of users: `python sb3_ppo.py RUN`.

A slate is one MultiDiscrete action: PPO has a distribution of its own for each place.
"""

import sys
from typing import Any

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor

from fastgaum.worlds.sb3 import SB3VecEnv
from fastgaum.worlds.vector_env import UserVectorEnv


def users(n: int, **world: Any) -> VecMonitor:
    """So many users behind SB3's interface."""
    return VecMonitor(
        SB3VecEnv(UserVectorEnv(n, slate_size=3, horizon=10, autoreset_mode="SAME_STEP", **world))
    )


def mean_return(model: Any, episodes: int = 512, **world: Any) -> float:
    """What new users pay in one episode, on average; model None: random slates."""
    envs = users(episodes, **world)
    envs.seed(10_000)
    observations = envs.reset()
    rng, total = np.random.default_rng(0), 0.0
    for _ in range(10):
        if model is None:
            actions = rng.integers(envs.action_space.nvec, size=(episodes, 3))
        else:
            actions, _ = model.predict(observations, deterministic=True)
        observations, rewards, _, _ = envs.step(actions)
        total += rewards.mean()
    return float(total)


def main(steps: int = 80_000, **world: Any) -> tuple[float, float]:
    """Train; return the mean return of random slates and of the agent."""
    model = PPO(
        "MlpPolicy",
        users(64, **world),
        n_steps=20,
        batch_size=320,
        learning_rate=1e-3,
        gamma=0.9,
        policy_kwargs={"net_arch": [64, 64]},
        seed=0,
        device="cpu",
    )
    model.learn(steps)
    return mean_return(None, **world), mean_return(model, **world)


if __name__ == "__main__":
    print("random {:.2f}, PPO {:.2f}".format(*main(run=sys.argv[1])))

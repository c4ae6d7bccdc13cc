"""Training of a policy in a world: rollouts in which it learns, evaluations between them, a row for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from fastgaum.envs.world import World
from fastgaum.policies.learner import Learner
from fastgaum.policies.linucb import LinUcb
from fastgaum.policies.rollout import Outcome, Setting, play, rollout

EVALUATION_SEED = 1 << 40
"""seeds of evaluations begin here, apart from those of training"""
EVALUATED_USERS = 500

Observer = Callable[[int, int, dict[str, Any]], None]
"""called with episodes done, episodes in all, and the last evaluation's row"""


def train(policy: Learner | LinUcb, world: World, setting: Setting, observer: Observer | None = None) -> pl.DataFrame:
    """Train a policy; returns a row per evaluation: steps, return, click rate, loss, epsilon.

    `return` is the mean cumulative reward of new users under the policy as it stands, without exploration; steps are steps of
    single users. The same seed on the same machine gives the same policy.

    Raises:
        ConfigError: slates or pools do not fit the world.
        NumericsError: training diverged.
    """
    config = policy.config
    policy.learning = False
    every = max(1, config.episodes // config.evaluations)
    rows: list[dict[str, Any]] = []
    steps = 0
    for episode in range(config.episodes):
        shown, losses = _learn(policy, world, setting, episode)
        steps += shown
        if (episode + 1) % every == 0 or episode + 1 == config.episodes:
            outcome = evaluated(policy, world, setting)
            rows.append({
                "steps": steps,
                "return": float(outcome.returns.mean()),
                "click_rate": outcome.click_rate,
                "loss": float(np.mean(losses)) if losses else float("nan"),
                "epsilon": policy.epsilon if isinstance(policy, Learner) else float("nan"),
            })  # fmt: skip
        if observer is not None:
            observer(episode + 1, config.episodes, rows[-1] if rows else {})
    return pl.DataFrame(rows)


def _learn(policy: Learner | LinUcb, world: World, setting: Setting, episode: int) -> tuple[int, list[float]]:
    """One episode of new users with learning on; returns the slates shown and the losses."""
    config = policy.config
    policy.learning = True
    shown, losses = 0, []
    try:
        for step, transition in enumerate(rollout(world, policy, setting, config.users, config.seed, episode * config.users)):
            shown += int(transition.active.sum())
            if isinstance(policy, Learner):
                policy.progress = (episode + (step + 1) / setting.horizon) / config.episodes
                losses += [policy.loss] if np.isfinite(policy.loss) else []
    finally:
        policy.learning = False
    return shown, losses


def evaluated(policy: Learner | LinUcb, world: World, setting: Setting) -> Outcome:
    """An episode of users that training does not meet."""
    return play(world, policy, setting, EVALUATED_USERS, EVALUATION_SEED + policy.config.seed)

"""Training of a policy in a world: rollouts in which it learns, evaluations between them, a row for
each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from fastgaum.policies.learner import Learner
from fastgaum.policies.linucb import LinUcb
from fastgaum.policies.resume import Keeper, Position
from fastgaum.policies.rollout import Outcome, Setting, play, rollout
from fastgaum.worlds.world import World

EVALUATION_SEED = 1 << 40
"""seeds of evaluations begin here, apart from those of training"""
EVALUATED_USERS = 500

Observer = Callable[[int, int, dict[str, Any]], None]
"""called with episodes done, episodes in all, and the last evaluation's row"""


def train(
    policy: Learner | LinUcb,
    world: World,
    setting: Setting,
    observer: Observer | None = None,
    keeper: Keeper | None = None,
    start: Position | None = None,
) -> pl.DataFrame:
    """Train a policy; returns a row per evaluation: steps, return, click rate, loss, epsilon.

    `return` is the mean cumulative reward of new users under the policy as it stands, without
    exploration; steps are steps of single users. The same seed on the same machine gives the same
    policy. With a `keeper` a training that is cut off can go
    on: `train(…, keeper, keeper.resume())` ends where one that was not cut off ends, to the byte.

    Raises:
        ConfigError: slates or pools do not fit the world.
        NumericsError: training diverged.
        OutputError: the keeper's file cannot be written.
        Interrupted: the keeper was asked to stop, and has kept what was done.
    """
    config = policy.config
    policy.learning = False
    every = max(1, config.episodes // config.evaluations)
    at = start or Position()
    for episode in range(at.episodes, config.episodes):
        if keeper is not None:
            keeper.keep(at)
        shown, losses = _learn(policy, world, setting, episode)
        at.episodes, at.steps = episode + 1, at.steps + shown
        if (episode + 1) % every == 0 or episode + 1 == config.episodes:
            outcome = evaluated(policy, world, setting)
            at.rows.append(
                {
                    "steps": at.steps,
                    "return": float(outcome.returns.mean()),
                    "click_rate": outcome.click_rate,
                    "loss": float(np.mean(losses)) if losses else float("nan"),
                    "epsilon": policy.epsilon if isinstance(policy, Learner) else float("nan"),
                }
            )
        if observer is not None:
            observer(episode + 1, config.episodes, at.rows[-1] if at.rows else {})
    if keeper is not None:
        keeper.keep(at)
    return pl.DataFrame(at.rows)


def _learn(
    policy: Learner | LinUcb, world: World, setting: Setting, episode: int
) -> tuple[int, list[float]]:
    """One episode of new users with learning on; returns the slates shown and the losses."""
    config = policy.config
    policy.learning = True
    shown, losses = 0, []
    try:
        users = rollout(world, policy, setting, config.users, config.seed, episode * config.users)
        for step, transition in enumerate(users):
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

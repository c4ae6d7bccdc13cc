"""Training of a policy in a world."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import polars as pl

from fastgaum.errors import ConfigError
from fastgaum.policies.q_learning import QLearner
from fastgaum.policies.rollout import Setting, play, rollout
from fastgaum.threads import for_small_networks
from fastgaum.worlds.world import World

EVALUATION_SEED = 1 << 40
"""seeds of evaluations begin here"""
EVALUATED_USERS = 500


@for_small_networks()
def train_policy(
    policy: QLearner,
    world: World,
    setting: Setting,
    progress: Callable[[int, int, dict[str, object]], None] | None = None,
) -> pl.DataFrame:
    """Train a policy; returns a row per evaluation: steps of single users, mean return of new users
    without exploration and pessimism, click rate, share of decoys (`EpisodeResult.decoy_share`),
    loss, epsilon. The policy keeps the last share of decoys.

    It takes one thread, unless `fastgaum.threads.set_threads` has said how many. `progress` is
    called with episodes done, episodes in all, and the last evaluation's row.

    Raises:
        ConfigError: slates or pools do not fit the world, the policy was made for another pool, or
            users took fewer steps than `warm_up`, so that it learned nothing.
        NumericsError: training diverged.
    """
    policy.require_pool(setting.pool)
    policy.pays_surplus = setting.pays.is_surplus
    config = policy.config
    every = max(1, config.episodes // config.evaluations)
    plain = dataclasses.replace(setting, pessimism=0.0)
    rows: list[dict[str, object]] = []
    steps, before = 0, policy.n_updates
    for episode in range(config.episodes):
        losses = []
        users = rollout(world, policy, setting, config.users, config.seed, episode * config.users)
        policy.learning = True
        try:
            for step, transition in enumerate(users):
                steps += int(transition.active.sum())
                policy.progress = (episode + (step + 1) / setting.horizon) / config.episodes
                losses.append(policy.loss)
        finally:
            policy.learning = False
        losses = [loss for loss in losses if np.isfinite(loss)]
        if (episode + 1) % every == 0 or episode + 1 == config.episodes:
            outcome = play(world, policy, plain, EVALUATED_USERS, EVALUATION_SEED + config.seed)
            policy.decoys = outcome.decoy_share
            rows.append(
                {
                    "steps": steps,
                    "return": float(outcome.returns.mean()),
                    "click_rate": outcome.click_rate,
                    "decoys": policy.decoys,
                    "loss": float(np.mean(losses)) if losses else float("nan"),
                    "epsilon": policy.epsilon,
                }
            )
        if progress is not None:
            progress(episode + 1, config.episodes, rows[-1] if rows else {})
    if policy.n_updates == before:
        raise ConfigError(
            f"{policy.name} learned nothing: its users took {steps:,} steps, and the first update "
            f"needs warm_up = {config.warm_up:,}: lower warm_up, or play more users or episodes"
        )
    return pl.DataFrame(rows)

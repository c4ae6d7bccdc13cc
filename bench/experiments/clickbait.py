"""Clickbait: a made-up world in which what is clicked most is watched least. A policy that is paid
in minutes beside one that is paid in clicks, and the error of the outcome head beside the truth's.

    python bench/experiments/clickbait.py [--events 20000] [--seeds 3]

Utilities are those of the synthetic world. A click on item a in the state s is followed by

    minutes = 10 − 4 · (base[a] less its mean, over its standard deviation) + 3 ⟨s, z_a⟩ + 3 · noise

Policies are trained in the learned world and judged by users of the truth, in minutes of sessions
of 10 displays of 3 items; the ratio's bound is that of minutes − 1.2 · clicks, paired by user."""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
from scipy.stats import norm

import fastgaum as fg
from fastgaum.arrays import BoolArray, Float64Array, FloatArray, IntArray, KeyArray
from fastgaum.kernels.draws import uniforms
from fastgaum.logs.log import TEST, Column
from fastgaum.logs.synthetic import SyntheticUsers, SyntheticWorld
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.evaluation import Earned, Estimate, judge_seeds
from fastgaum.policies.registry import untrained
from fastgaum.policies.rollout import Setting
from fastgaum.policies.training import train_policy
from fastgaum.worlds.replay import world_of
from fastgaum.worlds.true_world import TruePopulation, TrueWorld
from fastgaum.worlds.world import Response

WORLD = SyntheticWorld(n_items=50, no_click=0.3, affinity=1.0, popularity=0.5, seed=3)
NOISE = 3.0
_MINUTES = np.uint64(32)
"""stream of a step's key"""


def mean_minutes(
    base: Float64Array, latents: Float64Array, taste: Float64Array, items: IntArray
) -> Float64Array:
    """Expected minutes of each user, of taste (n, dim), after the choice of an item, (n,)."""
    appeal = (base[items] - base.mean()) / base.std()
    return np.asarray(10.0 - 4.0 * appeal + 3.0 * (taste * latents[items]).sum(axis=1))


class ClickbaitWorld(TrueWorld):
    """The truth, whose users watch what they have clicked."""

    outcome_labels = ("minutes",)

    def population(self, n: int) -> ClickbaitPopulation:
        """As the base says."""
        return ClickbaitPopulation(self, n)


class ClickbaitPopulation(TruePopulation):
    """Users of the truth."""

    def step(self, slates: IntArray, keys: KeyArray, active: BoolArray | None = None) -> Response:
        """As the base says."""
        taste, draws = self.truth.taste.copy(), np.empty(self.n)
        response = super().step(slates, keys, active)
        uniforms(np.ascontiguousarray(keys, np.uint64), _MINUTES, draws)
        minutes = mean_minutes(self.world.base, self.world.latents, taste, response.items)
        minutes += NOISE * norm.ppf(np.clip(draws, 1e-9, 1 - 1e-9))
        outcomes: FloatArray = np.where(response.items < 0, np.nan, minutes)[:, None]
        return replace(response, outcomes=outcomes.astype(np.float32))


def draw_log(n_events: int) -> tuple[fg.SessionLog, float]:
    """A log of random displays with minutes, and the truth's own root mean squared error on the
    choices of its test split."""
    log, _ = WORLD.draw(n_events)
    world, users = ClickbaitWorld(WORLD), SyntheticUsers(WORLD, WORLD.items[1], log.n_sessions)
    items, means = np.full(log.n_events, -1, np.int32), np.full(log.n_events, np.nan)
    items[log.choices >= 0] = log.items[log.chosen_candidates]
    lengths = np.diff(log.session_offsets)
    for number in range(int(lengths.max())):
        who = np.flatnonzero(lengths > number)
        events = log.session_offsets[who] + number
        means[events] = mean_minutes(world.base, world.latents, users.taste[who], items[events])
        users.move(who, items[events])
    noise = NOISE * np.random.default_rng(WORLD.seed).normal(size=log.n_events)
    values = np.where(items >= 0, means + noise, np.nan).astype(np.float32)
    tested = (log.split[log.session_of_event] == TEST) & (items >= 0)
    error = float(np.sqrt((noise[tested] ** 2).mean()))
    return replace(log, columns={"minutes": Column("outcome", values)}), error


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each policy")
    options = parser.parse_args()
    log, least = draw_log(options.events)
    model = fg.UserModel.from_preset("fastgaum", seed=0).fit(log)
    figures = model.evaluate(log).outcomes["minutes"]
    error = figures.error.mean**0.5
    print(
        f"minutes, {figures.n:,} test choices: RMSE {error:.3f}, by item {figures.by_item**0.5:.3f}"
    )
    print(f"the truth's own {least:.3f}: {100 * (error / least - 1):+.1f} %", flush=True)
    world, truth, earned = world_of(model, log), ClickbaitWorld(WORLD), dict[str, Earned]()
    for reward in ("click", "outcome:minutes"):
        setting = Setting(k=3, horizon=10, reward=reward)
        policies = [
            untrained(
                "slateq", world, setting.k, setting.pool, PolicyConfig(seed=seed, episodes=30)
            )
            for seed in range(options.seeds)
        ]
        for policy in policies:
            train_policy(policy, world, setting)
        earned[reward] = judge_seeds(
            policies, truth, replace(setting, reward="outcome:minutes"), 1000, world
        )
        paid = Estimate.of(earned[reward].by_user)
        clicks = earned[reward].click_rates.mean()
        print(
            f"paid in {reward}: {paid.mean:.1f} minutes ({paid.low:.1f} to {paid.high:.1f}) a "
            f"session of the truth, {clicks:.3f} clicks a display",
            flush=True,
        )
    more, fewer = (earned[name].by_user for name in ("outcome:minutes", "click"))
    over = Estimate.of(more - 1.2 * fewer)
    print(
        f"ratio {more.mean() / fewer.mean():.3f}; minutes − 1.2 · clicks: {over.mean:.1f} "
        f"({over.low:.1f} to {over.high:.1f})"
    )


if __name__ == "__main__":
    main()

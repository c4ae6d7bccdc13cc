"""Off-policy values where the true value is known: `python bench/ope.py --json
docs/tables/ope.json`.

Users of the synthetic world see 5 slates of 3 of 50 items: random ones, sets by popularity, or
those of a greedy recommender with a random share; the last two log propensities. In each setting so
many logs are drawn, and every estimator gives the value of one target policy with its 95 %
interval. The true value is that of 20,000 further users. The world of the direct method and of the
doubly robust estimators is a `fastgaum` preset, fitted once per kind of log on 500 users who are in
no log.

Printed for each estimator: the share of logs with a value, how many intervals hold the true value,
the mean error, and the root of the mean squared error; the lowest is marked.

`--bar` judges 20 other settings: what made the log × how often users click × the target's share of
random displays. No value or end of an interval may be one that no display can earn, none may be
printed where the mean weight says that the propensities are wrong, and the intervals of `dr-pi`
must hold in 90 of 100 logs, of those that have one. The exit code is 1 where that fails."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from fastgaum.arrays import IntArray, KeyArray
from fastgaum.bench.report import write_object
from fastgaum.logs.log import SessionLog
from fastgaum.logs.splits import shuffled_split
from fastgaum.logs.synthetic import SyntheticWorld
from fastgaum.machine import machine_facts
from fastgaum.models.user_model import UserModel
from fastgaum.ope.estimators import ROUNDING
from fastgaum.ope.replay import Target, replay_policy
from fastgaum.ope.values import off_policy_values
from fastgaum.policies.base import Policy, top_places
from fastgaum.policies.heuristics import Greedy, Popular, RandomPolicy
from fastgaum.reports.table import num, rows_to_markdown, signed
from fastgaum.threads import set_threads
from fastgaum.worlds.pools import draw_distinct, draw_uniforms
from fastgaum.worlds.replay import world_of
from fastgaum.worlds.true_world import TrueWorld
from fastgaum.worlds.world import World

Shown = Literal["random", "popular", "greedy"]
Wanted = Literal["greedy", "popular", "random"]
STEPS, K = 5, 3
USERS = SyntheticWorld(
    n_items=50, seed=1, no_click=0.8, decay=0.6, affinity=1.5, popularity=1.0, max_display=10
)
OFTEN = replace(USERS, no_click=0.4)
FIT_USERS, TRUE_USERS = 500, 20_000
NOISE = 0.3
"""share of a greedy logger's displays that are random sets"""
LEAST_HELD = 0.9
"""share of the printed intervals of dr-pi that must hold"""
MOST_LOGS = 0.8
"""share of the logs for which the best estimator must have a value"""


@dataclass(frozen=True)
class Setting:
    """How a log is made, and whose value is asked for."""

    name: str
    shown: Shown
    """by chance, by a law of popularity, or by a greedy recommender; the last two log
    propensities"""
    users: int
    target: Wanted
    epsilon: float
    often: bool = False
    """whether users click on some 40 % of random displays, not on 12 %"""

    def world(self) -> TrueWorld:
        return TrueWorld(OFTEN if self.often else USERS)

    def weights(self, world: TrueWorld) -> np.ndarray | None:
        """The law's weight of each item; None of a greedy recommender."""
        if self.shown == "greedy":
            return None
        return np.exp(0.5 * world.base * (self.shown == "popular"))


SETTINGS = (
    Setting("random log, greedy", "random", 6000, "greedy", 0.2),
    Setting("popular log, random target", "popular", 6000, "random", 1.0),
    Setting("greedy log, random target", "greedy", 6000, "random", 1.0),
    Setting("random log, few events", "random", 400, "greedy", 0.7),
)
TARGETS: tuple[tuple[Shown, Wanted, float], ...] = (
    *(("random", "greedy", epsilon) for epsilon in (0.2, 0.5, 0.8)),
    *(("popular", "greedy", epsilon) for epsilon in (0.5, 0.8)),
    *(("greedy", "popular", epsilon) for epsilon in (0.2, 0.5, 0.8)),
    ("popular", "random", 1.0),
    ("greedy", "random", 1.0),
)
BAR = tuple(
    Setting(f"{shown}, {target} {epsilon:g}{word}", shown, 2000, target, epsilon, often)
    for shown, target, epsilon in TARGETS
    for often, word in ((False, ""), (True, ", frequent clicks"))
)


@dataclass(frozen=True)
class Drawn:
    """A log, and what made it."""

    log: SessionLog
    slates: IntArray
    keys: KeyArray
    """of the choices, shape (STEPS, n_users)"""
    propensities: np.ndarray
    """of the slates, shape (STEPS * n_users,) in the order of the log"""


def draw_log(world: TrueWorld, weights: np.ndarray | None, n_users: int, seed: int) -> Drawn:
    """Let users choose from slates whose sets are drawn with probability ∝ the product of their
    items' weights; None: from their greedy slates, and random sets with probability `NOISE`."""
    rng = np.random.default_rng(seed)
    users = world.population(n_users)
    users.reset(np.zeros(n_users, np.uint64))
    law = np.ones(world.n_items) if weights is None else weights / weights.mean()
    sets = draw_sets(law, STEPS * n_users, rng)
    # the sum over all sets of K = 3 items of the product of their weights, by Newton's identities
    p1, p2, p3 = (float((law**power).sum()) for power in (1, 2, 3))
    every = (p1**3 - 3.0 * p1 * p2 + 2.0 * p3) / 6.0
    slates = np.sort(sets, axis=1).reshape(STEPS, n_users, K)
    keys = rng.integers(0, 2**64, (STEPS, n_users), dtype=np.uint64)
    at_random, pool = rng.random((STEPS, n_users)) < NOISE, np.arange(world.n_items, dtype=np.int32)
    places, propensities = np.empty((STEPS, n_users), np.int32), law[slates].prod(axis=2) / every
    for t in range(STEPS):
        if weights is None:
            best = np.sort(top_places(users.utilities(pool, K), K), axis=1)
            slates[t] = np.where(at_random[t, :, None], slates[t], best)
            same = (slates[t] == best).all(axis=1)
            propensities[t] = NOISE / every + (1.0 - NOISE) * same
        places[t] = users.step(slates[t], keys[t]).places
    n_events = STEPS * n_users
    log = SessionLog(
        session_offsets=np.arange(0, n_events + 1, STEPS, dtype=np.int32),
        display_offsets=np.arange(0, n_events * K + 1, K, dtype=np.int32),
        items=np.ascontiguousarray(slates.transpose(1, 0, 2)).reshape(-1),
        choices=np.ascontiguousarray(places.T).reshape(-1).astype(np.int32),
        split=shuffled_split(n_users, seed),
        users=np.arange(n_users, dtype=np.int32),
        session_ids=pl.Series("session", [str(i) for i in range(n_users)], dtype=pl.String),
        event_ids=pl.Series("event", np.tile(np.arange(STEPS), n_users)),
        item_ids=world.item_ids,
        name="drawn",
    )
    return Drawn(log, slates, keys, propensities.T.reshape(-1))


def draw_sets(weights: np.ndarray, n: int, rng: np.random.Generator) -> IntArray:
    """n sets of K items, (n, K): items are drawn one by one, and kept where they are distinct."""
    shares = weights / weights.sum()
    kept: list[np.ndarray] = []
    missing = n
    while missing > 0:
        drawn = rng.choice(len(weights), (2 * missing + 16, K), p=shares).astype(np.int32)
        ordered = np.sort(drawn, axis=1)
        distinct = drawn[(ordered[:, 1:] != ordered[:, :-1]).all(axis=1)][:missing]
        kept.append(distinct)
        missing -= len(distinct)
    return np.concatenate(kept)


def fitted_world(world: TrueWorld, weights: np.ndarray | None, n_users: int) -> World:
    """The learned users of a log that no estimate reads."""
    model = UserModel.from_preset(
        "fastgaum", relations=False, set_context=False, search=(), folds=0
    )
    log = draw_log(world, weights, n_users, seed=10**6).log
    model.fit(log)
    return world_of(model, log)


def true_value(
    world: TrueWorld,
    target: Target,
    learned: World,
    weights: np.ndarray | None,
    n_users: int,
) -> float:
    """Mean true probability of a click on the target's displays, of users whom the law showed
    theirs."""
    drawn = draw_log(world, weights, n_users, seed=10**6 + 1)
    log, pool = drawn.log, np.arange(world.n_items, dtype=np.int32)
    own = replay_policy(log, target, learned, pool, np.ones(log.n_items)).slates
    own = own.reshape(n_users, STEPS, K).transpose(1, 0, 2)
    rng = np.random.default_rng(0)
    users = world.population(n_users)
    users.reset(np.zeros(n_users, np.uint64))
    total = 0.0
    for t in range(STEPS):
        keys = rng.integers(0, 2**64, n_users, dtype=np.uint64)
        random = draw_distinct(keys, world.n_items, K)
        at_random = draw_uniforms(~keys, 1)[:, 0] < target.random_share
        slates = np.where(at_random[:, None], random, own[t]).astype(np.int32)
        total += float(1.0 - users.probabilities(slates)[1].mean(dtype=np.float64))
        users.step(drawn.slates[t], drawn.keys[t])
    return total / STEPS


@dataclass(frozen=True)
class Judged:
    """What one estimator did in one setting."""

    setting: str
    estimator: str
    supported: int
    """logs for which it has a value"""
    held: int
    """of these, those whose interval holds the true value"""
    error: float | None
    rmse: float | None
    true_value: float
    logs: int
    wrong: int
    """logs with a value, or an end of its interval, that should not have been printed"""


def judge_setting(
    setting: Setting, learned: World, n_logs: int, true_users: int
) -> Iterator[Judged]:
    """Every estimator's figures over so many logs."""
    weights = setting.weights(world := setting.world())
    policies: dict[Wanted, Policy] = {
        "random": RandomPolicy(),
        "greedy": Greedy(),
        # what is popular is known; it need not be counted anew in every log
        "popular": Popular(world.base.astype(np.float32)),
    }
    target = Target(policies[setting.target], setting.epsilon)
    truth = true_value(world, target, learned, weights, true_users)
    found: dict[str, list[tuple[float, float, float]]] = {}
    wrong: Counter[str] = Counter()
    for seed in range(n_logs):
        drawn = draw_log(world, weights, setting.users, seed)
        logged = None if setting.shown == "random" else drawn.propensities
        result = off_policy_values(drawn.log, target, propensities=logged, world=learned, seed=seed)
        for one in result["estimates"]:
            rows = found.setdefault(one["estimator"], [])
            if one["value"] is not None:
                rows.append((one["value"], *one["ci"]))
                wrong[one["estimator"]] += should_not_be_printed(result, one)
        if (seed + 1) % 10 == 0:
            print(f"{setting.name}: {seed + 1} of {n_logs} logs", file=sys.stderr, flush=True)
    for name, rows in found.items():
        values, low, high = np.array(rows).reshape(-1, 3).T
        held = int(((low <= truth) & (truth <= high)).sum())
        error = float((values - truth).mean()) if len(rows) else None
        rmse = float(np.sqrt(((values - truth) ** 2).mean())) if len(rows) else None
        yield Judged(setting.name, name, len(rows), held, error, rmse, truth, n_logs, wrong[name])


def should_not_be_printed(result: dict[str, Any], one: dict[str, Any]) -> bool:
    """Whether an estimate says what no display can earn, or is made of weights whose mean is not 1,
    less what the log never shows, by its interval."""
    if not 0.0 <= min(one["value"], *one["ci"]) <= max(one["value"], *one["ci"]) <= 1.0:
        return True
    if one["estimator"] == "dm":
        return False
    low, high = result["mean_slate_weight" if "pi" in one["estimator"] else "mean_weight"]["ci"]
    return bool(low > 1.0 + ROUNDING or high < 1.0 - result["unseen"] - ROUNDING)


def study(
    settings: Sequence[Setting], n_logs: int, fit_users: int, true_users: int
) -> list[Judged]:
    """All settings, printed as they are done."""
    learned: dict[tuple[str, bool], World] = {}
    judged: list[Judged] = []
    for setting in settings:
        started = time.perf_counter()
        if (kind := (setting.shown, setting.often)) not in learned:
            world = setting.world()
            learned[kind] = fitted_world(world, setting.weights(world), fit_users)
        rows = list(judge_setting(setting, learned[kind], n_logs, true_users))
        best = lowest([asdict(one) for one in rows])
        print(
            f"{setting.name}: true value {rows[0].true_value:.4f}, {setting.users * STEPS:,} "
            f"events, {time.perf_counter() - started:.0f} s"
        )
        for one in rows:
            print(
                f"  {one.estimator:8}{one.supported:5} of {n_logs} logs{one.held:5} hold"
                f"{signed(one.error, 4):>9}{num(one.rmse, 4):>9}"
                f"{'  lowest' if one.estimator == best else ''}"
                f"{f'  {one.wrong} should not be printed' if one.wrong else ''}",
                flush=True,
            )
        judged += rows
    return judged


def misses_of(judged: Sequence[Judged]) -> list[str]:
    """Where the bar is missed, a line each."""
    found = []
    for one in judged:
        if one.wrong:
            found.append(f"{one.setting}: {one.wrong} of {one.estimator} should not be printed")
        if one.estimator == "dr-pi" and one.held < LEAST_HELD * one.supported:
            found.append(f"{one.setting}: {one.held} of {one.supported} intervals of dr-pi hold")
    return found


def lowest(rows: Sequence[dict[str, Any]]) -> str:
    """The estimator of the lowest error, of those that have a value in most logs; empty if none."""
    found = [one for one in rows if one["supported"] >= MOST_LOGS * one["logs"]]
    return min(found, key=lambda one: one["rmse"])["estimator"] if found else ""


def study_to_markdown(result: dict[str, Any]) -> str:
    """A row for each setting: error of each estimator, and how many intervals hold the true
    value."""
    names = list(dict.fromkeys(one["estimator"] for one in result["rows"]))
    heads = ("log, target (share of random displays)", "events", "true value", *names)
    lines: list[Sequence[str]] = [heads]
    for setting in result["settings"]:
        judged = [one for one in result["rows"] if one["setting"] == setting["name"]]
        best = lowest(judged)
        cells = [
            f"{setting['shown']}, {setting['target']} ({setting['epsilon']:g})",
            f"{setting['users'] * STEPS:,}",
            num(judged[0]["true_value"], 3),
        ]
        for one in judged:
            rmse = num(one["rmse"], 4)
            few = "" if one["supported"] == one["logs"] else f" of {one['supported']}"
            bold = f"**{rmse}**" if one["estimator"] == best else rmse
            cells.append(f"{bold}, {one['held']}{few}" if one["supported"] else "-")
        lines.append(cells)
    return rows_to_markdown(lines) + (
        f"\n\n{result['logs']} logs of each setting. Root of the mean squared error, the lowest in "
        "bold, and how many intervals hold the true value, of how many where fewer logs support a "
        "value; -: none does."
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logs", type=int, default=100, help="of each setting")
    parser.add_argument("--fit-users", type=int, default=FIT_USERS, help="of the world's run")
    parser.add_argument("--true-users", type=int, default=TRUE_USERS, help="of the true value")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--bar", action="store_true", help="judge the 20 settings of the bar")
    asked = parser.parse_args(argv)
    set_threads(1)
    settings = BAR if asked.bar else SETTINGS
    rows = study(settings, asked.logs, asked.fit_users, asked.true_users)
    result = {
        "machine": machine_facts(),
        **{name: getattr(asked, name) for name in ("logs", "fit_users", "true_users")},
        "settings": [asdict(one) for one in settings],
        "rows": [asdict(one) for one in rows],
    }
    write_object(asked.json, result)
    if asked.bar and (misses := misses_of(rows)):
        sys.exit("the bar is missed:\n  " + "\n  ".join(misses))


if __name__ == "__main__":
    main()

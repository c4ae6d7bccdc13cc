"""Policies at home and away, on real logs: `python bench/away.py [yelp yoochoose clara2] [--json
docs/tables/away.json]`.

A log's users are cut into two halves: worlds of one half train policies and promise, worlds of the
other half pay. Ten policies (`promises.ten_testers`) are made at home twice, in one world and in a
set of worlds. They are judged away twice: by a world of the same kind, and by one of another kind,
which knows items by their ids alone. A step earns a click where the log has events without one,
else a contrast. A set recommends the trained policy or greedy slates (`recommend`), one world
greedy slates; what that is paid away is compared with popular and with greedy slates. Decoys are
counted in what the users of the home see.

A pair of halves has a seed, which draws the halves, all fits, the training, and the judging
users."""

from __future__ import annotations

import argparse
import functools
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastgaum.bench.experiments.promises import (
    MODEL,
    Learner,
    Promises,
    Worth,
    learner_worlds,
    seeds_figure,
)
from fastgaum.bench.report import write_object
from fastgaum.config import Config
from fastgaum.logs.log import SessionLog
from fastgaum.logs.read import load
from fastgaum.logs.splits import resplit_by
from fastgaum.machine import machine_facts
from fastgaum.models.user_model import UserModel
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.heuristics import Greedy, Popular
from fastgaum.policies.rollout import Setting
from fastgaum.policies.slateq import SlateQ
from fastgaum.reports.grid import side_by_side
from fastgaum.reports.table import Block, Json, TableColumn, blocks_to_markdown, finite, table_of
from fastgaum.threads import one_thread
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.pools import Pool
from fastgaum.worlds.rules import Reward
from fastgaum.worlds.world_set import WorldSet, world_of_model

LOGS = ("yelp", "yoochoose", "clara2")
JUDGES: dict[str, tuple[str, dict[str, object]]] = {
    "the same kind": ("fastgaum", MODEL),
    "another kind": ("paper-lstm", {}),
}
"""what judges away: a preset, and what changes of it"""
OTHER_SEEDS = 1000
RIVALS = (Popular.name, Greedy.name)


@dataclass(frozen=True)
class AwayPlan:
    """What is compared."""

    pairs: int = 10
    """of halves"""
    members: int = 5
    users: int = 1000
    k: int = 10
    horizon: int = 5
    pool: int = 40
    """items that a slate is made of, drawn anew for each user and step"""
    config: PolicyConfig = field(default_factory=lambda: PolicyConfig(evaluations=1))

    def setting(self, log: SessionLog) -> Setting:
        """What all policies meet."""
        reward: Reward = "click" if (np.asarray(log.choices) < 0).any() else "contrast"
        return Setting(self.k, self.horizon, Pool("per_step", self.pool), reward)


@dataclass(frozen=True)
class AwayTask:
    """One pair of halves of one log."""

    log: SessionLog
    seed: int
    plan: AwayPlan


Paid = dict[tuple[str, str], Worth]
"""by where the policies were made, and who judges them"""


def away(
    logs: Mapping[str, SessionLog],
    plan: AwayPlan,
    jobs: int = 1,
    observer: Callable[[str], None] = print,
) -> Json:
    """Fit, train and judge; the figures as a JSON object. `observer` is told which seed has ended.
    Raises ConfigError if the two halves have too few items in common, NumericsError if a training
    diverged."""
    tasks = [AwayTask(log, seed, plan) for log in logs.values() for seed in range(plan.pairs)]
    found: dict[int, Paid] = {}
    with closing(side_by_side(paid_of, tasks, jobs)) as seeds:
        for place, paid in seeds:
            found[place] = paid
            task = tasks[place]
            observer(f"[{len(found)}/{len(tasks)}] {task.log.name}, seed {task.seed}")
    by_log = {
        name: [found[i] for i, task in enumerate(tasks) if task.log is log]
        for name, log in logs.items()
    }
    return {
        "machine": machine_facts(plan.config.seed),
        **{name: getattr(plan, name) for name in ("pairs", "members", "users", "k", "horizon")},
        "pool": plan.pool,
        "policy": SlateQ.name,
        "config": plan.config.to_mapping(),
        "judges": {name: {"preset": preset, **model} for name, (preset, model) in JUDGES.items()},
        "logs": [
            {
                "log": name,
                "events": log.n_events,
                "reward": plan.setting(log).reward,
                "rows": [
                    _row(home, judge, [paid[home, judge] for paid in by_log[name]])
                    for home, judge in by_log[name][0]
                ],
            }
            for name, log in logs.items()
        ],
    }


def paid_of(task: AwayTask) -> Paid:
    """Do one task, with one thread."""
    log, seed, plan, setting = task.log, task.seed, task.plan, task.plan.setting(task.log)
    learner = Learner(SlateQ.name, plan.config.replace(seed=plan.config.seed + seed), plan.users)
    found: Paid = {}
    with one_thread():
        half, other = (resplit_by(log, rule, seed) for rule in ("half", "other-half"))
        judges: dict[str, LearnedWorld | WorldSet] = {}
        for judge, (preset, changes) in JUDGES.items():
            model = UserModel(Config.from_preset(preset, **changes, seed=OTHER_SEEDS + seed))
            model.fit(other)
            judges[judge] = world_of_model(model)
        # judges are fitted on one log, so all of them know the same items
        any_judge = next(iter(judges.values()))
        for home, world in learner_worlds(half, seed, plan.members).items():
            made = Promises.of((home, world, half), any_judge, setting, learner)
            for judge, truth in judges.items():
                found[home, judge] = made.paid_in(truth, setting, learner)
    return found


def _row(home: str, judge: str, worths: Sequence[Worth]) -> Json:
    """The figures of policies made in one home and judged by one world, of a worth per seed."""
    names = [one.deployed for one in worths]
    row: Json = {"home": home, "judge": judge, "recommended": names}
    row |= seeds_figure("rank_agreement", np.array([one.agreement for one in worths]))
    row |= seeds_figure("kendall", np.array([one.kendall for one in worths]))
    for rival in RIVALS:
        leads = [one.paid[name] - one.paid[rival] for name, one in zip(names, worths, strict=True)]
        row |= seeds_figure(f"lead_over_{rival}", np.array(leads))
    row["policies"] = [{"policy": name} for name in worths[0].promised]
    for one in row["policies"]:
        for figure in ("promised", "bound", "decoys", "paid"):
            if getattr(worths[0], figure):
                values = [getattr(worth, figure)[one["policy"]] for worth in worths]
                one |= seeds_figure(figure, np.array(values))
    return row


def away_blocks(result: Json) -> list[Block]:
    """What a home says of the ranks away, a row per log, home and judge; then for each log the ten
    policies that were made in its last home."""
    rows = []
    for log in result["logs"]:
        for row in log["rows"]:
            counts = Counter(row["recommended"]).most_common()
            rows.append(
                row
                | {
                    "made": f"{log['log']}, {row['home']}",
                    "names": ", ".join(f"{name} ({n})" for name, n in counts),
                }
            )
    columns = (
        TableColumn("log, made in", "made"),
        TableColumn("judged by", "judge"),
        TableColumn("rank agreement", "rank_agreement", 2, ends="brackets", none="-"),
        TableColumn("recommended (pairs)", "names"),
        *(TableColumn(f"above {one}", f"lead_over_{one}", 3, ends="brackets") for one in RIVALS),
    )

    def below(row: Mapping[str, Any]) -> list[str]:
        leads = [f"lead_over_{rival}" for rival in RIVALS]
        return [one for one in leads if None not in row[f"{one}_ci"] and row[f"{one}_ci"][1] < 0]

    notes = (
        f"{result['horizon']} slates of {result['k']}, each from a new pool of {result['pool']} "
        f"items; {result['pairs']} pairs of halves, {result['users']} users each; in brackets the 95 "
        "% interval, Student's over pairs",
        "rank agreement: Kendall's tau of promised and paid over the pairs of ten policies that "
        "the judge tells apart by three standard errors",
        "above popular, above greedy: what the recommended policy is paid more than those slates on "
        "the same users; bold: below them by more than chance, in "
        f"{sum(bool(below(row)) for row in rows)} of {len(rows)} rows",
    )
    ranks = table_of("Ranks at home and away", columns, rows, notes, below)
    return [ranks, *(_policies_block(log) for log in result["logs"])]


def _policies_block(log: Json) -> Block:
    """The policies of a log's last home, the best paid by its first judge first."""
    home = log["rows"][-1]["home"]
    by_judge = {row["judge"]: row["policies"] for row in log["rows"] if row["home"] == home}
    rows = []
    for of_judges in zip(*by_judge.values(), strict=True):
        row = dict(of_judges[0])
        for judge, one in zip(by_judge, of_judges, strict=True):
            row |= {judge: one["paid"], f"{judge}_ci": one["paid_ci"]}
        rows.append(row)
    figures = {"promised": "promised", "lower bound": "bound"}
    figures |= {f"paid by {judge}": judge for judge in by_judge}
    columns = [TableColumn("policy", "policy")] + [
        TableColumn(title, key, 3, ends="brackets", none="-")
        for title, key in figures.items()
        if key in rows[0]
    ]
    if "decoys" in rows[0]:
        columns.append(TableColumn("decoys, %", "decoys", 1, 100))
    title = f"{log['log']}, {log['events']:,} events: policies made in a {home}"
    note = f"reward: {log['reward']}"
    if log["reward"] == "contrast":
        note += "; rewards of two judges have no common scale"
    rows.sort(key=lambda row: -float(row["paid"]))
    return table_of(title.replace("a one", "one"), columns, rows, [note])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("logs", nargs="*", default=LOGS)
    parser.add_argument("--pairs", type=int, default=AwayPlan.pairs, help="of halves of a log")
    parser.add_argument("--jobs", type=int, default=2, help="pairs side by side")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    started = time.perf_counter()
    # the users of another world have no query
    logs = {name: load(name, context_fields=()) for name in asked.logs}
    observer = functools.partial(print, flush=True)
    result = finite(away(logs, AwayPlan(pairs=asked.pairs), asked.jobs, observer))
    print(blocks_to_markdown(away_blocks(result)))
    print(f"{time.perf_counter() - started:.0f} s")
    write_object(asked.json, result)


if __name__ == "__main__":
    main()

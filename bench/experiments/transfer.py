"""Promised and paid: the worth of a policy in a world that was learned from a log, and what it then
earns among the true users of that log, who are known: `python bench/experiments/transfer.py
[items-10 items-200 items-2000] [--json docs/tables/transfer.json]`.

A seed of a setting draws a log of the true users under a logging policy, fits a user model to it,
trains a policy among the learned users, and plays ten policies in both worlds. Beside it the same
learner is trained among the true users themselves.

    gap closed = (paid − random) / (trained on the truth − random)
    optimism = (promised − paid) / paid

With several members the log is fitted as often, each time without a fold of its users. A policy is
then trained in the set of all these worlds too, which gives a lower bound of what it promises, and
recommends that policy or greedy slates."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl

from fastgaum.arrays import Float64Array
from fastgaum.bench.experiments.exact_planning import Planner
from fastgaum.bench.experiments.known_worlds import (
    KNOWN_WORLDS,
    WELL_SPECIFIED,
    KnownWorld,
    true_users,
)
from fastgaum.bench.experiments.promises import (
    FITTED,
    LOGGING,
    MODEL,
    Learner,
    Promises,
    Worth,
    learner_worlds,
    logging_policy,
    mean_returns,
    seeds_figure,
)
from fastgaum.bench.experiments.transfer_table import (
    transfer_blocks,
    transfer_summary,
)
from fastgaum.bench.report import write_object
from fastgaum.config import parse_setting
from fastgaum.logs.log import SessionLog
from fastgaum.logs.read import read_log
from fastgaum.logs.splits import shuffled_split
from fastgaum.machine import machine_facts
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.evaluation import gap_closed
from fastgaum.policies.heuristics import Greedy, RandomPolicy
from fastgaum.policies.rollout import Setting
from fastgaum.policies.slateq import SlateQ
from fastgaum.policies.trajectories import trajectories
from fastgaum.reports.grid import side_by_side
from fastgaum.reports.table import Json, blocks_to_markdown, finite
from fastgaum.threads import one_thread
from fastgaum.worlds.true_world import TrueWorld

K, HORIZON = 3, 20
"""items of a slate, events of an episode and of a logged session"""
TRUTH = "the truth"


@dataclass(frozen=True)
class TransferPlan:
    """What is compared."""

    worlds: Sequence[KnownWorld]
    logging: Sequence[str] = ("random",)
    events: Sequence[int] = ()
    """events of the log; () = each world's own number"""
    seeds: int = 3
    users: int = 1000
    config: PolicyConfig = field(default_factory=PolicyConfig)
    members: int = 5
    """worlds of the set; 1: one world alone"""
    policy: str = SlateQ.name

    def settings(self) -> list[list[Task]]:
        """Each setting's tasks, a task per seed."""
        first = self.config.seed
        learners = [
            Learner(self.policy, self.config.replace(seed=first + i), self.users)
            for i in range(self.seeds)
        ]
        return [
            [Task(world.name, logging, events, self.members, one) for one in learners]
            for world in self.worlds
            for logging in self.logging
            for events in self.events or (world.events,)
        ]

    def tasks(self) -> list[Task]:
        """All trainings, the truth of each world and seed once: seed by seed, long tasks first."""
        learned = [task for seeds in self.settings() for task in seeds]
        tasks = dict.fromkeys([*learned, *(task.of_truth() for task in learned)])
        return sorted(tasks, key=lambda task: (task.seed, -task.events))


@dataclass(frozen=True)
class Task:
    """One seed of one setting, or of the truth."""

    world: str
    logging: str
    """of `LOGGING`, or `TRUTH`: no log, the policy learns from the true users"""
    events: int
    members: int
    learner: Learner

    @property
    def seed(self) -> int:
        """Of the log, the fit, the training and the judging users."""
        return self.learner.config.seed

    def of_truth(self) -> Task:
        """The task of the same seed among the true users, with the default discount."""
        # a world that is right needs no shorter horizon
        learner = replace(self.learner, config=self.learner.config.replace(gamma=0.0))
        return replace(self, logging=TRUTH, events=0, learner=learner)

    def __str__(self) -> str:
        of = TRUTH if self.logging == TRUTH else f"{self.events:,} events, {self.logging}"
        return f"{self.world}, {of}, seed {self.seed}"


def transfer(
    plan: TransferPlan,
    jobs: int = 1,
    progress: Callable[[int, int, str], None] = lambda done, total, task: None,
) -> Json:
    """Train, judge, and return the figures as a JSON object: a setting for each world, logging
    policy and number of events, with a row per policy.

    Every task uses one thread. `progress` is called with tasks done, tasks in all, and the task
    that has ended. Raises ConfigError if a log does not show enough items for the pools,
    NumericsError if a training diverged."""
    tasks, found = plan.tasks(), dict[Task, list[Worth]]()
    with closing(side_by_side(worths_of, tasks, jobs)) as worths:
        for place, worth in worths:
            found[tasks[place]] = worth
            progress(len(found), len(tasks), str(tasks[place]))
    return {
        "machine": machine_facts(plan.config.seed),
        "seeds": plan.seeds,
        "users": plan.users,
        "k": K,
        "horizon": HORIZON,
        "reward": "click",
        "members": plan.members,
        "policy": plan.policy,
        "model": {"preset": "fastgaum", **MODEL},
        "config": plan.config.to_mapping(),
        "settings": [
            _setting_figures(
                seeds[0],
                [found[task] for task in seeds],
                [found[task.of_truth()] for task in seeds],
            )
            for seeds in plan.settings()
        ],
    }


def worths_of(task: Task) -> list[Worth]:
    """Do one task, with one thread; an entry for each world that policies are made in."""
    with one_thread():
        known = KNOWN_WORLDS[task.world]
        truth, setting = true_users(known.name), Setting(K, HORIZON, known.pool, "click")
        if task.logging == TRUTH:
            made = [task.learner.trained(truth, setting), Greedy(), RandomPolicy()]
            returns = {one.name: task.learner.returns(one, truth, setting) for one in made}
            return [Worth(TRUTH, mean_returns(returns))]
        log = drawn_log(truth, setting, task)
        worths = []
        for label, world in learner_worlds(log, task.seed, task.members).items():
            promises = Promises.of((label, world, log), truth, setting, task.learner)
            worths.append(promises.paid_in(truth, setting, task.learner))
        return worths


def drawn_log(truth: TrueWorld, setting: Setting, task: Task) -> SessionLog:
    """Sessions of true users under the task's logging policy, split by user."""
    policy = logging_policy(task.logging, truth.base.astype(np.float32))
    n_sessions = task.events // HORIZON
    frames = trajectories(truth, policy, setting, n_sessions, task.seed)
    frame = pl.concat(frames).select("session", "event", "item", "chosen")
    log = read_log(frame, name=f"{task.world}, {task.logging}")
    return replace(log, split=shuffled_split(log.n_sessions, task.seed, FITTED))


def _setting_figures(
    task: Task, by_seed: Sequence[Sequence[Worth]], truths: Sequence[Sequence[Worth]]
) -> Json:
    """One setting's part of the result, of a list of worths per seed."""
    known = KNOWN_WORLDS[task.world]
    optimum = float("nan")
    if known.planned:
        optimum = Planner(true_users(known.name), HORIZON, K).best()
    ceiling, chance = (
        np.array([worths[0].paid[name] for worths in truths])
        for name in (task.learner.policy, RandomPolicy.name)
    )
    rows: list[Json] = []
    learned: list[Json] = []
    for worths in (*zip(*by_seed, strict=True), *zip(*truths, strict=True)):
        where, policies = worths[0].world, list(worths[0].paid)
        paid, promised, bound, decoys = (
            {name: np.array([getattr(one, figure)[name] for one in worths]) for name in policies}
            if getattr(worths[0], figure)
            else {}
            for figure in ("paid", "promised", "bound", "decoys")
        )
        for name in policies:
            row: Json = {"policy": name, "world": where}
            for figure, values in (("promised", promised), ("bound", bound)):
                if values:
                    optimism = "optimism" if figure == "promised" else "bound_optimism"
                    row |= seeds_figure(figure, values[name])
                    row |= seeds_figure(optimism, _ratio(values[name] - paid[name], paid[name]))
            row |= seeds_figure("paid", paid[name])
            if decoys:
                row |= seeds_figure("decoys", decoys[name])
            row |= seeds_figure("gap_closed", gap_closed(paid[name], chance, ceiling))
            row |= seeds_figure("of_truth", _ratio(paid[name], ceiling))
            if known.planned:
                row |= seeds_figure("of_optimum", paid[name] / optimum)
            rows.append(row)
        if promised:
            trained = paid[task.learner.policy]
            figures = {
                "regret": ceiling - trained,
                "lead_over_greedy": trained - paid[Greedy.name],
                "kendall": np.array([one.kendall for one in worths]),
                "rank_agreement": np.array([one.agreement for one in worths]),
            }
            learned.append({"world": where})
            advice = [one.recommended for one in worths]
            if all(advice):
                learned[-1]["recommended"] = [one.deployed for one in worths]
                leads = np.array([one.leads[task.learner.policy] for one in advice if one])
                figures |= {"promised_lead": leads[:, 0], "lead_bound": leads[:, 1]}
                took = np.array([one.deployed == task.learner.policy for one in worths])
                figures["recommended_lead"] = np.where(took, 1, -1) * figures["lead_over_greedy"]
            for name, of_seeds in figures.items():
                learned[-1] |= seeds_figure(name, of_seeds)
    return {
        "world": known.name,
        "what": known.what,
        "logging": task.logging,
        "events": task.events,
        "optimum": optimum,
        "rows": rows,
        "learned": learned,
    }


def _ratio(values: Float64Array, by: Float64Array) -> Float64Array:
    """NaN where nothing is earned: a ratio to 0 says nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(by > 0, values / by, np.nan)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("worlds", nargs="*", default=WELL_SPECIFIED, help=", ".join(KNOWN_WORLDS))
    parser.add_argument("--logging", default="random", help=f"by comma: {', '.join(LOGGING)}")
    parser.add_argument("--events", help="by comma; each world's own number if not given")
    for name in ("seeds", "users", "members", "policy"):
        default = getattr(TransferPlan, name)
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of the training")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="tasks side by side")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    if unknown := {*asked.worlds} - {*KNOWN_WORLDS}:
        parser.error(f"no known world '{min(unknown)}'; there are {', '.join(KNOWN_WORLDS)}")
    plan = TransferPlan(
        [KNOWN_WORLDS[name] for name in asked.worlds],
        asked.logging.split(","),
        [int(events) for events in asked.events.split(",")] if asked.events else (),
        asked.seeds,
        asked.users,
        PolicyConfig.from_mapping({"evaluations": 1, **dict(map(parse_setting, asked.set))}),
        asked.members,
        asked.policy,
    )

    def progress(done: int, total: int, task: str) -> None:
        print(f"[{done}/{total}] {task}", file=sys.stderr, flush=True)

    result = finite(transfer(plan, asked.jobs, progress))
    print(transfer_summary(result), blocks_to_markdown(transfer_blocks(result)), sep="\n\n")
    write_object(asked.json, result)


if __name__ == "__main__":
    main()

"""Promised and paid: what a policy is worth in a world that was learned from a log, and what it
then earns among the true users of that log, who are known.

A seed of a setting draws a log of the true users under a logging policy, fits a user model to it as
`fastgaum train` does, trains a policy among the learned users, and plays it and nine others in both
worlds. Beside it the same learner is trained among the true users themselves: what it earns is what
a perfect world would have given.

    optimism = (promised − paid) / paid

With several members the log is also fitted on bootstraps of its users. A policy is then trained in
the set of all these worlds too, and the set gives a lower bound of what it promises.

Seeds draw logs, fits, trainings and judging users; the true users are the same in all of them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from fastgaum.errors import ConfigError
from fastgaum.logs.log import SessionLog
from fastgaum.logs.read import read_frame
from fastgaum.logs.user_split import shuffled_split
from fastgaum.machine import machine_facts
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.heuristics import Greedy, RandomPolicy
from fastgaum.policies.registry import require_trained
from fastgaum.policies.rollout import Setting
from fastgaum.policies.slateq import SlateQ
from fastgaum.policies.testers import LOGGING, logging_policy
from fastgaum.policies.trajectories import trajectories
from fastgaum.reports.promises import (
    MODEL,
    Float64Array,
    Learner,
    Promises,
    Worth,
    learner_worlds,
    mean_returns,
    seeds_figure,
)
from fastgaum.reports.table import Json
from fastgaum.reports.workers import side_by_side
from fastgaum.threads import one_thread
from fastgaum.worlds.known_worlds import KNOWN_WORLDS, KnownWorld, true_users
from fastgaum.worlds.planning import Planner
from fastgaum.worlds.true_world import TrueWorld

K, HORIZON = 3, 20
"""items of a slate, events of an episode and of a logged session"""
FITTED = (0.75, 0.25, 0.0)
"""shares of the log's users who train, validate and test: the truth itself is the test"""
TRUTH = "the truth"
"""the learner's world: the true users"""


@dataclass(frozen=True)
class TransferPlan:
    """What is compared. Raises ConfigError for an impossible value."""

    worlds: Sequence[KnownWorld]
    logging: Sequence[str] = ("random",)
    """who made the slates of the log, of `LOGGING`"""
    events: Sequence[int] = ()
    """events of the log; () = each world's own number"""
    seeds: int = 3
    users: int = 1000
    """users that judge a policy in each world, per seed"""
    config: PolicyConfig = field(default_factory=PolicyConfig)
    """of the policy that is trained"""
    members: int = 5
    """worlds of the set; 1: one world alone"""
    policy: str = SlateQ.name
    """what is trained, of `registry.LEARNERS`"""

    def __post_init__(self) -> None:
        for name, value in (
            ("seeds", self.seeds),
            ("users", self.users),
            ("members", self.members),
        ):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        require_trained(self.policy)
        for name in self.logging:
            if name not in LOGGING:
                raise ConfigError(f"no logging policy '{name}'; there are {', '.join(LOGGING)}")
        for events in self.events:
            if events < 10 * HORIZON:
                raise ConfigError(
                    f"a log of {events} events has too few sessions of {HORIZON} to train and "
                    f"validate on: at least {10 * HORIZON} events are required"
                )

    def settings(self) -> list[list[Task]]:
        """Each setting's tasks, a task per seed."""
        return [
            [
                Task(
                    world.name,
                    logging,
                    events,
                    self.members,
                    Learner(
                        self.policy, self.config.replace(seed=self.config.seed + i), self.users
                    ),
                )
                for i in range(self.seeds)
            ]
            for world in self.worlds
            for logging in self.logging
            for events in self.events or (world.events,)
        ]

    def tasks(self) -> list[Task]:
        """Everything that is trained, the truth of each world and seed once: seed by seed, long
        tasks first."""
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
    """what is trained, with this seed"""

    @property
    def seed(self) -> int:
        """Of the log, the fit, the training and the judging users."""
        return self.learner.config.seed

    def of_truth(self) -> Task:
        """The task of the same seed among the true users."""
        return replace(self, logging=TRUTH, events=0)

    def __str__(self) -> str:
        of = TRUTH if self.logging == TRUTH else f"{self.events:,} events, {self.logging}"
        return f"{self.world}, {of}, seed {self.seed}"


def transfer(
    plan: TransferPlan,
    jobs: int = 1,
    progress: Callable[[int, int, str], None] | None = None,
    done: dict[Task, list[Worth]] | None = None,
) -> Json:
    """Train, judge, and return the figures as a JSON object: a setting for each world, logging
    policy and number of events, with a row per policy.

    Every task uses one thread: the figures do not depend on `jobs`. `progress` is called with tasks
    done, tasks in all, and the task that has ended. A task is added to `done` when it has ended:
    after an interruption `transfer_facts` makes the figures of the seeds that are whole.

    Raises:
        ConfigError: a log does not show enough items for the pools.
        NumericsError: a training diverged.
    """
    tasks, found = plan.tasks(), {} if done is None else done
    with closing(_worths(tasks, jobs)) as worths:
        for place, worth in worths:
            found[tasks[place]] = worth
            if progress is not None:
                progress(len(found), len(tasks), str(tasks[place]))
    return transfer_facts(plan, found)


def whole_seeds(plan: TransferPlan, found: Mapping[Task, list[Worth]]) -> list[int]:
    """The seeds of which every task has ended."""
    left = {task.seed for task in plan.tasks() if task not in found}
    return sorted({task.seed for task in found} - left)


def transfer_facts(plan: TransferPlan, found: Mapping[Task, list[Worth]]) -> Json:
    """The JSON object of those seeds that are whole, of which there must be one."""
    seeds = whole_seeds(plan, found)
    settings = [[task for task in one if task.seed in seeds] for one in plan.settings()]
    return {
        "machine": machine_facts(plan.config.seed),
        "seeds": len(seeds),
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
                tasks[0],
                [found[task] for task in tasks],
                [found[task.of_truth()] for task in tasks],
            )
            for tasks in settings
        ],
    }


def _worths(tasks: Sequence[Task], jobs: int) -> Generator[tuple[int, list[Worth]], None, None]:
    if jobs > 1:
        yield from side_by_side(worths_of, tasks, jobs)
        return
    for place, task in enumerate(tasks):
        yield place, worths_of(task)


def worths_of(task: Task) -> list[Worth]:
    """Do one task, with one thread: an entry for each world that policies are made in."""
    with one_thread():
        known = KNOWN_WORLDS[task.world]
        truth, setting = true_users(known.name), Setting(K, HORIZON, known.pool, "click")
        if task.logging == TRUTH:
            return [_worth_of_truth(task, truth, setting)]
        log = drawn_log(truth, setting, task)
        worths = []
        for label, world in learner_worlds(log, task.seed, task.members).items():
            made = Promises.of((label, world, log), truth, setting, task.learner)
            worths.append(made.paid_in(truth, setting, task.learner))
        return worths


def drawn_log(truth: TrueWorld, setting: Setting, task: Task) -> SessionLog:
    """Sessions of true users under the task's logging policy, split by user."""
    policy = logging_policy(task.logging, truth.base.astype(np.float32))
    n_sessions = task.events // HORIZON
    frames = trajectories(truth, policy, setting, n_sessions, task.seed)
    frame = pl.concat(frames).select("session", "event", "item", "chosen")
    log = read_frame(frame, name=f"{task.world}, {task.logging}")
    return replace(log, split=shuffled_split(log.n_sessions, task.seed, FITTED))


def _worth_of_truth(task: Task, truth: TrueWorld, setting: Setting) -> Worth:
    policies = [task.learner.trained(truth, setting), Greedy(), RandomPolicy()]
    returns = {one.name: task.learner.returns(one, truth, setting) for one in policies}
    return Worth(TRUTH, mean_returns(returns))


def _setting_figures(
    task: Task, by_seed: Sequence[Sequence[Worth]], truths: Sequence[Sequence[Worth]]
) -> Json:
    """One setting's part of the result, of a list of worths per seed."""
    known = KNOWN_WORLDS[task.world]
    optimum = float("nan")
    if known.planned:
        optimum = Planner(true_users(known.name), HORIZON, K).best()
    ceiling = np.array([worths[0].paid[task.learner.policy] for worths in truths])
    rows: list[Json] = []
    figures: list[Json] = []
    for worths in (*zip(*by_seed, strict=True), *zip(*truths, strict=True)):
        paid_of = {name: np.array([one.paid[name] for one in worths]) for name in worths[0].paid}
        for name, paid in paid_of.items():
            row: Json = {"policy": name, "world": worths[0].world}
            if worths[0].promised:
                promised = np.array([one.promised[name] for one in worths])
                row |= seeds_figure("promised", promised)
                row |= seeds_figure("optimism", _ratio(promised - paid, paid))
            if worths[0].bound:
                bound = np.array([one.bound[name] for one in worths])
                row |= seeds_figure("bound", bound)
                row |= seeds_figure("bound_optimism", _ratio(bound - paid, paid))
            row |= seeds_figure("paid", paid) | seeds_figure("of_truth", _ratio(paid, ceiling))
            if known.planned:
                row |= seeds_figure("of_optimum", paid / optimum)
            rows.append(row)
        if worths[0].promised:
            trained = paid_of[task.learner.policy]
            taus = np.array([one.kendall for one in worths])
            figures.append(
                {
                    "world": worths[0].world,
                    **seeds_figure("regret", ceiling - trained),
                    **seeds_figure("lead_over_greedy", trained - paid_of[Greedy.name]),
                    **seeds_figure("kendall", taus),
                    **seeds_figure("rank_agreement", np.array([one.agreement for one in worths])),
                }
            )
    return {
        "world": known.name,
        "what": known.what,
        "logging": task.logging,
        "events": task.events,
        "optimum": optimum,
        "rows": rows,
        "learned": figures,
    }


def _ratio(values: Float64Array, by: Float64Array) -> Float64Array:
    """NaN where nothing is earned: a ratio to 0 says nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(by > 0, values / by, np.nan)

"""Rounds against random slates: what the loop of `fastgaum.rounds` is paid among users who are
known, after each round, and what as many events of random slates give: `fastgaum bench transfer`.

    gap closed = (paid − random) / (trained on the truth − random)
    optimism = (promised − paid) / paid

A seed plays all rounds, fits and trains once on random slates of as many events, and trains the
same learner among the true users. The same users judge all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np

from fastgaum.arrays import Float64Array
from fastgaum.bench.experiments.known_worlds import KNOWN_WORLDS, true_users
from fastgaum.bench.experiments.promises import MODEL, Learner, mean_returns, seeds_figure
from fastgaum.bench.experiments.transfer import HORIZON, K
from fastgaum.config import Config
from fastgaum.errors import ConfigError, did_you_mean
from fastgaum.machine import machine_facts
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.evaluation import gap_closed
from fastgaum.policies.heuristics import Greedy, RandomPolicy
from fastgaum.policies.rollout import Setting
from fastgaum.policies.rounds import rounds
from fastgaum.policies.slateq import SlateQ
from fastgaum.reports.grid import side_by_side
from fastgaum.reports.plots import colour, panels_in_file, percent
from fastgaum.reports.table import Block, Json, TableColumn, table_of
from fastgaum.threads import one_thread

IN_ROUNDS, AT_RANDOM, TRUTH = "rounds", "random slates", "the truth"
COLUMNS = (
    TableColumn("log", "log"),
    TableColumn("events", "events", 0),
    TableColumn("gap closed, %", "gap_closed", 1, 100, ends="half"),
    TableColumn("greedy's, %", "greedy_gap_closed", 1, 100, ends="half"),
    TableColumn("the recommended's, %", "recommended_gap_closed", 1, 100, ends="half"),
    TableColumn("optimism, %", "optimism", 1, 100, ends="half"),
    TableColumn("of the truth's, %", "of_truth", 1, 100, ends="half"),
    TableColumn("promised", "promised", 2, ends="half"),
    TableColumn("lower bound", "bound", 2, ends="half"),
    TableColumn("paid", "paid", 2, ends="half"),
)
LEAD = TableColumn("", "lead", 1, 100, signed=True, ends="brackets")


@dataclass(frozen=True)
class RoundsPlan:
    """What is compared. Raises ConfigError for an unknown world, or without a seed."""

    world: str = "items-200"
    n_rounds: int = 8
    """1: random slates alone"""
    round_events: int = 5000
    explore: float = 0.1
    members: int = 3
    seeds: int = 5
    users: int = 1000
    config: PolicyConfig = field(default_factory=lambda: PolicyConfig(evaluations=1))
    """of all trainings; its seed is the first"""
    policy: str = SlateQ.name

    def __post_init__(self) -> None:
        if self.world not in KNOWN_WORLDS:
            raise ConfigError(
                f"no known world '{self.world}'{did_you_mean(self.world, KNOWN_WORLDS)}; there are "
                f"{', '.join(KNOWN_WORLDS)}"
            )
        if self.seeds < 1:
            raise ConfigError(f"a comparison has at least 1 seed, got {self.seeds}")

    def tasks(self) -> list[RoundsTask]:
        """Seed by seed, the longest first."""
        logs = [IN_ROUNDS, AT_RANDOM, TRUTH][self.n_rounds == 1 :]
        first = self.config.seed
        return [RoundsTask(self, log, first + i) for i in range(self.seeds) for log in logs]


@dataclass(frozen=True)
class RoundsTask:
    """One seed of one way to log, or of the truth."""

    plan: RoundsPlan
    log: str
    seed: int

    def __str__(self) -> str:
        return f"{self.plan.world}, {self.log}, seed {self.seed}"


def rounds_against_random(
    plan: RoundsPlan,
    jobs: int = 1,
    progress: Callable[[int, int, str], None] = lambda done, total, task: None,
) -> Json:
    """Play, judge, and return the figures as a JSON object: a row for each round, and one for
    random slates of as many events. Every task uses one thread; `progress` is called with tasks
    done, tasks in all, and the task that has ended. Raises as `fastgaum.rounds`."""
    tasks, found = plan.tasks(), dict[RoundsTask, list[Json]]()
    with closing(side_by_side(played, tasks, jobs)) as ended:
        for place, records in ended:
            found[tasks[place]] = records
            progress(len(found), len(tasks), str(tasks[place]))
    truths = [found[task][0] for task in tasks if task.log == TRUTH]
    rows = []
    for log in (IN_ROUNDS, AT_RANDOM):
        of_seeds = [found[task] for task in tasks if task.log == log]
        rows += [_row(log, records, truths) for records in zip(*of_seeds, strict=True)]
    result: Json = {
        "machine": machine_facts(plan.config.seed),
        **{name: value for name, value in vars(plan).items() if name != "config"},
        **{"what": KNOWN_WORLDS[plan.world].what, "k": K, "horizon": HORIZON, "reward": "click"},
        "model": {"preset": "fastgaum", **MODEL},
        "config": plan.config.to_mapping(),
        "truth": {
            name: float(np.mean([one["paid"][name] for one in truths]))
            for name in truths[0]["paid"]
        },
        "rows": rows,
    }
    if plan.n_rounds > 1:
        last, control = (np.array(row["gap_closed_by_seed"]) for row in rows[-2:])
        result |= seeds_figure("lead", last - control)
    return result


def played(task: RoundsTask) -> list[Json]:
    """Do one task, with one thread; an entry for each round."""
    plan = task.plan
    with one_thread():
        truth = true_users(plan.world)
        setting = Setting(K, HORIZON, KNOWN_WORLDS[plan.world].pool, "click")
        config = plan.config.replace(seed=task.seed)
        if task.log == TRUTH:
            # the ceiling: a world that is right needs no shorter horizon
            learner = Learner(plan.policy, config.replace(gamma=0.0), plan.users)
            made = {
                "plan": learner.trained(truth, setting),
                "greedy": Greedy(),
                "random": RandomPolicy(),
            }
            returns = {name: learner.returns(one, truth, setting) for name, one in made.items()}
            return [{"paid": mean_returns(returns)}]
        in_rounds = task.log == IN_ROUNDS
        folds = plan.members if plan.members > 1 else 0
        # a round holds whole sessions
        total = plan.n_rounds * (plan.round_events // HORIZON) * HORIZON or plan.round_events
        records = rounds(
            truth,
            setting,
            n_rounds=plan.n_rounds if in_rounds else 1,
            round_events=plan.round_events if in_rounds else total,
            explore=plan.explore,
            model=Config.from_preset("fastgaum", **{**MODEL, "folds": folds}),
            learner=plan.policy,
            training=config,
            users=plan.users,
            seed=task.seed,
        )
        return [one.to_dict() for one in records]


def _row(log: str, records: Sequence[Json], truths: Sequence[Json]) -> Json:
    """The figures of one round, of a record per seed."""

    def of(figure: str, name: str, some: Sequence[Json] = records) -> Float64Array:
        return np.array([one[figure][name] for one in some])

    chance, best = of("paid", "random", truths), of("paid", "plan", truths)
    paid, promised = of("paid", "plan"), of("promised", "plan")
    recommended = np.array([one["paid"][one["recommended"]] for one in records])
    figures = {
        "gap_closed": gap_closed(paid, chance, best),
        "greedy_gap_closed": gap_closed(of("paid", "greedy"), chance, best),
        "recommended_gap_closed": gap_closed(recommended, chance, best),
        "optimism": promised / paid - 1,
        "of_truth": paid / best,
        "promised": promised,
        "paid": paid,
        "clicks": np.array([one["clicks"] for one in records]),
    }
    if all(one["bound"] for one in records):
        figures["bound"] = of("bound", "plan")
    row: Json = {"log": log, "round": records[0]["round"], "events": records[0]["events"]}
    row["recommended"] = [one["recommended"] for one in records]
    for name, values in figures.items():
        row |= seeds_figure(name, values)
    return row


def rounds_block(result: Json) -> Block:
    """A row for each round, and one for random slates."""
    truth = result["truth"]
    notes = [
        f"clicks of {result['horizon']} slates of {result['k']}, mean of {result['seeds']} seeds of "
        f"{result['users']} users; ±: half of the 95 % interval, Student's over seeds",
        f"trained on the truth: {truth['plan']:.2f}; random slates {truth['random']:.2f}; greedy "
        f"ones of the truth {truth['greedy']:.2f}",
    ]
    if "lead" in result:
        notes.append(
            "gap closed, rounds less random slates of as many events, paired over seeds: "
            f"{LEAD.text(result)} points"
        )
    title = f"{result['world']}: {result['what']}; rounds of {result['round_events']:,} events"
    columns = [one for one in COLUMNS if any(one.key in row for row in result["rows"])]
    return table_of(title, columns, result["rows"], notes)


def draw_rounds(result: Json, path: Path) -> None:
    """Draw gap closed and optimism by events and write it, atomically. Raises OutputError for
    another ending than .svg or .png, ConfigError without matplotlib."""
    lines = (
        (0, "gap_closed", "reward", "plan"),
        (0, "greedy_gap_closed", "generator", "greedy slates"),
        (1, "optimism", "reward", "plan"),
    )
    with panels_in_file(path, (7.2, 3.2), 2) as panels:
        for panel, title, goal in zip(
            panels, ("gap closed, %", "optimism, %"), (100, 0), strict=True
        ):
            panel.axhline(goal, color=colour("line"), linewidth=1)
            panel.set(xlabel="events logged, thousands", ylabel=title)
        for (place, key, role, name), (log, style) in product(
            lines, ((IN_ROUNDS, "o-"), (AT_RANDOM, "s"))
        ):
            rows = [row for row in result["rows"] if row["log"] == log]
            # beside the last round's, so that both are seen
            events = np.array([row["events"] for row in rows]) / 1000 + (log == AT_RANDOM)
            values = percent(row[key] for row in rows)
            half = percent(row[f"{key}_ci"][1] for row in rows) - values
            line = panels[place].errorbar(events, values, half, fmt=style, color=colour(role))
            line.set_label(f"{name}, {log}")

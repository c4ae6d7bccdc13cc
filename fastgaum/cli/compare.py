"""`fastgaum compare`: models on one's own log, read as it is; and what `fastgaum reproduce` shares
with it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from fastgaum.cli.options import Device, FigureFiles, Settings, parse_settings
from fastgaum.cli.output import check_outputs, say, show_block, write_tables
from fastgaum.cli.progress import Bar, note_compiling
from fastgaum.cli.reading import AS_IT_IS, Log, Reading
from fastgaum.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastgaum.logs.log import SessionLog
    from fastgaum.logs.options import ReadOptions
    from fastgaum.reports.comparison import Comparison, GridPlan
    from fastgaum.reports.grid import GridRun, Outcome

OWN_MODELS = ("fastgaum", "logit", "click-rate")
"""what is compared on a log of one's own when nothing is asked for"""
SLOW = ("report",)
"""models that take minutes where the others take seconds"""

Jobs = Annotated[
    int | None, Parameter(help="runs side by side, one thread each; all cores if not given")
]


@Parameter(name="*")
@dataclass(frozen=True)
class Grid:
    """What is fitted on each log: models × splits × seeds."""

    models: Annotated[
        str | None,
        Parameter(
            help="all, or a comma list of baselines and presets; if not given, those named above"
        ),
    ] = None
    protocol: Literal["identity", "bags", "views"] = "bags"
    """what a candidate's bag holds"""
    seeds: int = 5
    """runs of each model on each split"""
    resplit: str | None = None
    """draw other splits of whole users, by seed: 7, 1..10 or 1,4,9; several are pooled"""
    settings: Settings = ()

    def plan(self, usual: Sequence[str]) -> GridPlan:
        """The plan; `usual` are the models where none is named.

        Raises:
            ConfigError: an option cannot be read.
        """
        changes = parse_settings(self.settings)
        from fastgaum.reports.comparison import GridPlan
        from fastgaum.reports.grid import parse_resplits

        splits = () if self.resplit is None else tuple(parse_resplits(self.resplit))
        return GridPlan(_models(self.models, usual), self.seeds, self.protocol, splits, changes)


DEFAULT_GRID, NO_FILES = Grid(), FigureFiles()


def compare_command(
    source: Log,
    /,
    *,
    grid: Grid = DEFAULT_GRID,
    files: FigureFiles = NO_FILES,
    jobs: Jobs = None,
    device: Device = "auto",
    reading: Reading = AS_IT_IS,
) -> int:
    """Train models on one log with every seed; print prec@k and NLL beside the floors, with paired
    differences.

    A setting (--set) goes to each model that has it."""
    check_grid_files(files)
    plan = grid.plan(OWN_MODELS)
    if plan.resplits and "split" in reading.options.values:
        raise ConfigError(
            f"--split-by {reading.options.split} splits the log in one way and --resplit in "
            "others: give one of them"
        )
    n_runs, side_by_side = len(plan.runs([source])), jobs_of(jobs, device)
    from fastgaum.logs.registry import resolve
    from fastgaum.reports.comparison import title_of

    with Bar(f"reading {source}"):
        log = reading.load(source)
    title = title_of(log)
    oracles = oracle_of(title, log, resolve(source, reading.data_dir).path, plan)
    table = compared_in_sight({title: log}, plan, oracles, n_runs, side_by_side, device)
    return show_comparison(table.read_with(_read_with(reading.options, log)), files)


def _read_with(options: ReadOptions, log: SessionLog) -> dict[str, object]:
    """The options by which a log was read; `auto` is `user` where that gives the same split."""
    from fastgaum.logs.log import resplit_by

    read: dict[str, object] = options.to_json()
    drawn = resplit_by(log, "user", options.split_seed).split
    if options.split == "auto" and (log.split == drawn).all():
        read["split_by"] = "user"
    return read


def compared_in_sight(
    logs: Mapping[str, SessionLog],
    plan: GridPlan,
    oracles: Mapping[str, Mapping[str, float]],
    n_runs: int,
    jobs: int,
    device: str,
) -> Comparison:
    """`compare_logs` with its progress on the terminal."""
    from fastgaum.reports.comparison import compare_logs

    note_compiling()
    with GridProgress(n_runs) as progress:
        return compare_logs(
            logs,
            plan,
            oracles=oracles,
            jobs=jobs,
            device=device,
            on_start=progress.on_start,
            on_done=progress.on_done,
        )


def check_grid_files(files: FigureFiles) -> None:
    """Raise OutputError or ConfigError, before any work, for an output that cannot be."""
    check_outputs(files.json, files.markdown, files.figure)
    from fastgaum.reports.plots import check_figure

    check_figure(files.figure)


def show_comparison(table: Comparison, files: FigureFiles) -> int:
    """Print a table and write it where the command line says; return the exit code, 1 if a run
    failed."""
    from fastgaum.reports.figures import draw_precision

    blocks = table.blocks
    write_tables(files, table.result, blocks)
    if files.figure is not None:
        draw_precision(table.result, files.figure)
    for block in blocks:
        show_block(block)
        say("")
    return 1 if table.failed else 0


def oracle_of(
    title: str, log: SessionLog, path: Path, plan: GridPlan
) -> Mapping[str, Mapping[str, float]]:
    """What the truth beside a log scores on the plan's splits, in percent and nats; empty where
    there is none."""
    from fastgaum.reports.log_facts import pooled_oracle
    from fastgaum.worlds.truth import read_truth, truth_beside

    truth = truth_beside(path)
    if truth is None:
        return {}
    splits = tuple(plan.resplits) or (None,)
    return {title: pooled_oracle(log, read_truth(truth, log), splits)}


def names_of(text: str, option: str) -> list[str]:
    """The names of a comma list, each once. Raises ConfigError if there is none."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise ConfigError(f"{option} is an empty list, at least one name is required")
    return names


def _models(models: str | None, usual: Sequence[str]) -> tuple[str, ...]:
    from fastgaum.baselines.registry import MODELS

    if models is None:
        return tuple(usual)
    named = [MODELS if name == "all" else (name,) for name in names_of(models, "--models")]
    return tuple(dict.fromkeys(name for names in named for name in names))


def jobs_of(jobs: int | None, device: str) -> int:
    """How many runs stand side by side. Raises ConfigError for fewer than one."""
    if jobs is not None:
        if jobs < 1:
            raise ConfigError(f"--jobs must be at least 1, got {jobs}")
        return jobs
    import torch

    # Runs on one card would only stand in each other's way.
    return 1 if device != "cpu" and torch.cuda.is_available() else os.cpu_count() or 1


class GridProgress(Bar):
    """One line as each run ends, a warning before a slow one, and on a terminal how much time is
    left."""

    def __init__(self, total: int) -> None:
        super().__init__("training")
        self.total = total
        self.warned = False

    def on_start(self, run: GridRun) -> None:
        """Warn before the first run of a slow model."""
        if run.model in SLOW and not self.warned:
            self.warned = True
            self.line(
                f"model '{run.model}' is slow, minutes for each run: leave it out with --models to "
                "be done sooner"
            )

    def on_done(self, run: GridRun, outcome: Outcome, done: int) -> None:
        """Say what a run gave."""
        from fastgaum.reports.grid import RunFailure

        split = "" if run.resplit is None else f" split {run.resplit}"
        self(done, self.total)
        what = f"[{done}/{self.total}] {run.dataset} {run.model}{split} seed {run.seed}"
        if isinstance(outcome, RunFailure):
            self.line(f"{what} {outcome}")
            return
        heads = ", ".join(
            f"{name} prec@1 {head.precision[1].mean:.1f}"
            for name, head in outcome.test.heads.items()
        )
        self.line(f"{what}: {heads} ({outcome.seconds:.1f} s)")

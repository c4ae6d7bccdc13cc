"""`fastgaum reproduce`: data sets × models × splits × seeds, the table on the terminal and as
files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from fastgaum.cli.options import DataDir, Device, FigureFiles, Settings, parse_settings
from fastgaum.cli.output import check_outputs, note, say, show_block, write_tables
from fastgaum.cli.progress import PartsProgress, note_compiling
from fastgaum.errors import ConfigError

if TYPE_CHECKING:
    from fastgaum.logs.log import SessionLog
    from fastgaum.reports.grid import GridRun, Outcome

TABLE_SETS = ("yelp", "taobao", "yoochoose")
"""what is run when nothing is asked for and the files are at hand"""
DEFAULT_MODELS = ("paper-lstm", "paper-pw", "fastgaum")
"""what is run when nothing is asked for"""
SLOW = ("report",)
"""models that take minutes where the others take seconds"""


@Parameter(name="*")
@dataclass(frozen=True)
class Grid:
    """What is trained: data sets × models × splits × seeds."""

    datasets: str | None = None
    """comma list of logs; if not given, those at hand, or the sample"""
    models: Annotated[
        str | None,
        Parameter(
            help="all, or a comma list of baselines and presets; if not given, fastgaum,"
            " paper-lstm, paper-pw"
        ),
    ] = None
    protocol: Literal["identity", "bags", "views"] = "bags"
    """what a candidate's bag holds"""
    seeds: int = 5
    """runs of each model on each split"""
    resplit: str | None = None
    """draw other splits of whole users, by seed: 7, 1..10 or 1,4,9; several are pooled"""
    settings: Settings = ()


DEFAULT_GRID, NO_FILES = Grid(), FigureFiles()


def reproduce_command(
    *,
    grid: Grid = DEFAULT_GRID,
    files: FigureFiles = NO_FILES,
    data_dir: DataDir = None,
    jobs: Annotated[
        int | None, Parameter(help="runs side by side, one thread each; all cores if not given")
    ] = None,
    device: Device = "auto",
) -> int:
    """Train every model on every log with every seed; print prec@k beside the floors and the
    published figures.

    A setting (--set) goes to each model that has it."""
    names = None if grid.datasets is None else _names(grid.datasets, "--datasets")
    changes = parse_settings(grid.settings)
    check_outputs(files.json, files.markdown, files.figure)
    from fastgaum.reports.figures import draw_precision
    from fastgaum.reports.grid import grid_runs, parse_resplits
    from fastgaum.reports.plots import check_figure
    from fastgaum.reports.reproduce import run_grid
    from fastgaum.reports.reproduce_table import reproduce_blocks

    check_figure(files.figure)
    splits = None if grid.resplit is None else parse_resplits(grid.resplit)
    names = names or _at_hand(data_dir)
    runs = grid_runs(
        names, _models(grid.models), grid.seeds, grid.protocol, changes, splits or (None,)
    )
    side_by_side = _jobs(jobs, device)
    logs, oracles = _logs(names, data_dir, splits or (None,))
    note_compiling()
    with _Progress(len(runs)) as progress:
        result = run_grid(
            logs,
            runs,
            oracles=oracles,
            jobs=side_by_side,
            device=device,
            on_start=progress.on_start,
            on_done=progress.on_done,
        )
    result = {
        "machine": result.pop("machine"),
        "protocol": grid.protocol,
        "seeds": grid.seeds,
        "resplit": splits,
        **result,
    }
    blocks = reproduce_blocks(result)
    write_tables(files, result, blocks)
    if files.figure is not None:
        draw_precision(result, files.figure)
    for block in blocks:
        show_block(block)
        say("")
    return 1 if result["failed"] else 0


def _models(models: str | None) -> list[str]:
    from fastgaum.baselines.registry import MODELS

    if models is None:
        return list(DEFAULT_MODELS)
    named = [MODELS if name == "all" else (name,) for name in _names(models, "--models")]
    return list(dict.fromkeys(name for names in named for name in names))


def _names(text: str, option: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise ConfigError(f"{option} is an empty list, at least one name is required")
    return names


def _logs(
    names: Sequence[str], data_dir: Path | None, splits: Sequence[int | None]
) -> tuple[dict[str, SessionLog], dict[str, dict[str, float]]]:
    """Read the logs by name, with their own splits, and score the truth of those that have one on
    the splits asked for."""
    from fastgaum.logs.read import load
    from fastgaum.logs.registry import resolve
    from fastgaum.reports.log_facts import pooled_oracle
    from fastgaum.worlds.truth import read_truth, truth_beside

    logs, oracles = {}, {}
    for name in names:
        logs[name] = log = load(name, data_dir=data_dir)
        truth = truth_beside(resolve(name, data_dir).path)
        if truth is not None:
            # in percent and nats, on the test events
            oracles[name] = pooled_oracle(log, read_truth(truth, log), splits)
    return logs, oracles


def _at_hand(data_dir: Path | None) -> list[str]:
    """The table's data sets whose files are there, or the sample: this never needs the network."""
    from fastgaum.logs.registry import find_log

    present = [name for name in TABLE_SETS if find_log(name, data_dir) is not None]
    if not present:
        note(
            "no registry data at hand: this is the bundled sample (`fastgaum data list` says how "
            "to get the others)"
        )
    return present or ["sample"]


def _jobs(jobs: int | None, device: str) -> int:
    if jobs is not None:
        if jobs < 1:
            raise ConfigError(f"--jobs must be at least 1, got {jobs}")
        return jobs
    import torch

    # Runs on one card would only stand in each other's way.
    return 1 if device != "cpu" and torch.cuda.is_available() else os.cpu_count() or 1


class _Progress(PartsProgress):
    """One line as each run ends, a warning before a slow one, and on a terminal how much time is
    left."""

    def __init__(self, total: int) -> None:
        super().__init__("training", "runs")
        self.total = total
        self.warned = False

    def on_start(self, run: GridRun) -> None:
        if run.model in SLOW and not self.warned:
            self.warned = True
            self.line(
                f"model '{run.model}' is slow, minutes for each run: leave it out with --models to "
                "be done sooner"
            )

    def on_done(self, run: GridRun, outcome: Outcome, done: int) -> None:
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

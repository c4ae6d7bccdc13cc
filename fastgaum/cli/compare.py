"""`fastgaum compare`: models on one's own log; and the grid that `fastgaum reproduce` shares."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import Parameter

from fastgaum.cli.options import Device, FigureFiles, ProtocolOption, Settings, parse_settings
from fastgaum.cli.output import check_outputs, say, show_block, write_tables
from fastgaum.cli.progress import Bar, note_compiling
from fastgaum.cli.reading import AS_IT_IS, Log, Reading
from fastgaum.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastgaum.logs.log import SessionLog
    from fastgaum.reports.comparison import Comparison
    from fastgaum.reports.grid import GridPlan, GridRun, RunOutcome

OWN_MODELS = ("fastgaum", "logit", "click-rate")
NO_FIGURES = FigureFiles()


@Parameter(name="*")
@dataclass(frozen=True)
class Grid:
    """Models × splits × seeds on each log, and where the table goes."""

    models: str | None = None
    """names of models, separated by commas, or all"""
    protocol: ProtocolOption = "bags"
    seeds: int = 5
    """fits of each model on each split"""
    resplit: str | None = None
    """seeds of other splits of the users: 7, 1..10 or 1,4,9; several are pooled"""
    settings: Settings = ()
    jobs: int | None = None
    """fits side by side, one thread each; all cores if not given"""
    device: Device = "auto"
    add: Path | None = None
    """rows of other people's models to show, a JSON file (docs/rows.schema.json)"""
    files: FigureFiles = NO_FIGURES

    def plan(self, usual: Sequence[str]) -> GridPlan:
        """The plan; `usual`: the models where none is named. Raises ConfigError or OutputError."""
        check_outputs(self.files.json, self.files.markdown, self.files.figure)
        if self.jobs is not None and self.jobs < 1:
            raise ConfigError(f"--jobs must be at least 1, got {self.jobs}")
        changes = parse_settings(self.settings)
        from fastgaum.baselines.registry import MODELS
        from fastgaum.reports.grid import GridPlan, parse_resplits
        from fastgaum.reports.plots import check_figure

        check_figure(self.files.figure)
        models = list(usual) if self.models is None else names_of(self.models, "--models")
        every = [name for one in models for name in (MODELS if one == "all" else [one])]
        splits = () if self.resplit is None else tuple(parse_resplits(self.resplit))
        models = list(dict.fromkeys(every))
        return GridPlan(models, self.seeds, self.protocol, splits, changes)

    def fit(
        self,
        plan: GridPlan,
        logs: Mapping[str, SessionLog],
        paths: Mapping[str, Path],
        reading: Mapping[str, object] | None = None,
    ) -> Comparison:
        """Fit and score all; a log with its truth beside it has an oracle."""
        import torch

        from fastgaum.reports.comparison import compare_logs
        from fastgaum.reports.log_facts import pooled_oracle
        from fastgaum.reports.published_figures import read_rows
        from fastgaum.worlds.oracle import read_truth, truth_beside

        others = [] if self.add is None else read_rows(self.add, list(logs))
        oracles = {}
        for name, log in logs.items():
            if (truth := truth_beside(paths[name])) is not None:
                oracles[name] = pooled_oracle(log, read_truth(truth, log), plan.splits)
        # runs on one card would only stand in each other's way
        on_card = self.device != "cpu" and torch.cuda.is_available()
        note_compiling()
        total = len(plan.runs(list(logs)))
        with Bar("training") as progress:

            def on_done(run: GridRun, outcome: RunOutcome, done: int) -> None:
                split = "" if run.resplit is None else f" split {run.resplit}"
                progress(done, total)
                what = f"[{done}/{total}] {run.dataset} {run.model}{split} seed {run.seed}"
                if isinstance(outcome, str):
                    progress.line(f"{what} failed: {outcome}")
                    return
                precs = {name: one.precision[1].mean for name, one in outcome.test.heads.items()}
                heads = ", ".join(f"{name} prec@1 {mean:.1f}" for name, mean in precs.items())
                progress.line(f"{what}: {heads} ({outcome.seconds:.1f} s)")

            jobs = self.jobs or (1 if on_card else os.cpu_count() or 1)
            more: dict[str, Any] = {"jobs": jobs, "device": self.device, "reading": reading}
            more["others"] = others
            return compare_logs(logs, plan, oracles=oracles, on_done=on_done, **more)

    def show(self, table: Comparison) -> int:
        """Print and write a table; return the exit code."""
        from fastgaum.reports.charts import draw_precision

        write_tables(self.files, table.result, table.blocks)
        if self.files.figure is not None:
            draw_precision(table.result, self.files.figure)
        for block in table.blocks:
            show_block(block)
            say("")
        return 1 if table.failed else 0


DEFAULT_GRID = Grid()


def compare_command(
    source: Log, /, *, grid: Grid = DEFAULT_GRID, reading: Reading = AS_IT_IS
) -> int:
    """Compare models on your own log: floors, intervals, paired differences.

    It prints one table of the test split. Without --models it compares fastgaum, logit and
    click-rate. If a run fails, the others keep their figures and the exit code is 1."""
    plan = grid.plan(OWN_MODELS)
    options = reading.options
    for option, flag in (("split", "--split-by"), ("split_seed", "--split-seed")):
        if plan.resplits and option in options.given:
            raise ConfigError(
                f"{flag} {getattr(options, option)} splits the log in one way and --resplit in "
                "others: give one of them"
            )
    plan.runs([source])
    from fastgaum.logs.datasets import resolve
    from fastgaum.logs.splits import resplit_by
    from fastgaum.reports.log_facts import title_of

    with Bar(f"reading {source}"):
        log = reading.load_to_train(source)
    title, path = title_of(log), resolve(source, reading.data_dir).path
    read_with = options.to_json()
    drawn = resplit_by(log, "user", options.split_seed).split
    if options.split == "auto" and (log.split == drawn).all():
        read_with["split_by"] = "user"
    return grid.show(grid.fit(plan, {title: log}, {title: path}, read_with))


def names_of(text: str, option: str) -> list[str]:
    """The names of a comma list, each once. Raises ConfigError if there is none."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise ConfigError(f"{option} is an empty list, at least one name is required")
    return names

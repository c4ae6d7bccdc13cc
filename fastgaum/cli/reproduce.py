"""`fastgaum reproduce`: data sets × models × seeds, the table on the terminal, as JSON and as markdown."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from fastgaum.cli.console import check_outputs, note, say, show_block, write_json
from fastgaum.cli.settings import Device, Settings, parse_settings
from fastgaum.config import PRESETS
from fastgaum.errors import ConfigError
from fastgaum.files import atomic

if TYPE_CHECKING:
    from fastgaum.sessions.packed import SessionLog
    from fastgaum.training.jobs import Run, RunFigures

TABLE_SETS = ("yelp", "taobao", "yoochoose")
"""what is run when nothing is asked for and the files are at hand"""
DEFAULT_MODELS = ("paper-lstm", "paper-pw", "fastgaum")
"""what is run when nothing is asked for: `large` is for larger logs, `report` is slow"""
SLOW = ("report",)
"""presets that take minutes where the others take seconds"""


def reproduce(
    *,
    datasets: Annotated[
        str | None, Parameter(help="comma list of logs; if not given, those at hand, or the sample")
    ] = None,
    models: Annotated[
        str | None, Parameter(help="all, or a comma list of presets; if not given, fastgaum, paper-lstm and paper-pw")
    ] = None,
    protocol: Annotated[Literal["identity", "bags", "views"], Parameter(help="what a candidate's bag holds")] = "bags",
    seeds: Annotated[int, Parameter(help="runs of each model")] = 5,
    resplit: Annotated[int | None, Parameter(help="draw another split of whole users with this seed")] = None,
    json: Annotated[Path | None, Parameter(help="also write the table as one JSON object")] = None,
    markdown: Annotated[Path | None, Parameter(help="also write the table as markdown")] = None,
    data_dir: Annotated[Path | None, Parameter(help="where registry names are looked up first")] = None,
    settings: Settings = (),
    jobs: Annotated[int | None, Parameter(help="runs side by side, one thread each; all cores if not given")] = None,
    device: Device = "auto",
) -> None:
    """Train every model on every log with every seed; print prec@k beside the floors and the published figures."""
    names = None if datasets is None else _names(datasets, "--datasets")
    presets = _presets(models)
    changes = parse_settings(settings)
    check_outputs(json, markdown)
    from fastgaum.reproduce import plan
    from fastgaum.reproduce import reproduce as run_grid

    logs, oracles = _logs(names, data_dir, resplit)
    runs = plan(list(logs), presets, seeds, protocol, changes)
    progress = _Progress(len(runs))
    result = run_grid(
        logs,
        runs,
        oracles=oracles,
        jobs=_jobs(jobs, device),
        device=device,
        on_start=progress.start,
        on_done=progress.done,
    )
    result = {"machine": result.pop("machine"), "protocol": protocol, "seeds": seeds, "resplit": resplit, **result}
    _write(result, json, markdown)
    from fastgaum.metrics.table import blocks

    for block in blocks(result):
        show_block(block)
        say("")


def _presets(models: str | None) -> list[str]:
    if models is None:
        return list(DEFAULT_MODELS)
    return list(PRESETS) if models == "all" else _names(models, "--models")


def _names(text: str, option: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise ConfigError(f"{option} is an empty list, at least one name is required")
    return names


def _logs(
    names: list[str] | None, data_dir: Path | None, seed: int | None
) -> tuple[dict[str, SessionLog], dict[str, dict[str, float]]]:
    """Read the logs by name, and score the truth of those that have one."""
    from fastgaum.datasets.registry import load
    from fastgaum.sessions.split import resplit

    logs, oracles = {}, {}
    for name in names or _at_hand(data_dir):
        log = load(name, data_dir=data_dir)
        logs[name] = log if seed is None else resplit(log, seed)
        oracle = _oracle(name, data_dir, logs[name])
        if oracle is not None:
            oracles[name] = oracle
    return logs, oracles


def _at_hand(data_dir: Path | None) -> list[str]:
    """The table's data sets whose files are there, or the sample: this never needs the network."""
    from fastgaum.datasets.locate import find

    present = [name for name in TABLE_SETS if find(name, data_dir) is not None]
    if not present:
        note("no registry data at hand: this is the bundled sample (`fastgaum data list` says how to get the others)")
    return present or ["sample"]


def _oracle(name: str, data_dir: Path | None, log: SessionLog) -> dict[str, float] | None:
    """What the truth scores on a synthetic log's test split, in percent and nats; None where nobody knows the truth."""
    from fastgaum.datasets.locate import resolve
    from fastgaum.sessions.oracle import oracle_scores, read_truth, truth_beside

    truth = truth_beside(resolve(name, data_dir).path)
    if truth is None:
        return None
    scores = oracle_scores(log, read_truth(truth, log))
    return {**{str(k): 100 * value for k, value in scores.precision.items()}, "nll": scores.nll}


def _jobs(jobs: int | None, device: str) -> int:
    if jobs is not None:
        if jobs < 1:
            raise ConfigError(f"--jobs must be at least 1, got {jobs}")
        return jobs
    import torch

    # Runs on one card would only stand in each other's way.
    return 1 if device != "cpu" and torch.cuda.is_available() else os.cpu_count() or 1


def _write(result: dict[str, Any], json: Path | None, markdown: Path | None) -> None:
    from fastgaum.metrics.table import to_markdown

    if json is not None:
        write_json(json, result)
    if markdown is not None:
        with atomic(markdown) as beside:
            beside.write_text(to_markdown(result), encoding="utf-8")


class _Progress:
    """One line on stderr as each run ends, and a warning before a slow one."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.warned = False

    def start(self, run: Run) -> None:
        if run.model in SLOW and not self.warned:
            self.warned = True
            note(f"preset '{run.model}' is slow, minutes for each run: leave it out with --models to be done sooner")

    def done(self, run: Run, figures: RunFigures, done: int) -> None:
        heads = ", ".join(f"{name} prec@1 {head.precision[1].mean:.1f}" for name, head in figures.test.heads.items())
        what = f"{run.dataset} {run.model} seed {run.config.seed}"
        note(f"[{done}/{self.total}] {what}: {heads} ({figures.seconds:.1f} s)")

"""`fastgaum reproduce`: data sets × models × splits × seeds, the table on the terminal and as
files. `fastgaum compare` is the same for one log, read by options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fastgaum.cli.compare import (
    DEFAULT_GRID,
    NO_FILES,
    Grid,
    Jobs,
    check_grid_files,
    compared_in_sight,
    jobs_of,
    names_of,
    oracle_of,
    show_comparison,
)
from fastgaum.cli.options import DataDir, Device, FigureFiles
from fastgaum.cli.output import note

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastgaum.logs.log import SessionLog

TABLE_SETS = ("yelp", "taobao", "yoochoose")
"""what is run when nothing is asked for and the files are at hand"""
DEFAULT_MODELS = ("paper-lstm", "paper-pw", "fastgaum")
"""what is run when nothing is asked for"""


def reproduce_command(
    *,
    datasets: Annotated[
        str | None,
        Parameter(help="comma list of logs; if not given, those at hand, or the sample"),
    ] = None,
    grid: Grid = DEFAULT_GRID,
    files: FigureFiles = NO_FILES,
    data_dir: DataDir = None,
    jobs: Jobs = None,
    device: Device = "auto",
) -> int:
    """Train every model on every log with every seed; print prec@k beside the floors and the
    published figures.

    A setting (--set) goes to each model that has it."""
    named = None if datasets is None else names_of(datasets, "--datasets")
    check_grid_files(files)
    plan = grid.plan(DEFAULT_MODELS)
    from fastgaum.logs.read import load
    from fastgaum.logs.registry import resolve

    names = named or _at_hand(data_dir)
    n_runs, side_by_side = len(plan.runs(names)), jobs_of(jobs, device)
    logs: dict[str, SessionLog] = {}
    oracles: dict[str, Mapping[str, float]] = {}
    for name in names:
        logs[name] = log = load(name, data_dir=data_dir)
        oracles.update(oracle_of(name, log, resolve(name, data_dir).path, plan))
    table = compared_in_sight(logs, plan, oracles, n_runs, side_by_side, device)
    return show_comparison(table, files)


def _at_hand(data_dir: DataDir) -> list[str]:
    """The table's data sets whose files are there, or the sample: this never needs the network."""
    from fastgaum.logs.registry import find_log

    present = [name for name in TABLE_SETS if find_log(name, data_dir) is not None]
    if not present:
        note(
            "no registry data at hand: this is the bundled sample (`fastgaum data list` says how "
            "to get the others)"
        )
    return present or ["sample"]

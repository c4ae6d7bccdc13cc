"""`fastgaum reproduce`: data sets × models × splits × seeds, as one table."""

from __future__ import annotations

from fastgaum.cli.compare import DEFAULT_GRID, Grid, names_of
from fastgaum.cli.options import DataDir
from fastgaum.cli.output import note

TABLE_SETS = ("yelp", "taobao", "yoochoose")
"""the logs when none is asked for and the files are at hand"""
DEFAULT_MODELS = ("paper-lstm", "paper-pw", "fastgaum")


def reproduce_command(
    *, datasets: str | None = None, grid: Grid = DEFAULT_GRID, data_dir: DataDir = None
) -> int:
    """Print the prec@k table: data sets × models × seeds.

    It uses the data sets on this machine, or the bundled sample, and never the network. Without
    --models it compares fastgaum, paper-lstm and paper-pw. If a run fails, the others keep their
    figures and the exit code is 1.

    Args:
        datasets: names of logs, separated by commas; those on this machine if not given
    """
    named = None if datasets is None else names_of(datasets, "--datasets")
    plan = grid.plan(DEFAULT_MODELS)
    from fastgaum.logs.datasets import find_log, resolve
    from fastgaum.logs.read import load

    names = named or [name for name in TABLE_SETS if find_log(name, data_dir) is not None]
    if not names:
        note(
            "no registry data at hand: this is the bundled sample (`fastgaum data list` says how "
            "to get the others)"
        )
        names = ["sample"]
    plan.runs(names)
    logs = {name: load(name, data_dir=data_dir) for name in names}
    paths = {name: resolve(name, data_dir).path for name in names}
    return grid.show(grid.fit(plan, logs, paths))

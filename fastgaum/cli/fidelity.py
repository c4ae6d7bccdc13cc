"""`fastgaum fidelity`: does a trained user model, as a world, behave as a log."""

from __future__ import annotations

from typing import Literal

from fastgaum.cli.options import (
    AllowSeenUsers,
    DataDir,
    HeadOption,
    PlotFiles,
    RunPath,
    Threads,
    use_threads,
)
from fastgaum.cli.output import check_outputs, note, show_block, write_tables
from fastgaum.cli.progress import Bar
from fastgaum.cli.reading import Log, checked_users, log_of_run

NO_PLOTS = PlotFiles()


def fidelity_command(
    run: RunPath,
    source: Log,
    /,
    *,
    split: Literal["train", "validation", "test"] = "test",
    head: HeadOption = None,
    episodes: int = 20_000,
    seed: int = 0,
    files: PlotFiles = NO_PLOTS,
    threads: Threads = None,
    allow_seen_users: AllowSeenUsers = False,
    data_dir: DataDir = None,
) -> None:
    """Compare simulated users with the log.

    Args:
        split: the split whose sessions are replayed
        episodes: number of simulated sessions; each logged session is replayed as often
        seed: seed of everything random
    """
    check_outputs(files.json, files.markdown, files.plot)
    from fastgaum.reports.plots import check_figure

    check_figure(files.plot, "--plot")
    from fastgaum.machine import machine_facts
    from fastgaum.models.user_model import UserModel
    from fastgaum.reports.charts import draw_fidelity
    from fastgaum.reports.fidelity import fidelity as report_of
    from fastgaum.reports.table import finite
    from fastgaum.reports.world_tables import fidelity_block

    use_threads(threads)
    model = UserModel.load(run, device="cpu")
    log = log_of_run(run, source, data_dir, split)
    seen = checked_users(model, log, split, allow_seen_users)
    with Bar("replaying and comparing"):
        report = finite(report_of(model, log, split=split, head=head, episodes=episodes, seed=seed))
    report = {"machine": machine_facts(model.config.seed), "preset": model.config.preset, **report}
    report["seen_users"] = seen.to_dict()
    note(str(seen))
    block = fidelity_block(report)
    write_tables(files, report, [block])
    if files.plot is not None:
        draw_fidelity(report, files.plot)
    show_block(block)

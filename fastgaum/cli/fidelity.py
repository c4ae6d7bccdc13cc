"""`fastgaum fidelity`: does a trained user model, as a world, behave as a log."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from cyclopts import Parameter

from fastgaum.cli.options import (
    AllowSeenUsers,
    HeadOption,
    PlotFiles,
    RunPath,
    Threads,
    use_threads,
)
from fastgaum.cli.output import check_outputs, note, show_block, write_tables
from fastgaum.cli.progress import Bar
from fastgaum.cli.reading import AS_IT_IS, Log, Reading, checked_users


@Parameter(name="*")
@dataclass(frozen=True)
class ReplayOptions:
    """What is replayed, how often, and who chooses."""

    split: Literal["train", "validation", "test"] = "test"
    """whose sessions to replay"""
    head: HeadOption = None
    episodes: int = 20_000
    """simulated sessions: each session is replayed so often"""
    seed: int = 0
    """seeds users, draws and permutations"""


DEFAULT_REPLAY, NO_FILES = ReplayOptions(), PlotFiles()


def fidelity_command(
    run: RunPath,
    source: Log,
    /,
    *,
    replay: ReplayOptions = DEFAULT_REPLAY,
    files: PlotFiles = NO_FILES,
    threads: Threads = None,
    allow_seen_users: AllowSeenUsers = False,
    reading: Reading = AS_IT_IS,
) -> None:
    """Replay a log's sessions with simulated users; compare what they choose with what was chosen.

    Clicks, click depth, repeats, novelty, popularity, surprise, calibration, rank, and the value of
    simple policies, each with an interval over users and a permutation test; how far the world can
    be relied on to order policies; and the distance of its sessions' states from the log's."""
    check_outputs(files.json, files.markdown, files.plot)
    from fastgaum.reports.plots import check_figure

    check_figure(files.plot, "--plot")
    from fastgaum.machine import machine_facts
    from fastgaum.models.user_model import UserModel
    from fastgaum.reports.fidelity import fidelity as report_of
    from fastgaum.reports.figures import draw_fidelity
    from fastgaum.reports.table import finite
    from fastgaum.reports.world_tables import fidelity_blocks

    use_threads(threads)
    model = UserModel.load(run, device="cpu")
    with Bar(f"reading {source}"):
        log = reading.or_of_run(run).load(source)
    seen = checked_users(model, log, replay.split, allow_seen_users)
    with Bar("replaying and comparing") as progress:
        report = finite(report_of(model, log, progress=progress, **asdict(replay)))
    report = {"machine": machine_facts(model.config.seed), "preset": model.config.preset, **report}
    report["seen_users"] = seen.to_dict()
    note(str(seen))
    blocks = fidelity_blocks(report)
    write_tables(files, report, blocks)
    if files.plot is not None:
        draw_fidelity(report, files.plot)
    for block in blocks:
        show_block(block)

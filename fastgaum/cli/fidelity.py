"""`fastgaum fidelity`: does a trained user model, as a world, behave as a log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from fastgaum.cli.console import Json, check_outputs, write_text
from fastgaum.cli.progress import PartsProgress, Waiting
from fastgaum.cli.reading import AS_IT_IS, Log, Reading
from fastgaum.cli.settings import set_threads
from fastgaum.cli.tables import show_block


def fidelity(
    run: Annotated[Path, Parameter(help="a run folder, or a model file")],
    log: Log,
    /,
    *,
    split: Annotated[
        Literal["train", "validation", "test"], Parameter(help="whose sessions to replay")
    ] = "test",
    head: Annotated[
        Literal["generator", "reward"] | None,
        Parameter(help="who chooses; the generator if the run has one"),
    ] = None,
    episodes: Annotated[
        int, Parameter(help="simulated sessions: each session is replayed so often")
    ] = 20_000,
    seed: Annotated[int, Parameter(help="seeds users, draws and permutations")] = 0,
    json: Json = None,
    markdown: Annotated[Path | None, Parameter(help="also write the tables as markdown")] = None,
    plot: Annotated[Path | None, Parameter(help="also draw it, as .svg or .png")] = None,
    threads: Annotated[int | None, Parameter(help="threads to use; all cores if not given")] = None,
    reading: Reading = AS_IT_IS,
) -> None:
    """Replay a log's sessions with simulated users; compare what they choose with what was chosen.

    Clicks, repeats, novelty, popularity, surprise, calibration, rank, and the value of simple
    policies, each with an interval over users and a permutation test. Options of reading that are
    not given are those that the run was trained with."""
    check_outputs(json, markdown, plot)
    from fastgaum.reports.precision_figure import check_figure

    check_figure(plot, "--plot")
    from fastgaum.machine import machine_facts
    from fastgaum.models.user_model import UserModel
    from fastgaum.reports.cells_file import finite, to_json
    from fastgaum.reports.fidelity import fidelity as report_of
    from fastgaum.reports.fidelity_figure import draw
    from fastgaum.reports.fidelity_table import blocks, to_markdown

    set_threads(threads)
    model = UserModel.load(run, device="cpu")
    with Waiting(f"reading {log}"):
        sessions = reading.or_of_run(run).load(log)
    with PartsProgress("replaying and comparing", "steps") as progress:
        report = finite(
            report_of(
                model,
                sessions,
                split=split,
                head=head,
                episodes=episodes,
                seed=seed,
                progress=progress,
            )
        )
    report = {"machine": machine_facts(model.config.seed), "preset": model.config.preset, **report}
    for path, text in ((json, to_json), (markdown, to_markdown)):
        if path is not None:
            write_text(path, text(report))
    if plot is not None:
        draw(report, plot)
    for block in blocks(report):
        show_block(block)

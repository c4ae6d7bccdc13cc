"""`fastgaum report`: runs and what they learned, as one page to read, print or pass on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from fastgaum.cli.options import (
    AllowSeenUsers,
    DataDir,
    Flag,
    JsonFile,
    Repeated,
    Threads,
    use_threads,
)
from fastgaum.cli.output import check_outputs, finish, note
from fastgaum.cli.progress import Bar
from fastgaum.cli.reading import Reading, checked_users
from fastgaum.errors import DatasetError

if TYPE_CHECKING:
    from fastgaum.logs.fold import Rows
    from fastgaum.logs.log import SessionLog
    from fastgaum.reports.trained_run import TrainedRun


def report_command(
    runs: Annotated[tuple[Path, ...], Parameter(negative="", show_default=False)],
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("report.html"),
    compare: Flag = False,
    log: Repeated = (),
    split: Literal["train", "validation", "test"] = "validation",
    allow_seen_users: AllowSeenUsers = False,
    json: JsonFile = None,
    threads: Threads = None,
    data_dir: DataDir = None,
) -> None:
    """Write an HTML report of one or more runs: results, curves, calibration, what was learned.

    The report is one file and needs no network.

    Args:
        runs: run folders
        out: the page to write
        compare: put two runs of one log side by side
        log: where the runs' log is (repeatable); if not given, where the training found it
        split: the split to score; use test once, for final figures
    """
    check_outputs(out, json)
    from fastgaum.reports.plots import require_plots

    require_plots()
    from fastgaum.reports.facts import report_facts
    from fastgaum.reports.page import write_page
    from fastgaum.reports.trained_run import log_of, open_run

    use_threads(threads)
    opened = [open_run(run) for run in runs]
    logs: list[SessionLog] = []
    raw: dict[str, Rows | None] = {}
    read: set[tuple[str, bool]] = set()
    with Bar("reading logs"):
        for run in opened:
            for name in log or (_where(run),):
                own = Reading(data_dir=data_dir).or_of_run(run.folder, name, training_log=True)
                if (run.fingerprint, run.ordered) not in read:
                    found, rows = own.load_with_rows(name)
                    logs.append(found)
                    read.add((found.fingerprint, found.ordered))
                    raw[found.fingerprint] = rows
    seen = [checked_users(run.model, log_of(run, logs), split, allow_seen_users) for run in opened]
    with Bar("scoring and drawing"):
        facts = report_facts(opened, logs, split=split, compare=compare, raw=raw)
        write_page(facts, out)
    size = f"{out.stat().st_size / 1e6:.1f} MB"
    finish(
        f"{out}: {len(opened)} run{'s' if len(opened) > 1 else ''}, {split} split, {size}",
        json,
        facts,
    )
    for run, users in zip(opened, seen, strict=True):
        note(f"{run.folder}: {users}")
    if split == "test":
        note("these are test figures: choose on validation, and look at them once")


def _where(run: TrainedRun) -> str:
    from fastgaum.logs.datasets import names

    about = run.machine["log"]
    if about.get("name") in names() and not about.get("source"):
        return str(about["name"])
    source = about.get("source")
    if not source:
        raise DatasetError(
            f"run '{run.folder}' does not say where its log '{about.get('name')}' is: pass --log"
        )
    if source not in names() and not Path(source).exists():
        raise DatasetError(f"the log of run '{run.folder}' is no longer at '{source}': pass --log")
    return str(source)

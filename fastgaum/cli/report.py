"""`fastgaum report`: runs and what they learned, as one page to read, print or pass on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from fastgaum.cli.options import AllowSeenUsers, Flag, Json, Threads, use_threads
from fastgaum.cli.output import check_outputs, finish, note
from fastgaum.cli.progress import Bar
from fastgaum.cli.reading import AS_IT_IS, Reading, checked_users
from fastgaum.errors import DatasetError

if TYPE_CHECKING:
    from fastgaum.logs.fold import Rows
    from fastgaum.logs.log import SessionLog
    from fastgaum.reports.trained_run import TrainedRun


@Parameter(name="*")
@dataclass(frozen=True)
class PageOptions:
    """What the page shows."""

    compare: Flag = False
    """put two runs of one log side by side"""
    log: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = ()
    """where the runs' log is (repeatable); where training found it if not given"""
    split: Literal["train", "validation", "test"] = "validation"
    """whose events to score; test for final figures, once"""
    allow_seen_users: AllowSeenUsers = False


DEFAULT_PAGE = PageOptions()


def report_command(
    runs: Annotated[
        tuple[Path, ...], Parameter(help="run folders", negative="", show_default=False)
    ],
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="the page to write")] = Path(
        "report.html"
    ),
    shown: PageOptions = DEFAULT_PAGE,
    json: Json = None,
    threads: Threads = None,
    reading: Reading = AS_IT_IS,
) -> None:
    """Write a page on trained runs: results, learning curves, calibration, what the reward learned,
    audit, cost."""
    check_outputs(out, json)
    from fastgaum.reports.plots import require_plots

    require_plots()
    from fastgaum.reports.facts import report_facts
    from fastgaum.reports.page import write_page
    from fastgaum.reports.trained_run import log_of, open_run

    use_threads(threads)
    split = shown.split
    opened = [open_run(run) for run in runs]
    logs: list[SessionLog] = []
    raw: dict[str, Rows | None] = {}
    read: set[tuple[str, bool]] = set()
    with Bar("reading logs"):
        for run in opened:
            own = reading.or_of_run(run.folder)
            for name in shown.log or (_where(run),):
                if (run.fingerprint, run.ordered) not in read:
                    logs.append(own.load(name))
                    read.add((logs[-1].fingerprint, logs[-1].ordered))
                    raw[logs[-1].fingerprint] = own.raw_rows(name)
    allowed = shown.allow_seen_users
    seen = [checked_users(run.model, log_of(run, logs), split, allowed) for run in opened]
    with Bar("scoring and drawing"):
        facts = report_facts(opened, logs, split=split, compare=shown.compare, raw=raw)
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
    """Where training found a run's log: what it says itself, or the registry's name.

    Raises:
        DatasetError: neither is known, or the log is no longer there.
    """
    from fastgaum.logs.registry import names

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

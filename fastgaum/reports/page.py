"""The page: facts of runs and their logs, set by Jinja2 templates into one HTML file that asks for
nothing else.

    write_report(["runs/mine"], [log], "report.html")

All that a page says is in the facts, one object for JSON: nothing on the page comes from elsewhere.
Everything from data is escaped by the templates; what is not (charts, style, script) is made here.
A content security policy lets the browser run the page's one script, known by its hash, and fetch
nothing."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from fastgaum.baselines.floors import Precisions, floor_precisions
from fastgaum.errors import ConfigError
from fastgaum.files import atomic, require_writable
from fastgaum.logs.log import SessionLog, SplitName
from fastgaum.metrics.evaluation import figures_of
from fastgaum.reports.charts import page_charts
from fastgaum.reports.headline import lead, standings
from fastgaum.reports.log_facts import log_facts
from fastgaum.reports.plots import require_plots
from fastgaum.reports.run_facts import calibration_facts, example_displays, learned_facts
from fastgaum.reports.split_scores import (
    DisplayCounts,
    SplitScores,
    floor_difference,
    run_differences,
)
from fastgaum.reports.table import finite
from fastgaum.reports.trained_run import TrainedRun, log_of, open_run, repeat_commands

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = "fastgaum.reports"
SECTIONS = {
    "result": "Result",
    "compare": "Differences",
    "trained": "Setup",
    "learning": "Learning",
    "calibration": "Calibration",
    "learned": "Reward",
    "displays": "Displays",
    "log": "Log",
    "cost": "Cost",
    "repeat": "Repeat it",
}
"""id of each section and what the page's navigation calls it"""


def write_report(
    runs: Sequence[str | Path],
    logs: Sequence[SessionLog],
    out: str | Path,
    *,
    split: SplitName = "validation",
    compare: bool = False,
    raw: Mapping[str, pl.DataFrame | None] | None = None,
) -> Facts:
    """Write a report page on run folders, atomically; return its facts, ready for JSON.

    Args:
        runs: run folders.
        logs: the logs that they were trained on, each run's found by its fingerprint.
        out: the HTML file to write.
        split: the split whose events are scored; test only for final figures.
        compare: put two runs side by side, with paired differences: both must be scored on the same
            events, however each read them.
        raw: raw rows by a log's fingerprint (`audit_rules.raw_rows`), for the part of the audit
            that needs them.

    Raises:
        ConfigError: matplotlib is not installed, no run is named, or not two runs of the same
            events to compare.
        CheckpointError: a folder is no run, or damaged.
        DatasetError: a run's log is not among the logs.
        OutputError: the page cannot be written.
    """
    require_plots()
    require_writable(out)
    facts = report_facts(
        [open_run(Path(run)) for run in runs], logs, split=split, compare=compare, raw=raw
    )
    write_page(facts, out)
    return facts


def write_page(facts: Facts, out: str | Path) -> None:
    """Write the page of facts that are at hand.

    Raises:
        OutputError: it cannot be written.
    """
    html = to_html(facts)
    with atomic(out) as beside:
        beside.write_text(html, encoding="utf-8")


def to_html(facts: Facts) -> str:
    """The page as text."""
    environment = _environment()
    script = _text("sort.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template("page.html").render(
        facts=facts,
        compare=facts["comparison"],
        sections=[
            (name, text)
            for name, text in SECTIONS.items()
            if name != "compare" or facts["comparison"]
        ],
        several=len(facts["runs"]) > 1,
        standings=[standings(facts, i) for i in range(len(facts["logs"]))],
        lead=lead(facts),
        figures=figures_of(),
        charts=page_charts(facts),
        style=_text("style.css"),
        script=script,
        script_hash=f"sha256-{digest}",
    )
    return str(page)


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "num": _num,
        "percent": _percent,
        "signed": _signed,
        "count": _count,
        "bytes": _bytes,
        "setting": _setting,
    }
    return environment


def _num(value: float | None, digits: int = 1) -> str:
    """A figure with a true minus sign; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def _percent(value: float | None, digits: int = 1) -> str:
    """A share in [0, 1] as percent, without the sign."""
    return "–" if value is None else _num(100 * value, digits)


def _signed(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def _count(value: float | None) -> str:
    """A whole number, thousands apart by thin spaces."""
    return "–" if value is None else f"{value:,.0f}".replace(",", "\u202f")


def _setting(value: Any) -> str:
    """A configuration value as TOML writes it, text without its quotes."""
    return value if isinstance(value, str) else json.dumps(value)


def _bytes(value: float | None) -> str:
    return "–" if value is None else f"{value / 1e6:,.0f} MB".replace(",", "\u202f")


def _text(name: str) -> str:
    return (resources.files(TEMPLATES) / "templates" / name).read_text(encoding="utf-8")


Facts = dict[str, Any]


def report_facts(
    runs: Sequence[TrainedRun],
    logs: Sequence[SessionLog],
    *,
    split: SplitName = "validation",
    compare: bool = False,
    raw: Mapping[str, pl.DataFrame | None] | None = None,
) -> Facts:
    """Gather the facts of runs and of the logs that they were trained on.

    Args:
        runs: opened run folders, in the page's order.
        logs: their logs; each run finds its own by fingerprint.
        split: the split whose events are scored. Test figures are for the end: every look at them
            makes them worth less.
        compare: put two runs side by side, with paired differences: both must be scored on the same
            events, however each read them.
        raw: raw rows by a log's fingerprint (`audit_rules.raw_rows`), for the part of the audit
            that needs them.

    Raises:
        ConfigError: no run, or not two runs of the same events to compare.
        DatasetError: a run's log is not among the logs.
        LogFormatError: the split is empty.
        FeatureMismatchError, NumericsError: as `UserModel.evaluate`.
    """
    if not runs:
        raise ConfigError("a report needs a run: name at least one run folder")
    if compare and len(runs) != 2:
        raise ConfigError(f"--compare puts two runs side by side, got {len(runs)}: name two")
    own = [log_of(run, logs) for run in runs]
    # by what tells logs apart: comparing two logs themselves would compare their arrays
    places = {key: place for place, key in enumerate(dict.fromkeys(map(_identity, own)))}
    used = {_identity(log): log for log in own}
    of_run = [places[_identity(log)] for log in own]
    names = _names([run.folder for run in runs])
    scored = [SplitScores.of(run.model, log, split) for run, log in zip(runs, own, strict=True)]
    floors = [floor_precisions(log, split) for log in used.values()]
    facts = {
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "split": split,
        "logs": [
            {
                "runs": [name for name, place in zip(names, of_run, strict=True) if place == i],
                **log_facts(used[key], split, floors[i], (raw or {}).get(used[key].fingerprint)),
            }
            for key, i in places.items()
        ],
        "runs": [
            {"name": name, "log": place, **_run_facts(run, one, split, floors[place])}
            for name, run, place, one in zip(names, runs, of_run, scored, strict=True)
        ],
        "comparison": run_differences((runs[0], runs[1]), (scored[0], scored[1]))
        if compare
        else None,
    }
    plain: Facts = finite(facts)
    return plain


def _run_facts(run: TrainedRun, scored: SplitScores, split: SplitName, floors: Precisions) -> Facts:
    best = run.table.filter(pl.col("best"))
    return {
        "config": run.model.config.to_mapping(),
        "changed": run.changed(),
        "machine": run.machine,
        "reading": run.reading,
        "epochs": run.table.to_dicts(),
        "best_epoch": int(best["epoch"][-1]) if best.height else None,
        "evaluation": scored.evaluation.to_dict(),
        "versus_floor": floor_difference(scored, floors),
        "calibration": calibration_facts(scored),
        "learned": learned_facts(scored, DisplayCounts.of(scored.log)),
        "displays": example_displays(scored),
        "commands": repeat_commands(run, split),
    }


def _identity(log: SessionLog) -> tuple[str, bool]:
    """What tells the logs of a page apart. A fingerprint does not say whether order is real."""
    return log.fingerprint, log.ordered


def _names(folders: Sequence[Path]) -> list[str]:
    """What the runs are called: the folder's name, or its path where two share one."""
    short = [folder.absolute().name for folder in folders]
    return [
        str(folder) if short.count(name) > 1 else name
        for name, folder in zip(short, folders, strict=True)
    ]

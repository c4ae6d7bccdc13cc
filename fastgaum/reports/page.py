"""The page: facts of runs and their logs, set by Jinja2 templates, which escape them, into one
HTML file. A content security policy lets the browser run the page's one script, known by its
hash, and fetch nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from fastgaum.errors import ConfigError, as_given, require_path
from fastgaum.files import atomic, require_writable
from fastgaum.logs.fold import Rows
from fastgaum.logs.log import SessionLog, SplitName, require_log
from fastgaum.metrics.evaluation import figures_of
from fastgaum.reports.charts import page_charts
from fastgaum.reports.facts import report_facts
from fastgaum.reports.plots import require_plots
from fastgaum.reports.published_figures import rows_of_others
from fastgaum.reports.table import Json
from fastgaum.reports.trained_run import open_run

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = "fastgaum.reports"
_CONTROLS = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069]")
"""characters that a terminal obeys, and those that turn text round"""
SECTIONS = {
    "result": "Result",
    "compare": "Differences",
    "trained": "Setup",
    "learning": "Learning",
    "calibration": "Calibration",
    "learned": "Reward",
    "fields": "Fields",
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
    raw: Mapping[str, Rows | None] | None = None,
) -> Json:
    """Write a report page on run folders, atomically; return its facts, ready for JSON.

    Args:
        runs: run folders.
        logs: the logs that they were trained on, found by fingerprint.
        out: the HTML file to write.
        split: the split whose events are scored; test only for final figures.
        compare: put two runs side by side, with paired differences.
        raw: raw rows by a log's fingerprint (`read.raw_rows`), for a part of the audit.

    Raises:
        ConfigError: matplotlib is not installed, no run is named, or not two runs of the same
            events to compare.
        CheckpointError: a folder is no run, or damaged.
        DatasetError: a run's log is not among the logs.
        OutputError: the page cannot be written.
    """
    for what, given in (("runs", runs), ("logs", logs)):
        if not isinstance(given, Sequence) or isinstance(given, str):
            raise ConfigError(f"{what} is {as_given(given)}, a list of {what} is required")
    for run in runs:
        require_path("a run folder", run)
    for log in logs:
        require_log(log)
    require_path("the page to write", out)
    require_plots()
    require_writable(out)
    facts = report_facts(
        [open_run(Path(run)) for run in runs], logs, split=split, compare=compare, raw=raw
    )
    write_page(facts, out)
    return facts


def write_page(facts: Json, out: str | Path) -> None:
    """Write the page of some facts. Raises OutputError where it cannot be written."""
    html = to_html(facts)
    with atomic(out) as beside:
        beside.write_text(html, encoding="utf-8")


def to_html(facts: Json) -> str:
    """The page as text."""
    environment = _environment()
    style, script = (
        (resources.files(TEMPLATES) / "templates" / name).read_text(encoding="utf-8")
        for name in ("style.css", "sort.js")
    )
    rows = [standings(facts, i) for i in range(len(facts["logs"]))]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    fields = any(run["fields"]["importance"] for run in facts["runs"])
    shown = {"compare": bool(facts["comparison"]), "fields": fields}
    page = environment.get_template("page.html").render(
        facts=facts,
        compare=facts["comparison"],
        sections=[(name, text) for name, text in SECTIONS.items() if shown.get(name, True)],
        several=len(facts["runs"]) > 1,
        standings=rows,
        best=best_runs(facts),
        figures=figures_of(),
        charts=page_charts(facts, rows),
        style=style,
        script=script,
        script_hash=f"sha256-{digest}",
    )
    # a page that is read in a terminal, or copied, gives it nothing to obey
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", str(page))


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def figure(form: str, factor: float = 1, unit: str = "") -> Callable[..., str]:
        # a true minus sign, thousands apart by thin spaces
        def text(value: float | None, digits: int = 1) -> str:
            if value is None:
                return "–"
            said = format(factor * value, form.format(digits))
            return said.replace("-", "−").replace(",", "\u202f") + unit

        return text

    environment.filters |= {
        "num": figure(".{}f"),
        "percent": figure(".{}f", 100),
        "signed": figure("+.{}f"),
        "count": figure(",.0f"),
        "bytes": figure(",.0f", 1e-6, " MB"),
        # as TOML writes it, text without its quotes
        "setting": lambda value: (
            value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        ),
    }
    return environment


MOST_FLOORS = 6
"""floors that the first table shows beside the random one; the JSON has them all"""


def standings(facts: Json, log: int) -> list[Json]:
    """Rows of the first table of one log, by prec@1. Each has label, note, kind (reward,
    generator, floor or published), prec by k, and nll."""
    note = "" if facts["split"] == "test" else "on the test split"
    rows = [
        one | {"note": note if one["kind"] == "published" else ""}
        for one in rows_of_others(facts["logs"][log])
    ]
    for run in facts["runs"]:
        heads = run["evaluation"]["heads"].items() if run["log"] == log else ()
        for head, figures in heads:
            label = f"{run['name']}, {head}" if len(heads) > 1 else run["name"]
            own = {key: figures[key] for key in ("prec", "nll")}
            rows.append({"label": label, "note": "", "kind": head, **own})
    ranked = [one for one in rows if one["prec"]["1"]["mean"] is not None]
    ranked.sort(key=lambda one: -one["prec"]["1"]["mean"])
    floors = [one for one in ranked if one["kind"] == "floor" and one["label"] != "floor: random"]
    return [one for one in ranked if one not in floors[MOST_FLOORS:]]


def best_runs(facts: Json) -> list[Json]:
    """The best run on each log by the reward's prec@1, of how many."""
    best = []
    for place, log in enumerate(facts["logs"]):
        ranked = [
            (figure["mean"], run)
            for run in facts["runs"]
            if run["log"] == place
            and (figure := run["evaluation"]["heads"]["reward"]["prec"]["1"])["mean"] is not None
        ]
        if ranked:
            run = max(ranked, key=lambda one: one[0])[1]
            best.append({"log": log["name"], "run": run, "n": len(ranked)})
    return best

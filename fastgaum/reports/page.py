"""The page: facts and charts set by Jinja2 templates into one HTML file that asks for nothing else.

    write_report(["runs/mine"], [log], "report.html")

Everything from data is escaped by the templates; what is not (charts, style, script) is made here.
A content security policy lets the browser run the page's one script, known by its hash, and fetch
nothing."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from fastgaum.files import atomic, require_writable
from fastgaum.logs.log import SessionLog, SplitName
from fastgaum.reports.facts import Facts, report_facts
from fastgaum.reports.gallery import gallery
from fastgaum.reports.opened_run import open_run
from fastgaum.reports.summary import lead, standings
from fastgaum.reports.svg import require_plots

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
        charts=gallery(facts),
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

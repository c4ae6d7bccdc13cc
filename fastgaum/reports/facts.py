"""All that a report says, as one object for JSON: the page prints it, nothing on the page comes
from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from fastgaum.baselines.floors import Precisions, floor_precisions
from fastgaum.errors import ConfigError
from fastgaum.logs.log import SessionLog, SplitName
from fastgaum.reports.calibration_facts import calibration_facts
from fastgaum.reports.cells_file import finite
from fastgaum.reports.example_displays import example_displays
from fastgaum.reports.learned_facts import learned_facts
from fastgaum.reports.log_facts import log_facts
from fastgaum.reports.opened_run import Run, log_of
from fastgaum.reports.repeat_commands import commands
from fastgaum.reports.scored_split import ItemCounts, Scored
from fastgaum.reports.versus import compared, versus_floor

Facts = dict[str, Any]


def report_facts(
    runs: Sequence[Run],
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
    scored = [Scored.of(run.model, log, split) for run, log in zip(runs, own, strict=True)]
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
        "comparison": compared((runs[0], runs[1]), (scored[0], scored[1])) if compare else None,
    }
    plain: Facts = finite(facts)
    return plain


def _run_facts(run: Run, scored: Scored, split: SplitName, floors: Precisions) -> Facts:
    best = run.table.filter(pl.col("best"))
    return {
        "config": run.model.config.to_mapping(),
        "changed": run.changed(),
        "machine": run.machine,
        "reading": run.reading,
        "epochs": run.table.to_dicts(),
        "best_epoch": int(best["epoch"][-1]) if best.height else None,
        "evaluation": scored.evaluation.to_dict(),
        "versus_floor": versus_floor(scored, floors),
        "calibration": calibration_facts(scored),
        "learned": learned_facts(scored, ItemCounts.of(scored.log)),
        "displays": example_displays(scored),
        "commands": commands(run, split),
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

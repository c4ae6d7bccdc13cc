"""A log as a report says it: sizes by split, what a display holds, floors, the audit; and other
people's figures, which `data/published` holds."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fastgaum.baselines.floors import Precisions, means_of
from fastgaum.features.selection import select_sessions
from fastgaum.logs.audit import audit
from fastgaum.logs.log import SPLITS, SessionLog, SplitName


def log_facts(
    log: SessionLog, split: SplitName, floors: Precisions, raw: pl.DataFrame | None = None
) -> dict[str, Any]:
    """Facts of one log, for JSON; with its raw rows the audit also looks at their order.

    `floors` are those of the split.

    The audit's own figures of the test split are left out unless the report is of the test split.

    Raises:
        LogFormatError: the raw rows belong to another log.
    """
    found = audit(log, raw).to_dict()
    if split != "test":
        for finding in found["findings"]:
            finding["test_prec_at_1"] = finding["test_floor"] = None
    return {
        "name": log.name,
        "fingerprint": log.fingerprint,
        "n_items": log.n_items,
        "n_candidates": log.n_candidates,
        "splits": [_split_facts(log, name) for name in SPLITS],
        "fields": sorted({*log.candidate_fields, *log.item_fields}),
        "views": log.views is not None,
        "ordered": log.ordered,
        "floors": {
            name: {str(k): value for k, value in by_k.items()}
            for name, by_k in means_of(floors).items()
        },
        "published_best": best_published(log.name),
        "authors_code": authors_code(log.name),
        "audit": found,
    }


def _split_facts(log: SessionLog, name: str) -> dict[str, Any]:
    part = select_sessions(log, log.sessions_in(name))  # type: ignore[arg-type]
    sizes = np.diff(part.display_offsets)
    return {
        "split": name,
        "users": len(np.unique(np.asarray(log.users)[part.rows])),
        "sessions": len(part.rows),
        "events": len(sizes),
        "candidates": int(sizes.sum()),
        "no_click": float((part.choices < 0).mean()) if len(sizes) else None,
        "sizes": [int(value) for value in np.quantile(sizes, [0, 0.5, 1], method="nearest")]
        if len(sizes)
        else None,
    }


FOLDER = Path(__file__).parents[1] / "data" / "published"
NOT_RELEASED = ("ant-financial",)
"""data sets of the published table that were never released: their column is published figures
only"""
PRESET_ROWS = {
    ("paper-lstm", "reward"): "GAN-LSTM",
    ("paper-pw", "reward"): "GAN-PW",
    ("report", "reward"): "report: reward greedy",
    ("report", "generator"): "report: generator",
}
"""the published row that a preset's head repeats; a baseline's class names its own"""

Row = dict[str, str | float | None]


def preset_row(preset: str, head: str) -> str | None:
    """The row of the published table that a preset's head repeats; None if there is none."""
    return PRESET_ROWS.get((preset, head))


def published_mean(dataset: str, row: str | None, k: int) -> float | None:
    """The published prec@k, percent, of a row of the published table; None if it has none for the
    data set."""
    found = _published_rows("published.csv").get((dataset, row or "", k))
    return None if found is None else found[0]


def published_datasets() -> set[str]:
    """Names of the data sets that somebody published figures of."""
    return {dataset for dataset, _, _ in _published_rows("published.csv")}


def published_table() -> dict[str, Any]:
    """The whole published table: {not_released, rows: {model: {dataset: {"1": {mean, sd}, "2":
    …}}}}, in its order."""
    rows: dict[str, dict[str, dict[str, Row]]] = {}
    for (dataset, model, k), (mean, sd) in _published_rows("published.csv").items():
        rows.setdefault(model, {}).setdefault(dataset, {})[str(k)] = {"mean": mean, "sd": sd}
    return {"not_released": list(NOT_RELEASED), "rows": rows}


def best_published(dataset: str) -> dict[str, Row]:
    """The best published model by k, as text keys for JSON: {"1": {model, mean, sd}}; empty if
    there are no published figures."""
    best: dict[str, Row] = {}
    highest: dict[str, float] = {}
    for (name, model, k), (mean, sd) in _published_rows("published.csv").items():
        if name == dataset and mean > highest.get(str(k), 0.0):
            highest[str(k)] = mean
            best[str(k)] = {"model": model, "mean": mean, "sd": sd}
    return best


def authors_code(dataset: str) -> dict[str, dict[str, float]]:
    """What the paper authors' own code gives on the released file, run by us: {model: {"1": prec@1,
    "2": prec@2}}."""
    rows: dict[str, dict[str, float]] = {}
    for (name, model, k), (mean, _) in _published_rows("authors_code.csv").items():
        if name == dataset:
            rows.setdefault(model, {})[str(k)] = mean
    return rows


def tuning_budget(file: Path = FOLDER.parent / "tuning.csv") -> dict[str, dict[str, Any]]:
    """How many settings each model's search compared, and where: {model: {settings_tried, where}};
    empty if unknown."""
    if not file.is_file():
        return {}
    return {
        row["model"]: {"settings_tried": int(row["settings_tried"]), "where": row["where"]}
        for row in _csv_rows(file)
    }


@cache
def _published_rows(file: str) -> dict[tuple[str, str, int], tuple[float, float | None]]:
    """Mean and standard deviation (None if not given), in percent, by (dataset, model, k)."""
    return {
        (row["dataset"], row["model"], int(row["k"])): (
            float(row["mean"]),
            float(row["sd"]) if row["sd"] else None,
        )
        for row in _csv_rows(FOLDER / file)
    }


def _csv_rows(file: Path) -> Iterator[dict[str, str]]:
    with open(file, newline="", encoding="utf-8") as lines:
        yield from csv.DictReader(lines)

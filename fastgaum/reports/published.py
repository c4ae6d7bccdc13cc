"""Other people's prec@k, and how many settings each model's search tried: what `data/published`
says beside a table."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "data" / "published"
NOT_RELEASED = ("ant-financial",)
"""data sets of the published table that nobody outside has: their column is published figures only
"""
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
    found = _table("published.csv").get((dataset, row or "", k))
    return None if found is None else found[0]


def published_datasets() -> set[str]:
    """Names of the data sets that somebody published figures of."""
    return {dataset for dataset, _, _ in _table("published.csv")}


def published_table() -> dict[str, Any]:
    """The whole published table: {not_released, rows: {model: {dataset: {"1": {mean, sd}, "2":
    …}}}}, in its order."""
    rows: dict[str, dict[str, dict[str, Row]]] = {}
    for (dataset, model, k), (mean, sd) in _table("published.csv").items():
        rows.setdefault(model, {}).setdefault(dataset, {})[str(k)] = {"mean": mean, "sd": sd}
    return {"not_released": list(NOT_RELEASED), "rows": rows}


def best_published(dataset: str) -> dict[str, Row]:
    """The best published model by k, as text keys for JSON: {"1": {model, mean, sd}}; empty if
    nobody published."""
    best: dict[str, Row] = {}
    highest: dict[str, float] = {}
    for (name, model, k), (mean, sd) in _table("published.csv").items():
        if name == dataset and mean > highest.get(str(k), 0.0):
            highest[str(k)] = mean
            best[str(k)] = {"model": model, "mean": mean, "sd": sd}
    return best


def authors_code(dataset: str) -> dict[str, dict[str, float]]:
    """What the paper authors' own code gives on the released file, run by us: {model: {"1": prec@1,
    "2": prec@2}}."""
    rows: dict[str, dict[str, float]] = {}
    for (name, model, k), (mean, _) in _table("authors_code.csv").items():
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
        for row in _rows(file)
    }


@cache
def _table(file: str) -> dict[tuple[str, str, int], tuple[float, float | None]]:
    """Mean and standard deviation (None if not given), in percent, by (dataset, model, k)."""
    return {
        (row["dataset"], row["model"], int(row["k"])): (
            float(row["mean"]),
            float(row["sd"]) if row["sd"] else None,
        )
        for row in _rows(FOLDER / file)
    }


def _rows(file: Path) -> Iterator[dict[str, str]]:
    with open(file, newline="", encoding="utf-8") as lines:
        yield from csv.DictReader(lines)

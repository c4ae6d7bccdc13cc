"""Other people's prec@k, read from `data/published`: what our figures stand beside."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

PUBLISHED_NAME = {
    ("paper-lstm", "reward"): "GAN-LSTM",
    ("paper-pw", "reward"): "GAN-PW",
    ("report", "reward"): "report: reward greedy",
    ("report", "generator"): "report: generator",
}
"""the published row that a preset's head repeats"""

Row = dict[str, str | float | None]


@cache
def _table(file: str) -> dict[tuple[str, str, int], tuple[float, float | None]]:
    """Mean and standard deviation (None if not given), in percent, by (dataset, model, k)."""
    path = Path(__file__).parents[1] / "data" / "published" / file
    with open(path, newline="", encoding="utf-8") as rows:
        return {
            (row["dataset"], row["model"], int(row["k"])): (float(row["mean"]), float(row["sd"]) if row["sd"] else None)
            for row in csv.DictReader(rows)
        }


def published_mean(dataset: str, model: str, head: str, k: int) -> float | None:
    """The published prec@k, percent, that a preset's head is compared with; None if it repeats no published row."""
    found = _table("published.csv").get((dataset, PUBLISHED_NAME.get((model, head), ""), k))
    return None if found is None else found[0]


def best_published(dataset: str) -> dict[str, Row]:
    """The best published model by k, as text keys for JSON: {"1": {model, mean, sd}}; empty if nobody published."""
    best: dict[str, Row] = {}
    highest: dict[str, float] = {}
    for (name, model, k), (mean, sd) in _table("published.csv").items():
        if name == dataset and mean > highest.get(str(k), 0.0):
            highest[str(k)] = mean
            best[str(k)] = {"model": model, "mean": mean, "sd": sd}
    return best


def authors_code(dataset: str) -> dict[str, dict[str, float]]:
    """What the paper authors' own code gives on the released file, run by us: {model: {"1": prec@1, "2": prec@2}}."""
    rows: dict[str, dict[str, float]] = {}
    for (name, model, k), (mean, _) in _table("authors_code.csv").items():
        if name == dataset:
            rows.setdefault(model, {})[str(k)] = mean
    return rows

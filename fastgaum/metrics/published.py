"""The published prec@k, read from `data/published/*.csv`: what our figures stand beside."""

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


@cache
def published_table() -> dict[tuple[str, str, int], tuple[float, float | None]]:
    """Mean and standard deviation (None if not given), in percent, by (dataset, model, k)."""
    table: dict[tuple[str, str, int], tuple[float, float | None]] = {}
    folder = Path(__file__).parents[1] / "data" / "published"
    for file in sorted(folder.glob("*.csv")):
        with open(file, newline="", encoding="utf-8") as rows:
            for row in csv.DictReader(rows):
                key = (row["dataset"].lower(), row["model"], int(row["k"]))
                table[key] = (float(row["mean"]), float(row["sd"]) if row["sd"] else None)
    return table


def published_mean(dataset: str, model: str, head: str, k: int) -> float | None:
    """The published prec@k, percent, that a preset's head is compared with; None if it repeats no published row."""
    name = PUBLISHED_NAME.get((model, head))
    found = published_table().get((dataset, name, k)) if name is not None else None
    return None if found is None else found[0]


def best_published(dataset: str) -> dict[str, dict[str, str | float | None]]:
    """The best published model by k, as text keys for JSON; empty for a data set that nobody published."""
    best: dict[str, dict[str, str | float | None]] = {}
    for (name, model, k), (mean, sd) in published_table().items():
        if name == dataset and (str(k) not in best or mean > float(best[str(k)]["mean"] or 0)):
            best[str(k)] = {"model": model, "mean": mean, "sd": sd}
    return dict(sorted(best.items()))

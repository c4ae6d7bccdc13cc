"""Figures in files: prec@1 by model with intervals, floors and published values, a panel per data
set; and a fidelity report's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastgaum.arrays import Float64Array
from fastgaum.errors import ConfigError
from fastgaum.reports.plots import colour, panels_in_file, percent
from fastgaum.reports.reproduce_table import FLOOR_MODELS, OURS, label_of, rows_by_model
from fastgaum.reports.table import Json

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FLOOR_LINES = {
    "random": ":",
    "train_click_rate": "--",
    "train_click_count": "-.",
    "fewest_train_displays": (0, (1, 4)),
}

Key = tuple[str, str]
CellKeys = list[Key]
CellRows = Mapping[Key, Mapping[str, Json]]


def draw_precision(result: Json, path: Path, *, narrow: bool = False) -> None:
    """Draw a reproduce object and write it, atomically: models, best mean over the data sets first,
    floors as lines. Panels stand side by side, or one below the other if `narrow`.

    Raises:
        OutputError: it is neither .svg nor .png, or cannot be written.
        ConfigError: matplotlib is not installed.
    """
    names = list(result["datasets"])
    tables = {name: rows_by_model(result["cells"], name) for name in names}
    keys = _order(tables.values())
    n, high = max(len(names), 1), 0.21 * len(keys)
    size = (4.2, 1.9 + n * (0.6 + high)) if narrow else (1.6 + 2.9 * n, 1.5 + high)
    with panels_in_file(path, size, n, narrow=narrow) as panels:
        for panel, name in zip(panels, names, strict=False):
            _panel(panel, name, result["datasets"][name], tables[name], keys)
        for place, panel in enumerate(panels):
            panel.set_ylim(len(keys) - 0.4, -0.6)
            named = narrow or place == 0
            panel.set_yticks(
                range(len(keys)), [label_of(key, keys) if named else "" for key in keys]
            )
            for text, key in zip(panel.get_yticklabels(), keys, strict=True):
                text.set_color(_colour(key))


def draw_leads(result: Json, path: Path, models: Sequence[str], *, narrow: bool = False) -> None:
    """Draw how far the prec@1 of some models lies above that of `logit`, in points, with paired
    95 % intervals and one scale for all data sets; panels as `draw_precision`.

    Raises:
        OutputError: it is neither .svg nor .png, or cannot be written.
        ConfigError: matplotlib is not installed, or a model is not compared with `logit`.
    """
    names, rows = list(result["datasets"]), range(len(models))
    found = {
        (cell["dataset"], cell["model"]): cell["vs_logit"]
        for cell in result["cells"]
        if cell["k"] == 1 and cell["head"] == "reward" and cell.get("vs_logit")
    }
    if lacking := [f"{m} ({n})" for n in names for m in models if (n, m) not in found]:
        raise ConfigError(
            f"the table does not compare {', '.join(lacking)} with logit: make it with both models"
        )
    n, high = len(names), 0.25 * len(models)
    size = (4.2, 0.8 + n * (0.6 + high)) if narrow else (1.8 + 2.5 * n, 1.1 + high)
    ends = [end for name in names for model in models for end in found[name, model]["ci"]]
    with panels_in_file(path, size, n, narrow=narrow) as panels:
        for place, (panel, name) in enumerate(zip(panels, names, strict=True)):
            panel.axvline(0, color=colour("floor"), linewidth=1, label="linear model (logit)")
            for at, model in zip(rows, models, strict=True):
                own = colour("reward" if model.startswith(OURS[0]) else "muted")
                panel.hlines(at, *found[name, model]["ci"], color=own, linewidth=2, alpha=0.45)
                panel.plot(found[name, model]["diff"], at, "o", color=own, markersize=5)
            panel.set(ylim=(len(models) - 0.4, -0.6), xlim=(min(ends) - 1, max(ends) + 1))
            panel.set_yticks(rows, models if narrow or place == 0 else [""] * len(models))
            panel.set_title(name)
            panel.set_xlabel("points of prec@1 above the linear model")


def _order(tables: Iterable[CellRows]) -> CellKeys:
    means: dict[Key, list[float]] = {}
    for rows in tables:
        for key, by_k in rows.items():
            if key[0] not in FLOOR_MODELS.values():
                means.setdefault(key, []).append(by_k["1"]["mean"] or 0.0)
    return sorted(means, key=lambda key: -sum(means[key]) / len(means[key]))


def _panel(panel: Axes, name: str, facts: Json, rows: CellRows, keys: CellKeys) -> None:
    others = {
        floor: by_k["1"] or 0.0
        for floor, by_k in facts["floors"].items()
        if floor not in _FLOOR_LINES
    }
    # the log's own floors (order, declared numbers): the best of them
    best_other = [max(others, key=lambda floor: others[floor])] if others else []
    for floor in (*_FLOOR_LINES, *best_other):
        line = _FLOOR_LINES.get(floor, (0, (6, 2, 1, 2)))
        value = facts["floors"].get(floor, {}).get("1")
        if value is not None:
            panel.axvline(
                value,
                color=colour("floor"),
                linestyle=line,
                linewidth=1,
                label=f"floor: {floor.replace('_', ' ')}",
            )
    best = (facts.get("published_best") or {}).get("1")
    if best is not None:
        panel.axvline(
            best["mean"], color=colour("published"), linewidth=1, alpha=0.6, label="best published"
        )
    for place, key in enumerate(keys):
        if key not in rows:
            continue
        cell = rows[key]["1"]
        panel.hlines(place, *cell["ci"], color=_colour(key), linewidth=2, alpha=0.45)
        label = "mean, 95 % interval" if key[0] != OURS[0] else None
        panel.plot(
            cell["mean"], place, "o", color=_colour(key), markersize=5, zorder=3, label=label
        )
        if cell["published"] is not None:
            panel.plot(
                cell["published"],
                place,
                "D",
                markersize=5,
                markerfacecolor="none",
                markeredgecolor=colour("published"),
                zorder=4,
                linestyle="none",
                label="published, same model",
            )
    panel.set_title(name)
    panel.set_xlabel("prec@1, %")


def _colour(key: Key) -> str:
    return colour("reward" if key[0] == OURS[0] else "muted")


def draw_fidelity(report: Json, path: Path) -> None:
    """Draw a fidelity report and write it, atomically; click rates only where no click is offered.

    Raises:
        OutputError: it is neither .svg nor .png, or cannot be written.
        ConfigError: matplotlib is not installed.
    """
    statistics = {one["name"]: one for one in report["statistics"]}
    grouped = [
        (statistics[name]["groups"], across, up)
        for name, across, up in (
            ("click rate by event", "event of the session", "click rate, %"),
            ("popularity, tenths", "training choices of the item", "clicks, %"),
        )
        if name in statistics
    ]
    n = len(grouped) + 2
    with panels_in_file(path, (2.7 * n, 2.7), n, font=8) as panels:
        for panel, (groups, across, up) in zip(panels, grouped, strict=False):
            _groups(panel, groups, across, up)
        _calibration(panels[-2], report["calibration"]["curve"])
        _policies(panels[-1], report["policies"]["values"])
        panels[0].set_title(f"{report['log']['name']}, {report['split']} split", loc="left")


def _groups(panel: Axes, groups: Sequence[Json], across: str, up: str) -> None:
    at = range(len(groups))
    logged, simulated, ends = (
        percent([one[key] for one in groups]) for key in ("logged", "simulated", "logged_ci")
    )
    panel.bar(at, simulated, color=colour("reward"), alpha=0.35, label="world")
    panel.vlines(at, *ends.T, color=colour("generator"), linewidth=1)
    panel.plot(
        at, logged, "o", color=colour("generator"), markersize=3, label="log, 95 % over users"
    )
    panel.set_xticks(at, [one["label"] for one in groups], rotation=45, ha="right")
    panel.set_xlabel(across)
    panel.set_ylabel(up)


def _calibration(panel: Axes, curve: Json) -> None:
    predicted, observed, ends = (percent(curve[key]) for key in ("predicted", "observed", "ci"))
    _diagonal(panel, predicted, ends)
    panel.vlines(predicted, *ends.T, color=colour("generator"), linewidth=1)
    panel.plot(predicted, observed, "o", color=colour("generator"), markersize=3)
    panel.set_xlabel("predicted probability, %")
    panel.set_ylabel("chosen in the log, %")


def _policies(panel: Axes, values: Sequence[Json]) -> None:
    logged, simulated, ends = (
        percent([one[key] for one in values]) for key in ("logged", "simulated", "logged_ci")
    )
    _diagonal(panel, logged, simulated)
    panel.hlines(simulated, *ends.T, color=colour("generator"), linewidth=1, alpha=0.5)
    panel.plot(logged, simulated, "o", color=colour("reward"), markersize=3)
    panel.set_xlabel("value of a policy in the log, %")
    panel.set_ylabel("in the world, %")


def _diagonal(panel: Axes, *values: Float64Array) -> None:
    top = max(float(np.nanmax(part)) for part in values)
    panel.plot([0, top], [0, top], color=colour("floor"), linewidth=1)

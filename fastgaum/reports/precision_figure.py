"""The table as a figure: prec@1 by model with intervals, floors and published values, a panel per
data set.

matplotlib is an extra and is imported when something is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastgaum.errors import ConfigError, OutputError
from fastgaum.reports.comparisons import OURS
from fastgaum.reports.figure_file import STYLE, save
from fastgaum.reports.table import FLOOR_MODELS, label_of, rows_by_model

FORMATS = (".svg", ".png")
_OURS, _OTHER, _PUBLISHED, _FLOOR = "#1f6feb", "#57606a", "#d1242f", "#8c959f"
_FLOOR_LINES = {
    "random": ":",
    "train_click_rate": "--",
    "train_click_count": "-.",
    "fewest_train_displays": (0, (1, 4)),
}

Keys = list[tuple[str, str]]


def check_figure(path: Path | None, option: str = "--figure") -> None:
    """Raise, before any work, if the figure asked for cannot be drawn.

    Raises:
        OutputError: it is neither .svg nor .png.
        ConfigError: matplotlib is not installed.
    """
    if path is None:
        return
    if path.suffix not in FORMATS:
        raise OutputError(
            f"'{path}' ends in '{path.suffix}', a figure is written as {' or '.join(FORMATS)}: "
            "rename it"
        )
    if find_spec("matplotlib") is None:
        raise ConfigError(
            f"{option} needs matplotlib, which is not installed: pip install 'fastgaum[plots]'"
        )


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Draw a reproduce object and write it, atomically.

    Rows are the models, best mean over the data sets first; dots and bars are means and 95 %
    intervals, diamonds what was published of the same model. The floors are lines.

    Raises:
        OutputError: it cannot be written.
    """
    check_figure(path)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    names = list(result["datasets"])
    tables = {name: rows_by_model(result["cells"], name) for name in names}
    keys = _order(tables.values())
    with mpl.rc_context({**STYLE, "font.size": 9}):
        figure = Figure(
            figsize=(1.6 + 2.9 * max(len(names), 1), 1.5 + 0.21 * len(keys)), layout="constrained"
        )
        panels = figure.subplots(1, max(len(names), 1), sharey=True, squeeze=False)[0]
        for panel, name in zip(panels, names, strict=False):
            _panel(panel, name, result["datasets"][name], tables[name], keys)
        panels[0].set_yticks(range(len(keys)), [label_of(key, keys) for key in keys])
        panels[0].set_ylim(len(keys) - 0.4, -0.6)
        for text, key in zip(panels[0].get_yticklabels(), keys, strict=True):
            text.set_color(_colour(key))
        handles = {
            label: handle
            for panel in panels
            for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False
        )
        save(figure, path)


def _order(tables: Any) -> Keys:
    """Rows of all data sets, best mean first; a model that is a floor is a line already."""
    means: dict[tuple[str, str], list[float]] = {}
    for rows in tables:
        for key, by_k in rows.items():
            if key[0] not in FLOOR_MODELS.values():
                means.setdefault(key, []).append(by_k["1"]["mean"] or 0.0)
    return sorted(means, key=lambda key: -sum(means[key]) / len(means[key]))


def _panel(
    panel: Any, name: str, facts: Mapping[str, Any], rows: Mapping[Any, Any], keys: Sequence[Any]
) -> None:
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
                color=_FLOOR,
                linestyle=line,
                linewidth=1,
                label=f"floor: {floor.replace('_', ' ')}",
            )
    best = (facts.get("published_best") or {}).get("1")
    if best is not None:
        panel.axvline(
            best["mean"], color=_PUBLISHED, linewidth=1, alpha=0.6, label="best published"
        )
    for place, key in enumerate(keys):
        cell = rows[key]["1"] if key in rows else None
        if cell is None:
            continue
        low, high = cell["ci"]
        panel.plot(
            [low, high],
            [place, place],
            color=_colour(key),
            linewidth=2,
            alpha=0.45,
            solid_capstyle="butt",
        )
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
                markeredgecolor=_PUBLISHED,
                zorder=4,
                linestyle="none",
                label="published, same model",
            )
    panel.set_title(name)
    panel.set_xlabel("prec@1, %")
    panel.grid(axis="y", color="#d0d7de", linewidth=0.5)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def _colour(key: tuple[str, str]) -> str:
    return _OURS if key[0] == OURS[0] else _OTHER

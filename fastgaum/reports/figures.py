"""The figures that are kept in files: prec@1 by model with intervals, floors and published values,
a panel per data set; and a fidelity report's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastgaum.reports.plots import FIGURE_STYLE, check_figure, save_figure
from fastgaum.reports.reproduce import OURS
from fastgaum.reports.reproduce_table import FLOOR_MODELS, label_of, rows_by_model

_OURS, _OTHER, _PUBLISHED, _FLOOR = "#1f6feb", "#57606a", "#d1242f", "#8c959f"
_FLOOR_LINES = {
    "random": ":",
    "train_click_rate": "--",
    "train_click_count": "-.",
    "fewest_train_displays": (0, (1, 4)),
}

Keys = list[tuple[str, str]]


def draw_precision(result: Mapping[str, Any], path: Path, *, narrow: bool = False) -> None:
    """Draw a reproduce object and write it, atomically.

    Rows are the models, best mean over the data sets first; dots and bars are means and 95 %
    intervals, diamonds what was published of the same model. The floors are lines. The panels stand
    side by side; if `narrow`, one below the other, so that a phone shows text of a readable size.

    Raises:
        OutputError: it cannot be written.
    """
    check_figure(path)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    names = list(result["datasets"])
    tables = {name: rows_by_model(result["cells"], name) for name in names}
    keys = _order(tables.values())
    with mpl.rc_context({**FIGURE_STYLE, "font.size": 9}):
        n, high = max(len(names), 1), 0.21 * len(keys)
        size = (4.2, 1.9 + n * (0.6 + high)) if narrow else (1.6 + 2.9 * n, 1.5 + high)
        figure = Figure(figsize=size, layout="constrained")
        shape = (n, 1) if narrow else (1, n)
        panels = figure.subplots(*shape, sharey=True, squeeze=False).ravel()
        for panel, name in zip(panels, names, strict=False):
            _panel(panel, name, result["datasets"][name], tables[name], keys)
        panels[0].set_ylim(len(keys) - 0.4, -0.6)
        for panel in panels if narrow else panels[:1]:
            panel.set_yticks(range(len(keys)), [label_of(key, keys) for key in keys])
            for text, key in zip(panel.get_yticklabels(), keys, strict=True):
                text.set_color(_colour(key))
        handles = {
            label: handle
            for panel in panels
            for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            handles.values(),
            handles.keys(),
            loc="outside lower center",
            ncols=2 if narrow else 4,
            frameon=False,
        )
        save_figure(figure, path)


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


_LOG, _WORLD = "#d1242f", "#1f6feb"

Report = Mapping[str, Any]


def draw_fidelity(report: Report, path: Path) -> None:
    """Draw a report and write it, atomically: a panel each, the click rates only where no click is
    offered.

    Raises:
        OutputError: it is neither .svg nor .png, or cannot be written.
        ConfigError: matplotlib is not installed.
    """
    check_figure(path, "--plot")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    statistics = {one["name"]: one for one in report["statistics"]}
    panels: list[Callable[[Any], None]] = [
        lambda panel: _calibration(panel, report["calibration"]),
        lambda panel: _groups(
            panel, statistics["popularity, tenths"], "training choices of the item", "clicks, %"
        ),
        lambda panel: _policies(panel, report["policies"]["values"]),
    ]
    if "click rate by event" in statistics:
        panels.insert(
            0,
            lambda panel: _groups(
                panel, statistics["click rate by event"], "event of the session", "click rate, %"
            ),
        )
    with mpl.rc_context({**FIGURE_STYLE, "font.size": 8}):
        figure = Figure(figsize=(2.7 * len(panels), 2.7), layout="constrained")
        for panel, fill in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            fill(panel)
            panel.spines[["top", "right"]].set_visible(False)
        figure.suptitle(f"{report['log']['name']}, {report['split']} split")
        shown = {
            label: handle
            for panel in figure.axes
            for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            shown.values(), shown.keys(), loc="outside lower center", ncols=2, frameon=False
        )
        save_figure(figure, path)


def _percent(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else 100 * value for value in values]


def _groups(panel: Any, statistic: Mapping[str, Any], across: str, up: str) -> None:
    """Logged dots with intervals, simulated bars behind them."""
    groups = statistic["groups"]
    at = range(len(groups))
    panel.bar(
        at, _percent([one["simulated"] for one in groups]), color=_WORLD, alpha=0.35, label="world"
    )
    for place, one in zip(at, groups, strict=True):
        panel.plot([place, place], _percent(one["logged_ci"]), color=_LOG, linewidth=1)
    panel.plot(
        at,
        _percent([one["logged"] for one in groups]),
        "o",
        color=_LOG,
        markersize=3,
        label="log, 95 % over users",
    )
    panel.set_xticks(at, [one["label"] for one in groups], rotation=45, ha="right")
    panel.set_xlabel(across)
    panel.set_ylabel(up)


def _calibration(panel: Any, calibration: Mapping[str, Any]) -> None:
    curve = calibration["curve"]
    predicted = _percent(curve["predicted"])
    top = max([*predicted, *_percent([high for _, high in curve["ci"]])])
    panel.plot([0, top], [0, top], color="#8c959f", linewidth=1)
    for x, ends in zip(predicted, curve["ci"], strict=True):
        panel.plot([x, x], _percent(ends), color=_LOG, linewidth=1)
    panel.plot(predicted, _percent(curve["observed"]), "o", color=_LOG, markersize=3)
    panel.set_xlabel("predicted probability, %")
    panel.set_ylabel("chosen in the log, %")


def _policies(panel: Any, values: Sequence[Mapping[str, Any]]) -> None:
    logged, simulated = (
        _percent([one[side] for one in values]) for side in ("logged", "simulated")
    )
    top = max([*logged, *simulated])
    panel.plot([0, top], [0, top], color="#8c959f", linewidth=1)
    for one, y in zip(values, simulated, strict=True):
        panel.plot(_percent(one["logged_ci"]), [y, y], color=_LOG, linewidth=1, alpha=0.5)
    panel.plot(logged, simulated, "o", color=_WORLD, markersize=3)
    panel.set_xlabel("value of a policy in the log, %")
    panel.set_ylabel("in the world, %")

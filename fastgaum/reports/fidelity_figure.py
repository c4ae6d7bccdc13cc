"""A fidelity report as a figure: click rate by event, calibration, popularity of choices, policies.

matplotlib is an extra and is imported when something is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastgaum.reports.figure_file import STYLE, save
from fastgaum.reports.precision_figure import check_figure

_LOG, _WORLD = "#d1242f", "#1f6feb"

Report = Mapping[str, Any]


def draw(report: Report, path: Path) -> None:
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
    with mpl.rc_context({**STYLE, "font.size": 8}):
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
        save(figure, path)


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

"""The scaling curves as a figure, a panel per curve. matplotlib is an extra and is imported when
something is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastgaum.reports.plots import FIGURE_STYLE, check_figure, save_figure

_OURS, _GRID = "#1f6feb", "#d0d7de"


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Draw the curves of a bench object, both axes logarithmic and the rates' axis shared, and
    write them atomically.

    Raises:
        OutputError: it cannot be written.
    """
    check_figure(path, "--plot")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    curves = result["scaling"]
    with mpl.rc_context({**FIGURE_STYLE, "font.size": 9}):
        figure = Figure(figsize=(1.0 + 2.3 * len(curves), 2.8), layout="constrained")
        panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
        for panel, curve in zip(panels, curves, strict=True):
            _panel(panel, curve)
        panels[0].set_ylabel(f"training, {curves[0]['unit']}")
        save_figure(figure, path)


def _panel(panel: Any, curve: Mapping[str, Any]) -> None:
    at = [point["at"] for point in curve["points"]]
    rates = [point["rate"] for point in curve["points"]]
    panel.plot(at, rates, "o-", color=_OURS, markersize=5, linewidth=1.5)
    for x, y in zip(at, rates, strict=True):
        panel.annotate(
            _brief(y), (x, y), textcoords="offset points", xytext=(0, 6), ha="center", color=_OURS
        )
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xticks(at, [_brief(x) for x in at])
    panel.minorticks_off()
    panel.margins(x=0.15, y=0.25)
    panel.set_xlabel(curve["curve"])
    panel.grid(axis="y", color=_GRID, linewidth=0.5)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def _brief(value: float) -> str:
    """Three significant digits with k or M.

    >>> _brief(20), _brief(123_456), _brief(1_000_000)
    ('20', '123k', '1M')
    """
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"

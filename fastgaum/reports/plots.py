"""How every figure is drawn: by matplotlib, in the style of `templates/figure.mplstyle` and the
colours of `COLOURS`."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastgaum.arrays import Float64Array
from fastgaum.errors import ConfigError, OutputError
from fastgaum.files import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "card": ("#ffffff", "#161b21"),
    "ink": ("#1a1f25", "#e7ebef"),
    "muted": ("#55606b", "#a2adb8"),
    "line": ("#d9dee4", "#2f3943"),
    "reward": ("#0b5fc0", "#6db3ff"),
    "generator": ("#b04a00", "#f4a640"),
    "published": ("#7a3aa3", "#cd9bea"),
    "floor": ("#66717c", "#98a4b0"),
    "accent": ("#0b6e66", "#52d0bd"),
}
"""colour of each role on light and on dark ground"""
FORMATS = (".svg", ".png")
"""of a figure in a file"""


def colour(role: str) -> str:
    """The colour of a role on light ground."""
    return COLOURS[role][0]


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
    require_plots(option)


def require_plots(what: str = "a report") -> None:
    """Raise ConfigError unless matplotlib is installed."""
    if find_spec("matplotlib") is None:
        raise ConfigError(
            f"{what} needs matplotlib, which is not installed: pip install '.[plots]' in the clone"
        )


def percent(values: Iterable[float | None] | Iterable[Sequence[float | None]]) -> Float64Array:
    """Shares as percent; NaN where there is none."""
    return 100 * np.array(list(values), np.float64)


@contextmanager
def new_figure(size: tuple[float, float], font: float = 9) -> Iterator[Figure]:
    """Make a figure of a size in inches, drawn in the one style until the block ends."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style = Path(__file__).with_name("templates") / "figure.mplstyle"
    with mpl.rc_context(fname=style):
        mpl.rcParams["font.size"] = font
        yield Figure(figsize=size, layout="constrained")


@contextmanager
def panels_in_file(
    path: Path, size: tuple[float, float], n: int, *, narrow: bool = False, font: float = 9
) -> Iterator[Sequence[Axes]]:
    """Yield n panels, side by side or, if `narrow`, one below the other; then write them with one
    legend, atomically.

    Raises:
        OutputError: the file is neither .svg nor .png, or cannot be written.
        ConfigError: matplotlib is not installed.
    """
    check_figure(path, "--plot")
    with new_figure(size, font) as figure:
        shape = (n, 1) if narrow else (1, n)
        panels = figure.subplots(*shape, squeeze=False).ravel().tolist()
        yield panels
        add_legend(figure, panels, 2 if narrow else min(4, max(2, n + 1)))
        with atomic(path) as part:
            if path.suffix == ".svg":
                part.write_text(svg_of(figure), encoding="utf-8")
            else:
                figure.savefig(part, format="png", dpi=160)


def add_legend(figure: Figure, panels: Sequence[Axes], columns: int = 2) -> None:
    """Put what several panels call by one name once below them."""
    shown = {
        label: handle
        for panel in panels
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    if shown:
        shape = {"ncols": columns, "handlelength": 1.8}
        figure.legend(shown.values(), shown.keys(), loc="outside lower center", **shape)


class Chart(NamedTuple):
    """A drawing of a page."""

    fill: Callable[[Axes], None]
    """draws it on a panel"""
    label: str
    """for a screen reader"""
    size: tuple[float, float] = (3.2, 2.6)
    """in inches; a page shows it so large where there is room, with letters of one size"""


def picture_of(chart: Chart, others: Sequence[Chart] = ()) -> dict[str, str]:
    """Draw a chart for an <img>: its address, which is the whole SVG, and its label. The axes
    also hold the points of the others."""
    limits = []
    for one in (*others, chart):
        with new_figure(one.size) as figure:
            figure.patch.set_visible(False)
            panel = figure.subplots()
            panel.patch.set_visible(False)
            one.fill(panel)
            limits.append((*panel.get_xlim(), *panel.get_ylim()))
            if one is chart:
                left, right, bottom, top = zip(*limits, strict=True)
                panel.set(xlim=(min(left), max(right)), ylim=(min(bottom), max(top)))
                add_legend(figure, [panel])
                text = svg_of(figure)
    coded = base64.b64encode(text.encode()).decode()
    return {"address": f"data:image/svg+xml;base64,{coded}", "label": chart.label}


def svg_of(figure: Figure) -> str:
    """A figure as SVG, with a style sheet for dark pages."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    rules = [
        f'[style*="{what}: {light}"] {{ {what}: {dark} !important }}'
        for light, dark in COLOURS.values()
        for what in ("fill", "stroke")
    ]
    sheet = "\n".join(["@media screen and (prefers-color-scheme: dark) {", *rules, "}"])
    head, end, rest = text.getvalue().partition("</style>")
    return f"{head}\n{sheet}{end}{rest}"

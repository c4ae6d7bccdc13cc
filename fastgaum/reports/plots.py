"""How every drawing is made: inline in a page, in the page's colours, or in a file that follows a
dark page. matplotlib is an extra and is imported when something is drawn.

Inline: matplotlib draws in one colour for each role; afterwards these become `var(--role)`, so that
one drawing serves light, dark and print. Its SVG is then cut down to what a page needs: no
document-wide style, no ids that another chart could share, text in the page's font.

In a file: matplotlib puts colours into each element, for a light page. An .svg gets a style sheet
beside them for readers who prefer dark. A viewer that knows no media queries shows the light page's
colours."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from fastgaum.errors import ConfigError, OutputError
from fastgaum.files import atomic
from fastgaum.metrics.precision import Float64Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROLES = ("ink", "muted", "line", "card", "reward", "generator", "published", "floor", "accent")
"""what a colour stands for; `style.css` gives each its value in light, dark and print"""
_STAND_IN = {role: f"#{i:02x}fe{i:02x}" for i, role in enumerate(ROLES, start=1)}
_VARIABLE = {colour: f"var(--{role})" for role, colour in _STAND_IN.items()}
_COLOUR = re.compile("|".join(_VARIABLE))
_FONT = re.compile(r"font: ([0-9.]+px) [^;]*;")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")

_PAGE_STYLE: Any = {
    # text stays text; ids do not change from one drawing to the next; a $ in the data is a $
    "svg.fonttype": "none",
    "svg.hashsalt": "fastgaum",
    "text.parse_math": False,
    "font.size": 10.5,
    "axes.labelsize": 10.5,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "legend.fontsize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "text.color": _STAND_IN["ink"],
    "axes.labelcolor": _STAND_IN["muted"],
    "axes.edgecolor": _STAND_IN["line"],
    "xtick.color": _STAND_IN["line"],
    "ytick.color": _STAND_IN["line"],
    "xtick.labelcolor": _STAND_IN["muted"],
    "ytick.labelcolor": _STAND_IN["muted"],
    "grid.color": _STAND_IN["line"],
}


def colour(role: str) -> str:
    """What matplotlib draws a role in."""
    return _STAND_IN[role]


FORMATS = (".svg", ".png")
"""of a figure in a file"""


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
            f"{what} needs matplotlib, which is not installed: pip install 'fastgaum[plots]'"
        )


def percent(values: Iterable[float | None] | Iterable[Sequence[float | None]]) -> Float64Array:
    """Shares as percent; NaN where there is none."""
    return 100 * np.array(list(values), np.float64)


class Chart(NamedTuple):
    """A drawing to be made."""

    fill: Callable[[Axes], None]
    """draws it on a panel"""
    label: str
    """what it says to a screen reader"""
    size: tuple[float, float] = (3.9, 2.5)
    """in inches"""


def inline_svg(chart: Chart, key: str, others: Sequence[Chart] = ()) -> str:
    """Draw a chart; return an <svg> element that says its label to a screen reader.

    `key` tells the page's charts apart: ids are prefixed with it. The axes also hold what is drawn
    in the others, so that charts side by side can be compared by eye.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_PAGE_STYLE):
        limits = []
        for one in (*others, chart):
            figure = Figure(figsize=chart.size, layout="constrained")
            figure.patch.set_visible(False)
            panel = figure.subplots()
            panel.patch.set_visible(False)
            one.fill(panel)
            limits.append((*panel.get_xlim(), *panel.get_ylim()))
        left, right, bottom, top = zip(*limits, strict=True)
        panel.set(xlim=(min(left), max(right)), ylim=(min(bottom), max(top)))
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return _inline(text.getvalue(), chart.label, key)


def _inline(text: str, label: str, key: str) -> str:
    root = ElementTree.fromstring(text[text.index("<svg") :])
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in ("metadata", "style"):
                parent.remove(child)
    used = set(_REFERENCE.findall(text)) | {
        e.attrib["href"][1:] for e in root.iter() if "href" in e.attrib
    }
    for element in root.iter():
        _restyle(element, key, used)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode")


def _restyle(element: ElementTree.Element, key: str, used: set[str]) -> None:
    attributes = element.attrib
    if attributes.get("id") in used:
        attributes["id"] = f"{key}-{attributes['id']}"
    else:
        attributes.pop("id", None)
    if "href" in attributes:
        attributes["href"] = f"#{key}-{attributes['href'][1:]}"
    if "clip-path" in attributes:
        attributes["clip-path"] = _REFERENCE.sub(rf"url(#{key}-\1)", attributes["clip-path"])
    if "style" in attributes:
        style = _COLOUR.sub(lambda found: _VARIABLE[found[0]], attributes["style"])
        attributes["style"] = _FONT.sub(r"font-size: \1;", style)


FIGURE_STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "fastgaum"}
"""text stays text, and ids do not change from one drawing to the next"""

DARK = {
    "#ffffff": "#0d1117",
    "#000000": "#c9d1d9",
    "#57606a": "#9da7b1",
    "#8c959f": "#8b949e",
    "#d0d7de": "#30363d",
    "#1f6feb": "#58a6ff",
    "#d1242f": "#ff7b72",
}
"""what a colour of a figure becomes on a dark page; a figure has no others"""
_INK = "#e6edf3"
_END = "</style>"


def save_figure(figure: Figure, path: Path) -> None:
    """Write a matplotlib figure as .svg or .png, by the path's suffix.

    Raises:
        OutputError: it cannot be written.
    """
    beside = io.BytesIO()
    metadata = {"Date": None} if path.suffix == ".svg" else None
    figure.savefig(beside, format=path.suffix[1:], dpi=160, bbox_inches="tight", metadata=metadata)
    content = beside.getvalue()
    if path.suffix == ".svg":
        content = with_dark(content.decode("utf-8")).encode("utf-8")
    with atomic(path) as part:
        part.write_bytes(content)


def with_dark(svg: str) -> str:
    """Return matplotlib's SVG with a style for dark pages.

    >>> print(with_dark('<style type="text/css">*{}</style>')[:87])
    <style type="text/css">*{}
    @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    """
    rules = [f"text {{ fill: {_INK} }}"]
    for light, dark in DARK.items():
        rules += [
            f'[style*="{what}: {light}"] {{ {what}: {dark} !important }}'
            for what in ("fill", "stroke")
        ]
    head, end, rest = svg.partition(_END)
    return "\n".join([head, "@media (prefers-color-scheme: dark) {", *rules, "}"]) + end + rest

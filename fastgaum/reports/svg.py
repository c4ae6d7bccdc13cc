"""Charts as inline SVG whose colours are the page's CSS variables, so that one drawing serves
light, dark and print.

matplotlib draws in stand-in colours, one for each role; afterwards they become `var(--role)`. Its
SVG is then cut down to what a page needs: no document-wide style, no ids that another chart could
share, text in the page's font."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any
from xml.etree import ElementTree

from fastgaum.errors import ConfigError

ROLES = ("ink", "muted", "line", "card", "reward", "generator", "published", "floor", "accent")
"""what a colour stands for; `style.css` gives each its value in light, dark and print"""
_STAND_IN = {role: f"#{i:02x}fe{i:02x}" for i, role in enumerate(ROLES, start=1)}
_VARIABLE = {colour: f"var(--{role})" for role, colour in _STAND_IN.items()}
_COLOUR = re.compile("|".join(_VARIABLE))
_FONT = re.compile(r"font: ([0-9.]+px) [^;]*;")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")

_STYLE: Any = {
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


def require_plots() -> None:
    """Raise ConfigError unless matplotlib is installed."""
    if find_spec("matplotlib") is None:
        raise ConfigError(
            "a report needs matplotlib, which is not installed: pip install 'fastgaum[plots]'"
        )


def draw(
    fill: Callable[[Any], None], label: str, key: str, size: tuple[float, float] = (3.9, 2.5)
) -> str:
    """Let `fill` draw on a panel of so many inches; return an <svg> element that says `label` to a
    screen reader.

    `key` tells the page's charts apart: ids are prefixed with it.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        figure.patch.set_visible(False)
        panel = figure.subplots()
        panel.patch.set_visible(False)
        fill(panel)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return _inline(text.getvalue(), label, key)


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

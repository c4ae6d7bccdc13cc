"""How every figure that is kept in a file is written: atomically, the same bytes each time, and
legible on a dark page.

matplotlib puts colours into each element, for a light page. An .svg gets a style sheet beside them
that a viewer obeys whose reader prefers dark; one that knows no media queries shows what it always
did."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from fastgaum.files import atomic

STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "fastgaum"}
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


def save(figure: Any, path: Path) -> None:
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

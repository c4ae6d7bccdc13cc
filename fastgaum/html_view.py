"""Tables of a notebook: how what a user gets shows itself there."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

MOST_ROWS = 40
"""of a table; the others are counted"""


def html_view(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    notes: Iterable[str] = (),
) -> str:
    """A title, a table and notes below it as html, every text escaped; the first column is text,
    the others are numbers as they are written. The first MOST_ROWS rows are shown."""
    styles = ["text-align: left"] + ["text-align: right"] * (len(columns) - 1)

    def row(tag: str, cells: Sequence[object]) -> str:
        shown = zip(styles, cells, strict=True)
        texts = (f'<{tag} style="{style}">{_text(cell)}</{tag}>' for style, cell in shown)
        return f"<tr>{''.join(texts)}</tr>"

    body = "".join(row("td", one) for one in rows[:MOST_ROWS])
    left = len(rows) - MOST_ROWS
    said = [*notes, *([f"… and {left:,} rows more"] if left > 0 else [])]
    head = f"<thead>{row('th', columns)}</thead>"
    table = f"<table>{head}<tbody>{body}</tbody></table>"
    below = "".join(f"<p><small>{_text(one)}</small></p>" for one in said)
    return f"<div><p><strong>{_text(title)}</strong></p>{table}{below}</div>"


def _text(value: object) -> str:
    return "" if value is None else html.escape(str(value))

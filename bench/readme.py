"""Set the pages' tables and figure again from the committed JSON of their commands: `python bench/readme.py`.

`fastgaum reproduce … --json docs/tables/NAME.json` writes the JSON (each page shows its command); this puts it between
the page's markers, the lines <!-- table:begin --> and <!-- table:end -->, and draws docs/prec1.svg (extra `plots`).
Tables are never written by hand: tests/test_tables.py fails when a page is not what this would write.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastgaum.metrics.table import to_markdown

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"README.md": "docs/tables/bags.json", "docs/results.md": "docs/tables/identity.json"}
"""page: the object whose table it shows"""
FIGURE = ("docs/prec1.svg", "docs/tables/bags.json")
BEGIN, END = "<!-- table:begin -->", "<!-- table:end -->"


def read(file: str) -> dict[str, Any]:
    """A committed object."""
    value: dict[str, Any] = json.loads((ROOT / file).read_text(encoding="utf-8"))
    return value


def insert(page: str, table: str) -> str:
    """Return the page with the table between its markers.

    >>> insert("a\\n<!-- table:begin -->old<!-- table:end -->\\nb", "new")
    'a\\n<!-- table:begin -->\\n\\nnew\\n\\n<!-- table:end -->\\nb'
    """
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{table.strip()}\n\n{END}{tail}"


def main() -> None:
    """Write the pages and the figure."""
    from fastgaum.reproduce.figure import draw

    for page, file in PAGES.items():
        path = ROOT / page
        path.write_text(insert(path.read_text(encoding="utf-8"), to_markdown(read(file))), encoding="utf-8")
    draw(read(FIGURE[1]), ROOT / FIGURE[0])


if __name__ == "__main__":
    main()

"""Put a table's markdown between a page's markers: `python bench/readme.py table.md README.md`.

The markers are the lines <!-- table:begin --> and <!-- table:end -->. Tables are never written by hand.
"""

from __future__ import annotations

import sys
from pathlib import Path

BEGIN, END = "<!-- table:begin -->", "<!-- table:end -->"


def insert(page: str, table: str) -> str:
    """Return the page with the table between its markers.

    >>> insert("a\\n<!-- table:begin -->old<!-- table:end -->\\nb", "new")
    'a\\n<!-- table:begin -->\\n\\nnew\\n\\n<!-- table:end -->\\nb'
    """
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{table.strip()}\n\n{END}{tail}"


if __name__ == "__main__":
    table, page = Path(sys.argv[1]), Path(sys.argv[2])
    page.write_text(insert(page.read_text(), table.read_text()))

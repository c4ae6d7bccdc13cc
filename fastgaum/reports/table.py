"""All tables: columns that set a figure of a row as text, blocks of such cells with the lines
below, markdown, and values that JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fastgaum.untrusted import escaped

Json = dict[str, Any]
"""a JSON object"""


@dataclass(frozen=True)
class Block:
    """A titled table of text cells and the lines below it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    bold: frozenset[tuple[int, int]] = frozenset()
    """row and column of the cells in bold"""


@dataclass(frozen=True)
class TableColumn:
    """A column of a table: a figure of a row, and how it is set."""

    title: str
    key: str
    """of a text, a number or an interval in a row"""
    digits: int | None = None
    """after the point; None: text"""
    unit: float = 1
    """factor of the figure: 100 for a share in percent"""
    signed: bool = False
    ends: Literal["", "brackets", "half"] = ""
    """how the interval `key`_ci stands behind the figure"""
    no_ends: str = ""
    """stands behind a figure whose interval does not exist"""
    none: str = ""
    """stands for a figure that does not exist; a row without the key has an empty cell"""

    def text(self, row: Mapping[str, Any]) -> str:
        """The cell of a row."""
        value = row.get(self.key, "")
        if value == "" or value is None or value != value:
            return "" if value == "" else self.none
        if self.digits is None:
            return str(value)
        if isinstance(value, list | tuple):
            return self._span(value)
        ends = row.get(f"{self.key}_ci") or (None, None)
        if not self.ends or None in ends:
            return self._number(value) + self.no_ends
        if self.ends == "half":
            return f"{self._number(value)} ±{num(self.unit * (ends[1] - value), self.digits)}"
        return f"{self._number(value)} ({self._span(ends)})"

    def _number(self, value: float) -> str:
        # + 0.0: a rounded -0.0 is 0.0
        sign = "+" if self.signed else ""
        return f"{round(self.unit * value, self.digits) + 0.0:{sign}.{self.digits}f}"

    def _span(self, ends: Sequence[float | None]) -> str:
        known = [self._number(end) for end in ends if end is not None and end == end]
        return " to ".join(known) if len(known) == len(ends) else ""


def table_of(
    title: str,
    columns: Sequence[TableColumn],
    rows: Iterable[Mapping[str, Any]],
    notes: Iterable[str] = (),
    bold: Callable[[Mapping[str, Any]], Iterable[str]] = lambda row: (),
) -> Block:
    """Set rows as text; `bold` names the keys of a row's bold cells."""
    found = list(rows)
    return Block(
        title,
        tuple(column.title for column in columns),
        tuple(tuple(column.text(row) for column in columns) for row in found),
        tuple(notes),
        frozenset(
            (i, j)
            for i, row in enumerate(found)
            for j, column in enumerate(columns)
            if column.key in bold(row)
        ),
    )


def num(value: float | None, digits: int = 1) -> str:
    """A figure with so many digits after the point; - where there is none."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 1) -> str:
    """A difference with its sign.

    >>> signed(0.04), signed(-1.25), signed(-0.04)
    ('+0.0', '-1.2', '-0.0')
    """
    return "-" if value is None or math.isnan(value) else f"{value:+.{digits}f}"


def spread(mean: float | None, sd: float | None) -> str:
    """Mean ± standard deviation; a single seed has none to show."""
    return f"{num(mean)} ±{num(sd)}" if sd else num(mean)


def rows_to_markdown(rows: Iterable[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """Rows of cells, which are markdown already, as a table; the first names the columns, of which
    those of `left` stand to the left.

    >>> print(rows_to_markdown([("a", "b"), ("c", "1")]))
    | a | b |
    | :-- | --: |
    | c | 1 |
    """
    heads, *others = rows
    rule = [":--" if i in left else "--:" for i in range(len(heads))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (heads, rule, *others))


def block_to_markdown(block: Block) -> str:
    """A block as markdown: a heading, a table, the notes as a list."""
    rows = [[escaped(cell) for cell in row] for row in (block.columns, *block.rows)]
    for i, j in block.bold:
        rows[i + 1][j] = f"**{rows[i + 1][j]}**"
    lines = [f"### {escaped(block.title)}", "", rows_to_markdown(rows), ""]
    return "\n".join([*lines, *(f"- {escaped(note)}" for note in block.notes), ""])


def blocks_to_markdown(blocks: Iterable[Block]) -> str:
    """Blocks as one markdown text."""
    return "\n".join(map(block_to_markdown, blocks))


def finite(value: Any) -> Any:
    """The same value for JSON: null for NaN and infinity, keys as text."""
    if isinstance(value, Mapping):
        return {str(key): finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

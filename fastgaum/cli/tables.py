"""Blocks of the reproduce table on the terminal."""

from __future__ import annotations

import sys

from rich import box
from rich.table import Table
from rich.text import Text

from fastgaum.cli.console import say, stdout
from fastgaum.reports.table import Block
from fastgaum.untrusted import plain

# A file or a pipe has no width of its own: wide enough for the widest row, whose cells would wrap
# otherwise.
_PIPE_WIDTH = 220


def show_block(block: Block) -> None:
    """Print a titled table and the lines below it."""
    table = Table(
        title=Text(plain(block.title)), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for i, column in enumerate(block.columns):
        table.add_column(Text(plain(column)), justify="left" if i == 0 else "right")
    for i, row in enumerate(block.rows):
        table.add_row(
            *(
                Text(plain(cell), style="bold" if (i, j) in block.bold else "")
                for j, cell in enumerate(row)
            )
        )
    console = stdout()
    if not sys.stdout.isatty():
        console.width = _PIPE_WIDTH
    console.print(table)
    for line in block.notes:
        say(f"  {plain(line)}")

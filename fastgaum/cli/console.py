"""What commands print and write: text and tables on stdout, JSON objects in files or, instead of
the text, on stdout.

Colours and live displays are for terminals, colours not where NO_COLOR is set; both are rich's own
rules."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastgaum.cli.manners import MANNERS
from fastgaum.errors import OutputError
from fastgaum.files import atomic, require_writable
from fastgaum.reports.cells_file import finite
from fastgaum.untrusted import plain

Json = Annotated[
    Path | None,
    Parameter(help="also write the result as one JSON object; -: print it, instead of text"),
]
STDOUT = Path("-")

# Wide enough for the widest table: a file or a pipe has no width of its own, and wrapped cells
# cannot be searched.
_PIPE_WIDTH = 160


class _Results(Console):
    """rich ends the process itself when the reader of a pipe has gone; here the command line says
    how it ends."""

    def on_broken_pipe(self) -> None:
        """Raise the BrokenPipeError that is being handled."""
        raise


def stdout() -> Console:
    """Where results go. Made anew for each use: tests and pipes change sys.stdout."""
    return _Results(
        highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH, quiet=not MANNERS.text
    )


def stderr() -> Console:
    """Where progress goes; nowhere with --quiet."""
    return Console(stderr=True, highlight=False, quiet=MANNERS.quiet)


def say(text: str) -> None:
    """Print one line or paragraph of results; what a terminal would obey is spelt out."""
    stdout().print(Text(plain(text, keep="\n")), soft_wrap=True)


def finish(text: str, json: Path | None = None, facts: Mapping[str, Any] | None = None) -> None:
    """Print the line that ends a command whose result is a file, and write the same as JSON where
    that was asked for."""
    if json is not None:
        write_json(json, facts or {})
    if not MANNERS.quiet:
        say(text)


def note(text: str) -> None:
    """Print one line about what is going on, beside the results."""
    stderr().print(Text(plain(text)), soft_wrap=True)


def show_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None
) -> None:
    """Print a table; the first column is text, the others are figures."""
    heading = None if title is None else Text(plain(title))
    table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(Text(plain(column)), justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    stdout().print(table)


def check_outputs(*paths: Path | None) -> None:
    """Raise OutputError, before any work, if one of the files asked for cannot be written."""
    for path in paths:
        if path is not None and path != STDOUT:
            if path.is_dir():
                raise OutputError(f"cannot write '{path}': it is a folder, name a file in it")
            require_writable(path)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write one JSON object; a figure that does not exist (NaN) is null, which JSON has and NaN is
    not."""
    # a file keeps letters as they are; a terminal would obey some that JSON allows
    text = json.dumps(finite(value), indent=2, allow_nan=False, ensure_ascii=path == STDOUT)
    write_text(path, text + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all; `-` is stdout, where what a terminal would obey is spelt
    out."""
    if path == STDOUT:
        sys.stdout.write(plain(text, keep="\n"))
        return
    with atomic(path) as beside:
        beside.write_text(text, encoding="utf-8")

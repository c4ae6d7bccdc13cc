"""What commands print and write: text and tables on stdout, JSON objects in files."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastgaum.errors import OutputError
from fastgaum.files import atomic, require_writable
from fastgaum.metrics.flat import finite
from fastgaum.untrusted import plain

# Wide enough for the widest table: a file or a pipe has no width of its own, and wrapped cells cannot be searched.
_PIPE_WIDTH = 160


class _Results(Console):
    """rich ends the process itself when the reader of a pipe has gone; here the command line says how it ends."""

    def on_broken_pipe(self) -> None:
        """Raise the BrokenPipeError that is being handled."""
        raise


def stdout() -> Console:
    """Where results go. Made anew for each use: tests and pipes change sys.stdout."""
    return _Results(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def stderr() -> Console:
    """Where progress goes."""
    return Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """Print one line or paragraph of results; what a terminal would obey is spelt out."""
    stdout().print(Text(plain(text, keep="\n")), soft_wrap=True)


def note(text: str) -> None:
    """Print one line about what is going on, beside the results."""
    stderr().print(Text(plain(text)), soft_wrap=True)


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
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
        if path is not None:
            if path.is_dir():
                raise OutputError(f"cannot write '{path}': it is a folder, name a file in it")
            require_writable(path)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write one JSON object; a figure that does not exist (NaN) is null, which JSON has and NaN is not."""
    text = json.dumps(finite(value), indent=2, allow_nan=False, ensure_ascii=False)
    with atomic(path) as beside:
        beside.write_text(text + "\n", encoding="utf-8")

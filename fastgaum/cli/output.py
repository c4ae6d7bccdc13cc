"""Printing and writing of results: text and tables on stdout, files and folders where options say.

What is there already is replaced only with --overwrite, which is asked before any work."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastgaum.cli.options import COMMON, TableFiles
from fastgaum.errors import ConfigError, OutputError
from fastgaum.files import atomic, require_writable
from fastgaum.reports.table import blocks_to_markdown, finite
from fastgaum.untrusted import plain

if TYPE_CHECKING:
    from polars import DataFrame

    from fastgaum.logs.log import SessionLog
    from fastgaum.reports.table import Block

STDOUT = Path("-")

_PIPE_WIDTH = 120
"""columns of a file or a pipe, which has no width of its own"""
_BETWEEN = 3
"""columns between two cells of a row"""


# -- what is printed


class _Results(Console):
    def on_broken_pipe(self) -> None:
        """Raise the BrokenPipeError that is being handled."""
        raise


def stdout() -> Console:
    """Where results go, made anew: tests and pipes change sys.stdout."""
    return _Results(
        highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH, quiet=not COMMON.text
    )


def stderr() -> Console:
    """Where progress goes; nowhere with --quiet."""
    return Console(stderr=True, highlight=False, quiet=COMMON.quiet)


def say(text: str) -> None:
    """Print one line or paragraph of results, control characters spelt out."""
    stdout().print(Text(plain(text, keep="\n")), soft_wrap=True)


def note(text: str) -> None:
    """Print one line beside the results, after those that wait."""
    for one in (*take_notes(), text):
        stderr().print(Text(plain(one)), soft_wrap=True)


_waiting: list[str] = []


def note_later(text: str) -> None:
    """Print a line when work is under way: a mistake that is found before is one line alone."""
    _waiting.append(text)


def take_notes() -> list[str]:
    """Lines that wait; none waits afterwards."""
    taken = _waiting[:]
    _waiting.clear()
    return taken


def finish(text: str, json: Path | None = None, facts: Mapping[str, object] | None = None) -> None:
    """Print the line that ends a command, and write its facts as JSON."""
    for waiting in take_notes():
        note(waiting)
    write_json(json, facts or {})
    if not COMMON.quiet:
        say(text)


def show_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    title: str | None = None,
    bold: frozenset[tuple[int, int]] | set[tuple[int, int]] = frozenset(),
) -> None:
    """Print a table, its first column text, the others figures; bold: (row, column). An empty
    column is left out. Columns that find no room follow in a table below, beside the first one."""
    cells = [columns, *rows]
    widths = [max(cell_len(plain(row[i])) for row in cells) for i in range(len(columns))]
    shown = [i for i in range(1, len(columns)) if not rows or any(row[i] for row in rows)]
    parts: list[list[int]] = [[0]]
    for i in shown:
        used = sum(widths[j] + _BETWEEN for j in (*parts[-1], i))
        if used > stdout().width and len(parts[-1]) > 1:
            parts.append([0])
        parts[-1].append(i)
    for part in parts:
        heading = None if title is None or part is not parts[0] else Text(plain(title))
        table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for i in part:
            table.add_column(Text(plain(columns[i])), justify="right" if i else "left")
        for n, row in enumerate(rows):
            table.add_row(*(Text(plain(row[i]), "bold" if (n, i) in bold else "") for i in part))
        stdout().print(table)


def show_block(block: Block) -> None:
    """Print a titled table and the lines below it."""
    show_table(block.columns, block.rows, block.title, block.bold)
    for line in block.notes:
        say(f"  {plain(line)}")


# -- what may be written


def check_outputs(*files: Path | None, resumed: bool = False) -> None:
    """Raise OutputError unless each file can be written and is new, or may be replaced (`resumed`:
    a run or a search goes on with its own). Raises ConfigError where it is to be replaced too."""
    if resumed and COMMON.overwrite:
        raise ConfigError(
            "--resume goes on with what is there and --overwrite replaces it: give one of them"
        )
    for path in files:
        if path is None or path == STDOUT:
            continue
        require_writable(path)
        if path.is_dir():
            raise OutputError(f"cannot write '{path}': it is a folder, name a file in it")
        if not resumed:
            _require_new(path)


def check_table_output(out: Path) -> None:
    """The same for a table, which is .parquet or .csv."""
    if out.suffix not in (".parquet", ".csv"):
        raise OutputError(
            f"'{out}' ends in '{out.suffix}', a table is written as .parquet or .csv: rename it"
        )
    check_outputs(out)


def check_log_output(out: Path) -> None:
    """The same for a log, which is .parquet, .csv or a folder."""
    if out.suffix in (".parquet", ".csv"):
        check_outputs(out)
    elif out.suffix:
        raise OutputError(
            f"'{out}' ends in '{out.suffix}', a log is written as .parquet, .csv, or into a "
            "folder: rename it"
        )
    else:
        require_writable(out)
        from fastgaum.logs.store import check_store_output

        check_store_output(out, overwrite=True)
        _require_new(out)


def _require_new(path: Path) -> None:
    there = any(path.iterdir()) if path.is_dir() else path.exists()
    if there and not COMMON.overwrite:
        raise OutputError(
            f"'{path}' is there already: choose another name, or pass --overwrite to replace it"
        )


# -- what is written


def write_json(path: Path | None, value: Mapping[str, object]) -> None:
    """Write one JSON object, if a path is given; NaN is null."""
    if path is None:
        return
    # a file keeps letters as they are; a terminal would obey some that JSON allows
    text = json.dumps(finite(value), indent=2, allow_nan=False, ensure_ascii=path == STDOUT)
    write_text(path, text + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all; `-` is stdout, where control characters are spelt out."""
    if path == STDOUT:
        sys.stdout.write(plain(text, keep="\n"))
        return
    with atomic(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_tables(files: TableFiles, facts: Mapping[str, object], blocks: Sequence[Block]) -> None:
    """Write facts as JSON, and their tables as markdown, where asked for."""
    write_json(files.json, facts)
    if files.markdown is not None:
        write_text(files.markdown, blocks_to_markdown(blocks))


def write_log(log: SessionLog, out: Path) -> None:
    """Write a log as `check_log_output` says. Raises OutputError."""
    from polars import Duration

    from fastgaum.logs.fold import to_frame
    from fastgaum.logs.store import save_log

    if not out.suffix:
        save_log(log, out, overwrite=COMMON.overwrite)
        return
    if names := ", ".join(sorted([*log.columns_of("item"), *log.vectors])):
        note(f"the long layout has no item columns ({names}): keep the item table beside {out}")
    if names := ", ".join(sorted(log.columns_of("user"))):
        note(f"fields of users ({names}) are columns of the rows: --context-field reads them")
    if log.actions is not None:
        note(
            f"the long layout has no actions ({log.n_actions}): keep their table beside {out}, or "
            "convert into a folder"
        )
    frame = to_frame(log)
    if out.suffix == ".csv" and Duration in frame.dtypes:
        raise OutputError(
            f"'{out}' cannot hold the durations that order this log's events: name a .parquet file"
        )
    with atomic(out) as beside:
        if out.suffix == ".csv":
            frame.write_csv(beside)
        else:
            frame.write_parquet(beside)


def write_frames(frames: Iterator[DataFrame], out: Path) -> int:
    """Write frames one below the other, as .csv or .parquet, whole or not at all; return the number
    of rows. One frame at a time is in memory. Raises OutputError."""
    import polars as pl

    from fastgaum.row_files import one_line

    n_rows, parts = 0, list[Path]()
    with (
        atomic(out) as beside,
        tempfile.TemporaryDirectory(dir=beside.parent, prefix=f"{beside.name}s.") as folder,
    ):
        try:
            for frame in frames:
                parts.append(Path(folder) / f"{len(parts):06}.parquet")
                frame.write_parquet(parts[-1], compression="lz4")
                n_rows += frame.height
            rows = pl.scan_parquet(parts, glob=False)
            rows.sink_csv(beside) if out.suffix == ".csv" else rows.sink_parquet(beside)
        except pl.exceptions.PolarsError as error:
            raise OutputError(
                f"cannot write '{out}': {one_line(error)}; free space or choose another folder"
            ) from None
    return n_rows

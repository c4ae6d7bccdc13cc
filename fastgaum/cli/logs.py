"""Writing a log to where `-o` says: a file in the long layout, or a folder in the packed form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fastgaum.cli.console import check_outputs, note
from fastgaum.errors import OutputError
from fastgaum.files import atomic, require_writable

if TYPE_CHECKING:
    from fastgaum.logs.log import SessionLog


def check_log_output(out: Path) -> None:
    """Raise OutputError, before any work, unless `out` is .parquet, .csv or a folder's name, and
    can be written."""
    if out.suffix in (".parquet", ".csv"):
        check_outputs(out)
    elif out.suffix:
        raise OutputError(
            f"'{out}' ends in '{out.suffix}', a log is written as .parquet, .csv, or into a "
            "folder: rename it"
        )
    else:
        require_writable(out)


def check_shards_folder(out: Path) -> None:
    """Raise OutputError, before any work, unless shards can be written at `out`."""
    if out.suffix in (".parquet", ".csv"):
        raise OutputError(
            f"'{out}' ends in '{out.suffix}', shards are written into a folder: give a folder's "
            "name"
        )
    require_writable(out)
    from fastgaum.logs.shard_writer import check_shards_output

    check_shards_output(out)


def write_log(log: SessionLog, out: Path) -> None:
    """Write a log; `check_log_output` says in which form.

    Raises:
        OutputError: the output cannot be written, or the folder holds something else.
    """
    from fastgaum.logs.frame import to_frame
    from fastgaum.logs.shard_writer import save_log

    if not out.suffix:
        save_log(log, out)
        return
    if log.item_fields:
        names = ", ".join(sorted(log.item_fields))
        note(f"the long layout has no item columns ({names}): keep the item table beside {out}")
    frame = to_frame(log)
    with atomic(out) as beside:
        if out.suffix == ".csv":
            frame.write_csv(beside)
        else:
            frame.write_parquet(beside)

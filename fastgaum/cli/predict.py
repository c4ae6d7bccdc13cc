"""`fastgaum predict`: utilities and choice probabilities of every candidate, beside the rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fastgaum.cli.options import DataDir, Device, JsonFile, RunPath, ScoredSplit, TablePath
from fastgaum.cli.output import check_outputs, check_table_output, finish, note, write_frames
from fastgaum.cli.progress import Bar
from fastgaum.cli.reading import Log, rows_of_run
from fastgaum.errors import OutputError

if TYPE_CHECKING:
    from fastgaum.logs.read import RowsToPredict


def predict_command(
    run: RunPath,
    source: Log,
    /,
    *,
    out: TablePath,
    split: ScoredSplit = "all",
    at_place: Literal["own", "none"] | int = "own",
    json: JsonFile = None,
    device: Device = "auto",
    data_dir: DataDir = None,
) -> None:
    """Write the utility and the choice probability of every candidate.

    Args:
        at_place: the place of the display to score all candidates at, from 1
    """
    check_table_output(out)
    check_outputs(json)
    from fastgaum.baselines.registry import load_model
    from fastgaum.logs.read import RowsToPredict

    model = load_model(run, device=device)
    found = rows_of_run(run, source, data_dir, split)
    if not isinstance(found, RowsToPredict):
        note(
            f"{source} has no rows of its own, or other displays than the log that it is read as: "
            "a row is a candidate of the log, by session, event and item"
        )
    elif out.suffix == ".csv":
        _require_plain(found, out)
    with Bar("scoring") as progress:
        place = None if at_place == "none" else at_place
        if isinstance(found, RowsToPredict):
            n = found.log.count("candidates", split)
            frames = iter([model.predict_rows(found, split, progress, at_place=place)])
        else:
            n = found.count("candidates", split)
            frames = model.predict_parts(found, split, progress, at_place=place)
        n_rows = write_frames(frames, out)
    facts: dict[str, object] = {"path": str(out), "run": str(run), "log": source, "split": split}
    facts |= {"at_place": at_place, "candidates": n, "rows": n_rows}
    finish(f"{out}: {n} candidates", json, facts)


def _require_plain(rows: RowsToPredict, out: Path) -> None:
    """Raise OutputError for rows that a csv has no place for."""
    from polars import Binary, Duration

    if rows.row is not None:
        raise OutputError(
            f"a row of the log is an event, whose predictions are lists, and '{out}' cannot hold "
            "lists: name a .parquet file"
        )
    for name, dtype in rows.frame.schema.items():
        if dtype.is_nested() or dtype in (Binary, Duration):
            raise OutputError(
                f"'{out}' cannot hold the log's column '{name}' ({dtype}) as it stands: name a "
                ".parquet file"
            )

"""`fastgaum predict`: utilities and choice probabilities of every candidate, as a table."""

from __future__ import annotations

from typing import Literal

from fastgaum.cli.options import DataDir, Device, JsonFile, RunPath, ScoredSplit, TablePath
from fastgaum.cli.output import check_outputs, check_table_output, finish, write_frames
from fastgaum.cli.progress import Bar
from fastgaum.cli.reading import Log, log_of_run, note_unfinished


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
    """Write utilities and choice probabilities of every candidate.

    Args:
        at_place: the place of the display to score all candidates at, from 1
    """
    check_table_output(out)
    check_outputs(json)
    from fastgaum.baselines.registry import load_model

    model = load_model(run, device=device)
    note_unfinished(run, source)
    log = log_of_run(run, source, data_dir, may_lack_choices=True)
    with Bar("scoring") as progress:
        place = None if at_place == "none" else at_place
        n_rows = write_frames(model.predict_parts(log, split, progress, at_place=place), out)
    facts: dict[str, object] = {"path": str(out), "run": str(run), "log": source, "split": split}
    facts |= {"at_place": at_place, "candidates": n_rows}
    finish(f"{out}: {n_rows} candidates", json, facts)

"""`fastgaum predict`: utilities and choice probabilities of every candidate, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from fastgaum.cli.console import Json, check_outputs, finish
from fastgaum.cli.frames import check_frame_output, write_frames
from fastgaum.cli.progress import EventProgress, Waiting
from fastgaum.cli.reading import AS_IT_IS, Log, Reading
from fastgaum.cli.settings import Device


def predict(
    run: Annotated[Path, Parameter(help="a run folder, or a model file")],
    log: Log,
    /,
    *,
    out: Annotated[
        Path, Parameter(name=["--out", "-o"], help="the table to write: .parquet or .csv")
    ],
    split: Annotated[
        Literal["train", "validation", "test", "all"], Parameter(help="whose events to score")
    ] = "all",
    json: Json = None,
    device: Device = "auto",
    reading: Reading = AS_IT_IS,
) -> None:
    """Write one row per candidate: session, event, item, utility, probability, and the generator's
    probability.

    Sessions are scored and written a chunk at a time: beside the log itself, memory does not grow
        with it.

    Options of reading that are not given are those that the run was trained with.
    """
    check_frame_output(out)
    check_outputs(out, json)
    from fastgaum.models.user_model import UserModel

    model = UserModel.load(run, device=device)
    with Waiting(f"reading {log}"):
        sessions = reading.or_of_run(run).open(log)
    with EventProgress("scoring") as progress:
        n_rows = write_frames(model.predict_parts(sessions, split, progress), out)
    facts = {"path": str(out), "run": str(run), "log": log, "split": split, "candidates": n_rows}
    finish(f"{out}: {n_rows} candidates", json, facts)

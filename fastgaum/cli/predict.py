"""`fastgaum predict`: utilities and choice probabilities of every candidate, as a table."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from cyclopts import Parameter

from fastgaum.cli.options import Device, Json, RunPath, ScoredSplit, TablePath
from fastgaum.cli.output import check_outputs, check_table_output, finish, write_frames
from fastgaum.cli.progress import Bar
from fastgaum.cli.reading import AS_IT_IS, Log, Reading, note_unfinished


@Parameter(name="*")
@dataclass(frozen=True)
class Scored:
    """What is scored, and where its candidates stand."""

    split: ScoredSplit = "all"
    at_place: Literal["own", "none"] | int = "own"
    """score all candidates at this place of their displays, from 1, or at none: by taste alone"""


AS_DISPLAYED = Scored()


def predict_command(
    run: RunPath,
    source: Log,
    /,
    *,
    out: TablePath,
    what: Scored = AS_DISPLAYED,
    json: Json = None,
    device: Device = "auto",
    reading: Reading = AS_IT_IS,
) -> None:
    """Write one row per candidate: session, event, item, utility, probability, and the generator's
    probability.

    Sessions are scored and written a chunk at a time: beside the log itself, memory does not grow
    with it."""
    check_table_output(out)
    check_outputs(json)
    from fastgaum.baselines.registry import load_model

    model = load_model(run, device=device)
    note_unfinished(run, source)
    with Bar(f"reading {source}"):
        log = reading.or_of_run(run).load(source)
    with Bar("scoring") as progress:
        place = None if what.at_place == "none" else what.at_place
        n_rows = write_frames(model.predict_parts(log, what.split, progress, at_place=place), out)
    facts = {"path": str(out), "run": str(run), "log": source, **dataclasses.asdict(what)}
    finish(f"{out}: {n_rows} candidates", json, {**facts, "candidates": n_rows})

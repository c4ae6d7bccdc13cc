"""`fastgaum predict`: utilities and choice probabilities of every candidate, as a table."""

from __future__ import annotations

from fastgaum.cli.options import Device, Json, RunPath, ScoredSplit, TablePath
from fastgaum.cli.output import check_outputs, check_table_output, finish, write_frames
from fastgaum.cli.progress import PartsProgress, Waiting
from fastgaum.cli.reading import AS_IT_IS, Log, Reading


def predict_command(
    run: RunPath,
    source: Log,
    /,
    *,
    out: TablePath,
    split: ScoredSplit = "all",
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
    with Waiting(f"reading {source}"):
        log = reading.or_of_run(run).open(source)
    with PartsProgress("scoring") as progress:
        n_rows = write_frames(model.predict_parts(log, split, progress), out)
    facts = {"path": str(out), "run": str(run), "log": source, "split": split, "candidates": n_rows}
    finish(f"{out}: {n_rows} candidates", json, facts)

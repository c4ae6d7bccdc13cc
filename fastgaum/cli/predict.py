"""`fastgaum predict`: utilities and choice probabilities of every candidate, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from fastgaum.cli.console import check_outputs, say
from fastgaum.cli.reading import AS_IT_IS, Log, Reading
from fastgaum.cli.settings import Device
from fastgaum.errors import OutputError
from fastgaum.files import atomic


def predict(
    run: Annotated[Path, Parameter(help="a run folder, or a model file")],
    log: Log,
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="the table to write: .parquet or .csv")],
    split: Annotated[Literal["train", "validation", "test", "all"], Parameter(help="whose events to score")] = "all",
    device: Device = "auto",
    reading: Reading = AS_IT_IS,
) -> None:
    """Write one row per candidate: session, event, item, utility, probability, and the generator's probability.

    Options of reading that are not given are those that the run was trained with.
    """
    if out.suffix not in (".parquet", ".csv"):
        raise OutputError(f"'{out}' ends in '{out.suffix}', a table is written as .parquet or .csv: rename it")
    check_outputs(out)
    from fastgaum.models.user_model import UserModel

    model = UserModel.load(run, device=device)
    frame = model.predict(reading.or_of_run(run).load(log), split)
    with atomic(out) as beside:
        if out.suffix == ".csv":
            frame.write_csv(beside)
        else:
            frame.write_parquet(beside)
    say(f"{out}: {frame.height} candidates")

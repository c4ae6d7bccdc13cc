"""A run folder whose files are missing, damaged or made to deceive."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from fastgaum.errors import CheckpointError
from fastgaum.reports.trained_run import open_run
from tests.reports.workshop import Workshop


def machine(**changes: object) -> str:
    """A machine.json."""
    log = {"fingerprint": "0", "source": changes.pop("source", None)}
    return json.dumps({"log": log, **changes})


def test_a_damaged_file_is_named(workshop: Workshop, tmp_path: Path) -> None:
    for name, text, says in (
        ("machine.json", "{", "is damaged"),
        ("machine.json", "[]", "holds no object"),
        ("machine.json", "{}", "does not say which log"),
        ("machine.json", machine(source=5), r"Expected `str \| null`, got `int` - at `\$\.log"),
        ("machine.json", machine(cost="x"), r"Expected `object \| null`, got `str` - at `\$\.cost"),
        ("machine.json", machine(cost={"seconds": 10**400}), "out of range"),
        ("metrics.parquet", "PAR1", "is damaged"),
    ):
        copy = tmp_path / "copy"
        shutil.copytree(workshop.runs[0], copy)
        (copy / name).write_text(text)
        with pytest.raises(CheckpointError, match=says):
            open_run(copy)
        shutil.rmtree(copy)


def test_a_pipe_is_no_file_of_a_run(workshop: Workshop, tmp_path: Path) -> None:
    for name in ("machine.json", "reading.json", "metrics.parquet"):
        copy = tmp_path / name
        shutil.copytree(workshop.runs[0], copy)
        (copy / name).unlink(missing_ok=True)
        os.mkfifo(copy / name)
        with pytest.raises(CheckpointError, match=r"no file|that is a file"):
            open_run(copy)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda table: pl.concat([table] * 5000), "rows, a page has room for 10000"),
        (lambda table: table.with_columns(loss=pl.lit("x")), "conversion from `str` to `f64`"),
        (lambda table: table.with_columns(loss=pl.lit([1.0])), "cannot cast"),
        (lambda table: table.with_columns(epoch=pl.lit(1)), "epochs that rise"),
        (lambda table: table.with_columns(epoch=pl.lit(None)), "epochs that rise"),
        (lambda table: table.with_columns(events_per_second=pl.lit(None)), "epochs that rise"),
        (lambda table: table.drop("best"), "has no best"),
    ],
)
def test_a_training_table_is_bounded_and_typed(
    workshop: Workshop, tmp_path: Path, change: Callable[[pl.DataFrame], pl.DataFrame], says: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(workshop.runs[0], copy)
    change(pl.read_parquet(copy / "metrics.parquet")).write_parquet(copy / "metrics.parquet")
    with pytest.raises(CheckpointError, match=says):
        open_run(copy)


def test_a_run_that_was_interrupted_is_read_from_its_lines(
    workshop: Workshop, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(workshop.runs[0], copy)
    (copy / "metrics.parquet").unlink()
    whole = open_run(workshop.runs[0]).table
    found = open_run(copy).table
    assert found["epoch"].to_list() == whole["epoch"].to_list()
    assert found["gap"].to_list() == pytest.approx(whole["gap"].to_list())
    (copy / "metrics.jsonl").unlink()
    with pytest.raises(CheckpointError, match=r"no metrics\.parquet and no metrics\.jsonl"):
        open_run(copy)

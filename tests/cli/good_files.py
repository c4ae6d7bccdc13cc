"""Good files: a log, a run on it, the log as a saved one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from fastgaum.cli.app import main
from fastgaum.logs.fold import to_frame
from fastgaum.logs.synthetic import synthesise

MOST_SECONDS = float(os.environ.get("ATTACK_SECONDS", "20"))
"""processor time of what is refused: each takes a fraction of a second. `make attack` allows 5 s;
tests, which may compile kernels and run beside others, more"""


@dataclass(frozen=True)
class Seeds:
    """Good files, and an empty folder to spoil copies in."""

    frame: pl.DataFrame
    log: Path
    run: Path
    store: Path
    folder: Path


QUICK = ["--set", "epochs=1", "--set", "warm_start=1", "--set", "batch_sessions=256"]
QUICK += ["--set", "search=[]", "--set", "folds=0"]


def sample_frame() -> pl.DataFrame:
    """300 events with a price per candidate and a query per event."""
    log, _ = synthesise(300, preset="sample")
    price = np.random.default_rng(0).random(log.n_candidates)
    frame = to_frame(log).drop("event_label", strict=False)
    query = pl.format("q{}", pl.col("event") % 3)
    return frame.with_columns(price=pl.Series(price), query=query)


def made_trained(log: Path, run: Path) -> Path:
    """A run on a log of these rows."""
    argv = ["train", str(log), "-o", str(run), "--candidate-field", "price", "--quiet", *QUICK]
    assert main(argv) == 0
    return run


def made_store(log: Path, folder: Path) -> Path:
    """The log as a saved one."""
    argv = ["data", "convert", str(log), "-o", str(folder), "--candidate-field", "price", "--quiet"]
    assert main(argv) == 0
    return folder

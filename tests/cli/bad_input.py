"""Rows of what a user, or the maker of their files, got wrong, and how each is refused: exit code
2, one line on stderr that says what is wrong, nothing on stdout, nothing written, and soon."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from fastgaum.cli.app import main
from fastgaum.logs.fold import to_frame
from fastgaum.logs.synthetic import synthesise

MOST_SECONDS = 20.0
"""processor time; each takes a fraction of a second, this is what `hang` means on a machine that
does other things too"""


@dataclass(frozen=True)
class Seeds:
    """Good files, and an empty folder to spoil copies in."""

    frame: pl.DataFrame
    log: Path
    run: Path
    store: Path
    folder: Path


Make = Callable[[Seeds], list[str]]
"""spoils something in the folder, and returns the command that meets it"""
Row = tuple[Make, str]
"""what is made, and what the line says"""
DEEP = "[" * 100_000 + "]" * 100_000


QUICK = ["--set", "epochs=1", "--set", "warm_start=1", "--set", "batch_sessions=256"]


def sample_frame() -> pl.DataFrame:
    """300 events with a price per candidate and a query per event."""
    log, _ = synthesise(300, preset="sample")
    price = np.random.default_rng(0).random(log.n_candidates)
    frame = to_frame(log).drop("event_label", strict=False)
    query = pl.format("q{}", pl.col("event") % 3)
    return frame.with_columns(price=pl.Series(price), query=query)


def made_trained(log: Path, run: Path) -> Path:
    """A run on a log of these rows."""
    assert (
        main(["train", str(log), "-o", str(run), "--candidate-field", "price", "--quiet", *QUICK])
        == 0
    )
    return run


def made_store(log: Path, folder: Path) -> Path:
    """The log as a saved one."""
    argv = ["data", "convert", str(log), "-o", str(folder), "--candidate-field", "price", "--quiet"]
    assert main(argv) == 0
    return folder


def convert(path: Path, *options: str) -> list[str]:
    return ["data", "convert", str(path), "-o", str(path.parent / "out"), *options]


def check_refused(row: Row, seeds: Seeds, fails: Callable[[list[str]], str]) -> None:
    """The command fails as the fixture `fails` asks, and with these words."""
    make, says = row
    argv = make(seeds)
    started = time.process_time()
    err = fails(argv)
    assert says in err
    assert time.process_time() - started < MOST_SECONDS
    assert err[:-1].isprintable()

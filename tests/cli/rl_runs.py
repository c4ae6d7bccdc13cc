"""Runs that policies are made in, and options by which that is quick."""

from __future__ import annotations

import shlex
from pathlib import Path

import polars as pl

from fastgaum.cli.app import main
from fastgaum.logs.fold import to_frame
from fastgaum.logs.synthetic import synthesise

SMALL = shlex.split(
    "--set episodes=1 --set users=16 --set warm_up=16 --set evaluations=1 --set batch=16"
)
QUICK = shlex.split(
    "--set epochs=1 --set warm_start=2 --set catch_up=1 --set search=[] --set folds=0 "
    "--set relative_numbers=false --set relations=false"
)
SHORT = ["--horizon", "3", "--threads", "1"]


def made_run(folder: Path, seed: int) -> tuple[Path, Path]:
    """A log and a run on it; the same catalogue for every seed of chance."""
    log = folder / f"log{seed}.parquet"
    drawn, _ = synthesise(400, n_items=15, mean_display=4.0, max_display=6, no_click=0.2)
    frame = to_frame(drawn).drop("event_label", strict=False)
    sessions = frame["session"].unique(maintain_order=True)
    half = sessions[seed::2]
    frame.filter(pl.col("session").is_in(half.implode())).write_parquet(log)
    run = folder / f"run{seed}"
    assert main(["train", str(log), "-o", str(run), "--split-by", "user", *QUICK]) == 0
    return log, run

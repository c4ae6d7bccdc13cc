"""`torchrun -m fastgaum train`: a run written by the first process; a killed worker's run goes on by
itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import polars as pl

from fastgaum.game.checkpoint import Checkpoint
from fastgaum.logs.parts import slices_by_user
from fastgaum.logs.store import save_parts
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.run_folder import MADE_FILES
from tests.parallel.test_processes import ROOT

SETS = ["players=adversarial", "epochs=2", "warm_start=2", "catch_up=1"]
SETS += ["id_dropout=0", "batch_sessions=64", "local_steps=4"]
OPTIONS = ["--preset", "paper-lstm", *(word for one in SETS for word in ("--set", one))]
OPTIONS += ["--device", "cpu"]


def test_a_killed_worker_s_run_on_parts_goes_on(tmp_path: Path) -> None:
    """torchrun begins anew, from the last checkpoint, and nothing half-written is left. Each
    process reads half of the parts."""
    log = tmp_path / "log"
    save_parts(slices_by_user(synthesise(44_000, preset="sample", seed=2)[0], 16), log)
    out = tmp_path / "run"
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=2"]
    command = ["fastgaum", "train", str(log), "-o", str(out), *OPTIONS]
    started = subprocess.Popen(
        [sys.executable, "-m", *launcher, "-m", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    file, until = out / "resume.safetensors", time.monotonic() + 900
    # once the run has been saved after an epoch
    while not (file.is_file() and Checkpoint.load(file).trainer):
        assert time.monotonic() < until, "no epoch was saved"
        time.sleep(0.01)
    os.kill(first_worker(started.pid), signal.SIGKILL)
    said, errors = started.communicate(timeout=1800)
    assert started.returncode == 0, errors[-3000:]
    # the first process alone says what was made
    assert len(said.splitlines()) == 1
    assert "16 parts, read one by one" in errors
    table = pl.read_parquet(out / "metrics.parquet")
    assert table["phase"][0] == "exact"
    assert table["phase"][-1] == "rounds"
    assert table["val_loss"].min() < table["val_loss"][0]
    assert {path.name for path in out.iterdir()} == set(MADE_FILES)
    cost = json.loads((out / "machine.json").read_text())["cost"]
    assert cost["processes"] == 2
    assert cost["resumed"]


def first_worker(launcher: int) -> int:
    """Process id of a launcher's worker of rank 0, which writes the run."""
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            parent = int(path.joinpath("stat").read_text().rpartition(")")[2].split()[1])
            if parent == launcher and b"\0RANK=0\0" in path.joinpath("environ").read_bytes():
                return int(path.name)
    raise AssertionError("no worker is there: it was not in training any more")

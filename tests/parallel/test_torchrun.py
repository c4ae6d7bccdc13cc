"""`torchrun -m fastgaum train`: the run of one process, written by the first; a killed worker's run
goes on by itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from fastgaum.cli.app import main
from fastgaum.game.checkpoint import Checkpoint
from fastgaum.logs.store import save_log
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.run_folder import RUN_FILES
from tests.parallel.test_processes import ROOT, torchrun

OPTIONS = [
    "--preset",
    "paper-lstm",
    "--set",
    "players=adversarial",
    "--set",
    "item_dim=8",
    "--set",
    "epochs=4",
    "--set",
    "warm_start=3",
    "--set",
    "catch_up=1",
    "--set",
    "id_dropout=0",
    "--set",
    "batch_sessions=64",
    "--device",
    "cpu",
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log") / "log"
    return save_log(synthesise(3000, preset="sample", seed=2)[0], folder)


@pytest.fixture(scope="module")
def alone(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    out = tmp_path_factory.mktemp("runs") / "alone"
    assert main(["train", str(saved), "-o", str(out), *OPTIONS]) == 0
    return pl.read_parquet(out / "metrics.parquet")


def check_same(table: pl.DataFrame, alone: pl.DataFrame) -> None:
    assert table["phase"].to_list() == alone["phase"].to_list()
    for figure in ("val_loss", "gap"):
        assert table[figure].to_list() == pytest.approx(alone[figure].to_list(), rel=1e-3, abs=1e-6)
    assert table["val_prec1"].to_list() == pytest.approx(alone["val_prec1"].to_list(), abs=1.0)


def test_two_processes_leave_the_run_of_one(
    saved: Path, alone: pl.DataFrame, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = torchrun(2, "-m", "fastgaum", "train", str(saved), "-o", str(out), *OPTIONS)
    assert done.returncode == 0, done.stderr[-3000:]
    check_same(pl.read_parquet(out / "metrics.parquet"), alone)
    assert {path.name for path in out.iterdir()} == set(RUN_FILES)
    told = done.stdout.splitlines()
    assert len(told) == 2
    assert told[1].startswith("2 processes, ")
    cost = json.loads((out / "machine.json").read_text())["cost"]
    assert cost["processes"] == 2
    assert 1_000 < cost["sent_bytes_per_step"] < 1_000_000
    again = torchrun(2, "-m", "fastgaum", "train", str(saved), "-o", str(out), "--resume")
    assert again.returncode == 0, again.stderr[-3000:]
    assert "finished before" in again.stdout


def test_a_mistake_is_told_and_nothing_is_written(saved: Path, tmp_path: Path) -> None:
    (saved.parent / "broken").mkdir()
    for path in saved.iterdir():
        (saved.parent / "broken" / path.name).write_bytes(path.read_bytes()[:-1])
    out = tmp_path / "run"
    done = torchrun(
        2, "-m", "fastgaum", "train", str(saved.parent / "broken"), "-o", str(out), *OPTIONS
    )
    assert done.returncode != 0
    assert "fastgaum: error: " in done.stderr
    assert "log.json" in done.stderr
    assert "a bug" not in done.stderr
    assert not out.exists()


def test_a_killed_worker_s_run_goes_on(saved: Path, alone: pl.DataFrame, tmp_path: Path) -> None:
    """Whichever worker it is: torchrun begins anew, from the last checkpoint, and nothing
    half-written is left."""
    for victim in (0, 1):
        out = tmp_path / f"run {victim}"
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node=2",
            "--max-restarts=2",
            "-m",
            "fastgaum",
            "train",
            str(saved),
            "-o",
            str(out),
            *OPTIONS,
        ]
        launcher = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
        kept = killed_after_an_epoch(launcher.pid, out, victim)
        _, errors = launcher.communicate(timeout=200)
        assert launcher.returncode == 0, errors[-3000:]
        assert kept >= 1, "it was not in training any more"
        check_same(pl.read_parquet(out / "metrics.parquet"), alone)
        assert {path.name for path in out.iterdir()} == set(RUN_FILES)
        assert json.loads((out / "machine.json").read_text())["cost"]["resumed"]


def killed_after_an_epoch(launcher: int, out: Path, victim: int) -> int:
    """Kill a worker once the run has been saved after an epoch; returns how many epochs the file
    then had."""
    file, until = out / "resume.safetensors", time.monotonic() + 120
    while time.monotonic() < until:
        if file.is_file():
            rows = Checkpoint.load(file).rows
            if rows:
                os.kill(workers(launcher)[victim], signal.SIGKILL)
                return len(rows)
        time.sleep(0.01)
    raise AssertionError("no epoch was saved")


def workers(launcher: int) -> list[int]:
    """Process ids of a launcher's workers, by rank."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(path.joinpath("stat").read_text().rpartition(")")[2].split()[1])
            variables = path.joinpath("environ").read_bytes().split(b"\0")
        except (OSError, ValueError):
            continue
        if parent == launcher:
            found |= {int(one[5:]): int(path.name) for one in variables if one.startswith(b"RANK=")}
    return [found[rank] for rank in sorted(found)]

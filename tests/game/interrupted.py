"""Runs that are stopped at a chosen batch, and what two runs must have in common to be the same."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastgaum.checkpoint import load_state, split_state
from fastgaum.config import Config
from fastgaum.game import checkpoint
from fastgaum.game.epochs import EpochRow, Observer
from fastgaum.interrupts import Interrupted, Stop
from fastgaum.logs.log import SessionLog
from fastgaum.models.run_folder import resume_run, train_run
from fastgaum.models.user_model import UserModel
from fastgaum.processes import Processes

SMALL: dict[str, Any] = {
    "epochs": 3,
    "warm_start": 2,
    "catch_up": 2,
    "batch_sessions": 8,
    "seed": 3,
}
PRESETS: dict[str, dict[str, Any]] = {
    "fastgaum": {"hidden": [16]},
    "fastgaum-exact": {"hidden": [16]},
    "paper-lstm": {},
    "paper-pw": {},
    "report": {"history_dim": 8, "history_layers": 2, "hidden": [8, 8]},
}
"""every preset at a small size"""


class StopAt(Observer):
    """Sends the signal during the batch of that number, counted over the whole run."""

    def __init__(self, stop: Stop, batch: int) -> None:
        self.stop, self.left = stop, batch

    def on_batch_end(self, done: int, total: int) -> None:
        self.left -= 1
        if self.left == 0:
            self.stop.handle(signal.SIGTERM, None)


class Count(Observer):
    """Counts the batches."""

    def __init__(self) -> None:
        self.batches = 0
        self.resumed: list[int] = []

    def on_fit_begin(self, config: Config, rows: Sequence[EpochRow]) -> None:
        if rows:
            self.resumed.append(len(rows))

    def on_batch_end(self, done: int, total: int) -> None:
        self.batches += 1


def config_of(preset: str, **changes: Any) -> Config:
    """The preset at a small size, with changes."""
    return Config.from_preset(preset, **{**SMALL, **PRESETS[preset], **changes})


def run(config: Config, log: SessionLog, folder: Path) -> int:
    """A whole run; returns its number of batches."""
    count = Count()
    train_run(UserModel(config, device="cpu"), log, folder, observers=[count])
    return count.batches


def start_and_stop(config: Config, log: SessionLog, folder: Path, batch: int) -> None:
    """A run that a signal stops at a batch of its own, not of the search."""
    stop = Stop()
    with pytest.raises(Interrupted):
        train_run(
            UserModel(config, device="cpu"),
            log,
            folder,
            observers=[StopAt(stop, batch)],
            processes=Processes(stop=stop),
        )


def resume(config: Config, log: SessionLog, folder: Path) -> Count:
    """Go on to the end."""
    count = Count()
    resume_run(UserModel(config, device="cpu"), log, folder, observers=[count])
    return count


def essence(folder: Path) -> dict[str, Any]:
    """Everything in a run folder that is not a speed: files as bytes or values, the resume file's
    tensors as bytes."""
    state = load_state(folder / "resume.safetensors", checkpoint.FORMAT, "")
    for row in state["trainer"]["rows"]:
        row.pop("events_per_second")
    for trial in state["tried"]:
        trial.pop("seconds")
    facts, arrays = split_state(state)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "files": sorted(path.name for path in folder.iterdir()),
        "model": (folder / "model.safetensors").read_bytes(),
        "config": (folder / "config.toml").read_bytes(),
        "rows": [{**line, "events_per_second": 0} for line in lines],
        "facts": repr(facts),
        "tensors": {name: array.tobytes() for name, array in arrays.items()},
    }


def check_same(first: Path, second: Path) -> None:
    """Both runs are the same to the last bit."""
    one, two = essence(first), essence(second)
    assert {
        name for name in one["tensors"] if one["tensors"][name] != two["tensors"].get(name)
    } == set()
    differ = {part: (one[part], two[part]) for part in one if one[part] != two[part]}
    assert differ == {}


def save_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a save takes."""
    monkeypatch.setattr(checkpoint, "SHARE", 1e9)


def check_interrupted_anywhere(config: Config, log: SessionLog, tmp_path: Path, times: int) -> None:
    """Stopped at random batches, again and again in one run, it ends as the run that was never
    stopped."""
    n_batches = run(config, log, tmp_path / "whole")
    rng = np.random.default_rng(n_batches)
    for i in range(times):
        start_and_stop(config, log, tmp_path / f"{i}", int(rng.integers(1, n_batches + 1)))
        resume(config, log, tmp_path / f"{i}")
        check_same(tmp_path / "whole", tmp_path / f"{i}")

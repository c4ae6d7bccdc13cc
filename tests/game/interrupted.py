"""Runs that are stopped at a chosen batch, and what two runs must have in common to be the same."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastgaum.config import Config
from fastgaum.game.observers import EpochRow, Observer
from fastgaum.interrupts import Interrupted
from fastgaum.logs.log import SessionLog
from fastgaum.models.run_folder import train_run
from fastgaum.models.user_model import UserModel

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
}
"""every preset at a small size"""


class StopAt(Observer):
    """Counts the batches, and the epochs that a former process did; a signal comes in the batch of
    a number, counted over the whole run."""

    def __init__(self, batch: int = 0) -> None:
        self.stop_at, self.batches = batch, 0
        self.resumed: list[int] = []

    def on_fit_begin(self, config: Config, rows: Sequence[EpochRow]) -> None:
        if rows:
            self.resumed.append(len(rows))

    def on_batch_end(self, done: int, total: int) -> None:
        self.batches += 1
        if self.batches == self.stop_at:
            raise Interrupted(signal.SIGTERM)


def config_of(preset: str, **changes: Any) -> Config:
    """The preset at a small size, with changes."""
    return Config.from_preset(preset, **{**SMALL, **PRESETS[preset], **changes})


def run(config: Config, log: SessionLog, folder: Path, **options: Any) -> int:
    """A whole run; returns its number of batches."""
    count = StopAt()
    train_run(UserModel(config, device="cpu"), log, folder, observers=[count], **options)
    return count.batches


def start_and_stop(
    config: Config, log: SessionLog, folder: Path, batch: int, **options: Any
) -> str:
    """A run that a signal stops at a batch of its own, not of the search; says what is kept."""
    stop = StopAt(batch)
    with pytest.raises(Interrupted) as caught:
        train_run(UserModel(config, device="cpu"), log, folder, observers=[stop], **options)
    return caught.value.cure


def resume(config: Config, log: SessionLog, folder: Path) -> StopAt:
    """Go on to the end."""
    count = StopAt()
    train_run(UserModel(config, device="cpu"), log, folder, resume=True, observers=[count])
    return count


def essence(folder: Path) -> dict[str, Any]:
    """Everything in a run folder that is not a speed: files as bytes or values."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "files": sorted(path.name for path in folder.iterdir()),
        "model": (folder / "model.safetensors").read_bytes(),
        "config": (folder / "config.toml").read_bytes(),
        "rows": [{**line, "events_per_second": 0} for line in lines],
    }


def check_same(first: Path, second: Path) -> None:
    """Both runs are the same to the last bit."""
    one, two = essence(first), essence(second)
    differ = {part: (one[part], two[part]) for part in one if one[part] != two[part]}
    assert differ == {}


def check_interrupted_anywhere(config: Config, log: SessionLog, tmp_path: Path, times: int) -> None:
    """Stopped at random batches, it ends as the run that was never stopped."""
    n_batches = run(config, log, tmp_path / "whole")
    rng = np.random.default_rng(n_batches)
    for i in range(times):
        start_and_stop(config, log, tmp_path / f"{i}", int(rng.integers(1, n_batches + 1)))
        resume(config, log, tmp_path / f"{i}")
        check_same(tmp_path / "whole", tmp_path / f"{i}")

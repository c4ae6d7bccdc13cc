"""Run folders: config.toml, machine.json, metrics.jsonl → metrics.parquet, model.safetensors; each file written atomically."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl
import tomli_w
import torch

from fastgaum.errors import NumericsError, OutputError
from fastgaum.files import atomic, require_writable
from fastgaum.models.user_model import UserModel
from fastgaum.sessions.packed import SessionLog
from fastgaum.training.observers import EpochRow, Observer, Silent

RUN_FILES = ("config.toml", "machine.json", "reading.json", "metrics.jsonl", "metrics.parquet", "model.safetensors")


def train_run(
    model: UserModel,
    log: SessionLog,
    folder: Path,
    *,
    overwrite: bool = False,
    observer: Observer | None = None,
    reading: Mapping[str, Any] | None = None,
) -> pl.DataFrame:
    """Fit a model on a log and leave a run folder; returns the training table.

    The folder gets its first file when the first epoch is done, so that a run refused for its input leaves nothing.
    After a NumericsError it holds the last good state. `reading` holds the options that the log was read with: the
    command line reads them back to evaluate the run.

    Raises:
        OutputError: the folder holds a run already, or cannot be written.
        NumericsError: training diverged.
    """
    check_run_folder(folder, overwrite)
    writer = _RunWriter(model, log, folder, observer or Silent(), reading or {})
    try:
        table = model.fit(log, writer)
    except NumericsError:
        if writer.rows:
            writer.write_model()
        raise
    writer.write_model()
    with atomic(folder / "metrics.parquet") as beside:
        table.write_parquet(beside)
    return table


def check_run_folder(folder: Path, overwrite: bool) -> None:
    """Raise OutputError unless a run may be written at `folder`."""
    require_writable(folder)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"'{folder}' is a file: a run needs a folder")
    if any((folder / name).exists() for name in RUN_FILES) and not overwrite:
        raise OutputError(f"'{folder}' holds a run already: choose another folder or pass --overwrite")
    foreign = [p.name for p in folder.iterdir() if p.name not in RUN_FILES] if folder.is_dir() else []
    if foreign:
        raise OutputError(
            f"'{folder}' holds other files ({', '.join(sorted(foreign)[:3])} …): a run needs a folder of its own"
        )


def machine_facts(seed: int | None = None) -> dict[str, Any]:
    """Versions, threads, processor and commit: what one needs to repeat a figure."""
    packages = ("fastgaum", "torch", "numba", "numpy", "scipy", "polars")
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": {name: _version(name) for name in packages},
        "commit": _commit(),
        "seed": seed,
    }


class _RunWriter:
    """Writes each epoch's row as it comes, and the model at every new best."""

    def __init__(
        self, model: UserModel, log: SessionLog, folder: Path, inner: Observer, reading: Mapping[str, Any]
    ) -> None:
        self.model, self.log, self.folder, self.inner, self.reading = model, log, folder, inner, reading
        self.rows: list[EpochRow] = []

    def on_batch(self, done: int, total: int) -> None:
        self.inner.on_batch(done, total)

    def on_epoch(self, row: EpochRow) -> None:
        if not self.rows:
            self._write_head()
        self.rows.append(row)
        lines = "".join(json.dumps(_finite(one.to_dict())) + "\n" for one in self.rows)
        with atomic(self.folder / "metrics.jsonl") as beside:
            beside.write_text(lines)
        if row.best:
            self.write_model()
        self.inner.on_epoch(row)

    def write_model(self) -> None:
        self.model.save(self.folder / "model.safetensors")

    def _write_head(self) -> None:
        facts = machine_facts(self.model.config.seed) | {
            "log": {"name": self.log.name, "fingerprint": self.log.fingerprint, "events": self.log.n_events}
        }
        with atomic(self.folder / "config.toml") as beside:
            beside.write_text(tomli_w.dumps(self.model.config.to_mapping()))
        with atomic(self.folder / "machine.json") as beside:
            beside.write_text(json.dumps(facts, indent=2) + "\n")
        with atomic(self.folder / "reading.json") as beside:
            beside.write_text(json.dumps(dict(self.reading), indent=2) + "\n")


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: null stands for a figure that a phase does not have."""
    return {key: None if isinstance(value, float) and value != value else value for key, value in row.items()}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def _commit() -> str | None:
    """The checkout's commit when the package runs from one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None

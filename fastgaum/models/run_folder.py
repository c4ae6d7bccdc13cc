"""Run folders: config.toml, machine.json, metrics.jsonl → metrics.parquet, model.safetensors, and
resume.safetensors.

Each file is written atomically. resume.safetensors is written first and is the run's truth: where a
crash has left another file ahead of it, `resume_run` writes that file again."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl
import tomli_w
import torch

from fastgaum.errors import CheckpointError, LogFormatError, NumericsError, OutputError
from fastgaum.features.streamed_sessions import ShardIterator
from fastgaum.files import atomic, require_writable
from fastgaum.game.checkpoint import Keeper, Kept, read_kept
from fastgaum.game.observers import EpochRow, Observer, Silent
from fastgaum.game.snapshot import Snapshot
from fastgaum.interrupts import Stop
from fastgaum.locks import LOCK_FILE, folder_lock, require_free
from fastgaum.logs.shards import AnyLog
from fastgaum.logs.tables import READ_ERRORS
from fastgaum.models.user_model import UserModel
from fastgaum.parallel.ranks import Ranks

RESUME_FILE = "resume.safetensors"
MADE_FILES = (
    "config.toml",
    "machine.json",
    "reading.json",
    "metrics.jsonl",
    "metrics.parquet",
    "model.safetensors",
)
"""what can be made from the resume file"""
RUN_FILES = (*MADE_FILES, RESUME_FILE)
FINISHED = "finished"
"""what the first of several processes says in the place of its log's fingerprint where its run has
nothing left to do"""
_PART = re.compile(r"\.(.+)\.[0-9a-f]{8}\.part")
"""what `atomic` leaves of a file when its process is killed"""


def train_run(
    model: UserModel,
    log: AnyLog,
    folder: Path,
    *,
    overwrite: bool = False,
    observer: Observer | None = None,
    reading: Mapping[str, Any] | None = None,
    stop: Stop | None = None,
    source: str | None = None,
    ranks: Ranks | None = None,
    shards: ShardIterator | None = None,
) -> pl.DataFrame:
    """Fit a model on a log and leave a run folder; returns the training table.

    The folder gets its first file when the first batch is about to be trained, so that a run
    refused for its input leaves nothing. After a NumericsError it holds the last good state.
    `reading` holds the options that the log was read with: the command line reads them back to
    evaluate the run. Ctrl-C raises KeyboardInterrupt and leaves what was last saved; a signal that
    `stop` has noted ends the run after its batch, saved to the last bit. `source` is where the log
    was found, a registry name or a path: a report looks for it there. Of several processes
    (`ranks`) the first calls this, the others `follow_run`. `shards` is as in `UserModel.fit`.

    Raises:
        OutputError: the folder holds a run already, is another process's, or cannot be written.
        NumericsError: training diverged.
        Interrupted: `stop` has noted a signal.
    """
    check_run_folder(folder, overwrite)
    with folder_lock(folder):
        _check_contents(folder, overwrite)
        kept = Kept(model.asked, dict(reading or {}), log.fingerprint)
        return _run(model, log, folder, kept, observer, stop, source, ranks or Ranks(), shards)


def resume_run(
    model: UserModel,
    log: AnyLog,
    folder: Path,
    *,
    observer: Observer | None = None,
    stop: Stop | None = None,
    source: str | None = None,
    ranks: Ranks | None = None,
    shards: ShardIterator | None = None,
) -> pl.DataFrame:
    """Go on with the run in a folder to the bytes that it would have had uninterrupted; returns the
    training table.

    `model` has the configuration that the run was asked for (`kept_run` gives it), or the same with
    more epochs. A run with nothing left to do is left as it is.

    Raises:
        CheckpointError: there is no run to go on with, its file is damaged, or the log or
            configuration is another one.
        OutputError, NumericsError, Interrupted: as `train_run`.
    """
    with folder_lock(folder):
        kept = read_kept(folder / RESUME_FILE)
        if log.fingerprint != kept.fingerprint:
            raise CheckpointError(
                f"'{folder}' was trained on a log with the fingerprint {kept.fingerprint[:12]}, "
                f"'{log.name}' has"
                f" {log.fingerprint[:12]}: give the same log, read and split in the same way"
            )
        if not kept.config.is_continued_by(model.asked):
            raise CheckpointError(
                f"the run in '{folder}' has another configuration: only its epochs may be raised"
            )
        kept = dataclasses.replace(kept, config=model.asked)
        table = finished_table(folder, kept)
        if table is not None:
            if ranks is not None:
                ranks.gather_json(FINISHED)
            return table
        return _run(model, log, folder, kept, observer, stop, source, ranks or Ranks(), shards)


def follow_run(
    model: UserModel,
    log: AnyLog,
    ranks: Ranks,
    stop: Stop | None = None,
    shards: ShardIterator | None = None,
) -> None:
    """Take part in a run that the first of several processes trains, or goes on with, and writes.

    Raises:
        LogFormatError, NumericsError, Interrupted, LostPeerError: as in the first process.
    """
    kept = _agreed(ranks, log, Kept(model.asked, {}, log.fingerprint))
    if kept is not None:
        keeper = Keeper(None, kept, stop)
        del kept
        model.fit(log, keeper=keeper, ranks=ranks, shards=shards)


def _agreed(ranks: Ranks, log: AnyLog, kept: Kept) -> Kept | None:
    """What the first process has kept, in all of them; None where it has nothing to do.

    Raises:
        LogFormatError: they have read different logs.
    """
    found = ranks.gather_json(log.fingerprint)
    if found[0] == FINISHED:
        return None
    if len(set(found)) > 1:
        raise LogFormatError(
            "the processes have read different logs (fingerprints "
            f"{', '.join(one[:12] for one in found)}): give each the"
            " same files"
        )
    snapshot = kept.snapshot
    facts = ranks.json_of_first([kept.tried, None if snapshot is None else snapshot.facts])
    tensors = ranks.tensors_of_first(None if snapshot is None else snapshot.tensors)
    tried, trainer = facts
    return dataclasses.replace(
        kept, tried=tried, snapshot=None if trainer is None else Snapshot(trainer, tensors)
    )


def kept_run(folder: Path) -> Kept | None:
    """What the run in a folder was asked for, and how far it is; None where no run has begun.

    Raises:
        CheckpointError: the folder holds a run that cannot go on.
    """
    if not any((folder / name).exists() for name in RUN_FILES):
        return None
    if not (folder / RESUME_FILE).is_file():
        raise CheckpointError(
            f"'{folder}' has no {RESUME_FILE}, its run cannot go on: train again with --overwrite"
        )
    return read_kept(folder / RESUME_FILE)


def finished_table(folder: Path, kept: Kept) -> pl.DataFrame | None:
    """The training table of a run that has nothing left to do; None for any other."""
    if (
        not kept.is_finished
        or kept.snapshot is None
        or not all((folder / name).is_file() for name in RUN_FILES)
    ):
        return None
    try:
        table = pl.read_parquet(folder / "metrics.parquet")
    except READ_ERRORS:
        return None
    return table if table.height == len(kept.snapshot.rows) else None


def check_run_folder(folder: Path, overwrite: bool) -> None:
    """Raise OutputError unless a run may be written at `folder`, which no other process may
    hold."""
    require_writable(folder)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"'{folder}' is a file: a run needs a folder")
    require_free(folder)
    _check_contents(folder, overwrite)


def _check_contents(folder: Path, overwrite: bool) -> None:
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    if any(name in RUN_FILES for name in names) and not overwrite:
        raise OutputError(
            f"'{folder}' holds a run already: choose another folder, pass --resume to go on with "
            "it, or --overwrite"
        )
    foreign = [
        name for name in names if name not in (*RUN_FILES, LOCK_FILE) and not _is_left_over(name)
    ]
    if foreign:
        raise OutputError(
            f"'{folder}' holds other files ({', '.join(sorted(foreign)[:3])} …): a run needs a "
            "folder of its own"
        )


def _is_left_over(name: str) -> bool:
    """Whether it is what `atomic` was writing when its process was killed."""
    match = _PART.fullmatch(name)
    return match is not None and match[1] in RUN_FILES


def _run(
    model: UserModel,
    log: AnyLog,
    folder: Path,
    kept: Kept,
    observer: Observer | None,
    stop: Stop | None,
    source: str | None,
    ranks: Ranks,
    shards: ShardIterator | None,
) -> pl.DataFrame:
    """Fit from where `kept` is; the folder's lock is held."""
    for path in list(folder.iterdir()):
        if _is_left_over(path.name):
            path.unlink()
    writer = _RunWriter(model, log, folder, observer or Silent(), kept.reading, source)
    started = time.perf_counter()
    if ranks.size > 1:
        kept = _agreed(ranks, log, kept) or kept
    keeper = Keeper(folder / RESUME_FILE, kept, stop, on_begin=writer.clear)
    del kept
    try:
        table = model.fit(log, writer, keeper=keeper, ranks=ranks, shards=shards)
    except NumericsError:
        if writer.rows:
            writer.write_model()
        raise
    writer.write_model()
    seconds = time.perf_counter() - started
    cost = {"seconds": seconds, "resumed": writer.resumed, **_peak_memory()}
    if ranks.size > 1:
        cost |= {
            "processes": ranks.size,
            "sent_bytes_per_step": ranks.traffic.sent_per_step(ranks.size),
        }
    writer.write_machine({"cost": cost})
    with atomic(folder / "metrics.parquet") as beside:
        table.write_parquet(beside)
    return table


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
        self,
        model: UserModel,
        log: AnyLog,
        folder: Path,
        inner: Observer,
        reading: Mapping[str, Any],
        source: str | None,
    ) -> None:
        self.model, self.log, self.folder, self.inner = model, log, folder, inner
        self.reading, self.source, self.resumed = reading, source, False
        self.rows: list[EpochRow] = []

    def on_batch(self, done: int, total: int) -> None:
        self.inner.on_batch(done, total)

    def on_resume(self, rows: Sequence[EpochRow]) -> None:
        """Make the other files say what the resume file says: a crash may have left them ahead of
        it."""
        self.rows, self.resumed = list(rows), True
        if self.rows:
            self._write_head()
            self.write_model()
            self._write_metrics()
            (self.folder / "metrics.parquet").unlink(missing_ok=True)
        else:
            self.clear()
        self.inner.on_resume(rows)

    def on_epoch(self, row: EpochRow) -> None:
        if not self.rows:
            self._write_head()
        self.rows.append(row)
        # the model first: no reader of the metrics misses the best epoch's model
        if row.best:
            self.write_model()
        self._write_metrics()
        self.inner.on_epoch(row)

    def clear(self) -> None:
        """Remove what no epoch of this run has made: a former run's files."""
        for name in MADE_FILES:
            (self.folder / name).unlink(missing_ok=True)

    def write_model(self) -> None:
        self.model.save(self.folder / "model.safetensors")

    def _write_metrics(self) -> None:
        lines = "".join(json.dumps(_finite(one.to_dict())) + "\n" for one in self.rows)
        with atomic(self.folder / "metrics.jsonl") as beside:
            beside.write_text(lines)

    def write_machine(self, more: Mapping[str, Any]) -> None:
        about = {
            "name": self.log.name,
            "fingerprint": self.log.fingerprint,
            "events": self.log.n_events,
        }
        facts = machine_facts(self.model.config.seed) | {
            "log": about | {"source": self.source},
            **more,
        }
        with atomic(self.folder / "machine.json") as beside:
            beside.write_text(json.dumps(facts, indent=2) + "\n")

    def _write_head(self) -> None:
        with atomic(self.folder / "config.toml") as beside:
            beside.write_text(tomli_w.dumps(self.model.config.to_mapping()))
        self.write_machine({})
        with atomic(self.folder / "reading.json") as beside:
            beside.write_text(json.dumps(dict(self.reading), indent=2) + "\n")


def _peak_memory() -> dict[str, int | None]:
    """Most memory that the process has held so far, torch and the log included, and most on the
    card, in bytes."""
    host = None
    try:
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                host = int(line.split()[1]) * 1024
    except OSError:
        pass  # only Linux says it there
    card = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    return {"peak_memory_bytes": host, "peak_card_memory_bytes": card}


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: null stands for a figure that a phase does not have."""
    return {
        key: None if isinstance(value, float) and value != value else value
        for key, value in row.items()
    }


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
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None

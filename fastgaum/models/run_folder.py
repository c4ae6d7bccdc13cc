"""Run folders: config.toml, machine.json, metrics.jsonl → metrics.parquet, model.safetensors, and
resume.safetensors.

Each file is written atomically. resume.safetensors is written first and is the run's truth: where a
crash has left another file ahead of it, `resume_run` writes that file again."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import tomli_w

from fastgaum.config import Config
from fastgaum.errors import CheckpointError, LogFormatError, NumericsError, OutputError
from fastgaum.files import atomic, require_writable
from fastgaum.game.checkpoint import Checkpoint, Checkpointer, first_checkpoint, trials_as_facts
from fastgaum.game.epochs import EpochRow, Observer
from fastgaum.locks import LOCK_FILE, folder_lock, require_free
from fastgaum.logs.log import SessionLog
from fastgaum.machine import machine_facts, peak_memory
from fastgaum.models.choice_model import ChoiceModel
from fastgaum.models.start import set_start
from fastgaum.models.user_model import UserModel
from fastgaum.processes import Processes
from fastgaum.untrusted_parquet import read_small_parquet

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
"""what the first of several processes gives instead of its log's fingerprint where its run has
nothing left to do"""
_PART = re.compile(r"\.(.+)\.[0-9a-f]{8}\.part")
"""what `atomic` leaves of a file when its process is killed"""


@dataclass(frozen=True)
class LogOrigin:
    """Where a run's log came from."""

    source: str | None = None
    """a registry name or a path: a report looks for the log there"""
    reading: Mapping[str, object] = field(default_factory=dict)
    """the options that it was read with: the command line reads them back to evaluate the run"""


def train_run(
    model: UserModel,
    log: SessionLog,
    folder: Path,
    *,
    overwrite: bool = False,
    observers: Sequence[Observer] = (),
    origin: LogOrigin | None = None,
    processes: Processes | None = None,
) -> pl.DataFrame:
    """Fit a model on a log and leave a run folder; returns the training table.

    The folder gets its first file when the first batch is about to be trained, so that a run
    refused for its input leaves nothing. After a NumericsError it holds the last good state. Ctrl-C
    raises KeyboardInterrupt and leaves what was last saved; a signal that `processes.stop` has
    noted ends the run after its batch, saved to the last bit.

    Args:
        model: a model that is not fitted.
        log: its training and validation splits are used.
        folder: the run folder.
        overwrite: whether a run that is there is replaced.
        observers: see each epoch and each batch, after the folder's files are written.
        origin: where the log came from.
        processes: those that train together: the first calls this, the others `follow_run`.

    Raises:
        OutputError: the folder holds a run already, is another process's, or cannot be written.
        NumericsError: training diverged.
        Interrupted: a signal was noted.
    """
    check_run_folder(folder, overwrite)
    origin = origin or LogOrigin()
    with folder_lock(folder):
        _check_contents(folder, overwrite)
        reading, n_settings = dict(origin.reading), model.n_compared(log)
        checkpoint = Checkpoint(model.asked, reading, log.fingerprint, n_settings=n_settings)
        if model.start is not None:
            checkpoint = dataclasses.replace(checkpoint, start=model.start.state())
        return _run(model, log, folder, checkpoint, observers, origin.source, processes)


def fit_run(
    model: ChoiceModel,
    name: str,
    log: SessionLog,
    folder: Path,
    *,
    overwrite: bool = False,
    progress: object = None,
    origin: LogOrigin | None = None,
) -> pl.DataFrame:
    """Fit any model in one go and leave a run folder, without a file to resume from; returns the
    table of the fit. Nothing is written before the model is fitted.

    Args:
        model: a model that is not fitted.
        name: its name, which config.toml keeps as the preset.
        log: as in `train_run`, in memory; so are `folder`, `overwrite` and `origin`.
        progress: what the model's `fit` takes.

    Raises:
        OutputError: as `train_run`. ConfigError, LogFormatError, NumericsError: as its `fit`.
    """
    check_run_folder(folder, overwrite)
    origin, started = origin or LogOrigin(), time.perf_counter()
    with folder_lock(folder):
        _check_contents(folder, overwrite)
        table = model.fit(log, progress)
        for file in RUN_FILES:
            (folder / file).unlink(missing_ok=True)
        settings = {"preset": name} | model.settings.to_mapping()
        _write_head(folder, settings, origin)
        model.save(folder / "model.safetensors")
        cost = {"seconds": time.perf_counter() - started, "resumed": False, **peak_memory()}
        _write_machine(folder, model.settings.seed, log, origin, {"cost": cost})
        with atomic(folder / "metrics.parquet") as beside:
            table.write_parquet(beside)
    return table


def resume_run(
    model: UserModel,
    log: SessionLog,
    folder: Path,
    *,
    observers: Sequence[Observer] = (),
    source: str | None = None,
    processes: Processes | None = None,
) -> pl.DataFrame:
    """Go on with the run in a folder to the bytes that it would have had uninterrupted; returns the
    training table. A run with nothing left to do is left as it is.

    Args:
        model: one with the configuration that the run was asked for (`run_checkpoint` gives it), or
            the same with more epochs.
        log: the run's.
        folder: the run folder.
        observers: as in `train_run`.
        source: where the log was found.
        processes: as in `train_run`.

    Raises:
        CheckpointError: there is no run to go on with, its file is damaged, or the log or
            configuration is another one.
        OutputError, NumericsError, Interrupted: as `train_run`.
    """
    with folder_lock(folder):
        checkpoint = Checkpoint.load(folder / RESUME_FILE)
        if log.fingerprint != checkpoint.fingerprint:
            raise CheckpointError(
                f"'{folder}' was trained on a log with the fingerprint "
                f"{checkpoint.fingerprint[:12]}, '{log.name}' has {log.fingerprint[:12]}: give the "
                "same log, read and split in the same way"
            )
        if not checkpoint.config.is_continued_by(model.asked):
            raise CheckpointError(
                f"the run in '{folder}' has another configuration: only its epochs may be raised"
            )
        checkpoint = dataclasses.replace(checkpoint, config=model.asked)
        table = finished_table(folder, checkpoint)
        if table is not None:
            if processes is not None:
                processes.agree(FINISHED)
            return table
        return _run(model, log, folder, checkpoint, observers, source, processes)


def follow_run(model: UserModel, log: SessionLog, processes: Processes) -> None:
    """Take part in a run that the first of several processes trains, or goes on with, and writes.

    Raises:
        LogFormatError, NumericsError, Interrupted, LostPeerError: as in the first process.
    """
    checkpoint = _of_first(processes, log, Checkpoint(model.asked, {}, log.fingerprint))
    if checkpoint is not None:
        checkpointer = Checkpointer(None, checkpoint)
        set_start(model, checkpoint.start, None)
        del checkpoint
        model.fit(log, checkpointer=checkpointer, processes=processes)


def _of_first(processes: Processes, log: SessionLog, checkpoint: Checkpoint) -> Checkpoint | None:
    """The first process's checkpoint, in all of them; None where it has nothing to do.

    Raises:
        LogFormatError: they have read different logs.
    """
    found = processes.agree(log.fingerprint)
    if found[0] == FINISHED:
        return None
    if len(set(found)) > 1:
        raise LogFormatError(
            "the processes have read different logs (fingerprints "
            f"{', '.join(one[:12] for one in found)}): give each the same files"
        )
    return first_checkpoint(processes, checkpoint)


def run_checkpoint(folder: Path) -> Checkpoint | None:
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
    return Checkpoint.load(folder / RESUME_FILE)


def finished_table(folder: Path, checkpoint: Checkpoint) -> pl.DataFrame | None:
    """The training table of a run that has nothing left to do; None for any other."""
    if not checkpoint.is_finished or not all((folder / name).is_file() for name in RUN_FILES):
        return None
    try:
        table = read_small_parquet(folder / "metrics.parquet")
    except LogFormatError:
        return None
    return table if table.height == len(checkpoint.rows) else None


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
    log: SessionLog,
    folder: Path,
    checkpoint: Checkpoint,
    observers: Sequence[Observer],
    source: str | None,
    processes: Processes | None,
) -> pl.DataFrame:
    """Fit from where the checkpoint is; the folder's lock is held."""
    for path in list(folder.iterdir()):
        if _is_left_over(path.name):
            path.unlink()
    processes = processes or Processes()
    origin = LogOrigin(source, checkpoint.reading)
    writer = _RunWriter(model, log, folder, origin)
    started = time.perf_counter()
    checkpoint = _of_first(processes, log, checkpoint) or checkpoint
    checkpointer = Checkpointer(folder / RESUME_FILE, checkpoint, on_begin=writer.clear)
    resumed = checkpoint.trainer is not None
    set_start(model, checkpoint.start, folder / RESUME_FILE)
    del checkpoint
    table = model.fit(log, [writer, *observers], checkpointer=checkpointer, processes=processes)
    seconds = time.perf_counter() - started
    cost = {"seconds": seconds, "resumed": resumed, **peak_memory()}
    if processes.size > 1:
        cost |= {
            "processes": processes.size,
            "sent_bytes_per_step": processes.traffic.sent_per_step(processes.size),
        }
    writer.write_machine({"cost": cost, "compared": trials_as_facts(model.trials)})
    with atomic(folder / "metrics.parquet") as beside:
        table.write_parquet(beside)
    return table


class _RunWriter(Observer):
    """Writes each epoch's row as it comes, and the model at every new best."""

    may_fail = False

    def __init__(self, model: UserModel, log: SessionLog, folder: Path, origin: LogOrigin) -> None:
        self.model, self.log, self.folder, self.origin = model, log, folder, origin
        self.rows: list[EpochRow] = []

    def on_fit_begin(self, config: Config, rows: Sequence[EpochRow]) -> None:
        """Make the other files say what the resume file says: a crash may have left them ahead of
        it."""
        self.rows = list(rows)
        if self.rows:
            self._write_head()
            self.write_model()
            self._write_metrics()
            (self.folder / "metrics.parquet").unlink(missing_ok=True)
        else:
            self.clear()

    def on_epoch_end(self, row: EpochRow) -> None:
        if not self.rows:
            self._write_head()
        self.rows.append(row)
        # the model first: no reader of the metrics misses the best epoch's model
        if row.best:
            self.write_model()
        self._write_metrics()

    def on_fit_end(self, rows: Sequence[EpochRow], error: BaseException | None) -> None:
        """The best weights; after losses that are not finite the last good ones."""
        if error is None or (self.rows and isinstance(error, NumericsError)):
            self.write_model()

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

    def write_machine(self, more: Mapping[str, object]) -> None:
        _write_machine(self.folder, self.model.config.seed, self.log, self.origin, more)

    def _write_head(self) -> None:
        _write_head(self.folder, self.model.config.to_mapping(), self.origin)
        self.write_machine({})


def _write_machine(
    folder: Path, seed: int, log: SessionLog, origin: LogOrigin, more: Mapping[str, object]
) -> None:
    about = {"name": log.name, "fingerprint": log.fingerprint, "events": log.n_events}
    facts = machine_facts(seed) | {"log": about | {"source": origin.source}, **more}
    with atomic(folder / "machine.json") as beside:
        beside.write_text(json.dumps(facts, indent=2) + "\n")


def _write_head(folder: Path, settings: Mapping[str, object], origin: LogOrigin) -> None:
    # TOML has no null: a setting that is left open is not written
    kept = {key: value for key, value in settings.items() if value is not None}
    with atomic(folder / "config.toml") as beside:
        beside.write_text(tomli_w.dumps(kept))
    with atomic(folder / "reading.json") as beside:
        beside.write_text(json.dumps(dict(origin.reading), indent=2) + "\n")


def _finite(row: dict[str, object]) -> dict[str, object]:
    """JSON has no NaN: a figure that a phase does not have is null."""
    return {
        key: None if isinstance(value, float) and value != value else value
        for key, value in row.items()
    }

"""Run folders: config.toml, machine.json, reading.json, metrics.jsonl → metrics.parquet,
model.safetensors, resume.safetensors until the run has ended, and then README.md, the model card.

Each file is written atomically. resume.safetensors is written first: where a crash has left another
file ahead of it, the run that goes on writes that file again. It is removed last."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import tomli_w

from fastgaum.config import Config
from fastgaum.errors import CheckpointError, LogFormatError, NumericsError, OutputError
from fastgaum.files import atomic, require_writable
from fastgaum.game.checkpoint import Checkpoint, Checkpointer, StartOfRun, trials_as_facts
from fastgaum.game.observers import EpochRow, Observer
from fastgaum.game.processes import Processes
from fastgaum.interrupts import Interrupted
from fastgaum.locks import LOCK_FILE, folder_lock, require_free
from fastgaum.logs.log import SessionLog
from fastgaum.logs.options import OF_LOG
from fastgaum.logs.store import StoredLog
from fastgaum.machine import machine_facts, peak_memory
from fastgaum.metrics.evaluation import HeadFigures
from fastgaum.models.choice_model import ChoiceModel
from fastgaum.models.user_model import UserModel
from fastgaum.row_files import read_small_parquet
from fastgaum.state_file import damage_named
from fastgaum.untrusted import escaped, parse_json, read_text

RESUME_FILE = "resume.safetensors"
CARD_FILE = "README.md"
MADE_FILES = (
    CARD_FILE,
    "config.toml",
    "machine.json",
    "reading.json",
    "metrics.jsonl",
    "metrics.parquet",
    "model.safetensors",
)
"""made from the resume file"""
RUN_FILES = (*MADE_FILES, RESUME_FILE)
_PART = re.compile(r"\.(.+)\.[0-9a-f]{8}\.part")
"""what `atomic` leaves of a file when its process is killed"""
_TMP = re.compile(r"\.tmp[A-Za-z0-9]{6}")
"""what safetensors leaves, which writes beside the file too"""


@dataclass(frozen=True)
class LogOrigin:
    """Where a run's log came from."""

    source: str | None = None
    """a registry name or a path"""
    reading: Mapping[str, object] = field(default_factory=dict)
    """the options that it was read with"""


def train_run(
    model: UserModel,
    log: SessionLog | StoredLog,
    folder: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    start: Path | None = None,
    observers: Sequence[Observer] = (),
    origin: LogOrigin | None = None,
    processes: Processes | None = None,
) -> pl.DataFrame:
    """Fit a model on a log and leave a run folder; returns the training table.

    A run refused for its input leaves nothing. After a NumericsError the folder holds the last good
    state, after Ctrl-C (KeyboardInterrupt) that of the last epoch saved.

    Args:
        model: not fitted.
        log: its training and validation splits are read.
        folder: of the run.
        overwrite: whether a run that is there is replaced.
        resume: go on with the run in the folder, if one has begun, from the last epoch that was
            saved, to the bytes that it would have had. The model has the configuration of
            `run_checkpoint`.
        start: folder of the run whose weights are taken over, as `start` of the model's `fit`; a
            run that goes on has its own.
        observers: see each epoch and each batch, after files are written.
        origin: of the log.
        processes: train together, each with the same model and log; the first writes.

    Raises:
        OutputError: the folder holds a run already, is another process's, or cannot be written.
        CheckpointError: the run has ended, its file is damaged, or it has another log, another
            configuration or a start that has changed since.
        NumericsError: training diverged.
        LogFormatError, LostPeerError: the processes have read different logs, or one is gone.
    """
    processes = processes or Processes()
    if not processes.is_first:
        checkpoint = _of_first(processes, log, None)
        former = _loaded(checkpoint.start)
        checkpointer = Checkpointer(None, checkpoint)
        model.fit(log, start=former, checkpointer=checkpointer, processes=processes)
        return model.history_
    check_run_folder(folder, overwrite or resume)
    origin, file = origin or LogOrigin(), folder / RESUME_FILE
    with folder_lock(folder):
        _check_contents(folder, overwrite or resume)
        found = run_checkpoint(folder) if resume else None
        start_asked = None if start is None else start_of(start)
        if found is None:
            reading = dict(origin.reading)
            found = Checkpoint(model.asked, reading, log.fingerprint, start=start_asked)
        check_same_log(folder, log, found.fingerprint)
        if model.asked != found.config:
            raise CheckpointError(f"the run in '{folder}' has another configuration")
        if start is not None and start_asked != found.start:
            raise CheckpointError(
                f"the run in '{folder}' did not begin with the weights of '{start}': leave start "
                "(--from) out, or train in another folder"
            )
        former = _loaded(found.start)
        for path in list(folder.iterdir()):
            if _is_left_over(path.name) and path.is_file():
                path.unlink()
        origin = LogOrigin(origin.source, found.reading)
        writer = _RunWriter(model, model.config.preset, log, folder, origin, found.start)
        started, resumed = time.perf_counter(), found.trainer is not None
        checkpointer = Checkpointer(file, _of_first(processes, log, found), on_begin=writer.clear)
        del found
        try:
            model.fit(
                log,
                [writer, *observers],
                start=former,
                checkpointer=checkpointer,
                processes=processes,
            )
        except Interrupted as interrupted:
            if file.is_file():
                interrupted.cure = f"the run is kept as it was {checkpointer.kept}"
            raise
        cost: dict[str, object] = {"seconds": time.perf_counter() - started, "resumed": resumed}
        cost |= peak_memory()
        if processes.size > 1:
            cost["processes"] = processes.size
        more = {"compared": trials_as_facts(model.trials), "asked": model.asked.to_mapping()}
        writer.write_about({"cost": cost, **more})
        writer.write_end(model.history_, _figures_of(model, log, model.history_))
        file.unlink()
    return model.history_


def _figures_of(
    model: UserModel, log: SessionLog | StoredLog, table: pl.DataFrame
) -> dict[str, float]:
    """Validation figures of a fit, by name."""
    if model.members:
        # the file's figures are means over all members, the table's those of the first
        heads = model.evaluate(log, "validation").heads
        figures = {f"prec@1 of the {name}, %": one.precision[1].mean for name, one in heads.items()}
        return {**figures, "negative log-likelihood": heads["reward"].nll.mean}
    best = table.filter("best").row(-1, named=True)
    return {
        "prec@1, %": best["val_prec1"],
        "prec@1 of the generator, %": best["val_generator_prec1"],
        "loss (Fenchel–Young)": best["val_loss"],
        "optimality gap of the generator": best["val_gap"],
    }


def fit_run(
    model: ChoiceModel,
    name: str,
    log: SessionLog,
    folder: Path,
    *,
    overwrite: bool = False,
    origin: LogOrigin | None = None,
) -> tuple[pl.DataFrame, HeadFigures]:
    """Fit any model in one go and leave a run folder; returns the table of the fit, and the figures
    on the validation split. Arguments and errors as of `train_run` and the model's `fit`; `name` is
    the preset of config.toml."""
    check_run_folder(folder, overwrite)
    origin, started = origin or LogOrigin(), time.perf_counter()
    with folder_lock(folder):
        _check_contents(folder, overwrite)
        table = model.fit(log).history_
        head = model.evaluate(log, "validation").heads["reward"]
        writer = _RunWriter(model, name, log, folder, origin)
        writer.clear()
        (folder / RESUME_FILE).unlink(missing_ok=True)
        model.save(folder / "model.safetensors")
        seconds = time.perf_counter() - started
        writer.write_about({"cost": {"seconds": seconds, "resumed": False, **peak_memory()}})
        figures = {"prec@1, %": head.precision[1].mean, "negative log-likelihood": head.nll.mean}
        writer.write_end(table, figures)
    return table, head


def start_of(run: Path) -> StartOfRun:
    """The record of a run whose weights another one takes over. Raises CheckpointError."""
    file = run / "model.safetensors"
    with damage_named(file), file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return StartOfRun(str(run.absolute()), digest)


def _loaded(start: StartOfRun | None) -> UserModel | None:
    if start is None:
        return None
    run = Path(start.run)
    if start_of(run) != start:
        raise CheckpointError(
            f"the model in '{run}' has changed since a run began with its weights: train that run "
            "again (--overwrite)"
        )
    return UserModel.load(run, device="cpu")


def _of_first(
    processes: Processes, log: SessionLog | StoredLog, checkpoint: Checkpoint | None
) -> Checkpoint:
    """The first process's checkpoint, in all of them. Raises LogFormatError for different logs."""
    found = processes.agree(log.fingerprint)
    if len(set(found)) > 1:
        raise LogFormatError(
            "the processes have read different logs (fingerprints "
            f"{', '.join(one[:12] for one in found)}): give each the same files"
        )
    if checkpoint is not None and processes.size == 1:
        return checkpoint
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / RESUME_FILE
        if checkpoint is not None:
            checkpoint.save(file)
        data = processes.bytes_of(0, b"" if checkpoint is None else file.read_bytes())
        file.write_bytes(data)
        return Checkpoint.load(file)


def run_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint of the run in a folder, if one has begun. Raises CheckpointError where it
    cannot go on."""
    if not any((folder / name).exists() for name in RUN_FILES if name != CARD_FILE):
        return None
    if not (folder / RESUME_FILE).is_file():
        raise CheckpointError(
            f"'{folder}' has no {RESUME_FILE}, its run cannot go on: train again with --overwrite"
        )
    return Checkpoint.load(folder / RESUME_FILE)


def finished_table(folder: Path) -> pl.DataFrame | None:
    """The training table of a run that has ended; None for any other. Raises CheckpointError for a
    damaged one."""
    made = all((folder / name).is_file() for name in MADE_FILES)
    if (folder / RESUME_FILE).exists() or not made:
        return None
    try:
        return read_small_parquet(folder / "metrics.parquet")
    except LogFormatError as error:
        raise CheckpointError(f"{error}: train again with --overwrite") from error


def asked_of(folder: Path) -> Config:
    """What a run that has ended was asked for. Raises CheckpointError for a damaged record."""
    file = folder / "machine.json"
    with damage_named(file, "record of a run"):
        return Config.from_mapping(parse_json(read_text(file))["asked"])


def check_same_log(folder: Path, log: SessionLog | StoredLog, fingerprint: str) -> None:
    """Raise CheckpointError unless the log is that of the run in a folder."""
    if log.fingerprint != fingerprint:
        raise CheckpointError(
            f"'{folder}' was trained on a log with the fingerprint {fingerprint[:12]}, "
            f"'{log.name}' has {log.fingerprint[:12]}: give the same log, read and split in the "
            "same way"
        )


def check_run_folder(folder: Path, overwrite: bool) -> None:
    """Raise OutputError unless a run may be written at `folder`, which no process holds."""
    require_writable(folder)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"'{folder}' is a file: a run needs a folder")
    require_free(folder)
    _check_contents(folder, overwrite)


def _check_contents(folder: Path, overwrite: bool) -> None:
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    # a README.md alone is another's
    ours = RUN_FILES if set(names) & {*RUN_FILES} - {CARD_FILE} else ()
    if ours and not overwrite:
        raise OutputError(
            f"'{folder}' holds a run already: choose another folder, pass --resume to go on with "
            "it, or --overwrite"
        )
    foreign = [name for name in names if name not in (*ours, LOCK_FILE) and not _is_left_over(name)]
    if foreign:
        raise OutputError(
            f"'{folder}' holds other files ({', '.join(sorted(foreign)[:3])} …): a run needs a "
            "folder of its own"
        )


def _is_left_over(name: str) -> bool:
    """Whether `atomic`, or safetensors for it, was writing it when its process was killed."""
    match = _PART.fullmatch(name)
    return _TMP.fullmatch(name) is not None or (match is not None and match[1] in RUN_FILES)


class _RunWriter(Observer):
    """Writes each epoch's row as it comes, and the model at every new best."""

    may_fail = False

    def __init__(
        self,
        model: ChoiceModel,
        name: str,
        log: SessionLog | StoredLog,
        folder: Path,
        origin: LogOrigin,
        start: StartOfRun | None = None,
    ) -> None:
        self.model, self.name, self.log, self.folder, self.origin = model, name, log, folder, origin
        self.start = start
        self.rows: list[EpochRow] = []

    def on_fit_begin(self, config: Config, rows: Sequence[EpochRow]) -> None:
        """Bring all files to the state of the resume file, which a crash may have left behind."""
        self.rows = list(rows)
        if self.rows:
            self.write_about({})
            self.model.save(self.folder / "model.safetensors")
            self._write_metrics()
            for name in ("metrics.parquet", CARD_FILE):
                (self.folder / name).unlink(missing_ok=True)
        else:
            self.clear()

    def on_epoch_end(self, row: EpochRow) -> None:
        if not self.rows:
            self.write_about({})
        self.rows.append(row)
        # the model first: no reader of the metrics misses the best epoch's model
        if row.best:
            self.model.save(self.folder / "model.safetensors")
        self._write_metrics()

    def on_fit_end(self, rows: Sequence[EpochRow], error: BaseException | None) -> None:
        if error is None or (self.rows and isinstance(error, NumericsError)):
            self.model.save(self.folder / "model.safetensors")

    def clear(self) -> None:
        """Remove a former run's files."""
        for name in MADE_FILES:
            (self.folder / name).unlink(missing_ok=True)

    def _write_metrics(self) -> None:
        # JSON has no NaN: a figure that a phase does not have is null
        rows = (
            {key: None if value != value else value for key, value in one.to_dict().items()}
            for one in self.rows
        )
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        with atomic(self.folder / "metrics.jsonl") as beside:
            beside.write_text(lines)

    @property
    def settings(self) -> dict[str, Any]:
        """Those of config.toml, the name of the preset or model among them."""
        return {"preset": self.name} | self.model.settings.to_mapping()

    def write_about(self, more: Mapping[str, object]) -> None:
        """Write config.toml, reading.json and machine.json."""
        # TOML has no null: a setting that is left open is not written
        kept = {key: value for key, value in self.settings.items() if value is not None}
        with atomic(self.folder / "config.toml") as beside:
            beside.write_text(tomli_w.dumps(kept))
        log, source = self.log, self.origin.source
        reading_of_log = None if isinstance(log, StoredLog) else log.reading
        about = {"name": log.name, "fingerprint": log.fingerprint, "events": log.n_events}
        about |= {"source": source}
        start = None if self.start is None else asdict(self.start)
        facts = {**machine_facts(self.model.settings.seed), "log": about, "start": start, **more}
        reading = dict(self.origin.reading)
        if reading_of_log is not None:
            reading |= reading_of_log.of_log
        for file, values in (("reading", reading), ("machine", facts)):
            with atomic(self.folder / f"{file}.json") as beside:
                beside.write_text(json.dumps(values, indent=2) + "\n")

    def write_end(self, table: pl.DataFrame, figures: Mapping[str, float]) -> None:
        """Write metrics.parquet, and README.md: for people, what the model is, what it was fitted
        on and what it is not for (Mitchell et al., Model cards for model reporting, 2019)."""
        with atomic(self.folder / "metrics.parquet") as beside:
            table.write_parquet(beside)
        log, settings = self.log, self.settings
        # a log in parts has the columns of its first one
        columns = log.first if isinstance(log, StoredLog) else log
        size = (self.folder / "model.safetensors").stat().st_size / 1e6
        known = [key for key in ("preset", "protocol", "seed") if key in settings]
        # a public log has options of its own beside those that were given
        reading = self.origin.reading if columns.reading is None else columns.reading.to_json()
        read = (f"{key} {value}" for key, value in reading.items() if key not in ("name", *OF_LOG))
        reads = [*columns.columns_of("candidate", "item", "event", "user"), *columns.vectors]
        n_events, n_sessions = log.count("events", "train"), log.count("sessions", "train")
        no_click = "a choice, like an item" if self.model.no_click else "never: users always choose"
        rows = [
            ("log", escaped(log.name)),
            ("fingerprint of the log", f"`{log.fingerprint}`"),
            ("read with", escaped(", ".join(read)) or "no option"),
            (
                "training",
                f"{n_events:,} events, {n_sessions:,} sessions, {columns.n_items:,} items in all "
                "splits",
            ),
            ("model", ", ".join(f"{key} {settings[key]}" for key in known)),
            ("fields that it may read", escaped(", ".join(reads)) or "none"),
            ("no click", no_click),
            ("size", f"{size:.1f} MB"),
            *((f"validation: {what}", f"{v:.4g}") for what, v in figures.items() if v == v),
            ("test", "not read: `fastgaum evaluate RUN LOG --split test`"),
        ]
        if self.start is not None:
            rows.append(("weights at the start", escaped(self.start.shown())))
        text = "\n".join(f"| {key} | {value} |" for key, value in rows)
        space, chosen = self.model.space, "The validation split chose the epoch and some settings"
        if space is not None and space.folds:
            chosen = (
                f"Each of {space.folds} fits chose its epoch, and some settings, on the fold of "
                "users of training and validation that it left out"
            )
        card = CARD.format(name=escaped(self.name), rows=text, chosen=chosen)
        with atomic(self.folder / CARD_FILE) as beside:
            beside.write_text(card, encoding="utf-8")


CARD = """# {name}: a user model

It gives the probability that a user chooses each item of a display. `config.toml` has every
setting, `machine.json` the versions and the machine, `metrics.parquet` the training.

```python
from fastgaum.baselines.registry import load_model

model = load_model("RUN")  # this folder
```

| | |
| :-- | :-- |
{rows}

## Limits

- {chosen}: its figures flatter the model a little.
- It knows displays like those of its log. What it says of others is a guess.
- Only differences of utilities within a display mean something, and they have no unit.
- It holds item ids and how often each was chosen: pass it on only where you may pass on the log.
"""

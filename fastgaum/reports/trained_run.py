"""A run folder, opened: its model, training table, machine and options of reading; and the commands
that repeat it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import polars as pl

from fastgaum.baselines.registry import load_model, name_of
from fastgaum.config import Config
from fastgaum.errors import CheckpointError, DatasetError, LogFormatError
from fastgaum.game.observers import EpochRow
from fastgaum.logs.log import SessionLog, SplitName
from fastgaum.machine import checked_facts
from fastgaum.models.choice_model import ChoiceModel
from fastgaum.models.user_model import UserModel
from fastgaum.presets import PRESETS
from fastgaum.reports.table import Json
from fastgaum.row_files import READ_ERRORS, one_line, read_small_parquet
from fastgaum.untrusted import parse_json, read_text

_TYPES = {"int": pl.Int64, "float": pl.Float64, "str": pl.String, "bool": pl.Boolean}
EPOCH_COLUMNS = {name: _TYPES[str(one.type)] for name, one in EpochRow.__dataclass_fields__.items()}
"""columns of a training table and their types"""
MOST_ROWS = 10_000
"""rows of a training table that a page has room for"""
MOST_LINES_BYTES = 1 << 24
"""of metrics.jsonl"""


@dataclass(frozen=True)
class TrainedRun:
    """What a run folder holds."""

    folder: Path
    model: ChoiceModel
    machine: Json
    reading: Json
    """the options of reading that its log was read with"""
    table: pl.DataFrame
    """of a `UserModel` a row per epoch, columns as in `EpochRow`; of others their own"""

    @property
    def fingerprint(self) -> str:
        """Of the log that it was trained on."""
        return str(self.machine["log"]["fingerprint"])

    @property
    def ordered(self) -> bool:
        """Whether it was trained on displays whose order is real."""
        return self.model.space is not None and self.model.space.ordered

    @property
    def settings(self) -> Json:
        """The model's settings, its name as their preset."""
        return {"preset": name_of(self.model)} | self.model.settings.to_mapping()

    def changed(self) -> Json:
        """The settings that differ from its preset's."""
        config = self.model.settings
        ours, decided = config.to_mapping(), set[str]()
        if isinstance(config, Config):
            # `fit` empties it once it is decided
            decided = {"search"}
            usual = Config.from_preset(config.preset).to_mapping()
        else:
            usual = type(config)().to_mapping()
        changed = {k: v for k, v in ours.items() if v != usual[k] and k not in decided}
        return changed


def open_run(folder: Path) -> TrainedRun:
    """Open a run folder. Raises CheckpointError if it is none, or one of its files is missing or
    damaged."""
    if not folder.is_dir():
        raise CheckpointError(
            f"'{folder}' is no run folder: name a folder written by `fastgaum train`"
        )
    model = load_model(folder, device="cpu")
    if isinstance(model, UserModel) and model.config.preset not in PRESETS:
        raise CheckpointError(
            f"'{folder}' was trained from the preset '{model.config.preset}', which this version "
            "does not have"
        )
    try:
        machine = checked_facts(_read_object(folder / "machine.json"))
    except ValueError as error:
        raise CheckpointError(
            f"'{folder / 'machine.json'}' does not say which log it was trained on, and how "
            f"({one_line(error)}): train again"
        ) from None
    reading = _read_object(folder / "reading.json") if (folder / "reading.json").exists() else {}
    # no option, but what reading found
    reading.pop("means", None)
    table = _table(folder)
    if isinstance(model, UserModel):
        return TrainedRun(folder, model, machine, reading, _epochs(table, folder))
    for name, kind in table.schema.items():
        if not (kind.is_numeric() or kind in (pl.String, pl.Boolean, pl.Null)):
            raise CheckpointError(
                f"the table in '{folder}' has {name} of type {kind}, numbers and text are "
                "required: train again"
            )
    return TrainedRun(folder, model, machine, reading, table)


def log_of(run: TrainedRun, logs: Sequence[SessionLog]) -> SessionLog:
    """The log that a run was trained on, in the order that it was read in. Raises DatasetError."""
    own = [log for log in logs if log.fingerprint == run.fingerprint]
    if own:
        return next((log for log in own if log.ordered == run.ordered), own[0])
    found = ", ".join(f"'{log.name}' has {log.fingerprint[:12]}" for log in logs)
    raise DatasetError(
        f"run '{run.folder}' was trained on the log '{run.machine['log'].get('name')}' with the "
        f"fingerprint {run.fingerprint[:12]}; {found}: give that log, read "
        "with the same options and split"
    )


def _table(folder: Path) -> pl.DataFrame:
    file = folder / "metrics.parquet"
    file = file if file.exists() else folder / "metrics.jsonl"
    if not file.is_file():
        raise CheckpointError(
            f"'{folder}' has no metrics.parquet and no metrics.jsonl that is a file: it is no "
            "whole run, train again"
        )
    try:
        if file.suffix == ".parquet":
            table = read_small_parquet(file)
        else:
            lines = StringIO(read_text(file, MOST_LINES_BYTES))
            table = pl.read_ndjson(lines, infer_schema_length=None)
    except (LogFormatError, *READ_ERRORS) as error:
        raise CheckpointError(f"'{file}' is damaged ({one_line(error)}): train again") from None
    if not table.height:
        raise CheckpointError(f"'{file}' has no row: train again")
    if table.height > MOST_ROWS:
        raise CheckpointError(
            f"'{file}' has {table.height} rows, a page has room for {MOST_ROWS}: report on a run "
            "of fewer epochs"
        )
    return table


def _epochs(table: pl.DataFrame, folder: Path) -> pl.DataFrame:
    missing = [name for name in EPOCH_COLUMNS if name not in table.columns]
    if missing:
        raise CheckpointError(f"the table in '{folder}' has no {missing[0]}: train again")
    try:
        table = table.select(pl.col(name).cast(kind) for name, kind in EPOCH_COLUMNS.items())
    except pl.exceptions.PolarsError as error:
        raise CheckpointError(
            f"the table in '{folder}' is damaged ({one_line(error)}): train again"
        ) from None
    number, speed = table["epoch"], table["events_per_second"]
    whole = not table.select("epoch", "phase", "best", speed.name).null_count().sum_horizontal()[0]
    rises = whole and (number.diff().drop_nulls() > 0).all() and number.is_between(0, 1e9).all()
    if not (rises and speed.is_finite().all()):
        raise CheckpointError(
            f"the table in '{folder}' is damaged: epochs that rise, each with a phase, a speed and "
            "whether it is the best, are required; train again"
        )
    return table


def _read_object(file: Path) -> Json:
    # what is no file, such as a pipe, may never end
    if not file.is_file():
        raise CheckpointError(f"'{file}' is missing, or no file: train again")
    try:
        value = parse_json(read_text(file))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"'{file}' is damaged ({one_line(error)}): train again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"'{file}' holds no object: train again")
    return value


def repeat_commands(run: TrainedRun, split: SplitName) -> list[str]:
    """Lines for a shell: install, train again from the resolved configuration, and evaluate."""
    machine = run.machine
    log = _shown(machine["log"].get("source") or machine["log"].get("name", "LOG"))
    folder = _shown(str(run.folder.absolute()))
    again = f"{folder}-again"
    reading = [text for key, value in run.reading.items() for text in _option(key, value)]
    train = ["fastgaum", "train", log, "-o", again, "--config", f"{folder}/config.toml", *reading]
    if machine.get("threads"):
        train += ["--threads", str(machine["threads"])]
    evaluate = ["fastgaum", "evaluate", again, log, "--split", split]
    version = machine.get("versions", {}).get("fastgaum")
    install = f"pip install {shlex.quote(f'fastgaum=={version}' if version else 'fastgaum')}"
    if machine.get("commit"):
        install = f"git checkout {shlex.quote(machine['commit'])} && pip install ."
    begun = [one for one in machine.get("argv", []) if str(one).split("=")[0] == "--from"]
    note = ["# its weights began as those of another run (--from), which these lines leave out"]
    return [install, *(note if begun else []), shlex.join(train), shlex.join(evaluate)]


def _shown(path: str) -> str:
    # a page that is passed on need not tell whose home it was
    if os.path.isabs(path) and Path(path).is_relative_to(Path.cwd()):
        return os.path.relpath(path)
    return path


def _option(key: str, value: object) -> list[str]:
    name = f"--{key.replace('_', '-')}"
    if isinstance(value, list):
        return [text for one in value for text in (name, str(one))]
    return [name] if value is True else [name, _shown(str(value))]

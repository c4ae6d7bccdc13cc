"""A run folder, opened: its model, its training table, what it says of its machine and of reading
the log, the commands that repeat it; its scores of one split; and paired differences: of a run and
the best floor, and of two runs on the same events."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from fastgaum.baselines.floors import Precisions, means_of
from fastgaum.baselines.registry import load_model, name_of
from fastgaum.config import Config
from fastgaum.errors import CheckpointError, ConfigError, DatasetError, LogFormatError
from fastgaum.features.sessions import EncodedSessions, Selection, counts_before, select_sessions
from fastgaum.game.epochs import EpochRow
from fastgaum.game.scoring import HeadScores, ScoredSessions
from fastgaum.logs.columns import Vocabulary
from fastgaum.logs.log import IntArray, SessionLog, SplitName
from fastgaum.metrics.calibration import choice_nll
from fastgaum.metrics.evaluation import MIN_PROB, Evaluation, evaluate_heads
from fastgaum.metrics.intervals import Interval, paired_difference
from fastgaum.metrics.precision import Float64Array
from fastgaum.models.choice_model import ChoiceModel
from fastgaum.models.user_model import UserModel
from fastgaum.presets import GROWN, PRESETS
from fastgaum.reports.table import Json
from fastgaum.untrusted import parse_json, read_text
from fastgaum.untrusted_parquet import READ_ERRORS, one_line, read_small_parquet

COLUMNS = tuple(EpochRow.__dataclass_fields__)


_TOWERS = ("tower_dim", "deep")
"""what tells a configuration that has grown"""


@dataclass(frozen=True)
class TrainedRun:
    """What a run folder holds."""

    folder: Path
    model: ChoiceModel
    machine: Json
    reading: Json
    """the options of reading that its log was read with"""
    table: pl.DataFrame
    """a row per epoch, columns as in `EpochRow`; none for a model that is fitted in one go"""
    fits: pl.DataFrame
    """the table of such a model's fit; no row for one with epochs"""

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
        """The settings that differ from its preset's, as it is on such a log: `grown` says that it
        took two towers. `search` is none: `fit` empties it once it is decided."""
        config = self.model.settings
        if not isinstance(config, Config):
            usual, ours = type(config)().to_mapping(), config.to_mapping()
            return {key: value for key, value in ours.items() if value != usual[key]}
        usual, ours = Config.from_preset(config.preset).to_mapping(), config.to_mapping()
        decided = {"search"}
        grown = (
            usual["grow"] and not config.grow and all(ours[key] == GROWN[key] for key in _TOWERS)
        )
        if grown:
            usual, decided = {**usual, **GROWN}, {*decided, "grow", "batch_sessions"}
        changed = {
            key: value for key, value in ours.items() if value != usual[key] and key not in decided
        }
        return {**({"grown": True} if grown else {}), **changed}


def open_run(folder: Path, device: str = "cpu") -> TrainedRun:
    """Open a run folder.

    Raises:
        CheckpointError: it is no run folder, or one of its files is missing or damaged.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"'{folder}' is no run folder: name a folder written by `fastgaum train`"
        )
    model = load_model(folder, device=device)
    if isinstance(model, UserModel) and model.config.preset not in PRESETS:
        raise CheckpointError(
            f"'{folder}' was trained from the preset '{model.config.preset}', which this version "
            "does not have"
        )
    machine = _read_object(folder / "machine.json")
    if not isinstance(machine.get("log"), dict) or not isinstance(
        machine["log"].get("fingerprint"), str
    ):
        raise CheckpointError(
            f"'{folder / 'machine.json'}' does not say which log it was trained on: train again"
        )
    reading = _read_object(folder / "reading.json") if (folder / "reading.json").exists() else {}
    table = _table(folder)
    if isinstance(model, UserModel):
        epochs, fits = _epochs(table, folder), table.clear()
    else:
        epochs, fits = (
            pl.DataFrame(schema={**dict.fromkeys(COLUMNS, pl.Float64), "best": pl.Boolean}),
            table,
        )
    return TrainedRun(folder, model, machine, reading, epochs, fits)


def log_of(run: TrainedRun, logs: Sequence[SessionLog]) -> SessionLog:
    """The log among several that a run was trained on; of the same data in a real order and in
    none, the one that it was read as.

    Raises:
        DatasetError: it is none of them.
    """
    own = [log for log in logs if log.fingerprint == run.fingerprint]
    if own:
        return next((log for log in own if log.ordered == run.ordered), own[0])
    found = ", ".join(f"'{log.name}' has {log.fingerprint[:12]}" for log in logs)
    raise DatasetError(
        f"run '{run.folder}' was trained on the log '{run.machine['log'].get('name')}' with the "
        "fingerprint"
        f" {run.fingerprint[:12]}; {found}: give that log, read with the same options and split"
    )


def _table(folder: Path) -> pl.DataFrame:
    """The training table; of a run that was interrupted or diverged, the epochs that it has."""
    file = folder / "metrics.parquet"
    file = file if file.is_file() else folder / "metrics.jsonl"
    if not file.is_file():
        raise CheckpointError(
            f"'{folder}' has no metrics.parquet and no metrics.jsonl: it is no whole run, train "
            "again"
        )
    try:
        table = (
            read_small_parquet(file)
            if file.suffix == ".parquet"
            else pl.read_ndjson(file, infer_schema_length=None)
        )
    except (LogFormatError, *READ_ERRORS) as error:
        raise CheckpointError(f"'{file}' is damaged ({one_line(error)}): train again") from None
    if not table.height:
        raise CheckpointError(f"'{file}' has no row: train again")
    return table


def _epochs(table: pl.DataFrame, folder: Path) -> pl.DataFrame:
    """The columns of `EpochRow`."""
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise CheckpointError(f"the table in '{folder}' has no {missing[0]}: train again")
    return table.select(COLUMNS)


def _read_object(file: Path) -> Json:
    try:
        value = parse_json(read_text(file))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"'{file}' is missing or damaged ({one_line(error)}): train again"
        ) from None
    if not isinstance(value, dict):
        raise CheckpointError(f"'{file}' holds no object: train again")
    return value


def repeat_commands(run: TrainedRun, split: SplitName) -> list[str]:
    """Lines for a shell: install, in a checkout where the run came from one; train again and
    evaluate, where the report was made.

    Training starts from the run's resolved configuration, in which a search has been decided.
    """
    machine = run.machine
    log = _shown(machine["log"].get("source") or machine["log"].get("name", "LOG"))
    folder = _shown(str(run.folder.absolute()))
    again = f"{folder}-again"
    reading = [text for key, value in run.reading.items() for text in _option(key, value)]
    train = ["fastgaum", "train", log, "-o", again, "--config", f"{folder}/config.toml", *reading]
    if machine.get("threads"):
        train += ["--threads", str(machine["threads"])]
    evaluate = ["fastgaum", "evaluate", again, log, "--split", split]
    return [_install(machine), shlex.join(train), shlex.join(evaluate)]


def _install(machine: Json) -> str:
    if machine.get("commit"):
        return f"git checkout {shlex.quote(machine['commit'])} && pip install ."
    version = machine.get("versions", {}).get("fastgaum")
    return f"pip install {shlex.quote(f'fastgaum=={version}' if version else 'fastgaum')}"


def _shown(path: str) -> str:
    """Relative where it lies below the working folder: a page that is passed on need not tell whose
    home it was."""
    if os.path.isabs(path) and Path(path).is_relative_to(Path.cwd()):
        return os.path.relpath(path)
    return path


def _option(key: str, value: object) -> list[str]:
    """One option of reading: `candidate_field: [a, b]` → --candidate-field a --candidate-field
    b."""
    name = f"--{key.replace('_', '-')}"
    if isinstance(value, list):
        return [text for one in value for text in (name, str(one))]
    if value is True:
        return [name]
    return [name, _shown(str(value))]


@dataclass(frozen=True)
class SplitScores:
    """A split as a run's heads see it."""

    log: SessionLog
    part: Selection
    """the split's sessions"""
    encoded: EncodedSessions
    scores: ScoredSessions
    evaluation: Evaluation
    outside: bool
    """whether no click is offered"""
    items: IntArray
    """item of each candidate, shape (n_candidates,)"""
    displayed_before: IntArray
    """displays of a candidate's item earlier in its session, shape (n_candidates,)"""
    chosen_before: IntArray
    """choices of a candidate's item earlier in its session, shape (n_candidates,)"""

    @classmethod
    def of(cls, model: ChoiceModel, log: SessionLog, split: SplitName) -> SplitScores:
        """Score a split once.

        Raises:
            LogFormatError: the split is empty.
            FeatureMismatchError: the log's fields are not the training log's.
            NumericsError: a score is not finite.
        """
        encoded, scores = model.score(log, split)
        gap = float(scores.gap.mean()) if scores.gap is not None else None
        part = select_sessions(log, log.sessions_in(split))
        return cls(
            log,
            part,
            encoded,
            scores,
            evaluate_heads(scores.heads, encoded, model.outside, gap),
            model.outside,
            np.asarray(log.items)[part.candidates],
            *counts_before(log, part).T,
        )

    @property
    def reward(self) -> HeadScores:
        """The reward head: its scores are utilities."""
        return self.scores.heads["reward"]

    @property
    def sizes(self) -> IntArray:
        """Candidates of each event, shape (n_events,)."""
        return np.diff(self.part.display_offsets)

    def has_events_of(self, other: SplitScores) -> bool:
        """Whether both hold the same events: sessions, displays and choices by name, in whatever
        order each log keeps its candidates and whatever fields it has."""
        mine, theirs = self.part, other.part
        if not (
            np.array_equal(mine.session_offsets, theirs.session_offsets)
            and np.array_equal(mine.display_offsets, theirs.display_offsets)
            and np.array_equal(mine.choices < 0, theirs.choices < 0)
            and self.log.session_ids[mine.rows].equals(other.log.session_ids[theirs.rows])
        ):
            return False
        code = Vocabulary(self.log.item_ids).codes(other.log.item_ids)[other.items]
        event = np.repeat(np.arange(mine.n_events), self.sizes)
        # display sets in whatever order, choices in the order of the events
        return np.array_equal(
            self.items[np.lexsort((self.items, event))], code[np.lexsort((code, event))]
        ) and np.array_equal(self.items[mine.chosen_candidates], code[theirs.chosen_candidates])

    def advantage(self) -> Float64Array:
        """Utility minus the mean of its display set, shape (n_candidates,): what a choice among
        rivals depends on."""
        utility = self.reward.scores.astype(np.float64)
        means = np.add.reduceat(utility, self.part.display_offsets[:-1]) / self.sizes
        return utility - np.repeat(means, self.sizes)

    def nll(self, head: str) -> Float64Array:
        """Negative log-likelihood of what happened, in nats, shape (n_events,)."""
        scores = self.scores.heads[head]
        outside = scores.outside_log_prob if self.outside else None
        return choice_nll(
            scores.log_probs,
            outside,
            self.part.display_offsets,
            self.part.choices,
            min_prob=MIN_PROB,
        )


def floor_difference(scored: SplitScores, floors: Precisions) -> Json:
    """The reward's prec@1 against that of the best floor on the same events: {floor, percent, diff,
    ci}."""
    means = {name: by_k[1] for name, by_k in means_of(floors).items()}
    if np.isnan(means["random"]):
        return {"floor": None, "percent": None, "diff": None, "ci": [None, None]}
    best = max(means, key=lambda name: means[name])
    ours = scored.evaluation.heads["reward"].precision_per_event[1]
    return {
        "floor": best,
        "percent": means[best],
        **_plain(paired_difference(ours, floors[best][1], scored.encoded.user_of_event)),
    }


def run_differences(
    runs: tuple[TrainedRun, TrainedRun], scored: tuple[SplitScores, SplitScores]
) -> Json:
    """Two runs on the same events: differences first − second of each figure, and the settings that
    differ.

    Raises:
        ConfigError: they were scored on different events.
    """
    if not scored[0].has_events_of(scored[1]):
        about = [
            f"'{run.folder}' has {one.encoded.n_events} events of log '{one.log.name}' "
            f"(fingerprint {run.fingerprint[:12]})"
            for run, one in zip(runs, scored, strict=True)
        ]
        raise ConfigError(
            f"--compare needs two runs that are scored on the same events: {' and '.join(about)}: "
            "train both on one log with one split, or leave --compare out"
        )
    both = [head for head in scored[0].scores.heads if head in scored[1].scores.heads]
    return {
        "differences": [
            _difference(scored, head, what, unit) for head in both for what, unit in _FIGURES
        ],
        "settings": _settings(runs),
    }


_FIGURES = (("prec@1", "points"), ("prec@2", "points"), ("NLL", "nats"))


def _difference(scored: tuple[SplitScores, SplitScores], head: str, what: str, unit: str) -> Json:
    ours, theirs = (_per_event(one, head, what) for one in scored)
    interval = paired_difference(ours, theirs, scored[0].encoded.user_of_event)
    better = interval.high < 0 if what == "NLL" else interval.low > 0
    worse = interval.low > 0 if what == "NLL" else interval.high < 0
    verdict = "first is better" if better else "second is better" if worse else "not told apart"
    return {"head": head, "figure": what, "unit": unit, **_plain(interval), "verdict": verdict}


def _per_event(scored: SplitScores, head: str, what: str) -> Float64Array:
    if what == "NLL":
        return scored.nll(head)
    return np.asarray(scored.evaluation.heads[head].precision_per_event[int(what[-1])], np.float64)


def _settings(runs: tuple[TrainedRun, TrainedRun]) -> list[Json]:
    first, second = (run.settings for run in runs)
    return [
        {"key": key, "first": first.get(key), "second": second.get(key)}
        for key in dict.fromkeys((*first, *second))
        if first.get(key) != second.get(key)
    ]


def _plain(interval: Interval) -> Json:
    return {"diff": interval.mean, "ci": [interval.low, interval.high], "n_users": interval.n_users}

"""`tune`: a search of the settings of the preset `fastgaum` for one log.

A trial is a fit with exact players, judged by its least validation loss. The first trials are the
settings that a fit compares by itself: together they are the default. Optuna keeps the trials in an
SQLite database, prunes them and goes on with them."""

from __future__ import annotations

import dataclasses
import json
import math
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import tomli_w

from fastgaum.config import Config
from fastgaum.errors import (
    CheckpointError,
    ConfigError,
    NumericsError,
    OutputError,
    require_path,
    require_type,
)
from fastgaum.files import atomic, require_writable
from fastgaum.game.averaging import Processes
from fastgaum.game.checkpoint import Checkpointer
from fastgaum.game.observers import EpochRow, Observer, Observers
from fastgaum.locks import name_lock
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.log import SPLITS, SessionLog
from fastgaum.models.prepared import PreparedLog
from fastgaum.models.splits import require_validation
from fastgaum.models.user_model import UserModel, settings_of
from fastgaum.untrusted import plain

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

PRESET = "fastgaum"
TUNED_KEYS: dict[str, tuple[Any, ...]] = {
    "hidden": ("32", "64", "128", "64, 64", "128, 64"),
    "history_dim": (4, 64),
    "tower_dim": (16, 256),
    "dropout": (0.0, 0.8),
    "id_dropout": (0.0, 0.9),
    "weight_decay": (0.003, 1.0),
    "lr": (0.001, 0.01),
}
"""keys that are varied: words, or the least and the largest number; they hold the values of the
preset and of all its sizes"""
Stage = Callable[[str, int, int | None], None]
"""receives a name, how much is done, and how much there is"""


@dataclass(frozen=True)
class TunedTrial:
    """One trial of a search that has ended."""

    state: str
    """complete; pruned: ended early, since half of the trials before were better at that epoch;
    diverged: a loss was not finite"""
    val_loss: float | None
    """least validation loss of its epochs; None where it diverged"""
    values: dict[str, str | float]
    """by key; `hidden` as text, `setting` the name of a compared setting"""
    epochs: int
    seconds: float

    def line(self) -> str:
        """The trial in one line, without its time."""
        said = f"{self.state} after {self.epochs} epochs"
        if self.state == "complete":
            said = f"validation loss {self.val_loss:.4f}"
        values = " · ".join(
            f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in self.values.items()
        )
        return f"{said} · {values}"


@dataclass(frozen=True, repr=False)
class Tuning:
    """The outcome of a search."""

    config: Config
    """to train with: the best trial's"""
    trials: tuple[TunedTrial, ...]
    """all that have ended, in their order"""
    default: TunedTrial
    """the best of the settings that a fit compares by itself"""
    best: TunedTrial
    """of the least validation loss; where none is better than the default, the default"""

    def to_frame(self) -> pl.DataFrame:
        """A row per trial, a column for each value that was varied."""
        rows = [dataclasses.asdict(trial) for trial in self.trials]
        return pl.DataFrame(
            [row | row.pop("values") for row in rows], infer_schema_length=None, strict=False
        )

    def sentence(self) -> str:
        """The outcome in words."""
        n_pruned = sum(trial.state == "pruned" for trial in self.trials)
        default, best = (
            "-" if one.val_loss is None else f"{self.config.eta * one.val_loss:.4f}"
            for one in (self.default, self.best)
        )
        text = (
            f"{len(self.trials)} trials ({n_pruned} pruned), least validation NLL {default} with "
            "the default"
        )
        if self.best is self.default:
            return f"the default stands: {text}, and with no other"
        return f"tuned: {text}, {best} with the best, which was chosen by it"

    def __repr__(self) -> str:
        return f"Tuning({self.sentence()})"


def trials_file(out: Path) -> Path:
    """Where the trials of a search are kept, beside its result."""
    return out.with_name(f"{out.stem}.trials.sqlite")


def tune(
    log: SessionLog,
    out: str | Path,
    *,
    trials: int = 30,
    settings: Mapping[str, object] | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: Stage | None = None,
    on_trial: Callable[[int, TunedTrial], None] | None = None,
) -> Tuning:
    """Search settings of the preset `fastgaum` for a log, and write the best.

    Args:
        log: a log. Its test split is not read.
        out: the TOML file, which `fastgaum train --config` and `Config.from_toml` read. Called
            again, the search goes on with the trials that are kept in `trials_file(out)`.
        trials: how many in all. The first are those of the default.
        settings: keys that are set, and so not varied; `seed` seeds the search.
        device: as in `UserModel`.
        overwrite: whether trials that are there are given up.
        progress: receives the trial that is fitted, its epochs done, and how many at most.
        on_trial: receives how many trials have ended, and the last of them.

    Raises:
        ConfigError: Optuna is not installed, a setting is unknown or impossible, or there are too
            few trials.
        LogFormatError: the log has no training or no validation session.
        CheckpointError: the trials that are there are damaged, or those of another search.
        OutputError: the file cannot be written, or another process is at it.
    """
    require_path("out", out)
    require_type("settings", settings or {}, Mapping)
    fixed, file = dict(settings or {}), Path(out)
    base = checked_base(file, fixed)
    if not isinstance(log, SessionLog):
        raise ConfigError(
            f"tune needs a log in memory, got {type(log).__name__}: read one with fastgaum.load or "
            "fastgaum.read_log"
        )
    require_validation(log)
    visible = slice_sessions(log, np.flatnonzero(log.split != SPLITS.index("test")))
    search = _Search(visible, base, fixed, device, progress or (lambda what, done, total: None))
    n_first = len(search.settings)
    if type(trials) is not int or trials <= n_first:
        raise ConfigError(
            f"trials is {trials}, at least {n_first + 1} are required: the default is the first "
            f"{n_first} ({', '.join(search.settings)})"
        )
    with name_lock(file, waits=False):
        if overwrite:
            trials_file(file).unlink(missing_ok=True)
        found = search.run(trials_file(file), trials, on_trial)
        _write(file, found, fixed, log)
    return found


def checked_base(out: Path, fixed: Mapping[str, object]) -> Config:
    """Check all that can be checked before the log is read; return the default.

    Raises:
        ConfigError, OutputError: as `tune`.
    """
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "tune needs Optuna, which is not installed: pip install '.[tune]' in the clone"
        ) from error
    if fixed.get("preset", PRESET) != PRESET:
        raise ConfigError(
            f"tune varies the preset '{PRESET}', got preset = {fixed['preset']!r}: leave it out, "
            "and set single keys"
        )
    base = Config.from_preset(PRESET, **{k: v for k, v in fixed.items() if k != "preset"})
    if base.regulariser != "shannon":
        raise ConfigError(
            f"trials are judged by their likelihood, regulariser = {base.regulariser} may give a "
            "choice the probability 0: leave it at shannon"
        )
    if out.suffix != ".toml":
        raise OutputError(
            f"'{out}' ends in '{out.suffix}', a configuration is written as .toml: rename it"
        )
    require_writable(out)
    return base


class _Search:
    def __init__(
        self,
        log: SessionLog,
        base: Config,
        fixed: Mapping[str, object],
        device: str,
        progress: Stage,
    ) -> None:
        self.log, self.base, self.device, self.progress = log, base, device, progress
        as_it_is = {"as it is": base.replace(grow=False, search=())}
        self.settings = settings_of(base, log) or as_it_is
        towers = any(config.tower_dim for config in self.settings.values())
        self.keys = [
            key for key in TUNED_KEYS if key not in fixed and (towers or key != "tower_dim")
        ]
        if not self.keys:
            raise ConfigError(
                f"every key that is varied is set ({', '.join(TUNED_KEYS)}): leave one of them open"
            )
        # what no trial may have is said now: the search would meet it again and again
        most = {key: TUNED_KEYS[key][1] for key in ("lr", "weight_decay") if key in self.keys}
        for config in self.settings.values():
            config.replace(**most)
        self.prepared = PreparedLog(log)

    def run(
        self, file: Path, n_trials: int, on_trial: Callable[[int, TunedTrial], None] | None
    ) -> Tuning:
        import optuna

        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            with self._study(file) as study:
                while len(ended := _ended(study)) < n_trials:
                    study.optimize(self._loss, n_trials=1)
                    if on_trial is not None:
                        on_trial(len(ended) + 1, _tuned(_ended(study)[-1]))
        except optuna.exceptions.StorageInternalError as error:
            cause = error.__cause__ or error
            raise OutputError(
                f"cannot write '{file}': {str(cause).splitlines()[0]}: make room, or end the "
                "program that holds it; the same command goes on with the trials that have ended"
            ) from error
        finally:
            optuna.logging.set_verbosity(verbosity)
        trials = tuple(map(_tuned, ended))
        of_default = ["default" in one.user_attrs for one in ended]
        default = min(compress(trials, of_default), key=_rank)
        best = min((default, *trials), key=_rank)
        config = self.base if best is default else self.config(best.values)
        return Tuning(config, trials, default, best)

    @contextmanager
    def _study(self, file: Path) -> Iterator[Study]:
        """The study of the file, or a new one; its first trials are the default's.

        Raises:
            CheckpointError: the file is damaged, or holds another search.
        """
        import optuna
        from optuna.trial import TrialState

        of_settings = {name: config.to_mapping() for name, config in self.settings.items()}
        facts = [self.log.fingerprint, self.base.to_mapping(), of_settings, self.keys]
        told = json.dumps(facts, sort_keys=True)
        with ExitStack() as connections, ExitStack() as sessions:
            with _damage_named(file):
                # a path may hold what a URL cannot: the address names nothing
                creator = {
                    "creator": lambda: connections.enter_context(closing(sqlite3.connect(file)))
                }
                storage = optuna.storages.RDBStorage("sqlite:///trials", engine_kwargs=creator)
                sessions.callback(storage.remove_session)
                study = optuna.create_study(
                    study_name="fastgaum tune",
                    storage=storage,
                    pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=5),
                    load_if_exists=True,
                )
                if not study.trials:
                    study.set_user_attr("search", told)
                of_file = study.user_attrs.get("search")
                for trial in study.get_trials(states=[TrialState.RUNNING]):
                    # its process was killed
                    study.tell(trial.number, state=TrialState.FAIL)
                # a stream of its own: one of the same seed would draw the same first values again
                seed = self.base.seed + len(study.trials)
                study.sampler = optuna.samplers.TPESampler(seed=seed)
                there = (*_ended(study), *study.get_trials(states=[TrialState.WAITING]))
                asked = {one.user_attrs.get("default") for one in there}
                for name in self.settings:
                    if name not in asked:
                        values = {"setting": name, **self.values_of(name)}
                        study.enqueue_trial(values, user_attrs={"default": name})
            if of_file != told:
                raise CheckpointError(
                    f"'{file}' holds the trials of another search (another log, another way to "
                    "read it, or other settings): give that search's options to go on with it, "
                    "name another output, or begin anew (--overwrite)"
                )
            yield study

    def _loss(self, trial: Trial) -> float:
        from optuna import TrialPruned

        progress, config = self.progress, self.suggested(trial)
        # as a fit compares settings: with exact players
        config = config if config.players == "exact" else config.warmed()

        class Watch(Observer):
            may_fail = False

            def on_epoch_end(self, row: EpochRow) -> None:
                progress(f"trial {trial.number + 1}", row.epoch, config.epochs)
                trial.report(row.score, row.epoch)
                if "default" not in trial.user_attrs and trial.should_prune():
                    raise TrialPruned

        model, watch = UserModel(config, device=self.device), Observers([Watch()])
        try:
            rows = model.train_on(self.prepared(config), watch, Checkpointer(), Processes())
        except NumericsError:
            return math.inf
        return min(row.score for row in rows)

    def suggested(self, trial: Trial) -> Config:
        setting = trial.suggest_categorical("setting", list(self.settings))
        for key in self.values_of(setting):
            span = TUNED_KEYS[key]
            if isinstance(span[0], str):
                trial.suggest_categorical(key, span)
            elif isinstance(span[0], int):
                trial.suggest_int(key, *span, log=True)
            else:
                trial.suggest_float(key, *span, log=span[0] > 0)
        return self.config(trial.params)

    def values_of(self, setting: str) -> dict[str, str | float]:
        config = self.settings[setting]
        keys = [key for key in self.keys if config.tower_dim or key != "tower_dim"]
        values = {key: getattr(config, key) for key in keys}
        if "hidden" in values:
            values["hidden"] = ", ".join(map(str, config.hidden))
        return values

    def config(self, values: Mapping[str, str | float]) -> Config:
        changes: dict[str, object] = {}
        for key, value in values.items():
            if key == "hidden":
                changes[key] = tuple(map(int, str(value).split(",")))
            elif key != "setting":
                changes[key] = float(f"{value:.3g}") if isinstance(value, float) else value
        return self.settings[str(values["setting"])].replace(**changes)


@contextmanager
def _damage_named(file: Path) -> Iterator[None]:
    """Turn every error of a crafted or damaged database into one CheckpointError."""
    try:
        yield
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"'{file}' is damaged or holds no trials of `fastgaum tune`: {reason}: remove it, or "
            "begin anew (--overwrite)"
        ) from error


def _ended(study: Study) -> list[FrozenTrial]:
    from optuna.trial import TrialState

    return study.get_trials(states=[TrialState.COMPLETE, TrialState.PRUNED])


def _tuned(trial: FrozenTrial) -> TunedTrial:
    losses, duration = trial.intermediate_values, trial.duration
    state = "complete" if trial.state.name == "COMPLETE" else "pruned"
    if trial.value is not None and math.isinf(trial.value):
        state = "diverged"
    loss = None if state == "diverged" else min(losses.values())
    seconds = duration.total_seconds() if duration else 0.0
    return TunedTrial(state, loss, dict(trial.params), len(losses), seconds)


def _rank(trial: TunedTrial) -> float:
    return math.inf if trial.state != "complete" or trial.val_loss is None else trial.val_loss


def _write(file: Path, found: Tuning, fixed: Mapping[str, object], log: SessionLog) -> None:
    if found.best is found.default:
        keys = {"preset": PRESET, **{k: v for k, v in fixed.items() if k != "seed"}}
    else:
        # a run has a seed of its own
        usual, own = Config.from_preset(PRESET).to_mapping(), found.config.to_mapping()
        changed = {k: v for k, v in own.items() if v != usual[k] and k != "seed"}
        keys = {"preset": PRESET, **changed}
    lines = [f"fastgaum tune, log '{log.name}' ({log.fingerprint[:12]})", found.sentence()]
    comments = "".join(f"# {plain(line)}\n" for line in lines)
    with atomic(file) as beside:
        beside.write_text(f"{comments}\n{tomli_w.dumps(keys)}", encoding="utf-8")

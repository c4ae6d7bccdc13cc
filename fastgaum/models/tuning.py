"""`tune`: a search of the settings of the preset `fastgaum` for one log, and whether what it finds
is better than the default.

A trial is a fit with exact players, judged by its least validation loss. The first trials are the
settings that a fit compares by itself: together they are the default. The best of many trials on
one validation split owes a part of its loss to chance. So it is checked on sessions by which no
trial was judged: those of half of the training users validate, then those of the other half, and
both configurations are fitted whole with other seeds. The test split is never read."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import polars as pl
import tomli_w

from fastgaum.config import Config
from fastgaum.errors import ConfigError, NumericsError, OutputError
from fastgaum.files import atomic, require_writable
from fastgaum.game.checkpoint import Checkpointer
from fastgaum.game.epochs import EpochRow, Observer, Observers
from fastgaum.locks import file_lock
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.log import SPLITS, SessionLog
from fastgaum.metrics.intervals import Interval, paired_difference
from fastgaum.models.prepared import Prepared, SpaceOptions, held_out_folds, space_options
from fastgaum.models.search_space import PRESET, SearchSpace, Values, base_config, changed_keys
from fastgaum.models.splits import require_validation
from fastgaum.models.trial_store import (
    TrialState,
    TrialStore,
    TunedTrial,
    quiet_optuna,
    require_optuna,
)
from fastgaum.models.user_model import UserModel
from fastgaum.processes import Processes
from fastgaum.untrusted import plain

if TYPE_CHECKING:
    from optuna import Trial


class TuningProgress(Protocol):
    """Is told how far a search is."""

    def stage(self, what: str, done: int, total: int | None) -> None:
        """Called with each step of what is going on."""

    def line(self, text: str) -> None:
        """Called with what has ended."""


class _Unheard:
    """Says nothing."""

    def stage(self, what: str, done: int, total: int | None) -> None:
        """Do nothing."""

    def line(self, text: str) -> None:
        """Do nothing."""


@dataclass(frozen=True, repr=False)
class Tuning:
    """What a search has found."""

    config: Config
    """to train with: the best trial's, or the default"""
    trials: tuple[TunedTrial, ...]
    """all that have ended, in their order"""
    default: TunedTrial
    """the default's trial: the best of the settings that a fit compares by itself"""
    best: TunedTrial
    """the trial of the least validation loss"""
    difference: Interval | None
    """NLL of the best trial's configuration less that of the default, nats per event of users who
    were held out, over users; None where the default itself is best, or a fit diverged"""

    @property
    def default_stands(self) -> bool:
        """Whether nothing is better than the default by more than chance."""
        found = self.difference
        return found is None or found.n_users < 2 or not found.high < 0

    def to_frame(self) -> pl.DataFrame:
        """The trials as a frame, one row each, a column for each value that was varied."""
        rows = [
            {
                "state": trial.state,
                "val_loss": trial.val_loss,
                **trial.values,
                "epochs": trial.epochs,
                "seconds": trial.seconds,
            }
            for trial in self.trials
        ]
        return pl.DataFrame(rows, infer_schema_length=None)

    def sentence(self) -> str:
        """The outcome in words."""
        n_pruned = sum(trial.state == "pruned" for trial in self.trials)
        eta = self.config.eta
        text = (
            f"{len(self.trials)} trials ({n_pruned} pruned), least validation NLL "
            f"{_loss(self.default, eta)} with the default"
        )
        if self.best is self.default:
            return f"the default stands: {text}, and with no other"
        text += f", {_loss(self.best, eta)} with the best"
        found = self.difference
        if found is None:
            return f"the default stands: {text}, whose fits diverged on users held out"
        text += (
            f"; on users held out {found.mean:+.4f} ({found.low:+.4f} to {found.high:+.4f}, "
            f"{found.n_users} users)"
        )
        return f"the default stands: {text}" if self.default_stands else f"tuned: {text}"

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
    progress: TuningProgress | None = None,
) -> Tuning:
    """Search settings of the preset `fastgaum` for a log, and write those that are better than the
    default, or that it stands.

    Args:
        log: a log in memory. Its test split is not read.
        out: the TOML file, which `fastgaum train --config` and `Config.from_toml` read. Trials are
            kept beside it, in `trials_file(out)`: called again, the search goes on with them, and
            gives what it would have given without the break.
        trials: how many in all. The first are those of the default.
        settings: keys of the configuration that are set, and so not varied; `seed` seeds the
            search.
        device: as in `UserModel`.
        overwrite: whether trials that are there are given up.
        progress: is told how far the search is.

    Raises:
        ConfigError: Optuna is not installed, a setting is unknown or impossible, or there are too
            few trials.
        LogFormatError: the log has no training or no validation session.
        CheckpointError: the trials that are there are damaged, or those of another search.
        OutputError: the file cannot be written, or another process is at it.
    """
    fixed, file = dict(settings or {}), Path(out)
    base = checked_base(file, fixed)
    if not isinstance(log, SessionLog):
        raise ConfigError(
            f"tune needs a log in memory, got {type(log).__name__}: read one with fastgaum.load or "
            "fastgaum.read_log"
        )
    require_validation(log)
    visible = slice_sessions(log, np.flatnonzero(log.split != SPLITS.index("test")))
    space = SearchSpace.of(base, visible, fixed)
    if type(trials) is not int or trials <= len(space.first):
        raise ConfigError(
            f"trials is {trials}, at least {len(space.first) + 1} are required: the default is "
            f"the first {len(space.first)} ({', '.join(space.settings)})"
        )
    with file_lock(file), quiet_optuna():
        kept = trials_file(file)
        if overwrite:
            kept.unlink(missing_ok=True)
        facts = {"log": visible.fingerprint, "base": base.to_mapping(), "space": space.facts()}
        store = TrialStore(kept, space.distributions(), facts, base.seed)
        search = _Search(visible, space, store, device, progress or _Unheard())
        found = search.run(base, trials)
        _write(file, found, fixed, visible)
    return found


def checked_base(out: Path, fixed: Mapping[str, object]) -> Config:
    """The default that a search begins with; whatever can be said before the log is read is said.

    Raises:
        ConfigError, OutputError: as `tune`.
    """
    require_optuna()
    base = base_config(fixed)
    if out.suffix != ".toml":
        raise OutputError(
            f"'{out}' ends in '{out.suffix}', a configuration is written as .toml: rename it"
        )
    require_writable(out)
    return base


class _Search:
    """A search that runs."""

    def __init__(
        self,
        log: SessionLog,
        space: SearchSpace,
        store: TrialStore,
        device: str,
        progress: TuningProgress,
    ) -> None:
        self.log, self.space, self.store = log, space, store
        self.device, self.progress = device, progress
        self.prepared: dict[SpaceOptions, Prepared] = {}

    def run(self, base: Config, n_trials: int) -> Tuning:
        ended = self.store.ended()
        if ended:
            self.progress.line(f"{len(ended)} trials are there: the search goes on")
        while len(ended) < n_trials:
            with self.store.writing():
                self._next(len(ended), n_trials)
            ended = self.store.ended()
            last = ended[-1]
            self.progress.line(
                f"[{len(ended)}/{n_trials}] {trial_line(last)} ({last.seconds:.1f} s)"
            )
        self.prepared.clear()
        default = min(ended[: len(self.space.first)], key=_rank)
        best = min(ended, key=_rank)
        if _rank(best) == _rank(default):
            return Tuning(base, tuple(ended), default, default, None)
        tuned = self.space.config(best.values)
        found = Tuning(tuned, tuple(ended), default, best, self._checked(base, tuned))
        return dataclasses.replace(found, config=base) if found.default_stands else found

    def _next(self, number: int, n_trials: int) -> None:
        """Fit one more trial; `number` have ended."""
        first = self.space.first
        trial = self.store.ask() if number >= len(first) else None
        values: Values = first[number] if trial is None else dict(trial.params)
        config = _exact(self.space.config(values))
        watch = _Watch(trial, self.progress, f"trial {number + 1} of {n_trials}", config.epochs)
        started = time.perf_counter()
        state: TrialState
        try:
            state = "complete" if self._fits(config, watch) else "pruned"
        except NumericsError:
            state = "diverged"
        loss = None if state == "diverged" else min(watch.losses.values())
        seconds = time.perf_counter() - started
        ended = TunedTrial(state, loss, values, len(watch.losses), seconds)
        if trial is None:
            self.store.add(ended, watch.losses)
        else:
            self.store.tell(trial, ended)

    def _fits(self, config: Config, watch: _Watch) -> bool:
        """Whether a fit came to its end, and was not pruned."""
        made_of = space_options(config)
        if made_of not in self.prepared:
            self.prepared[made_of] = Prepared.of(self.log, config)
        model = UserModel(config, device=self.device)
        try:
            told = Observers([watch])
            model.train_on(self.prepared[made_of], told, Checkpointer(), Processes())
        except _PrunedError:
            return False
        return True

    def _checked(self, base: Config, tuned: Config) -> Interval | None:
        """NLL of `tuned` less that of `base` on training users who validate in turn; None where a
        fit diverged."""
        differences, users = [], []
        folds = list(_unjudged(self.log, held_out_folds(self.log, base.seed)))
        for number, fold in enumerate(folds):
            nll = []
            for place, config in enumerate((base, tuned)):
                what = "checking on users held out"
                self.progress.stage(what, 2 * number + place, 2 * len(folds))
                one = config.replace(seed=config.seed + 1 + number, worlds=1)
                model = UserModel(one, device=self.device)
                try:
                    model.fit(fold)
                except NumericsError:
                    return None
                scored = model.evaluate(fold, "validation")
                nll.append(scored.heads["reward"].nll_per_event)
            differences.append(nll[1] - nll[0])
            # no user is in two folds
            users.append(scored.users.astype(np.int64) + number * (int(self.log.users.max()) + 1))
        difference = np.concatenate(differences)
        return paired_difference(difference, np.zeros_like(difference), np.concatenate(users))


def _unjudged(log: SessionLog, folds: Iterable[SessionLog]) -> Iterator[SessionLog]:
    """The folds less the sessions by which trials were judged, where these would validate: in a log
    that is split by time, held-out users have some."""
    judged = log.split == SPLITS.index("validation")
    for fold in folds:
        out = judged & (fold.split == SPLITS.index("validation"))
        one = fold.with_split(np.where(out, SPLITS.index("test"), fold.split).astype(np.int8))
        if one.count("sessions", "validation"):
            yield one


class _PrunedError(Exception):
    """Ends a fit that is not worth its time."""


class _Watch(Observer):
    """Tells a trial of its epochs, and ends it where it is pruned."""

    may_fail = False

    def __init__(
        self, trial: Trial | None, progress: TuningProgress, what: str, most_epochs: int
    ) -> None:
        self.trial, self.progress, self.what = trial, progress, what
        self.most_epochs = most_epochs
        self.losses: dict[int, float] = {}

    def on_epoch_end(self, row: EpochRow) -> None:
        """Raise _PrunedError where the trial is pruned."""
        self.losses[row.epoch] = row.val_loss
        self.progress.stage(self.what, row.epoch, self.most_epochs)
        if self.trial is not None:
            self.trial.report(row.val_loss, row.epoch)
            if self.trial.should_prune():
                raise _PrunedError


def trial_line(trial: TunedTrial) -> str:
    """A trial in one line, without its time."""
    if trial.state == "complete":
        said = f"validation loss {trial.val_loss:.4f}"
    else:
        said = f"{trial.state} after {trial.epochs} epochs"
    values = " · ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in trial.values.items()
    )
    return f"{said} · {values}"


def _exact(config: Config) -> Config:
    """A configuration with exact players, as a trial fits it."""
    return config if config.players == "exact" else config.warmed()


def _rank(trial: TunedTrial) -> float:
    return np.inf if trial.state != "complete" or trial.val_loss is None else trial.val_loss


def _loss(trial: TunedTrial, eta: float) -> str:
    return "-" if trial.val_loss is None else f"{eta * trial.val_loss:.4f}"


def _write(file: Path, found: Tuning, fixed: Mapping[str, object], log: SessionLog) -> None:
    """The file that a training reads; how it came about stands in comments."""
    if found.default_stands:
        keys = {"preset": PRESET, **{k: v for k, v in fixed.items() if k != "seed"}}
    else:
        keys = changed_keys(found.config)
    lines = [f"fastgaum tune, log '{log.name}' ({log.fingerprint[:12]})", found.sentence()]
    if found.default_stands and found.best is not found.default:
        lines.append(f"the best trial: {trial_line(found.best)}")
    comments = "".join(f"# {plain(line)}\n" for line in lines)
    with atomic(file) as beside:
        beside.write_text(f"{comments}\n{tomli_w.dumps(keys)}", encoding="utf-8")


def trials_as_rows(trials: Sequence[TunedTrial]) -> list[dict[str, object]]:
    """Trials as plain values for JSON."""
    return [dataclasses.asdict(trial) for trial in trials]

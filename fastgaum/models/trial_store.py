"""The trials of a search in a file: Optuna's study in an SQLite database.

A process that is killed leaves a trial that has not ended. The next one gives it up and asks for it
again: a trial's values depend on the trials before it that have ended, and on the seed."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from fastgaum.errors import CheckpointError, ConfigError, OutputError
from fastgaum.models.search_space import Values

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

RANDOM_TRIALS = 10
"""trials before the sampler learns from them"""
TRIALS_UNPRUNED, EPOCHS_UNPRUNED = 5, 5
"""complete trials before any is pruned, and epochs of each trial before it may be"""
_LOCKED_SECONDS = 100.0
"""how long another reader of the database may hold it"""

TrialState = Literal["complete", "pruned", "diverged"]


@dataclass(frozen=True)
class TunedTrial:
    """One trial of a search that has ended."""

    state: TrialState
    """pruned: ended early, since half of the trials before were better at that epoch; diverged: a
    loss was not finite"""
    val_loss: float | None
    """least validation loss of its epochs; None where it diverged"""
    values: Values
    """what was varied"""
    epochs: int
    seconds: float


def require_optuna() -> None:
    """Raise ConfigError, with the cure, where Optuna is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "tune needs Optuna, which is not installed: pip install 'fastgaum[tune]'"
        ) from error


class TrialStore:
    """A search in its file."""

    def __init__(
        self,
        file: Path,
        distributions: Mapping[str, BaseDistribution],
        facts: Mapping[str, object],
        seed: int,
    ) -> None:
        """Open the file, or make it.

        Args:
            file: the database.
            distributions: what is varied.
            facts: what the search is of, as plain values; another search may not go on with it.
            seed: seeds the sampler.

        Raises:
            CheckpointError: the file is damaged, or holds another search.
            OutputError: another program holds it.
        """
        from optuna.trial import TrialState as State

        self.file, self.distributions, self.seed = file, dict(distributions), seed
        told = json.dumps(facts, sort_keys=True)
        with self._damage_named():
            self.study = self._opened()
            of_file = self.study.user_attrs.get("search")
            if of_file is None:
                self.study.set_user_attr("search", told)
            # a killed process has left them
            for trial in self.study.get_trials(deepcopy=False, states=(State.RUNNING,)):
                self.study.tell(trial.number, state=State.FAIL)
        if of_file is not None and of_file != told:
            raise CheckpointError(
                f"'{file}' holds the trials of another search (another log, another way to read "
                "it, or other settings): give that search's options to go on with it, name "
                "another output, or begin anew (--overwrite)"
            )

    def _opened(self) -> Study:
        from optuna import create_study
        from optuna.pruners import MedianPruner
        from optuna.storages import RDBStorage

        def connect() -> sqlite3.Connection:
            return sqlite3.connect(self.file, timeout=_LOCKED_SECONDS)

        # a path may hold what a URL cannot: the address names nothing, `connect` opens the file
        storage = RDBStorage("sqlite:///trials", engine_kwargs={"creator": connect})
        return create_study(
            study_name="fastgaum tune",
            storage=storage,
            load_if_exists=True,
            pruner=MedianPruner(TRIALS_UNPRUNED, EPOCHS_UNPRUNED),
        )

    def ended(self) -> list[TunedTrial]:
        """The trials that have ended, in their order.

        Raises:
            CheckpointError: the file is damaged.
        """
        with self._damage_named():
            return [_tuned(trial) for trial in self._ended()]

    def ask(self) -> Trial:
        """The next trial."""
        from optuna.samplers import TPESampler

        # one of its own for each: it goes on as if its process had never ended
        seed = np.random.SeedSequence([self.seed, len(self._ended())]).generate_state(1)[0]
        self.study.sampler = TPESampler(n_startup_trials=RANDOM_TRIALS, seed=int(seed))
        return self.study.ask(self.distributions)

    def tell(self, trial: Trial, ended: TunedTrial) -> None:
        """Keep how a trial ended."""
        from optuna.trial import TrialState as State

        for key, value in _attributes(ended).items():
            trial.set_user_attr(key, value)
        if ended.state == "complete":
            self.study.tell(trial, ended.val_loss)
        else:
            self.study.tell(trial, state=State.PRUNED)

    def add(self, ended: TunedTrial, by_epoch: Mapping[int, float]) -> None:
        """Keep a trial whose values were not asked for; `by_epoch` holds its validation losses."""
        from optuna import create_trial
        from optuna.trial import TrialState as State

        complete = ended.state == "complete"
        trial = create_trial(
            state=State.COMPLETE if complete else State.PRUNED,
            value=ended.val_loss if complete else None,
            params=dict(ended.values),
            distributions=self.distributions,
            user_attrs=_attributes(ended),
            intermediate_values=dict(by_epoch),
        )
        self.study.add_trial(trial)

    def _ended(self) -> list[FrozenTrial]:
        from optuna.trial import TrialState as State

        return self.study.get_trials(deepcopy=False, states=(State.COMPLETE, State.PRUNED))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Within, a trial is asked for, told of its epochs and kept.

        Raises:
            OutputError: the file cannot be written; the trials that have ended stay.
        """
        from optuna.exceptions import StorageInternalError

        try:
            yield
        except StorageInternalError as error:
            cause = error.__cause__ or error
            raise OutputError(
                f"cannot write '{self.file}': {str(cause).splitlines()[0]}: make room, or end the "
                "program that holds it; the same command goes on with the trials that have ended"
            ) from error

    @contextmanager
    def _damage_named(self) -> Iterator[None]:
        """Turn what a crafted or damaged database raises into one CheckpointError that names it."""
        try:
            yield
        except Exception as error:
            if "database is locked" in str(error):
                raise OutputError(
                    f"another program holds '{self.file}': end it, and give the command again"
                ) from error
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise CheckpointError(
                f"'{self.file}' is damaged or holds no trials of `fastgaum tune`: {reason}: remove "
                "it, or begin anew (--overwrite)"
            ) from error


def _attributes(ended: TunedTrial) -> dict[str, object]:
    return {
        "state": ended.state,
        "val_loss": ended.val_loss,
        "epochs": ended.epochs,
        "seconds": ended.seconds,
    }


def _tuned(trial: FrozenTrial) -> TunedTrial:
    said = trial.user_attrs
    return TunedTrial(
        state=said["state"],
        val_loss=said["val_loss"],
        values=dict(trial.params),
        epochs=said["epochs"],
        seconds=said["seconds"],
    )


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Let Optuna say nothing below a warning within."""
    from optuna import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        yield
    finally:
        logging.set_verbosity(before)

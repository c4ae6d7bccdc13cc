"""Figures of epochs, a row each, and observers of a fit."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, ParamSpec

from fastgaum.errors import ConfigError

if TYPE_CHECKING:
    from fastgaum.config import Config


@dataclass(frozen=True, slots=True)
class EpochRow:
    """One epoch's figures."""

    epoch: int
    phase: str
    """start (weights of another fit), exact (best response in closed form), generator (catching up,
    reward fixed) or rounds"""
    loss: float
    """mean training loss of the reward player, dropout on; NaN where it is not trained"""
    val_loss: float
    """mean Fenchel–Young loss of the reward on validation (Shannon: NLL / eta)"""
    val_prec1: float
    """the reward head's prec@1 on validation, percent"""
    val_generator_prec1: float
    """the generator head's, percent; NaN with exact players"""
    gap: float
    """mean optimality gap on the training split; 0 with exact players"""
    val_gap: float
    events_per_second: float
    best: bool
    """whether it has the best validation score so far"""
    val_calibrated_loss: float = math.nan
    """loss on validation of the utilities times the scale that suits it best; NaN where it does not
    choose the epoch"""

    @property
    def score(self) -> float:
        """The validation score that chooses the epoch."""
        calibrated = self.val_calibrated_loss
        return self.val_loss if math.isnan(calibrated) else calibrated

    def to_dict(self) -> dict[str, object]:
        """Plain values by name."""
        return asdict(self)

    def figures(self) -> dict[str, float]:
        """The finite numbers of this epoch, by name: what a tracker of experiments draws."""
        values = {name: value for name, value in asdict(self).items() if name != "epoch"}
        return {
            name: float(value)
            for name, value in values.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }


class Observer:
    """Watches a fit. Each method does nothing: a class of one's own replaces those that it wants.

    `fit` calls them in the process that trains: `on_fold_begin` before the fit of each further
    fold, `on_fit_begin` once, then for each epoch `on_epoch_begin`, `on_batch_end` and
    `on_epoch_end`, and `on_fit_end` once, also after an error or a signal."""

    may_fail: ClassVar[bool] = True
    """whether the fit goes on when a method raises an Exception, after a RuntimeWarning and without
    this observer; with False the exception ends the fit"""

    def on_fit_begin(self, config: Config, rows: Sequence[EpochRow]) -> None:
        """The networks are made, with the configuration that was chosen. `rows`: the epochs so far
        where a run goes on."""

    def on_fold_begin(self, fold: int, n_folds: int) -> None:
        """The fit without a fold begins, from 1; its epochs are not told, those of fold 0 are."""

    def on_epoch_begin(self, epoch: int) -> None:
        """An epoch begins, from 1."""

    def on_batch_end(self, done: int, total: int) -> None:
        """So many batches of the epoch's total are done."""

    def on_epoch_end(self, row: EpochRow) -> None:
        """An epoch is validated. The networks hold the weights that its figures are of, maybe an
        average."""

    def on_fit_end(self, rows: Sequence[EpochRow], error: BaseException | None) -> None:
        """The fit is over, and the networks hold the best weights. `error`: what ended the fit
        before its time, if anything."""


_Told = ParamSpec("_Told")


class Observers:
    """Several observers as one, in their order."""

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        """Raises ConfigError for what is no list of observers."""
        self.observers = list(observers) if isinstance(observers, Iterable) else [observers]
        wrong = [one for one in self.observers if not isinstance(one, Observer)]
        if wrong or not isinstance(observers, Iterable):
            found = f"one is a {type(wrong[0]).__name__}" if wrong else "one alone is given"
            raise ConfigError(
                f"observers are a list of objects of fastgaum.Observer or of a class made from it, "
                f"{found}: write observers=[…]"
            )

    def tell(
        self, method: Callable[Concatenate[Any, _Told], None], *args: _Told.args, **kw: _Told.kwargs
    ) -> None:
        """Call this method of each; one that fails is called no more, if it may fail."""
        for one in list(self.observers):
            try:
                getattr(one, method.__name__)(*args, **kw)
            except Exception as error:
                if not one.may_fail:
                    raise
                self.observers.remove(one)
                warnings.warn(
                    f"the observer {type(one).__name__} has failed and is told no more, the fit "
                    f"goes on: {type(error).__name__}: {error}",
                    RuntimeWarning,
                    stacklevel=2,
                )


_WITHOUT = "{} is not installed: pip install '.[{}]' in the clone"


class TensorBoardObserver(Observer):
    """Writes each epoch's figures for TensorBoard (the extra `tensorboard`)."""

    def __init__(self, folder: str | Path | None = None, *, writer: Any = None) -> None:
        """Write to a folder of its own, no run folder; or by `writer`, any open `SummaryWriter`,
        which stays open. Raises ConfigError where neither is given, or without the extra."""
        self.own = writer is None
        if writer is None:
            if folder is None:
                raise ConfigError("TensorBoardObserver needs a folder to write to, or a writer")
            try:
                from tensorboardX import SummaryWriter
            except ImportError as error:
                raise ConfigError(_WITHOUT.format("tensorboardX", "tensorboard")) from error
            writer = SummaryWriter(str(folder))
        self.writer = writer

    def on_fit_begin(self, config: Config, rows: Sequence[EpochRow]) -> None:
        """Write the configuration, as text."""
        lines = [f"    {key} = {value}" for key, value in config.to_mapping().items()]
        self.writer.add_text("config", "\n".join(lines))

    def on_epoch_end(self, row: EpochRow) -> None:
        """Write the figures, and let them be seen."""
        for name, value in row.figures().items():
            self.writer.add_scalar(name, value, row.epoch)
        self.writer.flush()

    def on_fit_end(self, rows: Sequence[EpochRow], error: BaseException | None) -> None:
        """Close the file, if it is the observer's own."""
        if self.own:
            self.writer.close()


class MlflowObserver(Observer):
    """Logs a fit as a run of MLflow (the extra `mlflow`), where MLflow's own settings say."""

    def __init__(self, name: str | None = None) -> None:
        """Name the run. One that the program has begun is used, and left open. Raises ConfigError
        without the extra."""
        try:
            import mlflow
        except ImportError as error:
            raise ConfigError(_WITHOUT.format("mlflow", "mlflow")) from error
        self.mlflow, self.name, self.own = mlflow, name, False

    def on_fit_begin(self, config: Config, rows: Sequence[EpochRow]) -> None:
        """Begin the run, and log the configuration."""
        self.own = self.mlflow.active_run() is None
        if self.own:
            self.mlflow.start_run(run_name=self.name)
        with self._ended_on_failure():
            self.mlflow.log_params(config.to_mapping())

    def on_epoch_end(self, row: EpochRow) -> None:
        """Log the figures."""
        with self._ended_on_failure():
            self.mlflow.log_metrics(row.figures(), step=row.epoch)

    def on_fit_end(self, rows: Sequence[EpochRow], error: BaseException | None) -> None:
        """End the run."""
        own, self.own = self.own, False
        if own:
            self.mlflow.end_run("FINISHED" if error is None else "FAILED")

    @contextmanager
    def _ended_on_failure(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            with suppress(Exception):
                self.on_fit_end([], error)
            raise

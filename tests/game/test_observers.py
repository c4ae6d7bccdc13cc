"""Observers: what they are told and when, one that fails, and the adapters to trackers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from fastgaum.config import Config
from fastgaum.game.observers import EpochRow, MlflowObserver, Observer, TensorBoardObserver
from fastgaum.logs.log import SessionLog
from fastgaum.models.run_folder import train_run
from fastgaum.models.user_model import UserModel
from tests.builders import random_log

TINY: dict[str, Any] = {
    **{"epochs": 1, "warm_start": 2, "hidden": [4], "history_dim": 3, "search": [], "folds": 0},
    **{"batch_sessions": 16, "relations": False, "counts": False},
}


@pytest.fixture(scope="module")
def log() -> SessionLog:
    return random_log(4, n_sessions=64)


class Notes(Observer):
    """Notes every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def on_fit_begin(self, config: Config, rows: Sequence[EpochRow]) -> None:
        self.calls.append(("fit begins", config.epochs, len(rows)))

    def on_fold_begin(self, fold: int, n_folds: int) -> None:
        self.calls.append(("fold", fold, n_folds))

    def on_epoch_begin(self, epoch: int) -> None:
        self.calls.append(("begins", epoch))

    def on_batch_end(self, done: int, total: int) -> None:
        self.calls.append(("batch", done, total))

    def on_epoch_end(self, row: EpochRow) -> None:
        self.calls.append(("ends", row.epoch))

    def on_fit_end(self, rows: Sequence[EpochRow], error: BaseException | None) -> None:
        self.calls.append(("fit ends", len(rows), type(error)))


class Fails(Notes):
    """Raises at the end of the second epoch."""

    def on_epoch_end(self, row: EpochRow) -> None:
        super().on_epoch_end(row)
        if row.epoch == 2:
            raise OSError("the tracker is away")


def of_epoch(epoch: int) -> list[tuple[Any, ...]]:
    return [("begins", epoch), ("batch", 1, 2), ("batch", 2, 2), ("ends", epoch)]


def test_the_calls_of_a_fit_in_their_order(log: SessionLog) -> None:
    notes = Notes()
    UserModel.from_preset(**TINY).fit(log, [notes])
    epochs = [call for epoch in (1, 2, 3) for call in of_epoch(epoch)]
    whole = [("fit begins", 1, 0), *epochs, ("fit ends", 3, type(None))]
    assert notes.calls == whole
    # the fit without the first fold is told, of the others that they begin
    notes.calls.clear()
    UserModel.from_preset(**TINY | {"folds": 3}).fit(log, [notes])
    told = [call for call in notes.calls if call[0] != "batch"]
    assert told[:2] == [("fold", 1, 3), ("fold", 2, 3)]
    assert told[2:] == [call for call in whole if call[0] != "batch"]


def test_one_that_fails_is_told_and_loses_nothing(log: SessionLog, tmp_path: Path) -> None:
    failing, notes = Fails(), Notes()
    model = UserModel.from_preset(**TINY)
    with pytest.warns(RuntimeWarning, match="Fails has failed .* OSError: the tracker is away"):
        train_run(model, log, tmp_path / "run", observers=[failing, notes])
    alone = UserModel.from_preset(**TINY)
    train_run(alone, log, tmp_path / "alone")
    assert failing.calls[-1] == ("ends", 2)
    assert notes.calls[-1] == ("fit ends", 3, type(None))
    files = [tmp_path / run / "model.safetensors" for run in ("run", "alone")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_one_that_must_not_fail_ends_the_fit(log: SessionLog) -> None:
    strict, notes = Fails(), Notes()
    strict.may_fail = False
    with pytest.raises(OSError, match="away"):
        UserModel.from_preset(**TINY).fit(log, [strict, notes])
    assert strict.calls[-1] == notes.calls[-1] == ("fit ends", 2, OSError)


def test_tensorboard_has_each_figure_of_each_epoch(log: SessionLog) -> None:
    writer = Mock()
    table = UserModel.from_preset(**TINY).fit(log, [TensorBoardObserver(writer=writer)]).history_
    ((name, text),) = (call.args for call in writer.add_text.call_args_list)
    assert name == "config"
    assert "    history_dim = 3" in text.splitlines()
    scalars = {call.args[::2]: call.args[1] for call in writer.add_scalar.call_args_list}
    assert [scalars["val_loss", epoch] for epoch in (1, 2, 3)] == table["val_loss"].to_list()
    # exact players have no generator: NaN is left out
    assert ("val_generator_prec1", 1) not in scalars
    assert ("val_generator_prec1", 3) in scalars
    assert not {"epoch", "phase"} & {name for name, _ in scalars}
    # the caller's writer is the caller's to close
    writer.close.assert_not_called()


def test_tensorboard_writes_its_own_files(log: SessionLog, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="the extra tensorboard is not installed")
    observer = TensorBoardObserver(tmp_path / "events")
    observer.on_fit_begin(Config(), [])
    observer.on_fit_end([], None)
    assert observer.writer.file_writer is None, "closed"
    (file,) = (tmp_path / "events").iterdir()
    assert b"config" in file.read_bytes()


@pytest.mark.parametrize(
    ("active", "fails"), [(None, False), (None, True), ("a run of the program", False)]
)
def test_mlflow_has_a_run_of_each_fit(
    log: SessionLog, monkeypatch: pytest.MonkeyPatch, active: object, fails: bool
) -> None:
    mlflow = Mock()
    mlflow.active_run.return_value = active
    mlflow.log_metrics.side_effect = OSError("the server is away") if fails else None
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    observer, warned = MlflowObserver("mine"), nullcontext()
    if fails:
        warned = pytest.warns(RuntimeWarning, match="MlflowObserver has failed .* is away")
    with warned:
        UserModel.from_preset(**TINY).fit(log, [observer])
    names = [name for name, *_ in mlflow.mock_calls if name != "active_run"]
    inside = ["log_params", *["log_metrics"] * (1 if fails else 3)]
    assert names == (["start_run", *inside, "end_run"] if active is None else inside)
    assert mlflow.log_params.call_args.args[0]["epochs"] == 1
    assert "val_loss" in mlflow.log_metrics.call_args.args[0]
    if active is None:
        mlflow.end_run.assert_called_once_with("FAILED" if fails else "FINISHED")

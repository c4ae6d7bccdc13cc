"""A run that compares sizes or switches before it trains keeps what it compared, and goes on within
the comparison."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from fastgaum.config import Config
from fastgaum.game.loop import Trainer
from fastgaum.interrupts import Interrupted, Stop
from fastgaum.logs.log import SessionLog
from fastgaum.models.run_folder import run_checkpoint, train_run
from fastgaum.models.user_model import UserModel
from fastgaum.presets import SIZES
from fastgaum.processes import Processes
from fastgaum.reports.trained_run import open_run
from tests.game.interrupted import check_same, config_of, resume, run


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log of 50 training events is one that a fit sizes itself on, by very short fits."""
    monkeypatch.setattr("fastgaum.config.GROW_AT", 50)
    monkeypatch.setattr("fastgaum.config.SHORT_VISITS", 60)
    monkeypatch.setattr("fastgaum.config.FEWEST_EPOCHS", 1)


@pytest.mark.usefixtures("large")
def test_a_run_on_a_large_log_says_what_it_compared(log: SessionLog, tmp_path: Path) -> None:
    config = Config(epochs=1, warm_start=1)
    run(config, log, tmp_path)
    kept = run_checkpoint(tmp_path)
    assert kept is not None
    assert kept.is_finished
    assert kept.n_settings == len(kept.tried) == len(SIZES)
    model, opened = UserModel.load(tmp_path), open_run(tmp_path)
    best = min(kept.tried, key=lambda trial: trial.val_loss)
    assert {key: getattr(model.config, key) for key in SIZES[best.name]} == SIZES[best.name]
    assert [(one.name, one.val_loss) for one in model.trials] == [
        (one.name, one.val_loss) for one in kept.tried
    ]
    compared = opened.machine["compared"]
    assert [one["name"] for one in compared if one["chosen"]] == [best.name]
    assert all(one["seconds"] > 0 for one in compared)
    assert opened.changed().get("size") == model.config.size
    assert "dropout" not in opened.changed()
    before = (tmp_path / "model.safetensors").read_bytes()
    resume(config, log, tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before


@pytest.mark.usefixtures("large")
def test_a_run_with_one_size_is_finished(
    log: SessionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log of many candidates compares nothing, though a search was asked for."""
    monkeypatch.setattr("fastgaum.config.COMPARE_BELOW", 50)
    monkeypatch.setattr("fastgaum.config.TOWERS_AT", 50)
    run(Config(epochs=1, warm_start=1), log, tmp_path)
    kept = run_checkpoint(tmp_path)
    assert kept is not None
    assert kept.is_finished
    model, opened = UserModel.load(tmp_path), open_run(tmp_path)
    assert (model.config.size, model.trials, opened.machine["compared"]) == ("towers", (), [])
    assert opened.changed() == {"size": "towers", "epochs": 1, "warm_start": 1}


@pytest.mark.parametrize("sizes", [False, True])
def test_the_comparison_goes_on_where_it_was(
    sizes: bool,
    log: SessionLog,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """Trials show no batch to the observer: the signal comes in the middle of their epochs by
    number of steps."""
    if sizes:
        request.getfixturevalue("large")
        monkeypatch.setattr("fastgaum.config.FEWEST_EPOCHS", 2)
        config = Config(epochs=1, warm_start=2)
    else:
        changes = {"search": ["relations", "set_context"], "batch_sessions": 32}
        config = config_of("fastgaum", epochs=1, **changes)
    run(config, log, tmp_path / "whole")
    epoch = Trainer._epoch
    for stop_in in (1, 4, 5 if sizes else 8):
        stop, epochs = Stop(), []

        def counted(
            trainer: Trainer,
            step: Any,
            stop: Stop = stop,
            epochs: list[int] = epochs,
            n: int = stop_in,
        ) -> Any:
            epochs.append(1)
            if len(epochs) == n:
                stop.handle(signal.SIGINT, None)
            return epoch(trainer, step)

        monkeypatch.setattr(Trainer, "_epoch", counted)
        folder = tmp_path / f"{stop_in}"
        with pytest.raises(Interrupted):
            train_run(UserModel(config, device="cpu"), log, folder, processes=Processes(stop=stop))
        monkeypatch.setattr(Trainer, "_epoch", epoch)
        assert [path.name for path in folder.iterdir()] == ["resume.safetensors"]
        kept = run_checkpoint(folder)
        assert kept is not None
        assert len(kept.tried) == (stop_in - 1) // 2
        resume(config, log, folder)
        check_same(tmp_path / "whole", folder)

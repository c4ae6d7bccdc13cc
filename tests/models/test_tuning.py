"""`tune`: a search that goes on where it was, and reads no test row."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

import fastgaum as fg
from fastgaum.config import Config
from fastgaum.errors import CheckpointError, ConfigError, LogFormatError, NumericsError, OutputError
from fastgaum.game.observers import EpochRow, Observer, Observers
from fastgaum.locks import name_lock
from fastgaum.logs.log import SessionLog
from fastgaum.logs.synthetic import synthesise
from fastgaum.models import tuning as module
from fastgaum.models.tuning import TUNED_KEYS, TunedTrial, Tuning, trials_file, tune
from fastgaum.models.user_model import UserModel
from fastgaum.presets import SIZES

optuna = pytest.importorskip("optuna", reason="tune needs fastgaum[tune]")

QUICK = {
    "epochs": 1,
    "warm_start": 2,
    "catch_up": 1,
    "batch_sessions": 16,
    "lr_drops": 0,
    "seed": 0,
}
"""with this seed a trial is better than the default"""
N_TRIALS = 7


@pytest.fixture(scope="module")
def log() -> SessionLog:
    return synthesise(120, preset="sample")[0]


@dataclasses.dataclass(frozen=True)
class Searched:
    file: Path
    found: Tuning


@pytest.fixture(scope="module")
def searched(log: SessionLog, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """Seven trials, of which the first four are the default."""
    file = tmp_path_factory.mktemp("search") / "best.toml"
    return Searched(file, tune(log, file, trials=N_TRIALS, settings=QUICK, device="cpu"))


def copied(searched: Searched, folder: Path) -> Path:
    """A new output whose trials are those of a search that has ended."""
    file = folder / "best.toml"
    trials_file(file).write_bytes(trials_file(searched.file).read_bytes())
    return file


def test_a_search_goes_on_where_it_was(log: SessionLog, tmp_path: Path) -> None:
    """A trial that was cut off, as by a kill, is done again if it is the default's; no other is
    kept, and none that has ended is lost."""
    file, ended = tmp_path / "best.toml", list[TunedTrial]()
    for trial, there in ((2, 1), (6, 4)):

        def halt(what: str, done: int, total: int | None, at: str = f"trial {trial}") -> None:
            if what == at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            tune(
                log,
                file,
                trials=N_TRIALS,
                settings=QUICK,
                device="cpu",
                progress=halt,
                on_trial=lambda n, one: ended.append(one),
            )
        assert len(ended) == there
        assert not file.exists()
    found = tune(log, file, trials=N_TRIALS, settings=QUICK, device="cpu")
    assert len(found.trials) == N_TRIALS
    assert [one for one in found.trials if one in ended] == ended
    of_default = {one.values["setting"] for one in found.trials[:4]}
    assert len(of_default) == 3
    values = [tuple(one.values.values()) for one in found.trials]
    assert len(set(values)) == N_TRIALS
    assert {path.name for path in tmp_path.iterdir()} == {"best.toml", "best.trials.sqlite"}
    # more trials go on from those
    more = tune(log, file, trials=N_TRIALS + 1, settings=QUICK, device="cpu")
    assert more.trials[:N_TRIALS] == found.trials
    assert len(more.trials) == N_TRIALS + 1


def test_no_test_row_is_read(log: SessionLog, searched: Searched, tmp_path: Path) -> None:
    """With other choices in the test split the search is the same, and so are its trials."""
    test = np.isin(log.session_of_event, log.sessions_in("test"))
    other = np.where(test, (log.choices + 1) % np.diff(log.display_offsets), log.choices)
    changed = dataclasses.replace(log, choices=other.astype(np.int32))
    assert (changed.choices != log.choices).sum() > 10
    file = copied(searched, tmp_path)
    found = tune(changed, file, trials=N_TRIALS, settings=QUICK, device="cpu")
    assert found.trials == searched.found.trials
    anew = tune(changed, file, trials=5, settings=QUICK, device="cpu", overwrite=True)
    assert [one.val_loss for one in anew.trials[:4]] == [
        one.val_loss for one in searched.found.trials[:4]
    ]


def test_the_default_comes_first_and_is_what_a_fit_compares(
    log: SessionLog, searched: Searched
) -> None:
    model = UserModel.from_preset("fastgaum", **QUICK, device="cpu")
    model.fit(log)
    first = searched.found.trials[: len(model.trials)]
    assert [trial.values["setting"] for trial in first] == [one.name for one in model.trials]
    assert [trial.val_loss for trial in first] == [one.val_loss for one in model.trials]
    assert searched.found.default is min(first, key=lambda trial: trial.val_loss or 0.0)


def test_the_file_is_what_a_training_reads(searched: Searched) -> None:
    found = searched.found
    assert found.best.val_loss is not None
    assert found.best.val_loss < (found.default.val_loss or 0.0)
    assert Config.from_toml(searched.file, seed=0) == found.config
    said = searched.file.read_text()
    assert said.startswith("# fastgaum tune, log 'synthetic' (")
    assert f"# tuned: {N_TRIALS} trials (0 pruned), least validation NLL " in said
    assert {"state", "val_loss", "setting", "hidden", "lr"} <= set(found.to_frame().columns)
    assert repr(found).startswith("Tuning(tuned: ")
    assert "\n" not in repr(found)


def test_a_trial_that_diverges_is_counted(
    log: SessionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: object, **__: object) -> list[EpochRow]:
        raise NumericsError("the loss is not finite")

    monkeypatch.setattr(UserModel, "train_on", diverge)
    found = tune(log, tmp_path / "b.toml", trials=5, settings=QUICK, device="cpu")
    assert [trial.state for trial in found.trials] == ["diverged"] * 5
    assert found.best is found.default


def test_a_trial_worse_than_half_of_those_before_is_pruned(
    log: SessionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = EpochRow(1, "exact", 0.6, 0.6, 50.0, np.nan, 0.0, 0.0, 1.0, True)
    fits = itertools.count()

    def train(_: object, data: object, observers: Observers, *rest: object) -> list[EpochRow]:
        loss = 0.5 if next(fits) < 6 else 0.6
        rows = [dataclasses.replace(row, epoch=epoch, val_loss=loss) for epoch in range(1, 9)]
        for one in rows:
            observers.tell(Observer.on_epoch_end, one)
        return rows

    monkeypatch.setattr(UserModel, "train_on", train)
    found = tune(log, tmp_path / "b.toml", trials=N_TRIALS, settings=QUICK, device="cpu")
    assert [one.state for one in found.trials] == ["complete"] * 6 + ["pruned"]
    assert found.trials[-1].epochs < 8
    # as good as the default is not better: the file holds the default
    assert found.best is found.default
    assert Config.from_toml(tmp_path / "b.toml", seed=0) == found.config
    assert found.config == Config.from_preset("fastgaum", **QUICK)
    assert "# the default stands: " in (tmp_path / "b.toml").read_text()


def test_trials_that_cannot_be_kept(
    log: SessionLog, searched: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that cannot be written within a trial ends the search; what was kept stays."""
    file = copied(searched, tmp_path)

    def fill(*_: object, **__: object) -> None:
        raise optuna.exceptions.StorageInternalError from OSError("database or disk is full")

    monkeypatch.setattr(UserModel, "train_on", fill)
    with pytest.raises(OutputError, match=r"cannot write '.*sqlite': .* is full: make room"):
        tune(log, file, trials=N_TRIALS + 1, settings=QUICK, device="cpu")
    assert not file.exists()


def test_another_search_and_damage_are_refused(
    log: SessionLog, searched: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = copied(searched, tmp_path)
    for other, settings in ((log, QUICK | {"eta": 2.0}), (fg.resplit(log, 5), QUICK)):
        with pytest.raises(CheckpointError, match="holds the trials of another search"):
            tune(other, file, trials=N_TRIALS, settings=settings, device="cpu")
    trials_file(file).write_text("no database")
    with pytest.raises(CheckpointError, match=r"best.trials.sqlite' is damaged or holds no trials"):
        tune(log, file, trials=N_TRIALS, settings=QUICK, device="cpu")
    assert not file.exists()
    with name_lock(file), pytest.raises(OutputError, match=r"best.toml' is in use by process"):
        tune(log, file, trials=N_TRIALS, settings=QUICK, device="cpu")


def test_mistakes(log: SessionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "best.toml"
    for settings, says in (
        ({"drpout": 0.1}, "did you mean 'dropout'"),
        ({"preset": "paper-lstm"}, "tune varies the preset 'fastgaum', got preset = 'paper-lstm'"),
        ({"regulariser": "l2"}, "trials are judged by their likelihood, regulariser = l2"),
        ({key: getattr(Config(), key) for key in TUNED_KEYS}, "every key that is varied is set"),
        ({"rounds_lr": 100.0}, r"lr · weight_decay must be below 1, got 0.01 · 1.0"),
    ):
        with pytest.raises(ConfigError, match=says):
            tune(log, out, settings=settings)
    for trials in (2, 2.5):
        with pytest.raises(ConfigError, match=f"trials is {trials}, at least 4 are required"):
            tune(log, out, trials=trials)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="tune needs a log in memory, got str"):
        tune("sample", out)  # type: ignore[arg-type]
    with pytest.raises(OutputError, match=r"ends in '', a configuration is written as .toml"):
        tune(log, tmp_path / "best")
    with pytest.raises(LogFormatError, match="no validation session"):
        tune(log.with_split(np.zeros_like(log.split)), out)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install '\.\[tune\]' in the clone"):
        tune(log, out)
    assert list(tmp_path.iterdir()) == []


def test_the_space_holds_the_default_of_every_size(log: SessionLog) -> None:
    search = module._Search(log, Config(), {"lr": 0.003}, "cpu", lambda *_: None)
    assert search.keys == ["hidden", "history_dim", "dropout", "id_dropout", "weight_decay"]
    search.settings = Config().settings(10_000, 60_000, 600_000)
    assert len(search.settings) == len(SIZES)
    search.keys = list(TUNED_KEYS)
    study = optuna.create_study()
    for name, config in search.settings.items():
        study.enqueue_trial({"setting": name, **search.values_of(name)})
        trial = study.ask()
        assert search.suggested(trial) == config
        assert ("tower_dim" in trial.params) == (config.tower_dim > 0)

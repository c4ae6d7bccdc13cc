"""`tune`: a search that goes on where it was, reads no test row, and says when the default stands."""

from __future__ import annotations

import dataclasses
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import fastgaum as fg
from fastgaum.config import Config
from fastgaum.errors import CheckpointError, ConfigError, LogFormatError, NumericsError, OutputError
from fastgaum.game.epochs import EpochRow
from fastgaum.locks import file_lock
from fastgaum.logs.log import SPLITS, SessionLog
from fastgaum.logs.synthetic import synthesise
from fastgaum.metrics.intervals import Interval
from fastgaum.models import tuning as module
from fastgaum.models.prepared import held_out_folds
from fastgaum.models.search_space import KEYS, Range, SearchSpace, changed_keys
from fastgaum.models.trial_store import TrialStore, TunedTrial
from fastgaum.models.tuning import Tuning, _unjudged, trials_file, tune
from fastgaum.models.user_model import UserModel
from fastgaum.presets import SIZES

pytest.importorskip("optuna", reason="tune needs fastgaum[tune]")

QUICK = {
    "epochs": 1,
    "warm_start": 2,
    "catch_up": 1,
    "batch_sessions": 16,
    "lr_drops": 0,
    "seed": 2,
}
"""with this seed a trial is better than the default"""
N_TRIALS = 7
BETTER = Interval(-0.1, -0.2, -0.05, 10, 5)


@pytest.fixture(scope="module")
def log() -> SessionLog:
    return synthesise(120, preset="sample")[0]


@dataclasses.dataclass(frozen=True)
class Searched:
    file: Path
    found: Tuning


@pytest.fixture(scope="module")
def searched(log: SessionLog, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """Seven trials, of which the first four are the default; whether the best is better is decided
    as if it were on users held out."""
    file = tmp_path_factory.mktemp("search") / "best.toml"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module._Search, "_checked", lambda *_: BETTER)
        return Searched(file, tune(log, file, trials=N_TRIALS, settings=QUICK, device="cpu"))


def _without_clock(found: Tuning) -> list[TunedTrial]:
    return [dataclasses.replace(trial, seconds=0.0) for trial in found.trials]


class _Halted:
    """Ends the search within a trial, as a kill would: nothing is tidied up."""

    def __init__(self, stage: str) -> None:
        self.at = stage

    def stage(self, what: str, done: int, total: int | None) -> None:
        if what == self.at:
            raise KeyboardInterrupt

    def line(self, text: str) -> None:
        pass


def test_a_search_goes_on_to_the_same_end(
    log: SessionLog, searched: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module._Search, "_checked", lambda *_: BETTER)
    file = tmp_path / "best.toml"
    for trial in (2, 4):  # one of the default, one that was asked for
        halted = _Halted(f"trial {trial} of {N_TRIALS}")
        with pytest.raises(KeyboardInterrupt):
            tune(log, file, trials=N_TRIALS, settings=QUICK, device="cpu", progress=halted)
        assert not file.exists()
    again = tune(log, file, trials=N_TRIALS, settings=QUICK, device="cpu")
    assert _without_clock(again) == _without_clock(searched.found)
    assert file.read_bytes() == searched.file.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"best.toml", "best.trials.sqlite"}


def test_no_test_row_is_read(log: SessionLog, searched: Searched, tmp_path: Path) -> None:
    """With other choices in the test split the trials are the same, and the search is the same."""
    test = np.isin(log.session_of_event, log.sessions_in("test"))
    other = np.where(test, (log.choices + 1) % np.diff(log.display_offsets), log.choices)
    changed = dataclasses.replace(log, choices=other.astype(np.int32))
    assert (changed.choices != log.choices).sum() > 10
    kept = trials_file(tmp_path / "best.toml")
    kept.write_bytes(trials_file(searched.file).read_bytes())
    found = tune(
        changed, tmp_path / "best.toml", trials=5, settings=QUICK, device="cpu", overwrite=True
    )
    assert _without_clock(found) == _without_clock(searched.found)[:5]


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
    assert not found.default_stands
    assert found.best.val_loss is not None
    assert found.best.val_loss < (found.default.val_loss or 0.0)
    assert Config.from_toml(searched.file, seed=2) == found.config
    assert {"preset": "fastgaum", "search": [], "grow": False}.items() <= changed_keys(
        found.config
    ).items()
    said = searched.file.read_text()
    assert said.startswith("# fastgaum tune, log 'synthetic' (")
    assert f"# tuned: {N_TRIALS} trials (0 pruned), least validation NLL " in said


@pytest.mark.parametrize(
    "difference", [Interval(-0.1, -0.2, 0.01, 10, 5), Interval(-0.1, -0.1, -0.1, 9, 1), None]
)
def test_the_default_stands_unless_the_best_is_better_by_more_than_chance(
    log: SessionLog,
    searched: Searched,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    difference: Interval | None,
) -> None:
    monkeypatch.setattr(module._Search, "_checked", lambda *_: difference)
    file = tmp_path / "best.toml"
    trials_file(file).write_bytes(trials_file(searched.file).read_bytes())
    found = tune(log, file, trials=N_TRIALS, settings=QUICK, device="cpu")
    assert found.default_stands
    assert found.config == Config.from_toml(file, seed=2) == Config.from_preset("fastgaum", **QUICK)
    assert "# the default stands: " in file.read_text()
    assert "# the best trial: validation loss " in file.read_text()
    assert repr(found).startswith("Tuning(the default stands: ")
    assert "\n" not in repr(found)


def test_the_check_is_on_users_held_out(
    log: SessionLog, searched: Searched, tmp_path: Path
) -> None:
    """Both configurations are fitted on each fold; every training user's events are counted once."""
    file = tmp_path / "best.toml"
    trials_file(file).write_bytes(trials_file(searched.file).read_bytes())
    found = tune(log, file, trials=N_TRIALS, settings=QUICK, device="cpu")
    assert found.difference is not None
    users = np.unique(log.users[log.sessions_in("train")])
    assert (found.difference.n_events, found.difference.n_users) == (
        log.count("events", "train"),
        len(users),
    )
    assert found.default_stands == (found.difference.high >= 0)


def test_a_frame_has_a_row_per_trial(searched: Searched) -> None:
    frame = searched.found.to_frame()
    assert frame.height == N_TRIALS
    assert {"state", "val_loss", "setting", "hidden", "dropout", "lr"} <= set(frame.columns)


def test_a_trial_that_diverges_is_counted(
    log: SessionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: object, **__: object) -> list[EpochRow]:
        raise NumericsError("the loss is not finite")

    monkeypatch.setattr(UserModel, "train_on", diverge)
    found = tune(log, tmp_path / "b.toml", trials=5, settings=QUICK, device="cpu")
    assert [trial.state for trial in found.trials] == ["diverged"] * 5
    assert found.default_stands


def test_a_trial_worse_than_half_of_those_before_is_pruned(tmp_path: Path) -> None:
    space = SearchSpace.of(Config(), synthesise(60, preset="sample")[0], {})
    store = TrialStore(tmp_path / "t.sqlite", space.distributions(), {}, 0)
    good = TunedTrial("complete", 0.5, space.first[0], 8, 1.0)
    for _ in range(5):
        store.add(good, dict.fromkeys(range(1, 9), 0.5))
    watch = module._Watch(store.ask(), module._Unheard(), "", 8)
    row = EpochRow(1, "exact", 0.6, 0.6, 50.0, np.nan, 0.0, 0.0, 1.0, True)
    for epoch in range(1, 5):
        watch.on_epoch_end(dataclasses.replace(row, epoch=epoch))
    with pytest.raises(module._PrunedError):
        watch.on_epoch_end(dataclasses.replace(row, epoch=5))


def test_trials_that_cannot_be_kept(
    log: SessionLog, searched: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that holds the database within a trial ends the search; what was kept stays."""
    file = tmp_path / "best.toml"
    kept = trials_file(file)
    kept.write_bytes(trials_file(searched.file).read_bytes())
    monkeypatch.setattr("fastgaum.models.trial_store._LOCKED_SECONDS", 0.01)
    with closing(sqlite3.connect(kept)) as other_program:

        def held(_: object, config: Config, watch: module._Watch) -> bool:
            other_program.execute("BEGIN EXCLUSIVE")
            watch.losses[1] = 0.5
            return True

        monkeypatch.setattr(module._Search, "_fits", held)
        with pytest.raises(OutputError, match=r"cannot write '.*sqlite': .* is locked: make room"):
            tune(log, file, trials=N_TRIALS + 1, settings=QUICK, device="cpu")
    monkeypatch.undo()
    monkeypatch.setattr(module._Search, "_checked", lambda *_: BETTER)
    again = tune(log, file, trials=N_TRIALS, settings=QUICK, device="cpu")
    assert _without_clock(again) == _without_clock(searched.found)


def test_another_search_and_damage_are_refused(
    log: SessionLog, searched: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "best.toml"
    trials_file(file).write_bytes(trials_file(searched.file).read_bytes())
    for other, settings in ((log, QUICK | {"eta": 2.0}), (fg.resplit(log, 5), QUICK)):
        with pytest.raises(CheckpointError, match="holds the trials of another search"):
            tune(other, file, trials=N_TRIALS, settings=settings, device="cpu")
    trials_file(file).write_text("no database")
    with pytest.raises(CheckpointError, match=r"best.trials.sqlite' is damaged or holds no trials"):
        tune(log, file, trials=N_TRIALS, settings=QUICK, device="cpu")
    assert not file.exists()
    trials_file(file).write_bytes(trials_file(searched.file).read_bytes())
    monkeypatch.setattr("fastgaum.models.trial_store._LOCKED_SECONDS", 0.01)
    with closing(sqlite3.connect(trials_file(file))) as other_program:
        other_program.execute("BEGIN EXCLUSIVE")
        with pytest.raises(OutputError, match=r"another program holds '.*best.trials.sqlite'"):
            tune(log, file, trials=N_TRIALS, settings=QUICK, device="cpu")
    with file_lock(file), pytest.raises(OutputError, match=r"best.toml' is in use by process"):
        tune(log, file, trials=N_TRIALS, settings=QUICK, device="cpu")


def test_mistakes(log: SessionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "best.toml"
    for settings, says in (
        ({"drpout": 0.1}, "did you mean 'dropout'"),
        ({"preset": "paper-lstm"}, "tune varies the preset 'fastgaum', got preset = 'paper-lstm'"),
        ({"regulariser": "l2"}, "trials are judged by their likelihood, regulariser = l2"),
        ({key: getattr(Config(), key) for key in KEYS}, "every key that is varied is set"),
        ({"rounds_lr": 100.0}, r"lr · weight_decay must be below 1, got 0.01 · 1.0"),
    ):
        with pytest.raises(ConfigError, match=says):
            tune(log, out, settings=settings)
    for trials in (2, 2.5):
        with pytest.raises(ConfigError, match=f"trials is {trials}, at least 5 are required"):
            tune(log, out, trials=trials)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="tune needs a log in memory, got str"):
        tune("sample", out)  # type: ignore[arg-type]
    with pytest.raises(OutputError, match=r"ends in '', a configuration is written as .toml"):
        tune(log, tmp_path / "best")
    with pytest.raises(LogFormatError, match="no validation session"):
        tune(log.with_split(np.zeros_like(log.split)), out)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'fastgaum\[tune\]'"):
        tune(log, out)
    assert list(tmp_path.iterdir()) == []


def test_the_space_holds_the_default_of_every_size(log: SessionLog) -> None:
    base = Config()
    sizes = base.settings(10_000, 60_000, 600_000)
    assert len(sizes) == len(SIZES)
    for settings in (base.settings(50, 60, 500), sizes):
        keys = tuple(key for key in KEYS if settings is sizes or key != "tower_dim")
        space = SearchSpace(settings, keys)
        spans = space.distributions()
        assert list(spans) == ["setting", *keys]
        for values, config in zip(space.first, settings.values(), strict=True):
            assert space.config(values) == config
            assert all(
                spans[key]._contains(spans[key].to_internal_repr(values[key])) for key in values
            )
    assert SearchSpace.of(base, log, {"lr": 0.003}).keys == (
        "hidden",
        "history_dim",
        "dropout",
        "id_dropout",
        "weight_decay",
    )
    # a number that means nothing in one size changes nothing there
    network = {**space.first[1], "tower_dim": 99, "hidden": "128, 64"}
    assert (space.config(network).tower_dim, space.config(network).hidden) == (0, (128, 64))
    assert space.config({**space.first[0], "tower_dim": 99}).tower_dim == 99
    assert all(span.low < span.high for span in KEYS.values() if isinstance(span, Range))


def test_folds_hold_out_each_training_user_once(log: SessionLog) -> None:
    folds = list(held_out_folds(log, 0))
    training = set(np.unique(log.users[log.sessions_in("train")]).tolist())
    held = [set(fold.users[fold.sessions_in("validation")].tolist()) for fold in folds]
    assert held[0] | held[1] == training
    assert not held[0] & held[1]
    assert abs(len(held[0]) - len(held[1])) <= 1
    before = set(log.users[log.sessions_in("validation")].tolist())
    for fold, out in zip(folds, held, strict=True):
        assert before <= set(fold.users[fold.sessions_in("train")].tolist())
        assert not out & set(fold.users[fold.sessions_in("train")].tolist())
    # by time every user validates too: all take turns; a single user cannot
    by_time = log.with_split((np.arange(log.n_sessions) % 2).astype(np.int8))
    by_time = dataclasses.replace(by_time, users=np.arange(log.n_sessions, dtype=np.int32) // 2)
    assert len(list(held_out_folds(by_time, 0))) == 2
    # and no session validates by which a trial was judged
    judged = by_time.split == SPLITS.index("validation")
    rows = [
        fold.sessions_in("validation") for fold in _unjudged(by_time, held_out_folds(by_time, 0))
    ]
    assert sorted(np.concatenate(rows).tolist()) == np.flatnonzero(~judged).tolist()
    untouched = zip(_unjudged(log, folds), folds, strict=True)
    assert all((one.split == fold.split).all() for one, fold in untouched)
    (own,) = held_out_folds(dataclasses.replace(by_time, users=np.zeros_like(log.users)), 0)
    assert (own.split == by_time.split).all()

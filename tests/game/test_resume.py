"""An interrupted run goes on to the very bytes of one that never was: every preset, encoder and
player, any batch."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastgaum.checkpoint import load_state, save_state
from fastgaum.config import Config
from fastgaum.engine.game import EngineGame
from fastgaum.errors import CheckpointError, ConfigError, OutputError, StepRefusedError
from fastgaum.game import checkpoint
from fastgaum.game.epochs import Observer
from fastgaum.game.loop import Trainer
from fastgaum.interrupts import Interrupted, Stop
from fastgaum.logs.log import SessionLog
from fastgaum.models.run_folder import finished_table, run_checkpoint, train_run
from fastgaum.models.user_model import UserModel
from fastgaum.nets.tensors import BatchTensors
from fastgaum.presets import PRESETS, SIZES
from fastgaum.processes import Processes
from fastgaum.reports.trained_run import open_run
from tests.builders import random_log
from tests.game.interrupted import (
    SMALL,
    check_same,
    config_of,
    resume,
    run,
    save_every_epoch,
    start_and_stop,
)
from tests.logs.test_context import navigation

VARIANTS: list[dict[str, Any]] = [
    {"history": "gru", "players": "exact", "history_layers": 2},
    {"history": "bilstm", "states": "generated"},
    {"regulariser": "tsallis"},
    {"dropout": 0.3, "table_optimiser": "adagrad"},
    {"patience": 1, "lr_drops": 2, "epochs": 6, "lr": 0.5},
    {"warm_start": 0},
    {"tower_dim": 6, "dropout": 0.3},
    # autograd trains these
    {"states": "generated", "history": "lstm", "history_layers": 2, "patience": 1},
]


@pytest.fixture(scope="module")
def log() -> SessionLog:
    return random_log(4, n_sessions=80, no_click=0.2)


def check_interrupted_anywhere(config: Config, log: SessionLog, tmp_path: Path, times: int) -> None:
    """Stopped at random batches, again and again in one run, it ends as the run that was never
    stopped."""
    n_batches = run(config, log, tmp_path / "whole")
    rng = np.random.default_rng(n_batches)
    for i in range(times):
        start_and_stop(config, log, tmp_path / f"{i}", int(rng.integers(1, n_batches + 1)))
        resume(config, log, tmp_path / f"{i}")
        check_same(tmp_path / "whole", tmp_path / f"{i}")


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_goes_on_from_any_batch(preset: str, log: SessionLog, tmp_path: Path) -> None:
    check_interrupted_anywhere(config_of(preset, search=[]), log, tmp_path, times=2)


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_every_variant_goes_on_from_any_batch(
    changes: dict[str, Any], log: SessionLog, tmp_path: Path
) -> None:
    config = Config.from_preset(
        "fastgaum", **{**SMALL, "hidden": [8], "history_dim": 5, "search": [], **changes}
    )
    check_interrupted_anywhere(config, log, tmp_path, times=1)


def test_catching_up_goes_on_at_its_rates(
    log: SessionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generator that cannot start as the best response, after a warm start whose rates fell."""
    monkeypatch.setattr("fastgaum.nets.networks.Networks.start_generator", lambda *_: None)
    changes = {"lr": 0.5, "patience": 1, "warm_start": 6, "catch_up": 12, "epochs": 1, "search": []}
    config = Config.from_preset("fastgaum", **{**SMALL, "hidden": [8], "history_dim": 5, **changes})
    check_interrupted_anywhere(config, log, tmp_path, times=3)


def test_context_and_towers_go_on_from_any_batch(tmp_path: Path) -> None:
    config = config_of("fastgaum", tower_dim=6, search=[])
    check_interrupted_anywhere(config, navigation(80), tmp_path, times=1)


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


@pytest.mark.parametrize("preset", ["fastgaum", "paper-lstm"])
def test_n_and_m_epochs_are_n_plus_m_epochs(preset: str, log: SessionLog, tmp_path: Path) -> None:
    config = config_of(preset, epochs=4, patience=9, search=[])
    run(config.replace(epochs=2), log, tmp_path / "parts")
    kept = run_checkpoint(tmp_path / "parts")
    assert kept is not None
    assert kept.is_finished
    resume(config, log, tmp_path / "parts")
    run(config, log, tmp_path / "whole")
    check_same(tmp_path / "whole", tmp_path / "parts")


def test_a_crash_between_any_two_writes_is_mended(
    log: SessionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies just before the k-th file gets its name, for every k of a run."""
    save_every_epoch(monkeypatch)
    config = config_of("fastgaum", epochs=1, warm_start=1, catch_up=1, batch_sessions=64, search=[])
    run(config, log, tmp_path / "whole")
    replace, k = os.replace, 0
    while True:
        folder, calls = tmp_path / f"{k}", []

        def dies(source: Path, target: Path, k: int = k, calls: list[int] = calls) -> None:
            calls.append(1)
            if len(calls) > k:
                raise KeyboardInterrupt
            replace(source, target)

        monkeypatch.setattr("os.replace", dies)
        try:
            run(config, log, folder)
        except KeyboardInterrupt:
            crashed = True
        else:
            crashed = False
        monkeypatch.setattr("os.replace", replace)
        if not crashed:
            break
        if run_checkpoint(folder) is None:
            assert not list(folder.glob("*"))
            run(config, log, folder)
        else:
            resume(config, log, folder)
        check_same(tmp_path / "whole", folder)
        k += 1
    assert k > 10


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


def test_weights_kept_in_a_file_go_on_too(
    log: SessionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "IN_MEMORY_BYTES", 10)
    check_interrupted_anywhere(
        config_of("paper-lstm", patience=1, lr_drops=1), log, tmp_path, times=1
    )


def test_skipped_batches_and_the_sessions_at_fault_are_kept(
    log: SessionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gap is taken without the sessions that were found; how many batches may still be skipped
    is counted on."""
    step = EngineGame.exact_step

    def refused(game: EngineGame, batch: BatchTensors) -> float:
        if 5 in batch.source.rows.tolist():
            raise StepRefusedError("made up")
        return step(game, batch)

    monkeypatch.setattr(EngineGame, "exact_step", refused)
    config = config_of("fastgaum", search=[], on_nonfinite="skip", most_skipped=2)
    run(config, log, tmp_path / "whole")
    for batch in (1, 7, 12):
        start_and_stop(config, log, tmp_path / f"{batch}", batch)
        resume(config, log, tmp_path / f"{batch}")
        check_same(tmp_path / "whole", tmp_path / f"{batch}")
    rows = rows_of(tmp_path / "7")
    assert [row["skipped"] for row in rows[:2]] == [1, 1]
    assert "'s5'" in rows[0]["at_fault"]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    found = run_checkpoint(folder)
    assert found is not None
    return found.rows


def test_a_finished_run_is_left_as_it_is(log: SessionLog, tmp_path: Path) -> None:
    config = config_of("paper-pw")
    run(config, log, tmp_path / "run")
    before = {
        path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / "run").iterdir()
    }
    assert resume(config, log, tmp_path / "run").batches == 0
    assert before == {
        path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / "run").iterdir()
    }
    (tmp_path / "run" / "metrics.parquet").write_bytes(b"half")
    kept = run_checkpoint(tmp_path / "run")
    assert kept is not None
    assert finished_table(tmp_path / "run", kept) is None
    assert resume(config, log, tmp_path / "run").resumed == [3]
    assert (
        before[tmp_path / "run" / "model.safetensors"][0]
        == (tmp_path / "run" / "model.safetensors").read_bytes()
    )


def test_a_run_out_of_patience_stays_so_however_many_epochs_it_may_have(
    log: SessionLog, tmp_path: Path
) -> None:
    config = config_of("paper-lstm", epochs=20, patience=1, lr=0.5)
    run(config, log, tmp_path / "run")
    model = (tmp_path / "run" / "model.safetensors").read_bytes()
    kept = run_checkpoint(tmp_path / "run")
    assert kept is not None
    assert kept.is_finished
    assert len(kept.rows) < 20
    assert resume(config.replace(epochs=40), log, tmp_path / "run").batches == 0
    assert model == (tmp_path / "run" / "model.safetensors").read_bytes()


def test_what_cannot_go_on_is_refused(log: SessionLog, tmp_path: Path) -> None:
    config = config_of("paper-lstm", players="adversarial")
    start_and_stop(config, log, tmp_path / "run", 3)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(CheckpointError, match=r"fingerprint .* give the same log"):
        resume(config, random_log(5), tmp_path / "run")
    for changes in ({"lr": 0.1}, {"epochs": 2}, {"seed": 4}):
        with pytest.raises(CheckpointError, match="only its epochs may be raised"):
            resume(config.replace(**changes), log, tmp_path / "run")
    with pytest.raises(OutputError, match="pass --resume to go on"):
        run(config, log, tmp_path / "run")
    with pytest.raises(CheckpointError, match="--overwrite"):
        resume(config, log, tmp_path / "absent")
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    (tmp_path / "run" / "resume.safetensors").rename(tmp_path / "aside")
    (tmp_path / "run" / "model.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"no resume\.safetensors"):
        run_checkpoint(tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir() if path.name == "absent"] == []


@pytest.mark.parametrize(
    "damage", ["half", "garbage", "count", "row", "order", "shape", "random", "missing", "format"]
)
def test_a_damaged_resume_file_is_named(damage: str, log: SessionLog, tmp_path: Path) -> None:
    config = config_of("paper-lstm")
    start_and_stop(config, log, tmp_path / "run", 14)
    file = tmp_path / "run" / "resume.safetensors"
    state = load_state(file, checkpoint.FORMAT, "")
    trainer = state["trainer"]
    if damage == "count":
        trainer["position"]["batches"] = -1
    elif damage == "row":
        trainer["rows"][0]["surprise"] = 1
    elif damage == "order":
        trainer["position"]["order"]["bit_generator"] = "MT19937"
    elif damage == "shape":
        moments = trainer["optimisers"]["reward"]
        moments["m"] = moments["m"][:-1]
    elif damage == "random":
        trainer["random"]["cpu"] = trainer["random"]["cpu"][:100]
    elif damage == "missing":
        trainer["weights"]["best"].pop("player.reward.first.table")
    save_state(file, "fastgaum-resume-1" if damage == "format" else checkpoint.FORMAT, state)
    if damage == "half":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif damage == "garbage":
        file.write_bytes(b"\xff" * 1000)
    with pytest.raises(CheckpointError, match=r"resume\.safetensors"):
        resume(config, log, tmp_path / "run")


def test_left_overs_of_a_killed_process_go_and_other_files_stay(
    log: SessionLog, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    start_and_stop(config_of("paper-lstm"), log, folder, 3)
    (folder / ".model.safetensors.0123abcd.part").write_bytes(b"half")
    (folder / ".lock").write_text("{}")
    resume(config_of("paper-lstm"), log, folder)
    assert not list(folder.glob(".*"))
    (folder / ".notes.0123abcd.part").touch()
    with pytest.raises(OutputError, match="other files"):
        train_run(UserModel(config_of("paper-lstm")), log, folder, overwrite=True)


def test_overwriting_leaves_nothing_of_the_former_run(log: SessionLog, tmp_path: Path) -> None:
    config = config_of("paper-lstm")
    run(config, log, tmp_path / "run")
    stop = Stop()
    stop.signum = int(signal.SIGTERM)
    with pytest.raises(Interrupted):
        train_run(
            UserModel(config.replace(seed=5), device="cpu"),
            log,
            tmp_path / "run",
            overwrite=True,
            processes=Processes(stop=stop),
        )
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["resume.safetensors"]
    run(config.replace(seed=5), log, tmp_path / "whole")
    resume(config.replace(seed=5), log, tmp_path / "run")
    check_same(tmp_path / "whole", tmp_path / "run")


def test_saves_take_their_share_of_the_time_at_most(
    log: SessionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that each batch moves by ten seconds and each save by eight: one save in 400 s,
    and the last."""
    now, saved = [0.0], []
    monkeypatch.setattr(checkpoint.time, "perf_counter", lambda: now[0])
    write = checkpoint.save_state

    def slow(*given: Any) -> None:
        saved.append(now[0])
        now[0] += 8.0
        write(*given)

    monkeypatch.setattr(checkpoint, "save_state", slow)
    monkeypatch.setattr(checkpoint, "_SLOW_DISK", 1e6)

    class Clock(Observer):
        def on_batch_end(self, done: int, total: int) -> None:
            now[0] += 10.0

    config = config_of("paper-lstm", epochs=30, patience=1000)
    train_run(UserModel(config, device="cpu"), log, tmp_path / "run", observers=[Clock()])
    # the first is that of the beginning, the last that of the end
    assert len(saved) >= 5
    assert (np.diff(saved)[1:-1] >= 400).all()
    assert np.diff(saved)[-1] < 400
    monkeypatch.setattr(checkpoint, "BATCH_SECONDS", 25.0)
    monkeypatch.setattr(checkpoint, "SHARE", 1e9)
    saved.clear()
    train_run(
        UserModel(config.replace(epochs=1), device="cpu"),
        log,
        tmp_path / "batches",
        observers=[Clock()],
    )
    # five batches: after the third, and at the end
    assert len(saved) == 3


def test_options_of_epochs_alone_continue() -> None:
    config = Config.from_preset("paper-lstm")
    assert config.is_continued_by(config)
    assert config.is_continued_by(config.replace(epochs=101))
    assert not config.is_continued_by(config.replace(epochs=99))
    assert not config.is_continued_by(config.replace(lr=0.1))
    with pytest.raises(ConfigError):
        config.replace(epochs=0)

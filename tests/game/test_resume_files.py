"""The files of a run that was interrupted: whole whenever it dies, refused where they are damaged
or another run's, and written seldom."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastgaum.checkpoint import load_state, save_state
from fastgaum.errors import CheckpointError, OutputError
from fastgaum.game import checkpoint
from fastgaum.game.epochs import Observer
from fastgaum.interrupts import Interrupted, Stop
from fastgaum.logs.log import SessionLog
from fastgaum.models.run_folder import finished_table, run_checkpoint, train_run
from fastgaum.models.user_model import UserModel
from fastgaum.processes import Processes
from tests.builders import flip_bit, random_log
from tests.game.interrupted import (
    check_same,
    config_of,
    resume,
    run,
    save_every_epoch,
    start_and_stop,
)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (
            lambda state: state["tried"].append({"name": "x", "val_loss": 1.0, "seconds": {}}),
            "float",
        ),
        (lambda state: state["trainer"]["rows"][0].update(loss={}), "float"),
        (lambda state: state["trainer"]["rows"][0].pop("epoch"), "epoch"),
    ],
)
def test_a_damaged_record_is_found_before_a_run_goes_on(
    log: SessionLog, tmp_path: Path, damage: Callable[[dict[str, Any]], object], says: str
) -> None:
    config = config_of("fastgaum", epochs=1, warm_start=1, catch_up=1, batch_sessions=64, search=[])
    run(config, log, tmp_path / "run")
    file = tmp_path / "run" / "resume.safetensors"
    state = load_state(file, checkpoint.FORMAT, "")
    damage(state)
    save_state(file, checkpoint.FORMAT, state)
    with pytest.raises(CheckpointError, match=f"is damaged or not a training.*{says}"):
        run_checkpoint(tmp_path / "run")


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
    "damage",
    ["half", "garbage", "bit", "count", "row", "order", "shape", "random", "missing", "format"],
)
def test_a_damaged_resume_file_is_named_and_the_other_files_stay(
    damage: str, log: SessionLog, tmp_path: Path
) -> None:
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
    elif damage == "bit":
        flip_bit(file)
    others = [path for path in (tmp_path / "run").iterdir() if path != file]
    before = {path: path.read_bytes() for path in others}
    with pytest.raises(CheckpointError, match=r"resume\.safetensors"):
        resume(config, log, tmp_path / "run")
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path != file} == (
        before
    )


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

"""An interrupted run goes on from an epoch's end to the very bytes of one that never was; its files
are whole whenever it dies, and refused where they are damaged or another run's."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastgaum.errors import CheckpointError, OutputError
from fastgaum.game import checkpoint
from fastgaum.game.loop import Trainer
from fastgaum.game.observers import Observer
from fastgaum.interrupts import Interrupted
from fastgaum.logs.log import SessionLog
from fastgaum.models.run_folder import finished_table, run_checkpoint, train_run
from fastgaum.models.user_model import UserModel
from fastgaum.presets import LogSetting
from fastgaum.reports.trained_run import open_run
from tests.builders import random_log, with_fields
from tests.game.interrupted import (
    StopAt,
    check_interrupted_anywhere,
    check_same,
    config_of,
    resume,
    run,
    start_and_stop,
)
from tests.logs.test_context import navigation

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("paper-pw", {}),
    (
        "fastgaum",
        {"regulariser": "tsallis", "patience": 1, "lr_drops": 2, "epochs": 6, "lr": 0.5},
    ),
    # autograd trains this
    ("fastgaum", {"regulariser": "l2", "history_layers": 2, "patience": 1}),
]

PLAIN: dict[str, Any] = {"relations": False, "counts": False}
"""a fit reads fewer numbers, and is as many steps and files"""


@pytest.fixture(autouse=True)
def _save_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SHARE", 1e9)


@pytest.mark.parametrize(("preset", "changes"), VARIANTS, ids=str)
def test_every_preset_and_variant_goes_on(
    preset: str, changes: dict[str, Any], log: SessionLog, tmp_path: Path
) -> None:
    check_interrupted_anywhere(
        config_of(preset, search=[], folds=0, **changes), log, tmp_path, times=1
    )


def test_catching_up_goes_on_at_its_rates(
    log: SessionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generator that cannot start as the best response, after a warm start whose rates fell."""
    monkeypatch.setattr("fastgaum.nets.networks.Networks.start_generator", lambda *_: None)
    changes = {
        "lr": 0.5,
        "patience": 1,
        "warm_start": 6,
        "catch_up": 12,
        "epochs": 1,
        "search": [],
        "folds": 0,
        **PLAIN,
    }
    check_interrupted_anywhere(config_of("fastgaum", **changes), log, tmp_path, times=1)


def test_context_and_towers_go_on(tmp_path: Path) -> None:
    config = config_of("fastgaum", tower_dim=6, search=[], folds=0, **PLAIN)
    check_interrupted_anywhere(config, navigation(60), tmp_path, times=1)


def test_signs_go_on(tmp_path: Path) -> None:
    """Their steps are in the optimisers' states."""
    config = config_of("fastgaum", signs={"price": "-"}, search=[], folds=0, **PLAIN)
    check_interrupted_anywhere(config, with_fields(random_log(5, 40)), tmp_path, times=1)


def test_it_goes_back_to_the_last_epoch_and_says_so(log: SessionLog, tmp_path: Path) -> None:
    """Of eight batches an epoch: within the first there is nothing but the beginning."""
    config = config_of("paper-lstm")
    n_batches = run(config, log, tmp_path / "whole") // 3
    for batch, said in (
        (2, "the run is kept as it was at the beginning of a fit"),
        (2 * n_batches + 1, "the run is kept as it was after epoch 2"),
    ):
        folder = tmp_path / f"{batch}"
        assert start_and_stop(config, log, folder, batch) == said
        found = run_checkpoint(folder)
        assert found is not None
        rows = [] if found.trainer is None else found.trainer.rows
        assert len(rows) == (batch - 1) // n_batches
        assert resume(config, log, folder).resumed == ([len(rows)] if rows else [])
        check_same(tmp_path / "whole", folder)


def test_a_crash_between_any_two_writes_is_mended(
    log: SessionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies just before the k-th file gets its name, or before the last one is removed,
    for every k of a run."""
    short = {"epochs": 1, "warm_start": 1, "catch_up": 1, "batch_sessions": 64}
    config = config_of("fastgaum", **short, search=[], folds=0, **PLAIN)
    run(config, log, tmp_path / "whole")
    replace, unlink, k, crashed = os.replace, Path.unlink, 0, True
    while crashed:
        folder, calls = tmp_path / f"{k}", []

        def counted(*_: object, k: int = k, calls: list[int] = calls) -> None:
            calls.append(1)
            if len(calls) > k:
                raise KeyboardInterrupt

        def replaces(source: Path, target: Path, counted: Callable[..., None] = counted) -> None:
            counted()
            replace(source, target)

        def unlinks(
            file: Path, missing_ok: bool = False, counted: Callable[..., None] = counted
        ) -> None:
            if file.name == "resume.safetensors":
                counted()
            unlink(file, missing_ok=missing_ok)

        monkeypatch.setattr("os.replace", replaces)
        monkeypatch.setattr(Path, "unlink", unlinks)
        try:
            run(config, log, folder)
            crashed = False
        except KeyboardInterrupt:
            crashed = True
        monkeypatch.setattr("os.replace", replace)
        monkeypatch.setattr(Path, "unlink", unlink)
        if crashed:
            if run_checkpoint(folder) is None:
                assert not list(folder.glob("*"))
                run(config, log, folder)
            else:
                resume(config, log, folder)
            check_same(tmp_path / "whole", folder)
            k += 1
    assert k > 10


def test_what_cannot_go_on_is_refused(log: SessionLog, tmp_path: Path) -> None:
    config = config_of("paper-lstm", players="adversarial")
    start_and_stop(config, log, tmp_path / "run", 14)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    assert finished_table(tmp_path / "run") is None
    with pytest.raises(CheckpointError, match=r"fingerprint .* give the same log"):
        resume(config, random_log(5), tmp_path / "run")
    for changes in ({"lr": 0.1}, {"epochs": 9}, {"seed": 4}):
        with pytest.raises(CheckpointError, match="another configuration"):
            resume(config.replace(**changes), log, tmp_path / "run")
    with pytest.raises(OutputError, match="pass --resume to go on"):
        run(config, log, tmp_path / "run")
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}


def test_a_run_with_the_weights_of_another_goes_on(log: SessionLog, tmp_path: Path) -> None:
    """It has no other start, and none that has changed."""
    config, first, other = config_of("paper-lstm"), tmp_path / "first", tmp_path / "other"
    run(config, log, first)
    run(config.replace(seed=9), log, other)
    n_batches = run(config, random_log(8), tmp_path / "whole", start=first)
    start_and_stop(config, random_log(8), tmp_path / "run", n_batches - 2, start=first)
    with pytest.raises(CheckpointError, match="leave start"):
        run(config, random_log(8), tmp_path / "run", resume=True, start=other)
    whole = (first / "model.safetensors").read_bytes()
    (first / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="has changed since"):
        resume(config, random_log(8), tmp_path / "run")
    (first / "model.safetensors").write_bytes(whole)
    assert resume(config, random_log(8), tmp_path / "run").resumed
    check_same(tmp_path / "whole", tmp_path / "run")
    card = (tmp_path / "run" / "README.md").read_text()
    assert "| weights at the start | the run first, sha256 " in card


def test_overwriting_leaves_nothing_of_the_former_run(log: SessionLog, tmp_path: Path) -> None:
    config = config_of("paper-lstm")
    run(config, log, tmp_path / "run")
    other = config.replace(seed=5)
    model = UserModel(other, device="cpu")
    with pytest.raises(Interrupted):
        train_run(model, log, tmp_path / "run", overwrite=True, observers=[StopAt(1)])
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["resume.safetensors"]
    run(other, log, tmp_path / "whole")
    resume(other, log, tmp_path / "run")
    check_same(tmp_path / "whole", tmp_path / "run")


def test_saves_take_their_share_of_the_time_at_most(
    log: SessionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that each batch moves by ten seconds and each save by eight: one save in 400 s,
    the first epoch's, and the last."""
    now, saved = [0.0], []
    monkeypatch.setattr(checkpoint, "SHARE", 0.02)
    monkeypatch.setattr(checkpoint.time, "perf_counter", lambda: now[0])
    write = checkpoint.save_state

    def slow(*given: Any) -> None:
        saved.append(now[0])
        now[0] += 8.0
        write(*given)

    monkeypatch.setattr(checkpoint, "save_state", slow)

    class Clock(Observer):
        def on_batch_end(self, done: int, total: int) -> None:
            now[0] += 10.0

    config = config_of("paper-lstm", epochs=30, patience=1000)
    train_run(UserModel(config, device="cpu"), log, tmp_path / "run", observers=[Clock()])
    gaps = np.diff(saved)
    assert len(gaps) >= 4
    assert all(gap >= 400 for gap in gaps[1:-1])


@pytest.mark.parametrize("folds", [0, 2])
def test_a_run_that_compares_settings_goes_on(
    folds: int, log: SessionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in its comparison, which begins again, and in the rounds of each fit, before which it
    does not. Only the last fit shows its batches to an observer: the signal comes in an epoch."""
    three = {f"dropout {rate}": LogSetting({"dropout": rate}) for rate in (0.1, 0.3, 0.5)}
    monkeypatch.setattr("fastgaum.models.portfolio.PORTFOLIO", three)
    monkeypatch.setattr("fastgaum.models.portfolio.SHORT_VISITS", 0)
    monkeypatch.setattr("fastgaum.models.portfolio.FEWEST_EPOCHS", 2)
    monkeypatch.setattr(checkpoint, "SHARE", 1e9)
    changes = {"search": ["dropout"], "folds": folds, "batch_sessions": 32, **PLAIN}
    config = config_of("fastgaum", epochs=2, **changes)
    epoch, epochs = Trainer._epoch, list[str]()
    stop_in = 0

    def counted(trainer: Trainer, step: Any) -> Any:
        epochs.append(trainer.at.phase)
        if len(epochs) == stop_in:
            raise Interrupted(signal.SIGINT)
        return epoch(trainer, step)

    monkeypatch.setattr(Trainer, "_epoch", counted)
    run(config, log, tmp_path / "whole")
    compared = open_run(tmp_path / "whole").machine["compared"]
    assert [one["name"] for one in compared] == list(three)
    assert sorted(one["rung"] for one in compared) == ([0, 1, 1] if folds else [0, 0, 0])
    assert [one["rung"] for one in compared if one["chosen"]] == [max(folds - 1, 0)]
    rounds = [place for place, phase in enumerate(epochs, start=1) if phase == "rounds"]
    assert len(rounds) == 2 * max(folds, 1)
    # of the rounds the first of the first fit, and the last of the last
    for stop_in in (5, *{rounds[0], rounds[-1]}):
        folder, epochs[:] = tmp_path / f"{stop_in}", []
        with pytest.raises(Interrupted):
            train_run(UserModel(config, device="cpu"), log, folder)
        kept = run_checkpoint(folder)
        assert kept is not None
        in_rounds, stop_in = stop_in in rounds, 0
        assert len(kept.compared) == (3 if in_rounds else 0)
        resume(config, log, folder)
        check_same(tmp_path / "whole", folder)


def test_what_a_killed_first_write_leaves_is_no_other_file(log: SessionLog, tmp_path: Path) -> None:
    """`atomic`, and safetensors within it, write beside the file."""
    config = config_of("paper-pw", epochs=1, search=[], folds=0)
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (".tmpmXEk80", ".resume.safetensors.0123abcd.part"):
        (folder / name).write_bytes(b"half")
    resume(config, log, folder)
    assert not [path for path in folder.iterdir() if path.name.startswith((".tmp", ".resume"))]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".tmp-notes").write_text("mine")
    with pytest.raises(OutputError, match="tmp-notes"):
        resume(config, log, tmp_path / "other")

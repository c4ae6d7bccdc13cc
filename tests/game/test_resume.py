"""An interrupted run goes on to the very bytes of one that never was: every preset, encoder and
player, any batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastgaum.config import Config
from fastgaum.engine.game import EngineGame
from fastgaum.errors import ConfigError, StepRefusedError
from fastgaum.features.ordered import FEW
from fastgaum.game import checkpoint
from fastgaum.logs.log import SessionLog
from fastgaum.models.run_folder import run_checkpoint
from fastgaum.nets.tensors import BatchTensors
from fastgaum.presets import PRESETS
from tests.game.interrupted import (
    SMALL,
    check_interrupted_anywhere,
    check_same,
    config_of,
    resume,
    run,
    start_and_stop,
)
from tests.logs.test_context import navigation

VARIANTS: list[dict[str, Any]] = [
    {"players": "exact", "history_layers": 2},
    {"history": "bilstm", "states": "generated"},
    {"regulariser": "tsallis"},
    {"dropout": 0.3, "table_optimiser": "adagrad"},
    {"patience": 1, "lr_drops": 2, "epochs": 6, "lr": 0.5},
    {"warm_start": 0},
    {"tower_dim": 6, "dropout": 0.3},
    # autograd trains these
    {"states": "generated", "history": "lstm", "history_layers": 2, "patience": 1},
]


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
    config = config_of("fastgaum", search=[], on_nonfinite="skip", most_skipped=9)
    run(config, log, tmp_path / "whole")
    for batch in (1, 7, 12):
        start_and_stop(config, log, tmp_path / f"{batch}", batch)
        resume(config, log, tmp_path / f"{batch}")
        check_same(tmp_path / "whole", tmp_path / f"{batch}")
    rows = rows_of(tmp_path / "7")
    # training reads each session in several orders: as often as its user is in them
    users = log.users[5:6]
    n_read = sum(FEW.blocks(users, number)[0] >= 0 for number in range(FEW.n_orders))
    assert n_read > 0
    assert all(1 <= row["skipped"] <= n_read for row in rows[:2])
    assert "'s5'" in rows[0]["at_fault"]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    found = run_checkpoint(folder)
    assert found is not None
    return found.rows


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


def test_options_of_epochs_alone_continue() -> None:
    config = Config.from_preset("paper-lstm")
    assert config.is_continued_by(config)
    assert config.is_continued_by(config.replace(epochs=101))
    assert not config.is_continued_by(config.replace(epochs=99))
    assert not config.is_continued_by(config.replace(lr=0.1))
    with pytest.raises(ConfigError):
        config.replace(epochs=0)

"""A model from shards is the model from memory: the same bytes in one shard where training says
nothing of candidates, the same figures where it is evaluated."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastgaum.config import Config
from fastgaum.errors import LogFormatError, NumericsError
from fastgaum.features.windows import StreamedSessions
from fastgaum.logs.log import SessionLog
from fastgaum.logs.read import open_log
from fastgaum.logs.shard_writer import shard_log, synthesise_shards
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.user_model import UserModel
from fastgaum.presets import SIZES
from tests.builders import random_log
from tests.game.interrupted import check_same, config_of, resume, run, start_and_stop

SHORT = {"epochs": 3, "warm_start": 2, "catch_up": 2, "search": [], "batch_sessions": 16}


def viewed_log(n_sessions: int = 240) -> SessionLog:
    log = random_log(0, n_sessions=n_sessions, shared_users=True, no_click=0.2)
    rng = np.random.default_rng(0)
    return dataclasses.replace(log, views=rng.integers(1, 4, log.n_candidates).astype(np.uint16))


def fitted(log, **changes) -> UserModel:
    model = UserModel.from_preset("fastgaum", **{**SHORT, **changes})
    model.fit(log)
    return model


@pytest.mark.parametrize("without", [{"protocol": "identity"}, {"counts": False}])
def test_one_shard_trains_to_the_same_bytes(tmp_path, without) -> None:
    """Counts of training are read in another order: shards are read once an epoch."""
    log = viewed_log()
    whole = fitted(log, relations=False, **without)
    shard = fitted(shard_log(log, tmp_path / "out", 1), relations=False, **without)
    assert whole.table is not None
    assert whole.table.drop("events_per_second").equals(
        shard.table.drop("events_per_second"), null_equal=True
    )
    whole.save(tmp_path / "whole.safetensors")
    shard.save(tmp_path / "shard.safetensors")
    assert (tmp_path / "whole.safetensors").read_bytes() == (
        tmp_path / "shard.safetensors"
    ).read_bytes()


def test_the_search_and_many_shards_train(tmp_path) -> None:
    log = viewed_log()
    model = fitted(shard_log(log, tmp_path / "out", 5), search=["relations"], window=2)
    assert model.settings_tried == 2
    assert model.table is not None
    assert np.isfinite(model.table["val_loss"].to_numpy()).all()
    again = fitted(shard_log(log, tmp_path / "again", 5), search=["relations"], window=2)
    assert model.table.drop("events_per_second").equals(
        again.table.drop("events_per_second"), null_equal=True
    )


def test_a_log_in_shards_is_sized(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("fastgaum.config.GROW_AT", 50)
    log = shard_log(random_log(3, n_sessions=80), tmp_path / "out", 3)
    one, again = (UserModel(Config(epochs=1, warm_start=2), device="cpu") for _ in range(2))
    one.fit(log)
    again.fit(log)
    assert [trial.name for trial in one.trials] == list(SIZES)
    assert [trial.val_loss for trial in one.trials] == [trial.val_loss for trial in again.trials]
    best = min(one.trials, key=lambda trial: trial.val_loss)
    assert one.config == again.config == one.settings_for(log)[best.name]


@pytest.mark.parametrize("protocol", ["identity", "bags"])
def test_an_interrupted_run_goes_on_to_the_same_bytes(tmp_path, protocol) -> None:
    shards = shard_log(viewed_log(100), tmp_path / "log", 5)
    config = config_of("fastgaum", protocol=protocol, relations=False, search=[], window=2)
    n_batches = run(config, shards, tmp_path / "whole")
    # three windows an epoch: within the first, at its end, and in later ones
    for batch in (1, 3, 4, 6, n_batches // 2, n_batches - 2):
        folder = tmp_path / f"stopped at {batch}"
        start_and_stop(config, shards, folder, batch)
        resume(config, open_log(shards.folder), folder)
        check_same(tmp_path / "whole", folder)


@pytest.mark.parametrize("protocol", ["identity", "bags"])
@pytest.mark.parametrize(("n_shards", "split"), [(6, "test"), (1, "all")])
def test_shards_are_scored_as_the_log_is(tmp_path, protocol, n_shards, split) -> None:
    """Each shard numbers its users from 0: training users of several come in another order."""
    log = viewed_log()
    model = fitted(log, protocol=protocol)
    shards = shard_log(log, tmp_path / "out", n_shards)
    whole, parts = model.predict(log, split), model.predict(shards, split)
    assert whole.select("session", "event", "item").equals(parts.select("session", "event", "item"))
    for column in whole.columns[3:]:
        np.testing.assert_allclose(whole[column].to_numpy(), parts[column].to_numpy(), atol=2e-6)
    mine, theirs = model.evaluate(shards, split).to_dict(), model.evaluate(log, split).to_dict()
    assert mine["n_users"] == theirs["n_users"]
    assert flat(mine) == pytest.approx(flat(theirs), abs=1e-4, nan_ok=True)


def flat(value: object) -> list[float]:
    if isinstance(value, dict):
        return [number for one in value.values() for number in flat(one)]
    if isinstance(value, list):
        return [number for one in value for number in flat(one)]
    return [] if value is None else [float(value)]


def test_an_empty_split_and_a_diverged_run_are_named(tmp_path) -> None:
    log = viewed_log(80)
    model = fitted(log, protocol="identity")
    without = log.with_split(np.where(log.split == 2, 1, log.split).astype(np.int8))
    with pytest.raises(LogFormatError, match="no session in split 'test'"):
        model.evaluate(shard_log(without, tmp_path / "out", 3))
    untrained = log.with_split(np.full(log.n_sessions, 2, np.int8))
    with pytest.raises(LogFormatError, match="no training session"):
        fitted(shard_log(untrained, tmp_path / "untrained", 3))


@pytest.mark.parametrize("rule", ["stop", "skip"])
def test_a_session_at_fault_is_named_from_its_shard(tmp_path, monkeypatch, rule) -> None:
    log = viewed_log(80)
    row = int(log.sessions_in("train")[11])
    inner = StreamedSessions._read

    def poisoned(self: StreamedSessions, shards: list[int]):
        sessions, rows = inner(self, shards)
        for at in np.flatnonzero(rows == row):
            sessions.waiting.values[sessions.display_offsets[sessions.session_offsets[at]]] = np.nan
        return sessions, rows

    monkeypatch.setattr(StreamedSessions, "_read", poisoned)
    shards = shard_log(log, tmp_path / "out", 6)
    changes = {
        "protocol": "bags",
        "relations": False,
        "on_nonfinite": rule,
        "batch_sessions": 4,
        "window": 2,
    }
    if rule == "stop":
        with pytest.raises(NumericsError, match=f"at fault: session '{log.session_ids[row]}'"):
            fitted(shards, **changes)
    else:
        model = fitted(shards, **changes, most_skipped=99)
        assert model.table is not None
        assert np.isfinite(model.table["gap"].to_numpy()).all()


WATCHED = """
import json, sys, torch
torch.set_num_threads(1)
from fastgaum.bench.memory import restart_peak, status_mb
from fastgaum.models.user_model import UserModel
from fastgaum.logs.shards import open_shards
peaks = []
# the first run makes everything that is made once
for folder in sys.argv[1:]:
    log = open_shards(folder)
    restart_peak()
    before = status_mb("VmRSS")
    model = UserModel.from_preset("paper-lstm", epochs=1, search=[], window=1, batch_sessions=512)
    model.fit(log)
    peaks.append(status_mb("VmHWM") - before)
print(json.dumps(peaks))
"""


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peaks are read from /proc: Linux only"
)
def test_training_holds_shards_and_not_the_log(tmp_path) -> None:
    """Ten times the shards of one size: the peak grows by far less than the log does."""
    log, _ = synthesise(10_000, preset="scale", n_items=1_000, mean_display=9.5, max_display=10)
    small = shard_log(log, tmp_path / "warm", 2)
    options = {"preset": "scale", "n_items": 1_000, "mean_display": 9.5}
    few = synthesise_shards(50_000, tmp_path / "few", 5, **options)
    many = synthesise_shards(500_000, tmp_path / "many", 50, **options)
    folders = [str(one.folder) for one in (small, few, many)]
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *folders], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    _, of_few, of_many = json.loads(done.stdout)
    # the log's arrays: 4 bytes per candidate, 8 per event and 13 per session, of which half are
    # trained on
    grown = (many.n_candidates - few.n_candidates) * 4 / 1e6
    assert grown > 16
    assert of_many - of_few < grown / 2

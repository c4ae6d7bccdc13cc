"""A log in parts is fitted part by part: the same bytes again and after a stop, about the loss of a
fit in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import polars as pl
import pytest

import fastgaum
from fastgaum.cli.app import main
from fastgaum.errors import ConfigError, LogFormatError
from fastgaum.features import parts as parts_of_log
from fastgaum.game import checkpoint
from fastgaum.logs.log import SessionLog
from fastgaum.logs.parts import slices_by_user
from fastgaum.logs.store import StoredLog, save_parts
from fastgaum.models import fit_data
from fastgaum.models.run_folder import train_run
from fastgaum.models.user_model import UserModel
from tests.game.interrupted import StopAt

AS_SHORT = [
    *("--set", "epochs=3", "--set", "warm_start=3", "--set", "search=[]", "--set", "hidden=[8]"),
    *("--set", "relations=false", "--device", "cpu"),
]
SHORT = {"epochs": 3, "warm_start": 3, "search": [], "hidden": [8], "relations": False}


@pytest.fixture(scope="module")
def log() -> SessionLog:
    return fastgaum.synthesise(3000, preset="sample", seed=2)[0]


@pytest.fixture
def stored(log: SessionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoredLog:
    monkeypatch.setattr(fit_data, "FOLDS_BELOW", 100)
    monkeypatch.setattr("fastgaum.config.FOLDS_BELOW", 100)
    monkeypatch.setattr(fit_data, "CHOOSING_EVENTS", 500)
    # ten windows or so, five of them an epoch
    candidates, events = log.count("candidates", "train"), log.count("events", "train")
    monkeypatch.setattr(parts_of_log, "WINDOW_CANDIDATES", candidates / 12)
    monkeypatch.setattr(parts_of_log, "EPOCH_EVENTS", events / 2)
    monkeypatch.setattr(parts_of_log, "VALIDATION_EVENTS", 400)
    return StoredLog(save_parts(slices_by_user(log, 12), tmp_path / "log"))


def fitted(log: SessionLog | StoredLog, **changes: object) -> UserModel:
    model = UserModel.from_preset("fastgaum", device="cpu", **{**SHORT, **changes})
    model.fit(log)
    return model


def test_a_fit_of_parts_is_about_that_in_memory(log: SessionLog, stored: StoredLog) -> None:
    # a pass is two epochs of parts
    of_parts = fitted(stored, epochs=16, warm_start=16, players="exact", patience=16)
    in_memory = fitted(log, epochs=8, warm_start=8, players="exact", patience=8)
    losses = [one.evaluate(log, "test").heads["reward"].nll.mean for one in (of_parts, in_memory)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    uniform = np.log(np.diff(log.display_offsets)).mean()
    assert losses[0] < 0.95 * uniform
    sampled = of_parts.evaluate(stored, "test")
    assert sampled.heads["reward"].nll.mean == pytest.approx(losses[0], rel=1e-4)
    rows = of_parts.predict(log)
    found = list(of_parts.predict_parts(stored))
    assert sum(frame.height for frame in found) == rows.height
    keys = ["session", "event", "item"]
    both = rows.join(
        pl.concat(found), on=keys, suffix="_of_parts", validate="1:1", nulls_equal=True
    )
    assert both.height == rows.height
    # a user who trained reads counts of all in another log, and the same here
    np.testing.assert_allclose(both["utility"], both["utility_of_parts"], atol=1e-4)


def test_sessions_that_it_counted_are_not_evaluated(log: SessionLog, stored: StoredLog) -> None:
    model = fitted(stored, epochs=1, warm_start=1)
    for split in ("train", "all"):
        with pytest.raises(ConfigError, match="their own choices are in its counts"):
            model.evaluate(stored, split)  # type: ignore[arg-type]
    assert model.evaluate(stored, "validation").n_events == stored.count("events", "validation")
    # read whole, the log's users are read by the blocks before them
    assert model.evaluate(fastgaum.load_log(stored.folder), "train").n_events > 0


def test_a_split_of_a_sample_has_about_as_many_events_as_asked(
    log: SessionLog, tmp_path: Path
) -> None:
    StoredLog(save_parts(slices_by_user(log, 4), tmp_path / "whole"))
    sample = fastgaum.load(str(tmp_path / "whole"), sample_users=0.5)
    stored = StoredLog(save_parts(slices_by_user(sample, 4), tmp_path / "sample"))
    n = stored.count("events", "train")
    assert stored.read_split("train", n // 2).n_events == pytest.approx(n / 2, rel=0.3)


def test_a_stopped_run_goes_on_to_the_same_bytes(
    stored: StoredLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SHARE", 1e9)

    def run(folder: Path, **how: object) -> None:
        model = UserModel.from_preset("fastgaum", device="cpu", **SHORT)
        train_run(model, stored, folder, **how)  # type: ignore[arg-type]

    run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", observers=[StopAt(3)])
    run(tmp_path / "stopped", resume=True)
    for name in ("model.safetensors", "metrics.jsonl"):
        whole, stopped = (tmp_path / one / name for one in ("whole", "stopped"))
        if name == "model.safetensors":
            assert whole.read_bytes() == stopped.read_bytes()
    card = (tmp_path / "whole" / "README.md").read_text()
    assert f"{stored.count('events', 'train'):,} events" in card


def test_small_logs_and_single_parts_are_read_into_memory(log: SessionLog, tmp_path: Path) -> None:
    small = StoredLog(save_parts(slices_by_user(log, 3), tmp_path / "small"))
    assert isinstance(fit_data.in_memory(small), SessionLog)


def test_settings_of_a_log_in_parts_are_those_of_the_whole_log(
    log: SessionLog, stored: StoredLog
) -> None:
    model = UserModel.from_preset("fastgaum", folds=0)
    settings = model.settings_for(log)
    assert model.settings_for(stored) == settings
    # an epoch of 500 events, the sample on which they are compared, would have smaller batches
    sample = fit_data.parts_to_choose(stored)
    assert model.settings_for(sample) != settings


def test_folds_and_start_want_the_log_in_memory(stored: StoredLog) -> None:
    former = fitted(stored, folds=0)
    with pytest.raises(ConfigError, match="a log in parts is fitted without start"):
        UserModel(former.config).fit(stored, start=former)
    with pytest.raises(ConfigError, match="a log in parts is fitted without folds"):
        fitted(stored, folds=3)


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder, by HTTP on this machine."""
    handler = partial(Silent, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_log_at_an_address_gives_the_same_bytes(stored: StoredLog, tmp_path: Path) -> None:
    runs = [tmp_path / "run-disk", tmp_path / "run-address"]
    with served(tmp_path) as address:
        for folder, source in zip(runs, (str(tmp_path / "log"), f"{address}/log"), strict=True):
            words = ["train", source, "-o", str(folder), "--preset", "fastgaum-exact", "--quiet"]
            assert main([*words, *AS_SHORT]) == 0
            scored = ["evaluate", str(folder), source, "--json", str(folder / "scores.json")]
            assert main(scored) == 0
    models = [(folder / "model.safetensors").read_bytes() for folder in runs]
    assert models[0] == models[1]
    scores = [json.loads((folder / "scores.json").read_text()) for folder in runs]
    assert scores[0]["heads"] == scores[1]["heads"]


def test_an_address_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with (
        served(tmp_path) as address,
        pytest.raises(
            LogFormatError, match=r"127\.0\.0\.1:\d+/log/log\.json' cannot be read .*404"
        ),
    ):
        fastgaum.load_log(f"{address}/log")


def test_an_exchanged_part_at_an_address_is_refused(stored: StoredLog, tmp_path: Path) -> None:
    parts = stored.about.parts
    (tmp_path / "log" / parts[3].events.file).write_bytes(
        (tmp_path / "log" / parts[4].events.file).read_bytes()
    )
    with served(tmp_path) as address, pytest.raises(LogFormatError, match="it was changed"):
        fastgaum.load_log(f"{address}/log")

"""The engine compiled in other processes while a first fit encodes its log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fastgaum.config import Config
from fastgaum.engine import ahead
from fastgaum.kernels import _cache
from fastgaum.nets.histories import history_encoder

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")

PROGRAM = """
import json, sys, torch
from numba.core.dispatcher import Dispatcher
from fastgaum.config import Config
from fastgaum.engine.ahead import rehearse
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.user_model import UserModel

def held():
    parts = ("scorer", "lstm", "optimiser", "bag_linear", "packing", "draws", "choice")
    modules = [sys.modules.get("fastgaum.kernels." + part) for part in parts]
    return {
        f"{name} {signature}"
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, Dispatcher) and value.py_func.__module__ == module.__name__
        for signature in value.signatures
    }

torch.set_num_threads(1)
log, _ = synthesise(300, n_items=20)
config = Config.from_preset("fastgaum", warm_start=1, epochs=1, search=[])
for part in ("scorer", "history"):
    rehearse(part, config)
before = held()
UserModel(config).fit(log)
print(json.dumps(sorted(held() - before)))
"""


def test_a_fit_compiles_no_step_that_was_rehearsed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == []


class FakeProcess:
    def __init__(self) -> None:
        self.done: list[str] = []
        self.hangs = False

    def wait(self, timeout: float | None = None) -> None:
        self.done.append("wait")
        if self.hangs and timeout is not None:
            raise subprocess.TimeoutExpired("it", timeout)

    def kill(self) -> None:
        self.done.append("kill")


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, FakeProcess]:
    """Processes that `compiling_ahead` begins, by their part, on an empty cache."""
    begun: dict[str, FakeProcess] = {}

    def begin(part: str, _: Config) -> Any:
        begun[part] = FakeProcess()
        return begun[part]

    monkeypatch.setattr(ahead, "_begin", begin)
    monkeypatch.setattr(ahead, "get_threads", lambda: 2)
    monkeypatch.setattr(_cache, "root", lambda: tmp_path / "kernels")
    return begun


def test_both_parts_begin_once_and_are_waited_for(begun: dict[str, FakeProcess]) -> None:
    config = Config.from_preset("fastgaum")
    with ahead.compiling_ahead(config, CPU, history_encoder, None):
        assert set(begun) == {"scorer", "history"}
    first = dict(begun)
    assert [process.done for process in first.values()] == [["wait"], ["wait"]]
    with ahead.compiling_ahead(config, CPU, history_encoder, None):
        assert begun == first, "what was claimed once is not begun again"


def test_an_error_ends_them(begun: dict[str, FakeProcess]) -> None:
    with (
        pytest.raises(ValueError, match="in between"),
        ahead.compiling_ahead(Config.from_preset("paper-lstm"), CPU, history_encoder, None),
    ):
        raise ValueError("in between")
    assert [process.done for process in begun.values()] == [["kill", "wait"]] * 2


def test_one_that_hangs_holds_no_fit(begun: dict[str, FakeProcess]) -> None:
    with ahead.compiling_ahead(Config.from_preset("paper-lstm"), CPU, history_encoder, None):
        begun["history"].hangs = True
    assert begun["history"].done == ["wait", "kill", "wait"]
    assert begun["scorer"].done == ["wait"]


@pytest.mark.parametrize("reason", ["device", "history", "states", "threads", "in the cache"])
def test_nothing_begins_where_it_would_not_serve(
    begun: dict[str, FakeProcess], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reason: str
) -> None:
    config, device = Config.from_preset("fastgaum"), CPU
    history: Any = history_encoder
    if reason == "device":
        device = torch.device("meta")
    elif reason == "history":
        history = lambda *sizes: history_encoder(*sizes)  # noqa: E731
    elif reason == "states":
        config = config.replace(states="generated", history="lstm", relations=False)
    elif reason == "threads":
        monkeypatch.setattr(ahead, "get_threads", lambda: 1)
    else:
        folder = _cache.folder()
        assert folder is not None
        folder.mkdir(parents=True)
        for name in ("scorer.scorer_pass", "lstm.lstm_tiles"):
            (folder / f"{name}-0123.nbi").touch()
    with ahead.compiling_ahead(config, device, history, None):
        assert begun == {}


def test_a_folder_that_may_not_be_written_to_has_no_claims(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(_cache, "root", lambda: tmp_path / "file")
    assert not _cache.claim("scorer.scorer_pass")
    monkeypatch.setattr(_cache, "root", lambda: None)
    assert not _cache.claim("scorer.scorer_pass")

"""The engine compiled in other processes while a first fit encodes its log."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
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

    def poll(self) -> int | None:
        return None if self.hangs or not self.done else 0

    def kill(self) -> None:
        self.done.append("kill")


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache of kernels, on a machine of two threads."""
    monkeypatch.setattr(ahead, "get_threads", lambda: 2)
    monkeypatch.setattr(ahead, "_waited_for", set())
    monkeypatch.setattr(_cache, "root", lambda: tmp_path / "kernels")
    folder = _cache.folder()
    assert folder is not None
    return folder


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch, cache: Path) -> dict[str, FakeProcess]:
    """Processes that `compiling_ahead` begins, by their part, on an empty cache."""
    begun: dict[str, FakeProcess] = {}

    def begin(part: str, _: Config) -> Any:
        begun[part] = FakeProcess()
        return begun[part]

    monkeypatch.setattr(ahead, "_begin", begin)
    return begun


def test_both_parts_begin_once_and_are_waited_for(begun: dict[str, FakeProcess]) -> None:
    config = Config.from_preset("fastgaum")
    with ahead.compiling_ahead(config, CPU, history_encoder, None):
        assert set(begun) == {"scorer", "history"}
        first = dict(begun)
        with ahead.compiling_ahead(config, CPU, history_encoder, None):
            assert begun == first, "what another process compiles is not begun again"
    assert [process.done for process in first.values()] == [["wait"], ["wait"]]
    with ahead.compiling_ahead(config, CPU, history_encoder, None):
        assert begun == first, "the folder keeps nothing: once in a process is enough"


@pytest.mark.parametrize("how", ["done", "killed", "fit failed", "refused"])
def test_no_claim_outlives_its_process(
    monkeypatch: pytest.MonkeyPatch, cache: Path, how: str
) -> None:
    processes = []

    def begin(command: list[str], **_: Any) -> subprocess.Popen[bytes]:
        if how == "refused":
            raise BlockingIOError(11, "Resource temporarily unavailable")
        program = "pass" if how == "done" else "import time; time.sleep(600)"
        processes.append(popen([sys.executable, "-c", program]))
        return processes[-1]

    popen = subprocess.Popen
    monkeypatch.setattr(ahead.subprocess, "Popen", begin)
    config = Config.from_preset("fastgaum")
    with (
        contextlib.suppress(InterruptedError),
        ahead.compiling_ahead(config, CPU, history_encoder, None),
    ):
        assert len(list(cache.glob("*.claimed"))) == (0 if how == "refused" else 2)
        for process in processes if how == "killed" else ():
            process.kill()
        if how == "fit failed":
            raise InterruptedError
    assert not list(cache.glob("*"))
    assert {process.returncode for process in processes} <= ({0} if how == "done" else {-9})


@pytest.mark.parametrize("age", [-1, 1])
def test_an_old_claim_is_none(cache: Path, age: int) -> None:
    """A whole process tree was killed; or a clock was wrong."""
    for share, expected in ((0.9, False), (1.1, True)):
        cache.mkdir(parents=True, exist_ok=True)
        when = time.time() - age * share * _cache.CLAIM_SECONDS
        (cache / "scorer.scorer_pass.claimed").touch()
        os.utime(cache / "scorer.scorer_pass.claimed", (when, when))
        with _cache.claimed("scorer.scorer_pass") as is_ours:
            assert is_ours is expected
            with _cache.claimed("scorer.scorer_pass") as is_ours_too:
                assert not is_ours_too


def test_an_error_ends_them(begun: dict[str, FakeProcess]) -> None:
    with (
        pytest.raises(ValueError, match="in between"),
        ahead.compiling_ahead(Config.from_preset("paper-lstm"), CPU, history_encoder, None),
    ):
        raise ValueError("in between")
    first = dict(begun)
    assert [process.done for process in first.values()] == [["kill", "wait"]] * 2
    with ahead.compiling_ahead(Config.from_preset("paper-lstm"), CPU, history_encoder, None):
        assert not set(first.values()) & set(begun.values()), "the next fit begins them again"


def test_one_that_hangs_holds_no_fit(begun: dict[str, FakeProcess]) -> None:
    with ahead.compiling_ahead(Config.from_preset("paper-lstm"), CPU, history_encoder, None):
        begun["history"].hangs = True
    assert begun["history"].done == ["wait", "kill", "wait"]
    assert begun["scorer"].done == ["wait"]


@pytest.mark.parametrize("reason", ["device", "history", "states", "threads", "in the cache"])
def test_nothing_begins_where_it_would_not_serve(
    begun: dict[str, FakeProcess], monkeypatch: pytest.MonkeyPatch, cache: Path, reason: str
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
        cache.mkdir(parents=True)
        for name in ("scorer.scorer_pass", "lstm.lstm_tiles"):
            (cache / f"{name}-0123.nbi").touch()
    with ahead.compiling_ahead(config, device, history, None):
        assert begun == {}


def test_a_folder_that_may_not_be_written_to_has_no_claims(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", None):
        monkeypatch.setattr(_cache, "root", lambda root=root: root)
        with _cache.claimed("scorer.scorer_pass") as is_ours:
            assert not is_ours

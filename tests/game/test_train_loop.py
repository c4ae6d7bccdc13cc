"""`train_loop`: what it asks of its caller. Several workers are in tests/parallel."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from fastgaum.errors import ConfigError
from fastgaum.logs.store import save_log
from fastgaum.models.train_loop import train_loop
from fastgaum.models.user_model import UserModel
from tests.builders import NARROW, random_log

SMALL = {**NARROW, "epochs": 2, "warm_start": 1, "catch_up": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_log(random_log(4, n_sessions=80), tmp_path_factory.mktemp("log") / "log")


def test_one_worker_trains(log: Path, tmp_path: Path) -> None:
    table = train_loop({**SMALL, "log": log, "out": tmp_path / "run"})
    assert table is not None
    assert table["phase"].to_list() == ["exact", "rounds", "rounds"]
    assert UserModel.load(tmp_path / "run").networks is not None


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"log": None}, "needs 'log'"),
        ({"out": None}, "needs 'out'"),
        ({"epoch": 3}, "did you mean 'epochs'"),
    ],
)
def test_mistakes_are_named(log: Path, tmp_path: Path, config: dict[str, Any], words: str) -> None:
    whole = {**SMALL, "log": log, "out": tmp_path / "run", **config}
    with pytest.raises(ConfigError, match=words):
        train_loop({key: value for key, value in whole.items() if value is not None})


def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Ray's modules as the example sees them, with one worker in this process; returns what workers
    report."""
    reports: list[dict[str, Any]] = []

    class Trainer:
        def __init__(self, worker: Any, *, train_loop_config: Any, scaling_config: Any) -> None:
            assert scaling_config == {"num_workers": 1}
            self.run = lambda: worker(train_loop_config)

        def fit(self) -> Any:
            self.run()
            return SimpleNamespace(metrics=reports[0])

    modules = {name: ModuleType(name) for name in ("ray", "ray.train", "ray.train.torch")}
    train: Any = modules["ray.train"]
    train.report, train.ScalingConfig = reports.append, dict
    of_torch: Any = modules["ray.train.torch"]
    of_torch.TorchTrainer = Trainer
    ray: Any = modules["ray"]
    ray.train = train
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return reports


def test_ray_s_workers_call_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Over a stand-in: with Ray itself it is a program of a minute, `python
    docs/examples/ray_train.py`."""
    reports = stand_in(monkeypatch)
    example = Path(__file__).resolve().parents[2] / "docs" / "examples" / "ray_train.py"
    spec = importlib.util.spec_from_file_location("ray_train", example)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.main(tmp_path, n_workers=1, epochs=1, warm_start=1, catch_up=1, device="cpu")
    assert model.networks is not None
    assert reports[0]["epochs"] == 2
    assert "prec@1" in capsys.readouterr().out

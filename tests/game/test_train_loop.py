"""`train_loop`: what it asks of its caller. Several workers are in tests/parallel."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from fastgaum.errors import ConfigError
from fastgaum.logs.shard_writer import shard_log
from fastgaum.models.train_loop import train_loop
from fastgaum.models.user_model import UserModel
from tests.builders import NARROW, random_log

SMALL = {**NARROW, "epochs": 2, "warm_start": 1, "catch_up": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log") / "shards"
    shard_log(random_log(4, n_sessions=80), folder, 3)
    return folder


def test_one_worker_trains_on_what_it_is_given(shards: Path, tmp_path: Path) -> None:
    table = train_loop({**SMALL, "log": shards, "out": tmp_path / "run"}, lambda: iter([2, 0]))
    assert table is not None
    assert table["phase"].to_list() == ["exact", "rounds", "rounds"]
    assert UserModel.load(tmp_path / "run").networks is not None


@pytest.mark.parametrize(
    ("config", "given", "words"),
    [
        ({"log": None}, [0], "needs 'log'"),
        ({"out": None}, [0], "needs 'out'"),
        ({"epoch": 3}, [0], "did you mean 'epochs'"),
        ({}, [3], "shard 3 was given .* shards 0 to 2"),
        ({}, [-1], "shard -1 was given"),
        ({}, [], "process 0 was given no shard"),
    ],
)
def test_mistakes_are_named(
    shards: Path, tmp_path: Path, config: dict, given: list[int], words: str
) -> None:  # type: ignore[type-arg]
    whole = {**SMALL, "log": shards, "out": tmp_path / "run", **config}
    with pytest.raises(ConfigError, match=words):
        train_loop({key: value for key, value in whole.items() if value is not None}, lambda: given)


def test_a_log_in_one_file_is_refused(shards: Path, tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    file.write_text(
        "session,event,item,chosen\na,0,x,1\na,0,y,0\nb,0,x,1\nb,0,y,0\nc,0,x,1\nc,0,y,0\n"
    )
    with pytest.raises(ConfigError, match="not in shards"):
        train_loop({**SMALL, "log": file, "out": tmp_path / "run"}, lambda: [0])


def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Ray's modules as the example sees them, with one worker in this process; returns what workers
    report."""
    reports: list[dict[str, Any]] = []
    handed: dict[str, Any] = {}

    class Trainer:
        def __init__(
            self, worker: Any, *, train_loop_config: Any, datasets: Any, scaling_config: Any
        ) -> None:
            assert scaling_config == {"num_workers": 1}
            handed.update(datasets)
            self.run = lambda: worker(train_loop_config)

        def fit(self) -> Any:
            self.run()
            return SimpleNamespace(metrics=reports[0])

    modules = {
        name: ModuleType(name) for name in ("ray", "ray.data", "ray.train", "ray.train.torch")
    }
    data: Any = modules["ray.data"]
    data.range = lambda n: SimpleNamespace(
        iter_rows=lambda: iter([{"id": number} for number in range(n)])
    )
    train: Any = modules["ray.train"]
    train.get_dataset_shard, train.report, train.ScalingConfig = (
        handed.__getitem__,
        reports.append,
        dict,
    )
    of_torch: Any = modules["ray.train.torch"]
    of_torch.TorchTrainer = Trainer
    ray: Any = modules["ray"]
    ray.data, ray.train = data, train
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
    model = module.main(
        tmp_path, n_workers=1, n_shards=3, epochs=1, warm_start=1, catch_up=1, device="cpu"
    )
    assert model.networks is not None
    assert reports[0]["epochs"] == 2
    assert "prec@1" in capsys.readouterr().out

"""The example of Ray Train, over a stand-in: with Ray itself it is a program of a minute, `python
docs/examples/ray_train.py`."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.worlds.test_examples import module_of


def test_ray_s_workers_call_what_torchrun_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reports: list[dict[str, Any]] = []

    class Trainer:
        """One worker, in this process."""

        def __init__(self, worker: Any, *, train_loop_config: Any, scaling_config: Any) -> None:
            assert scaling_config == {"num_workers": 1}
            self.fit = lambda: worker(train_loop_config)

    modules: dict[str, Any] = {
        name: ModuleType(name) for name in ("ray", "ray.train", "ray.train.torch")
    }
    modules["ray"].train = modules["ray.train"]
    modules["ray.train"].report, modules["ray.train"].ScalingConfig = reports.append, dict
    modules["ray.train.torch"].TorchTrainer = Trainer
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    made: Any = module_of("ray_train")
    small: dict[str, Any] = {"epochs": 1, "warm_start": 1, "catch_up": 1, "search": (), "folds": 0}
    model = made.main(tmp_path, n_workers=1, device="cpu", **small)
    assert model.networks is not None
    assert reports[0]["epochs"] == 2
    assert "prec@1" in capsys.readouterr().out

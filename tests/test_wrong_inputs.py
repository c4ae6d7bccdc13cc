"""Python calls with inputs of another type: each is an error of FastGAUM, never one of its insides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import fastgaum as fg

LOG = fg.synthesise(300, preset="sample")[0]
WRONG: dict[str, Any] = {
    "none": None,
    "number": 3,
    "text": "absent",
    "frame": pl.DataFrame({"a": [1]}),
    "list": [],
    "nan": float("nan"),
    "class": dict,
}
"""of each kind that somebody passes by accident"""
ALLOWED = {
    "UserModel": {"none"},
    "a seed of sample": {"number"},
    "a log of a world": {"none"},
    "users": {"number"},
    "places": {"number"},
    "raw rows": {"none"},
    "a data folder": {"none"},
    "a seed of resplit": {"number"},
    "synthesise": {"number"},
    "a seed of a world": {"number"},
    "a setting": {"number"},
    "a folder to save in": {"text"},
}
"""what some calls take of it"""


@pytest.fixture(scope="module")
def model() -> fg.UserModel:
    model = fg.UserModel.from_preset(
        "fastgaum", epochs=1, warm_start=1, catch_up=1, search=(), folds=0
    )
    model.fit(LOG)
    return model


Call = Callable[[fg.UserModel, Any], object]
CALLS: dict[str, Call] = {
    "Config of a preset": lambda m, x: fg.Config.from_preset(x),
    "Config of a file": lambda m, x: fg.Config.from_toml(x),
    "Config of a mapping": lambda m, x: fg.Config.from_mapping(x),
    "UserModel": lambda m, x: fg.UserModel(x),
    "a setting": lambda m, x: fg.UserModel.from_preset("fastgaum", eta=x),
    "fit": lambda m, x: fg.UserModel().fit(x),
    "load": lambda m, x: fg.UserModel.load(x),
    "evaluate": lambda m, x: m.evaluate(x),
    "a split": lambda m, x: m.evaluate(LOG, x),
    "predict": lambda m, x: m.predict(x),
    "sample": lambda m, x: m.sample(x),
    "a seed of sample": lambda m, x: m.sample(LOG, seed=x),
    "a head of sample": lambda m, x: m.sample(LOG, head=x),
    "LearnedWorld": lambda m, x: fg.LearnedWorld(x),
    "a log of a world": lambda m, x: fg.LearnedWorld(m, log=x),
    "WorldSet": lambda m, x: fg.WorldSet(x),
    "WorldSet of a model": lambda m, x: fg.WorldSet.of(x),
    "UserEnv": lambda m, x: fg.UserEnv(world=x),
    "UserVectorEnv of a run": lambda m, x: fg.UserVectorEnv(2, run=x),
    "users": lambda m, x: fg.UserVectorEnv(x, world=fg.LearnedWorld(m)),
    "places": lambda m, x: fg.UserEnv(world=fg.LearnedWorld(m), slate_size=x),
    "audit": lambda m, x: fg.audit(x),
    "raw rows": lambda m, x: fg.audit(LOG, x),
    "compare": lambda m, x: fg.compare(x),
    "models to compare": lambda m, x: fg.compare(LOG, x),
    "load by name": lambda m, x: fg.load(x),
    "a data folder": lambda m, x: fg.load("sample", data_dir=x),
    "load_log": lambda m, x: fg.load_log(x),
    "read_log": lambda m, x: fg.read_log(x),
    "options": lambda m, x: fg.read_log(pl.DataFrame(), options=x),
    "resplit": lambda m, x: fg.resplit(x, 0),
    "a seed of resplit": lambda m, x: fg.resplit(LOG, x),
    "save_log": lambda m, x: fg.save_log(x, "never"),
    "a folder to save in": lambda m, x: fg.save_log(LOG, x),
    "synthesise": lambda m, x: fg.synthesise(x),
    "a world": lambda m, x: fg.synthesise(10, preset=x),
    "a seed of a world": lambda m, x: fg.synthesise(10, seed=x),
    "runs": lambda m, x: fg.write_report(x, [LOG], "never.html"),
    "logs": lambda m, x: fg.write_report(["never"], x, "never.html"),
}


@pytest.mark.parametrize("call", CALLS)
def test_wrong_inputs_are_errors_of_fastgaum(
    model: fg.UserModel, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for wrong in WRONG.keys() - ALLOWED.get(call, set()):
        with pytest.raises(fg.errors.FastgaumError) as caught:
            CALLS[call](model, WRONG[wrong])
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_each_thing_is_one_line(model: fg.UserModel) -> None:
    world = fg.LearnedWorld(model)
    says: dict[str, object] = {
        "SessionLog('synthetic', ": LOG,
        "UserModel(preset 'fastgaum', not trained)": fg.UserModel(),
        "UserModel(preset 'fastgaum', ": model,
        "LearnedWorld(60 items, users ": world,
        "WorldSet(60 items, users ": fg.WorldSet([world]),
        "AuditReport('synthetic', ": fg.audit(LOG),
        "Evaluation(": model.evaluate(LOG),
    }
    for start, one in says.items():
        text = repr(one)
        assert text.startswith(start), text
        assert "\n" not in text
        assert len(text) < 200, text
    assert f"{LOG.n_events} events, " in repr(LOG)
    assert "prec@1 " in repr(model.evaluate(LOG))

"""`train_loop`: what it asks of its caller. Several workers are in tests/parallel."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastgaum.errors import ConfigError
from fastgaum.models.user_model import UserModel
from fastgaum.sessions.shard_writer import shard_log
from fastgaum.training.hook import train_loop
from tests.builders import random_log

SMALL = {"preset": "large", "epochs": 2, "warm_start": 1, "catch_up": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log") / "shards"
    shard_log(random_log(4, n_sessions=80), folder, 3)
    return folder


def test_one_worker_trains_on_what_it_is_given(shards: Path, tmp_path: Path) -> None:
    table = train_loop({**SMALL, "log": shards, "out": tmp_path / "run"}, lambda: iter([2, 0]))
    assert table is not None
    assert table["phase"].to_list() == ["exact", "generator", "rounds", "rounds"]
    assert UserModel.load(tmp_path / "run").networks is not None


@pytest.mark.parametrize(("config", "given", "words"), [
    ({"log": None}, [0], "needs 'log'"),
    ({"out": None}, [0], "needs 'out'"),
    ({"epoch": 3}, [0], "did you mean 'epochs'"),
    ({}, [3], "shard 3 was given .* shards 0 to 2"),
    ({}, [-1], "shard -1 was given"),
    ({}, [], "process 0 was given no shard"),
])  # fmt: skip
def test_mistakes_are_named(shards: Path, tmp_path: Path, config: dict, given: list[int], words: str) -> None:  # type: ignore[type-arg]
    whole = {**SMALL, "log": shards, "out": tmp_path / "run", **config}
    with pytest.raises(ConfigError, match=words):
        train_loop({key: value for key, value in whole.items() if value is not None}, lambda: given)


def test_a_log_in_one_file_is_refused(shards: Path, tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    file.write_text("session,event,item,chosen\na,0,x,1\na,0,y,0\nb,0,x,1\nb,0,y,0\nc,0,x,1\nc,0,y,0\n")
    with pytest.raises(ConfigError, match="not in shards"):
        train_loop({**SMALL, "log": file, "out": tmp_path / "run"}, lambda: [0])

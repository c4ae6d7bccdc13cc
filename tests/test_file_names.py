"""Names that no file can have, on the command line and in Python: one clear error, nothing
written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import fastgaum as fg
from fastgaum.cli.app import main
from fastgaum.files import atomic

LONG = "a" * 300
COMMANDS = {
    "log": ["data", "convert", f"{LONG}.csv", "-o", "out"],
    "log in a long path": ["data", "audit", "/".join(["a" * 200] * 30)],
    "output": ["data", "convert", "sample", "-o", LONG],
    "output that ends well": ["data", "convert", "sample", "-o", f"{LONG}.parquet"],
    "output whose part has no room": ["data", "convert", "sample", "-o", f"{'a' * 242}.parquet"],
    "json": ["data", "audit", "sample", "--json", LONG],
    "item table": ["data", "convert", "sample", "-o", "out", "--item-table", f"{LONG}.csv"],
    "run": ["train", "sample", "-o", LONG],
    "trained run": ["evaluate", LONG, "sample"],
    "report of a run": ["report", LONG],
    "configuration": ["train", "sample", "-o", "run", "--config", f"{LONG}.toml"],
    "data folder": ["data", "get", "yelp", "--data-dir", LONG],
    "policy": ["ope", "sample", "--policy", LONG],
    "resumed run": ["train", "sample", "-o", LONG, "--resume"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_name_of_more_than_255_bytes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = main(COMMANDS[name])
    err = capsys.readouterr().err
    assert code == 2, err
    assert err.startswith("fastgaum: error: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


SAMPLE = Path(fg.__file__).parent / "data" / "sample" / "sample.parquet"
LOG = fg.synthesise(20, preset="sample")[0]
CALLS: dict[str, Callable[[str], object]] = {
    "read_log": fg.read_log,
    "load": fg.load,
    "load_log": fg.load_log,
    "save_log": lambda path: fg.save_log(LOG, path),
    "item table": lambda path: fg.read_log(SAMPLE, item_table=path),
    "UserModel.load": fg.UserModel.load,
    "write_report": lambda path: fg.write_report([path], [LOG], "never.html"),
    "Config.from_toml": fg.Config.from_toml,
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("path", "says"), [(LONG, "255 bytes"), ("a\0b", "without the character NUL")]
)
def test_calls_in_python(call: str, path: str, says: str) -> None:
    with pytest.raises(fg.errors.ConfigError, match=says):
        CALLS[call](path)


@pytest.mark.parametrize("path", ["a\0b", "a" * 245])
def test_a_file_that_cannot_be_written(path: str, tmp_path: Path) -> None:
    with pytest.raises(fg.errors.ConfigError), atomic(tmp_path / path):
        pytest.fail("nothing is written")
    assert list(tmp_path.iterdir()) == []

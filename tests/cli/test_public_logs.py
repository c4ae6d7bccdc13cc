"""A public log's raw file becomes a trained run in one command. What is read of each file:
tests/logs/test_public_logs.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastgaum.cli.app import main
from tests.cli.good_files import QUICK
from tests.logs.public_files import FILES


@pytest.mark.parametrize("name", ["MIND", "Open Bandit", "LPMC"])
def test_a_raw_file_becomes_a_run_in_one_command(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run = FILES[name](tmp_path), tmp_path / "run"
    assert main(["train", str(path), "-o", str(run), *QUICK]) == 0
    assert f"{path.name} is read as {name}" in capsys.readouterr().err
    # nothing was given, and the file is read alike again
    assert {*json.loads((run / "reading.json").read_text())} <= {"categories"}
    assert main(["evaluate", str(run), str(path), "--json", str(tmp_path / "e.json")]) == 0
    assert json.loads((tmp_path / "e.json").read_text())["log"]
    assert main(["data", "convert", str(path), "-o", str(tmp_path / "packed")]) == 0
    assert main(["evaluate", str(run), str(tmp_path / "packed")]) == 0
    if name == "Open Bandit":
        # the column that is read for the propensities replaces none that the model reads
        value = ["--propensity", "propensity_score", "--json", str(tmp_path / "v.json")]
        assert main(["ope", str(path), "--policy", "greedy", "--run", str(run), *value]) == 0
        assert json.loads((tmp_path / "v.json").read_text())["propensity"] == value[1]

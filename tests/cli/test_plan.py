"""`fastgaum data plan`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fastgaum.cli.app import main


def test_the_command_prints_and_writes_a_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fails: Callable[[list[str]], str]
) -> None:
    file = tmp_path / "plan.json"
    quick = ["--set", "players=exact", "--set", "search=[]", "--set", "epochs=1"]
    assert main(["data", "plan", "sample", "--json", str(file), "--threads", "1", *quick]) == 0
    shown, notes = capsys.readouterr()
    found = json.loads(file.read_text())
    assert [one["times"] for one in found["ahead"]] == [2, 4, 10]
    assert len(found["fits"]) == 15
    gain = found["ahead"][0]["gain"]
    half = (gain["ci"][1] - gain["ci"][0]) / 2
    assert f"2 times as many {gain['mean']:.4f} ± {half:.4f}" in shown
    assert re.findall(r"\[(\d+)/15\] ", notes) == [str(n) for n in range(1, 16)]
    assert "[15/15] all of the training users: " in notes
    assert "unknown preset 'logit'" in fails(["data", "plan", "sample", "--preset", "logit"])

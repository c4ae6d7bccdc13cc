"""Facts of a log whose displays are made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fastgaum.cli.app import main


def test_movielens_small_prints_with_its_rule_and_the_rule_s_trace(
    shared_data: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shared_data("ml-latest-small/ratings.csv").parents[1]
    out = tmp_path / "t.json"
    argv = [
        "reproduce",
        "--datasets",
        "movielens-small",
        "--models",
        "click-rate",
        "--seeds",
        "1",
        "--jobs",
        "1",
    ]
    assert main([*argv, "--data-dir", str(folder), "--json", str(out)]) == 0
    facts = json.loads(out.read_text())["datasets"]["movielens-small"]
    assert facts["simulated"]["rule"] == "nearest"
    assert facts["simulated"]["trace"] > 80 > facts["floors"]["random"]["1"]
    assert "made up by the rule nearest" in capsys.readouterr().out

"""`fastgaum bench`: its errors, and one group from start to end with small sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastgaum.cli.app import main


def test_list_names_every_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--list"]) == 0
    names = capsys.readouterr().out.split()
    assert {"lstm-h64-tail", "env-4096", "round-scale"} <= set(names)
    assert len(names) == len(set(names))


def test_one_group_from_start_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--json", str(tmp_path / "b.json"), "--markdown", str(tmp_path / "b.md")]
    assert main(["bench", "lstm-h64-equal", "--smoke", "--threads", "1", *files]) == 0
    out, err = capsys.readouterr()
    result = json.loads((tmp_path / "b.json").read_text())
    (race,) = result["races"]
    assert race["group"] == "lstm-h64-equal"
    assert race["ours"]["unit"] == "tokens/s"
    assert race["ours"]["rounds"] >= 5
    (rival,) = race["rivals"]
    assert rival["name"] == "torch-padded"
    assert rival["ratio"] == pytest.approx(rival["seconds"] / race["ours"]["seconds"])
    assert result["ceilings"]["sgemm_gflops"] > 0
    assert result["machine"]["threads"] == race["threads"] == 1
    assert result["failed"] == result["skipped"] == []
    assert "lstm-h64-equal" in out
    assert "small sizes" in out
    assert "lstm-h64-equal, torch-padded" in err
    assert "| lstm-h64-equal |" in (tmp_path / "b.md").read_text()

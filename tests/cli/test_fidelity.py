"""`fastgaum fidelity`: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastgaum.cli.app import main


def test_report(
    trained: Path, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="figures: install fastgaum[plots]")
    files = {"json": tmp_path / "f.json", "markdown": tmp_path / "f.md", "plot": tmp_path / "f.svg"}
    options = [text for name, path in files.items() for text in (f"--{name}", str(path))]
    capsys.readouterr()
    command = f"fidelity {trained} {log_file} --split validation --episodes 200".split()
    assert main([*command, *options]) == 0
    out = capsys.readouterr().out
    report = json.loads(files["json"].read_text())
    assert report["replicas"] == 200 // report["sessions"]
    assert report["fields_averaged"] == ["price"]
    assert report["machine"]["versions"]["fastgaum"]
    assert "a simulated candidate has its item's mean of price" in out
    for one in report["statistics"]:
        assert one["name"] in out
        assert f"| {one['name']} |" in files["markdown"].read_text()
    assert files["plot"].read_text().startswith("<?xml")

"""`fastgaum report`: what it writes, what it refuses, and that the commands it prints repeat the
run."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from fastgaum.cli.app import main
from tests.cli.good_files import QUICK
from tests.test_docs import undrawn as without_picture

pytest.importorskip("matplotlib", reason="charts: install fastgaum[plots]")

Fails = Callable[[list[str]], str]


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of a page that nobody draws: the printed commands' page has drawn ones."""
    monkeypatch.setattr("fastgaum.reports.charts.picture_of", without_picture)


def test_the_printed_commands_repeat_the_run(
    trained: Path, log_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "a run")
    assert main(["report", "a run", "--json", "facts.json"]) == 0
    assert Path("report.html").is_file()
    commands = json.loads(Path("facts.json").read_text())["runs"][0]["commands"]
    (train, evaluate) = [shlex.split(line)[1:] for line in commands if line.startswith("fastgaum ")]
    assert main(train) == 0
    assert main([*evaluate, "--json", "again.json"]) == 0
    tables = [
        pl.read_parquet(f"{run}/metrics.parquet").drop("events_per_second")
        for run in ("a run", "a run-again")
    ]
    assert tables[0].equals(tables[1], null_equal=True)
    facts = json.loads(Path("facts.json").read_text())
    assert facts["logs"][0]["audit"]["has_rows"]
    assert facts["runs"][0]["machine"]["cost"]["peak_memory_bytes"] > 1e8
    heads = facts["runs"][0]["evaluation"]["heads"]
    assert json.loads(Path("again.json").read_text())["heads"] == heads


@pytest.mark.usefixtures("undrawn")
def test_runs_of_two_logs_and_of_one_log_read_in_two_ways(
    fails: Fails,
    trained: Path,
    log_file: Path,
    frame: pl.DataFrame,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other, page = tmp_path / "other.parquet", tmp_path / "page.html"
    dropped = frame.filter(pl.col("split") == "validation")["session"][0]
    frame.filter(pl.col("session") != dropped).write_parquet(other)
    b, c = str(tmp_path / "b"), str(tmp_path / "c")
    for log, run, how in ((other, b, []), (log_file, c, ["--ordered"])):
        assert main(["train", str(log), "-o", run, *QUICK, *how]) == 0
    report = ["report", "-o", str(page), "--overwrite", str(trained)]
    assert main([*report, b]) == 0
    assert page.read_text().count("by split</b>") == 2
    says = fails([*report, b, "--compare"])
    assert "--compare needs two runs that are scored on the same events" in says
    assert main([*report, c, "--compare", "--split", "test"]) == 0
    assert page.read_text().count("by split</b>") == 2
    assert "Paired differences" in page.read_text()
    assert "look at them once" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_a_log_that_is_not_found_is_named(
    fails: Fails,
    trained: Path,
    log_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "run")
    machine = json.loads(Path("run/machine.json").read_text())
    assert machine["log"]["source"] == str(log_file)
    machine["log"]["source"] = "/moved/away.parquet"
    Path("run/machine.json").write_text(json.dumps(machine))
    assert "is no longer at '/moved/away.parquet': pass --log" in fails(["report", "run"])
    del machine["log"]["source"]
    Path("run/machine.json").write_text(json.dumps(machine))
    assert "does not say where its log 'world' is: pass --log" in fails(["report", "run"])
    assert main(["report", "run", "--log", str(log_file)]) == 0

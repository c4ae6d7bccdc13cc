"""One rule for what commands write: what is there already is replaced with --overwrite only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fastgaum.cli.app import main
from fastgaum.cli.output import show_table

# command → its options that name an output
OUTPUTS = {
    "train LOG -o new": ["--json"],
    "evaluate RUN LOG": ["--json"],
    "predict RUN LOG -o new.csv": ["--json"],
    "predict RUN LOG": ["-o"],
    "what-if RUN LOG --drop i1": ["--json"],
    "simulate RUN -o new.csv": ["--json"],
    "simulate RUN": ["-o"],
    "fidelity RUN LOG": ["--json", "--markdown", "--plot"],
    "ope LOG --policy random --run RUN": ["--json", "--markdown"],
    "report RUN -o new.html": ["--json"],
    "report RUN": ["-o"],
    "reproduce": ["--json", "--markdown", "--figure"],
    "compare LOG": ["--json", "--markdown", "--figure"],
    "bench": ["--json", "--markdown"],
    "doctor": ["--json"],
    "data list": ["--json"],
    "data info sample": ["--json"],
    "data get sample": ["--json"],
    "data audit LOG": ["--json"],
    "data convert LOG -o new.csv": ["--json"],
    "data convert LOG": ["-o", "-o folder"],
    "data build ml-1m -o new.csv": ["--json"],
    "data build ml-1m": ["-o", "-o folder"],
    "data synth -o new.csv": ["--json"],
    "data synth": ["-o", "-o folder"],
    "rl train RUN -o new": ["--json"],
    "rl evaluate RUN": ["--json", "--markdown"],
}
SUFFIXES = {"--json": ".json", "--markdown": ".md", "--plot": ".svg", "--figure": ".svg"}


@pytest.mark.parametrize(
    ("command", "option"),
    [(command, option) for command, options in OUTPUTS.items() for option in options],
)
def test_what_is_there_stays(
    command: str,
    option: str,
    fails: Callable[[list[str]], str],
    trained: Path,
    log_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    there = option.split()
    if there[-1] == "folder":
        assert main(["data", "synth", "-o", "folder", "--events", "40", "--quiet"]) == 0
    else:
        there.append(f"there{SUFFIXES.get(option, '.csv')}")
        (tmp_path / there[-1]).write_text("mine")
    named = {"RUN": str(trained), "LOG": str(log_file)}
    err = fails([*(named.get(word, word) for word in command.split()), *there])
    assert f"'{there[-1]}'" in err
    assert "pass --overwrite to replace it" in err


def test_a_synthetic_log_s_truth_stays(
    fails: Callable[[list[str]], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["data", "synth", "-o", "world.csv", "--events", "40"]
    assert main(command) == 0
    (tmp_path / "world.csv").unlink()
    assert "truth" in fails(command)


@pytest.mark.parametrize("out", ["log.csv", "log"])
def test_overwrite_replaces(out: str, tmp_path: Path) -> None:
    for events, overwrite in ((40, []), (60, ["--overwrite"])):
        command = ["data", "synth", "-o", str(tmp_path / out), "--events", str(events)]
        facts = ["--json", str(tmp_path / "facts.json")]
        assert main([*command, *facts, *overwrite]) == 0
        assert json.loads((tmp_path / "facts.json").read_text())["events"] == events


def test_stdout_and_an_empty_folder_are_free(
    log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log").mkdir()
    assert main(["data", "convert", str(log_file), "-o", str(tmp_path / "log"), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["events"] == 300


def test_a_wide_table_goes_on_below_and_an_empty_column_is_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every line fits 120 columns, every cell is whole, and the first column names each row."""
    columns = ["model", *(f"figure {i}" for i in range(9)), "nothing"]
    rows = [[f"row {n}", *(f"{n}{i}" * 10 for i in range(9)), ""] for n in range(3)]
    show_table(columns, rows, title="a table", bold={(1, 8)})
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 120
    assert shown.count("a table") == 1
    assert "nothing" not in shown
    assert all(cell in shown.split() for row in rows for cell in row[1:-1])
    assert shown.count("row 2") == shown.count("model") == 3
    show_table(columns, [])
    assert "nothing" in capsys.readouterr().out

"""`fastgaum transfer`: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from fastgaum.cli.app import main
from fastgaum.interrupts import Interrupted
from fastgaum.reports import transfer as module
from fastgaum.reports.promises import Worth

TOY = ["--events", "400", "--users", "30", "--members", "1", "--policy", "cascade-dqn"] + [
    text
    for value in ("episodes=1", "users=16", "warm_up=16", "batch=16", "updates=1")
    for text in ("--set", value)
]


def test_tables_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="figures: install fastgaum[plots]")
    files = {"json": tmp_path / "t.json", "markdown": tmp_path / "t.md", "plot": tmp_path / "t.svg"}
    options = [text for name, path in files.items() for text in (f"--{name}", str(path))]
    assert main(["transfer", "items-10", *TOY, "--seeds", "1", "--jobs", "1", *options]) == 0
    shown = capsys.readouterr()
    result = json.loads(files["json"].read_text())
    assert result["machine"]["versions"]["fastgaum"]
    assert (result["seeds"], result["settings"][0]["events"]) == (1, 400)
    assert result["config"]["episodes"] == 1
    assert "items-10: 10 items; 400 events of random slates" in shown.out
    assert "A policy (cascade-dqn) trained among learned users (one world) earns" in shown.out
    assert "[2/2] items-10, the truth, seed 0" in shown.err
    assert "| cascade-dqn, one world |" in files["markdown"].read_text()
    assert files["plot"].read_text().startswith("<?xml")


def test_an_interrupted_run_keeps_the_seeds_that_are_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each task of this test gives what the first one of its kind gave."""
    real, kept, left = module.worths_of, {}, [4]

    def interrupted(task: module.Task) -> list[Worth]:
        if not left[0]:
            raise Interrupted(signal.SIGINT)
        left[0] -= 1
        if task.logging not in kept:
            kept[task.logging] = real(task)
        return kept[task.logging]

    monkeypatch.setattr(module, "worths_of", interrupted)
    options = ["--seeds", "3", "--jobs", "1", "--json", str(tmp_path / "t.json")]
    # each seed has two tasks: the third is cut off before the first of its own
    assert main(["transfer", "items-10", *TOY, *options]) == 130
    assert "interrupted: 2 of 3 seeds are done" in capsys.readouterr().err
    result = json.loads((tmp_path / "t.json").read_text())
    assert result["seeds"] == 2
    assert len(result["settings"][0]["rows"][0]["paid_by_seed"]) == 2
    left[0] = 1
    # without a whole seed nothing is written
    options[-1] = str(tmp_path / "none.json")
    assert main(["transfer", "items-10", *TOY, *options]) == 130
    assert capsys.readouterr().err.endswith("fastgaum: interrupted\n")
    assert not (tmp_path / "none.json").exists()


@pytest.mark.slow
def test_two_processes_give_the_figures_that_one_gives(tmp_path: Path) -> None:
    settings = []
    for jobs in ("1", "2"):
        file = tmp_path / f"{jobs}.json"
        command = ["transfer", "items-10", *TOY, "--seeds", "1", "--jobs", jobs]
        assert main([*command, "--json", str(file)]) == 0
        settings.append(json.loads(file.read_text())["settings"])
    assert settings[0] == settings[1]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["items-11"], "no known world 'items-11'; did you mean 'items-10'"),
        (["--logging", "best"], "no logging policy 'best'"),
        (["--events", "many"], "--events takes whole numbers by comma (2000,20000), got 'many'"),
        (["--events", "20"], "too few sessions"),
        (["--seeds", "0"], "seeds must be at least 1"),
        (["--policy", "greedy"], "policy 'greedy' is not trained in a world"),
        (["--members", "0"], "members must be at least 1"),
        (["--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["--set", "episode=1"], "episode"),
        (["--plot", "t.pdf"], "ends in '.pdf', a figure is written as .svg or .png"),
    ],
)
def test_refuses(
    fails: Callable[[list[str]], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert says in fails(["transfer", *options])

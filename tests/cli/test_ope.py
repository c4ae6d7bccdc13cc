"""`fastgaum ope`: what it prints and writes, and the columns it reads."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from fastgaum.cli.app import main
from fastgaum.logs.fold import to_frame
from fastgaum.logs.synthetic import synthesise

QUICK = ["epochs=1", "warm_start=2", "catch_up=1", "search=[]", "folds=0"]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of displays of 3 of 15 items, with the propensity of each."""
    log, _ = synthesise(
        900, n_items=15, no_click=0.4, mean_display=2.8, max_display=3, skew=1.0, seed=2
    )
    frame = to_frame(log).drop("event_label", strict=False)
    sizes = pl.len().over("session", "event")
    propensity = pl.when(sizes == 2).then(1 / 105).otherwise(1 / 455)
    path = tmp_path_factory.mktemp("ope") / "shown.csv"
    frame.with_columns(propensity=propensity).write_csv(path)
    return path


@pytest.fixture(scope="module")
def run(shown: Path) -> Path:
    folder = shown.parent / "run"
    sets = [text for one in QUICK for text in ("--set", one)]
    assert main(["train", str(shown), "-o", str(folder), *sets]) == 0
    return folder


def rows_of(path: Path) -> dict[str, dict[str, object]]:
    return {one["estimator"]: one for one in json.loads(path.read_text())["estimates"]}


def test_the_table_and_its_files(
    shown: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--json", str(tmp_path / "v.json"), "--markdown", str(tmp_path / "v.md")]
    argv = ["ope", str(shown), "--policy", "greedy", "--epsilon", "0.5", "--run", str(run)]
    capsys.readouterr()
    assert main([*argv, "--split", "all", *files]) == 0
    out, rows = capsys.readouterr().out, rows_of(tmp_path / "v.json")
    assert list(rows) == ["dr-pi", "dm", "logged"]
    for name in rows:
        assert f"| {name} |" in (tmp_path / "v.md").read_text()
        assert name in out
    assert rows["dr-pi"]["low"] < rows["dr-pi"]["value"] < rows["dr-pi"]["high"]
    assert "of the all split trained this model" in out


def test_propensities_are_a_column(shown: Path, run: Path, tmp_path: Path) -> None:
    """It says what random sets have, and does not reach the model."""
    argv = ["ope", str(shown), "--policy", "random", "--split", "all", "--run", str(run)]
    law, column = tmp_path / "law.json", tmp_path / "column.json"
    assert main([*argv, "--json", str(law)]) == 0
    assert main([*argv, "--propensity", "propensity", "--json", str(column)]) == 0
    told = rows_of(column)
    assert told["snips"]["value"] == pytest.approx(rows_of(law)["logged"]["value"], rel=1e-5)
    assert told["dm"] == rows_of(law)["dm"]


def test_a_folder_with_a_policys_name_hides_nothing(
    shown: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "popular").mkdir()
    monkeypatch.chdir(tmp_path)
    argv = ["ope", str(shown), "--policy", "popular", "--run", str(run), "--json", "v.json"]
    assert main(argv) == 0
    assert json.loads((tmp_path / "v.json").read_text())["policy"] == "popular"


def test_a_trained_policy_has_a_value(shown: Path, run: Path, tmp_path: Path) -> None:
    small = ["episodes=1", "users=16", "warm_up=16", "evaluations=1", "batch=16"]
    sets = [text for one in small for text in ("--set", one)]
    policy, out = tmp_path / "cascade", tmp_path / "v.json"
    made = ["rl", "train", str(run), "-o", str(policy), "--policy", "cascade-dqn", "-k", "3"]
    assert main([*made, "--horizon", "3", *sets]) == 0
    argv = ["ope", str(shown), "--policy", str(policy), "--run", str(run), "--epsilon", "0.5"]
    assert main([*argv, "--split", "all", "--json", str(out)]) == 0
    assert rows_of(out)["dr-pi"]["value"] is not None

"""`fastgaum rl evaluate`: the table of policies, in this world and in another one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fastgaum.cli.app import main
from fastgaum.models.user_model import UserModel
from fastgaum.policies.registry import POLICIES, load_policy
from fastgaum.worlds.world_set import WorldSet
from tests.cli.rl_runs import QUICK, SHORT, SMALL


def test_policies_in_a_set_of_worlds(
    runs: tuple[Path, Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    fails: Callable[[list[str]], str],
) -> None:
    """A run of two worlds: pessimism is trained with, the table has a lower bound; one world has
    neither."""
    log, one, _ = runs
    run, table, other = tmp_path / "run", tmp_path / "table.json", tmp_path / "other.json"
    quick = [*QUICK, "--set", "folds=2", "--split-by", "user"]
    assert main(["train", str(log), "-o", str(run), *quick]) == 0
    assert "fit 1 of 2" in capsys.readouterr().err
    assert len(UserModel.load(run).members) == 1
    train = ["rl", "train", str(run), "-o", str(tmp_path / "wary"), "-k", "2", *SMALL, *SHORT]
    assert main([*train, "--pessimism", "0.5"]) == 0
    policy = load_policy(tmp_path / "wary", WorldSet.of(UserModel.load(run))).policy
    assert policy.name == "slateq"
    assert "slateq is paid " in capsys.readouterr().out
    # a size that is named twice has one table
    judged = ["--policies", "random,greedy,popular", "-k", "2,2", "--seeds", "2", "--users", "40"]
    assert main(["rl", "evaluate", str(run), *judged, "--json", str(table), *SMALL, *SHORT]) == 0
    shown = capsys.readouterr().out
    assert "lower bound" in shown
    assert "keep greedy: random is paid -" in shown or "cannot tell: random is paid" in shown
    assert "coverage" in shown
    assert "decoys, %" in shown
    result = json.loads(table.read_text())
    rows = result["rows"]
    assert len(rows) == 3
    assert {(one["k"], one["policy"]) for one in result["advice"]} == {
        (2, "random"),
        (2, "popular"),
    }
    assert all(len(one["leads"]) == 2 for one in result["advice"])
    assert all(row["lower_bound"] < row["return"] for row in rows)
    # users may choose nothing: the rule reads no decoys
    assert {row["policy"]: row["decoys"] > 0.3 for row in rows} == {
        "random": True,
        "greedy": False,
        "popular": False,
    }
    assert all(one["decoys"] == 0 for one in result["advice"])
    assert main(["rl", "evaluate", str(one), *judged, "--json", str(other), *SMALL, *SHORT]) == 0
    shown = capsys.readouterr().out
    assert "lower bound" not in shown
    assert "is paid" not in shown
    assert not any("lower_bound" in row for row in json.loads(other.read_text())["rows"])
    alone = ["rl", "train", str(one), "-o", str(tmp_path / "none"), *SMALL, *SHORT]
    assert "this is one world" in fails([*alone, "--pessimism", "0.5"])
    assert not (tmp_path / "none").exists()
    evaluate = ["rl", "evaluate", str(one), *judged, *SMALL, *SHORT]
    assert "this is one world" in fails([*evaluate, "--pessimism", "0.5"])
    assert "pessimism is -1.0" in fails([*train[:-2], "--overwrite", "--pessimism", "-1"])


def test_evaluate_prints_every_policy_in_another_world(
    runs: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    _, run, other = runs
    file, text = tmp_path / "table.json", tmp_path / "table.md"
    command = f"rl evaluate {run} --in {other} -k 1,2 --seeds 2 --users 30".split()
    assert main([*command, "--json", str(file), "--markdown", str(text), *SMALL, *SHORT]) == 0
    result = json.loads(file.read_text())
    assert [(row["policy"], row["k"]) for row in result["rows"]] == [
        (name, k) for k in (1, 2) for name in POLICIES
    ]
    for row in result["rows"]:
        assert 0 <= row["click_rate"] <= 1
        assert row["return_ci"][0] <= row["return"] <= row["return_ci"][1]
        assert len(row["return_by_seed"]) == 2
        assert row["versus"]["policy"] != row["policy"]
    assert text.read_text().count("| random |") == 4

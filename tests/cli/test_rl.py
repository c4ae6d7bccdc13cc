"""`fastgaum rl`: a policy from a run; mistakes are one line and exit code 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from fastgaum.cli.app import main
from fastgaum.models.user_model import UserModel
from fastgaum.policies.base import MOST_DECOYS
from fastgaum.policies.registry import load_policy
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.pools import Pool
from tests.cli.rl_runs import QUICK, SHORT, SMALL


def test_a_policy_is_trained_as_asked(runs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, run, _ = runs
    out = tmp_path / "policy"
    options = ["-k", "2", "--seed", "3", "--reward", "contrast", "--leaving", "0.1"]
    options += ["--pool-size", "10"]
    assert main(["rl", "train", str(run), "-o", str(out), *options, *SMALL, *SHORT]) == 0
    saved = load_policy(out, LearnedWorld(UserModel.load(run)))
    assert saved.policy.name == "slateq"
    setting = saved.setting
    assert (setting.reward, setting.horizon, setting.leaving) == ("contrast", 3, 0.1)
    assert setting.pool == Pool(size=10, seed=3)
    curve = pl.read_parquet(out / "curve.parquet")
    assert curve.columns == ["steps", "return", "click_rate", "decoys", "loss", "epsilon"]
    assert 16 < curve["steps"].item() <= 48


def test_a_plan_of_decoys_is_not_recommended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Users of the sample always choose: two items of slateq's slates of three are the worst."""
    run, out, facts = tmp_path / "run", tmp_path / "policy", tmp_path / "facts.json"
    assert main(["train", "sample", "-o", str(run), *QUICK]) == 0
    train = f"rl train {run} -o {out} -k 3 --json {facts} --horizon 5 --reward contrast "
    train += "--set episodes=8 --set users=64 --set warm_up=64"
    assert main(train.split()) == 0
    share = json.loads(facts.read_text())["last"]["decoys"]
    assert share > MOST_DECOYS
    shown = capsys.readouterr().out
    assert f", decoys {share:.1%}; one world cannot say" in shown
    assert f"; not recommended: {share:.0%} of the items that it shows are below" in shown
    simulate = f"simulate {run} -o {tmp_path / 'shown.csv'} --policy {out} --episodes 1"
    assert main(simulate.split()) == 0
    assert f"slateq is not recommended: {share:.0%} of the items" in capsys.readouterr().err


def test_a_policy_of_another_world_is_refused(
    runs: tuple[Path, Path, Path], fails: Callable[[list[str]], str], tmp_path: Path
) -> None:
    _, run, other = runs
    out = tmp_path / "policy"
    assert main(["rl", "train", str(run), "-o", str(out), *SMALL, *SHORT]) == 0
    simulate = f"simulate {other} -o {tmp_path / 'shown.csv'} --policy {out}"
    assert "another world" in fails(simulate.split())
    assert "is there already" in fails(["rl", "train", str(run), "-o", str(out), *SMALL])

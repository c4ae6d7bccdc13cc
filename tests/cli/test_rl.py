"""`fastgaum rl`: a policy from a run, and its adaptation curve; mistakes are one line and exit
code 2."""

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


def test_train_then_adapt(
    runs: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, run, other = runs
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
    file = tmp_path / "curve.json"
    adapt = f"rl adapt {out} {run} --in {other} --episodes 2 --users 20 --seeds 2".split()
    capsys.readouterr()
    assert main([*adapt, "--json", str(file)]) == 0
    facts = json.loads(file.read_text())
    met = {"reward": "contrast", "horizon": 3, "leaving": 0.1, "notes": []}
    met |= {"seeds": 2, "users": 20, "episodes": 2}
    assert {"argv", "commit", "processor", "versions"} <= set(facts["machine"])
    assert facts | met == facts
    rows = [(row["policy"], row["users"]) for row in facts["rows"]]
    assert rows == [(name, users) for name in ("pre-trained", "untrained") for users in (20, 40)]
    printed = capsys.readouterr()
    assert "contrast of 3 steps" in printed.out
    assert "trained with" not in printed.err
    assert main([*adapt, "--reward", "click"]) == 0
    assert "trained with reward contrast and meets reward click" in capsys.readouterr().err


def test_a_plan_of_decoys_is_not_recommended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Users of the sample always choose: two items of slateq's slates of three are the worst."""
    run, out, facts = tmp_path / "run", tmp_path / "policy", tmp_path / "facts.json"
    assert main(["train", "sample", "-o", str(run), *QUICK]) == 0
    train = f"rl train {run} -o {out} -k 3 --json {facts} --horizon 5 --reward contrast "
    train += "--set episodes=12 --set users=64 --set warm_up=64"
    assert main(train.split()) == 0
    share = json.loads(facts.read_text())["last"]["decoys"]
    assert share > MOST_DECOYS
    shown = capsys.readouterr().out
    assert f", decoys {share:.1%}; one world cannot say" in shown
    assert f"; not recommended: {share:.0%} of the items that it shows are below" in shown
    adapt = f"rl adapt {out} {run} --episodes 1 --users 20 --seeds 1".split()
    assert main(adapt) == 0
    assert f"slateq is not recommended: {share:.0%} of the items" in capsys.readouterr().err


def test_a_policy_of_another_world_is_refused(
    runs: tuple[Path, Path, Path], fails: Callable[[list[str]], str], tmp_path: Path
) -> None:
    _, run, other = runs
    out = tmp_path / "policy"
    assert main(["rl", "train", str(run), "-o", str(out), *SMALL, *SHORT]) == 0
    assert "another world" in fails(["rl", "adapt", str(out), str(other)])
    assert "is there already" in fails(["rl", "train", str(run), "-o", str(out), *SMALL])
    (out / "policy.safetensors").write_bytes(b"not a policy")
    assert "damaged" in fails(["rl", "adapt", str(out), str(run)])

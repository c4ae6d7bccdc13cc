"""`fastgaum simulate`: a file that is a log, the same for the same seed, and errors in one line.
An audit reads it in docs/guide/environment.md."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fastgaum.cli.app import main
from fastgaum.models.user_model import UserModel
from fastgaum.policies.registry import load_policy
from fastgaum.policies.rollout import Setting, play
from fastgaum.worlds.learned_world import LearnedWorld

SMALL = ["--episodes", "30", "--slate-size", "3", "--horizon", "4"]


@pytest.fixture
def plain(runs: tuple[Path, Path, Path]) -> tuple[str, str]:
    """A log without fields of its own, and a run of it."""
    return str(runs[0]), str(runs[1])


def test_trajectories_are_trained_on(plain: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "t.csv"
    assert main(["simulate", plain[1], "-o", str(out), *SMALL]) == 0
    frame = pl.read_csv(out)
    columns = ["session", "event", "item", "chosen", "utility", "probability", "propensity"]
    assert frame.columns == columns
    assert frame.height == 30 * 4 * 3
    assert frame["session"].n_unique() == 30
    train = f"train {out} -o {tmp_path / 'again'} --set epochs=1 --set warm_start=1".split()
    assert main(train) == 0


def test_the_same_seed_writes_the_same_file(plain: tuple[str, str], tmp_path: Path) -> None:
    frames = []
    for name, seed, threads in (("a", "1", "1"), ("b", "1", "2"), ("c", "2", "1")):
        out = tmp_path / f"{name}.parquet"
        argv = ["simulate", plain[1], "-o", str(out), *SMALL, "--seed", seed, "--threads", threads]
        assert main([*argv, "--pool", "per_user", "--pool-size", "9", "--leaving", "0.1"]) == 0
        frames.append(pl.read_parquet(out))
    assert frames[0].equals(frames[1])
    assert not frames[0].equals(frames[2])


def test_users_may_begin_within_a_logged_session(
    plain: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, run = plain
    frames = []
    for name, more in (("empty", []), ("logged", ["--starts", "logged", "--log", log])):
        assert main(["simulate", run, "-o", str(tmp_path / f"{name}.parquet"), *SMALL, *more]) == 0
        frames.append(pl.read_parquet(tmp_path / f"{name}.parquet").filter(pl.col("event") == 0))
    assert frames[0]["item"].equals(frames[1]["item"])
    assert not frames[0]["utility"].equals(frames[1]["utility"])
    assert capsys.readouterr().err.count("logged start, which is not written") == 1


@pytest.mark.parametrize("policy", ["popular", "greedy"])
def test_a_policy_by_name_makes_the_slates(
    plain: tuple[str, str], tmp_path: Path, policy: str
) -> None:
    log, run = plain
    out = tmp_path / "t.parquet"
    assert main(["simulate", run, "-o", str(out), *SMALL, "--policy", policy, "--log", log]) == 0
    frame = pl.read_parquet(out)
    assert frame.height == 30 * 4 * 3
    slates = frame.group_by("session", "event", maintain_order=True).agg("item")["item"]
    if policy == "popular":
        assert slates.n_unique() == 1
        choices = pl.read_parquet(log).filter(pl.col("chosen") == 1)["item"].value_counts(sort=True)
        assert set(slates[0]) <= set(choices["item"].head(8).cast(pl.String))
    if policy == "greedy":
        falls = pl.col("utility").is_sorted(descending=True)
        assert frame.group_by("session", "event").agg(falls)["utility"].all()


def test_a_trained_policy_makes_the_slates_it_was_trained_for(
    plain: tuple[str, str],
    tmp_path: Path,
    fails: Callable[[list[str]], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its own size of slates, pool and horizon, as it acts when it no longer learns; another
    horizon is said."""
    run, policy, out = plain[1], tmp_path / "policy", tmp_path / "t.parquet"
    keys = ("episodes=1", "users=8", "warm_up=8", "batch=8", "evaluations=1")
    quick = [part for key in keys for part in ("--set", key)]
    pool = ["--pool", "fixed", "--pool-size", "5", "-k", "2", "--horizon", "4", "--seed", "3"]
    assert main(["rl", "train", run, "-o", str(policy), *pool, *quick]) == 0
    simulate = f"simulate {run} -o {out} --episodes 30 --policy {policy}".split()
    assert main(simulate) == 0
    assert "trained with" not in capsys.readouterr().err
    frame = pl.read_parquet(out)
    assert frame.height == 30 * 4 * 2
    world = LearnedWorld(UserModel.load(Path(run)))
    saved = load_policy(policy, world)
    made, k, trained_on = saved.policy, saved.setting.k, saved.setting.pool
    assert set(frame["item"]) <= set(
        world.item_ids.gather(trained_on.draw(np.zeros(1, np.uint64), world.n_items))
    )
    outcome = play(world, made, Setting(k, 4, trained_on), 30, 0)
    assert frame["chosen"].sum() == outcome.clicks.sum()
    assert frame.filter(pl.col("chosen") == 1)["utility"].sum() == pytest.approx(
        outcome.rewards.sum(), rel=1e-4
    )
    assert "slates of 2 items and is asked for 3" in fails(
        [*simulate, "--slate-size", "3", "--overwrite"]
    )
    assert main([*simulate, "--horizon", "6", "--overwrite"]) == 0
    assert pl.read_parquet(out).height == 30 * 6 * 2
    assert "trained with horizon 4 and meets horizon 6" in capsys.readouterr().err
    assert main([*simulate, "--pool-size", "4", "--overwrite"]) == 0
    assert "pool fixed of 5, seed 3 and meets pool fixed of 4, seed 3" in capsys.readouterr().err


def test_what_was_explored_has_values_off_policy(plain: tuple[str, str], tmp_path: Path) -> None:
    """`ope` reads the propensities that `simulate` writes."""
    out, values = tmp_path / "explored.parquet", tmp_path / "values.json"
    simulate = f"simulate {plain[1]} -o {out} --episodes 400 --slate-size 2 --horizon 5"
    assert main([*simulate.split(), "--policy", "popular", "--explore", "0.5"]) == 0
    assert pl.read_parquet(out)["propensity"].n_unique() == 2
    ask = f"ope {out} --policy random --run {plain[1]} --propensity propensity --split all --json {values}"
    assert main(ask.split()) == 0
    found = {one["estimator"]: one for one in json.loads(values.read_text())["estimates"]}
    assert found["snips"]["value"] is not None

"""`fastgaum rl`: a policy from a run, the table, the adaptation curve; mistakes are one line and
exit code 2."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fastgaum.cli.app import main
from fastgaum.cli.progress import PartsProgress
from fastgaum.locks import folder_lock
from fastgaum.logs.fold import to_frame
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.user_model import UserModel
from fastgaum.policies import evaluation as evaluate
from fastgaum.policies import training as train
from fastgaum.policies.registry import POLICIES, load_policy
from fastgaum.threads import get_threads, set_threads
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.world_set import WorldSet

SMALL = [
    "--set",
    "episodes=1",
    "--set",
    "users=16",
    "--set",
    "warm_up=16",
    "--set",
    "evaluations=1",
    "--set",
    "batch=16",
]
QUICK = [
    *("--set", "epochs=1"),
    *("--set", "warm_start=2"),
    *("--set", "catch_up=1"),
    *("--set", "search=[]"),
]
SHORT = ["--horizon", "3", "--threads", "1"]


def made_run(folder: Path, seed: int) -> tuple[Path, Path]:
    """A log and a run on it; the same catalogue for every seed of chance."""
    log = folder / f"log{seed}.parquet"
    drawn, _ = synthesise(400, n_items=15, mean_display=4.0, max_display=6, no_click=0.2)
    frame = to_frame(drawn).drop("event_label", strict=False)
    sessions = frame["session"].unique(maintain_order=True)
    half = sessions[seed::2]
    frame.filter(pl.col("session").is_in(half.implode())).write_parquet(log)
    run = folder / f"run{seed}"
    assert main(["train", str(log), "-o", str(run), "--split-by", "user", *QUICK]) == 0
    return log, run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A log, a run on it, a run on other users."""
    folder = tmp_path_factory.mktemp("rl")
    log, run = made_run(folder, 0)
    return log, run, made_run(folder, 1)[1]


def test_train_then_adapt(
    runs: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, run, other = runs
    out = tmp_path / "policy"
    assert (
        main(["rl", "train", str(run), "-o", str(out), "-k", "2", "--seed", "3", *SMALL, *SHORT])
        == 0
    )
    curve = pl.read_parquet(out / "curve.parquet")
    assert curve.columns == ["steps", "return", "click_rate", "loss", "epsilon"]
    assert curve["steps"].to_list() == [48]
    file = tmp_path / "curve.json"
    adapt = [
        "rl",
        "adapt",
        str(out),
        str(run),
        "--in",
        str(other),
        "--episodes",
        "2",
        "--users",
        "20",
        "--seeds",
        "2",
    ]
    assert main([*adapt, "--json", str(file), *SHORT]) == 0
    rows = json.loads(file.read_text())["rows"]
    assert [(row["policy"], row["users"]) for row in rows] == [
        ("pre-trained", 20),
        ("pre-trained", 40),
        ("untrained", 20),
        ("untrained", 40),
    ]
    assert "users met" in capsys.readouterr().out


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
    quick = [*QUICK, "--set", "worlds=2", "--split-by", "user"]
    assert main(["train", str(log), "-o", str(run), *quick]) == 0
    assert "bootstrap 1 of 1" in capsys.readouterr().err
    assert len(UserModel.load(run).bootstraps) == 1
    train = ["rl", "train", str(run), "-o", str(tmp_path / "wary"), "-k", "2", *SMALL, *SHORT]
    assert main([*train, "--pessimism", "0.5"]) == 0
    policy, _, _ = load_policy(tmp_path / "wary", WorldSet.of(UserModel.load(run)))
    assert policy.name == "cascade-dqn"
    judged = ["--policies", "random,greedy,linucb", "-k", "2", "--seeds", "2", "--users", "40"]
    capsys.readouterr()
    assert main(["rl", "evaluate", str(run), *judged, "--json", str(table), *SMALL, *SHORT]) == 0
    assert "lower bound" in capsys.readouterr().out
    rows = json.loads(table.read_text())["rows"]
    assert all(row["lower_bound"] < row["return"] for row in rows)
    assert main(["rl", "evaluate", str(one), *judged, "--json", str(other), *SMALL, *SHORT]) == 0
    assert "lower bound" not in capsys.readouterr().out
    assert not any("lower_bound" in row for row in json.loads(other.read_text())["rows"])
    alone = ["rl", "train", str(one), "-o", str(tmp_path / "none"), *SMALL, *SHORT]
    assert "this is one world" in fails([*alone, "--pessimism", "0.5"])
    assert not (tmp_path / "none").exists()
    evaluate = ["rl", "evaluate", str(one), *judged, *SMALL, *SHORT]
    assert "this is one world" in fails([*evaluate, "--pessimism", "0.5"])
    assert "pessimism is -1.0" in fails([*train[:-2], "--overwrite", "--pessimism", "-1"])


def test_adapt_meets_the_pool_of_the_training(
    runs: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fixed pool of 6: the other world shows the same six items, by their ids, less those it does
    not know."""
    _, run, other = runs
    out = tmp_path / "policy"
    pool = ["--pool", "fixed", "--pool-size", "6"]
    assert main(["rl", "train", str(run), "-o", str(out), "-k", "2", *pool, *SMALL, *SHORT]) == 0
    own, judge = (LearnedWorld(UserModel.load(folder)) for folder in (run, other))
    _, _, trained_on = load_policy(out, own)
    shown: set[str] = set()
    learned: set[str] = set()
    real = evaluate.adaptation

    def watched(policies: Any, world: Any, setting: Any, **rest: Any) -> Any:
        shown.update(
            world.item_ids.gather(setting.pool.draw(np.zeros(1, np.uint64), world.n_items))
        )
        for made in [*policies["pre-trained"], *policies["untrained"]]:
            learned.update(own.item_ids.gather(made.pool.draw(np.zeros(1, np.uint64), own.n_items)))
        return real(policies, world, setting, **rest)

    monkeypatch.setattr(evaluate, "adaptation", watched)
    adapt = [
        "rl",
        "adapt",
        str(out),
        str(run),
        "--in",
        str(other),
        "--episodes",
        "1",
        "--users",
        "5",
        "--seeds",
        "1",
    ]
    assert main([*adapt, *SHORT]) == 0
    trained = set(own.item_ids.gather(trained_on.draw(np.zeros(1, np.uint64), own.n_items)))
    assert len(trained) == 6
    assert shown == learned == trained & set(judge.item_ids)


def train_again(run: Path, out: Path) -> list[str]:
    longer = [value.replace("episodes=1", "episodes=4") for value in SMALL]
    return ["rl", "train", str(run), "-o", str(out), "-k", "2", "--leaving", "0.1", *longer, *SHORT]


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_training_that_was_interrupted_goes_on(
    runs: tuple[Path, Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fails: Callable[[list[str]], str],
) -> None:
    """Ctrl-C: exit 130, and the command it prints ends in the files of a training that was not
    interrupted."""
    _, run, other = runs
    assert main(train_again(run, tmp_path / "whole")) == 0
    out, learn = tmp_path / "cut", train._learn

    def interrupted(policy: Any, world: Any, setting: Any, episode: int) -> Any:
        if episode == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return learn(policy, world, setting, episode)

    with monkeypatch.context() as patch:
        patch.setattr(train, "_learn", interrupted)
        assert main(train_again(run, out)) == 130
    printed = capsys.readouterr().err
    assert "3 of 4 episodes are kept" in printed
    command = shlex.split(printed.split("go on with: ")[1].splitlines()[0])
    assert command[:3] == ["fastgaum", "rl", "train"]
    assert set(files_of(out)) == {"resume.safetensors"}
    assert "cut off" in fails(train_again(run, out))
    assert "--horizon 3, not 4" in fails([*command[1:], "--horizon", "4"])
    assert "its run has the fingerprint" in fails(
        ["rl", "train", str(other), "-o", str(out), "--resume"]
    )
    assert main([*command[1:], "--threads", "1"]) == 0
    assert files_of(out) == files_of(tmp_path / "whole")
    assert "is done" in fails([*command[1:]])
    assert "no training to resume" in fails(
        ["rl", "train", str(run), "-o", str(tmp_path / "new"), "--resume"]
    )
    assert "one of them" in fails([*command[1:], "--overwrite"])
    with folder_lock(out):
        assert "in use" in fails([*train_again(run, out), "--overwrite"])


KILLED = """
import os, signal, sys
from fastgaum.cli.app import main
from fastgaum.policies import training as train

learn, train.SHARE = train._learn, float("inf")

def killed(policy, world, setting, episode):
    learned = learn(policy, world, setting, episode)
    if episode == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return learned

train._learn = killed
main(sys.argv[1:])
"""


def test_a_training_that_was_killed_goes_on(runs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """kill −9 at the end of an episode that no file holds yet: it is played again, from where the
    file is."""
    _, run, _ = runs
    whole, cut = (train_again(run, tmp_path / name) for name in ("whole", "cut"))
    assert main(whole) == 0
    done = subprocess.run([sys.executable, "-c", KILLED, *cut], capture_output=True, timeout=300)
    assert done.returncode == -signal.SIGKILL
    assert {".lock", "resume.safetensors"} == set(files_of(tmp_path / "cut"))
    assert (
        main(["rl", "train", str(run), "-o", str(tmp_path / "cut"), "--resume", "--threads", "1"])
        == 0
    )
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


def test_evaluate_prints_every_policy_in_another_world(
    runs: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    log, run, other = runs
    file, text = tmp_path / "table.json", tmp_path / "table.md"
    command = [
        "rl",
        "evaluate",
        str(run),
        "--in",
        str(other),
        "--log",
        str(log),
        "-k",
        "1,2",
        "--seeds",
        "2",
        "--users",
        "30",
    ]
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
    assert text.read_text().count("| random |") == 2


@pytest.mark.parametrize(("at", "rows"), [("greedy, k = 2", ["random", "popular"]), ("random", [])])
def test_an_interrupted_evaluation_keeps_the_rows_that_are_done(
    runs: tuple[Path, Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    at: str,
    rows: list[str],
) -> None:
    """SIGTERM while a policy is made: the table of those before it, and the exit code of a
    signal."""
    file = tmp_path / "table.json"
    command = ["rl", "evaluate", str(runs[1]), "--policies", "random,popular,greedy", "-k", "2"]
    command += ["--seeds", "2", "--users", "10", *SHORT]
    assert main([*command, "--json", str(tmp_path / "whole.json")]) == 0
    capsys.readouterr()
    real = PartsProgress.__call__

    def killed(progress: PartsProgress, done: int, total: int, figures: str = "") -> None:
        real(progress, done, total, figures)
        if figures.startswith(at):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(PartsProgress, "__call__", killed)
    assert main([*command, "--json", str(file)]) == 143
    said = capsys.readouterr()
    if not rows:
        assert not file.exists()
        assert said.err == "fastgaum: interrupted\n"
        return
    assert "fastgaum: interrupted: the table has 2 of 3 rows" in said.err
    whole = {
        row["policy"]: row for row in json.loads((tmp_path / "whole.json").read_text())["rows"]
    }
    table = json.loads(file.read_text())["rows"]
    assert [row["policy"] for row in table] == rows
    for row in table:
        assert row["return_by_seed"] == whole[row["policy"]]["return_by_seed"]
        assert row["policy"] in said.out


def test_policies_have_one_thread_unless_told(
    runs: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    """Two threads take 3 to 6 times as long as one for networks of this size."""
    before = get_threads()
    command = ["rl", "train", str(runs[1]), "--overwrite", "-o", str(tmp_path / "policy"), *SMALL]
    try:
        for given, used in (([], 1), (["--threads", "2"], 2)):
            set_threads(2 if used == 1 else 1)
            assert main([*command, "--horizon", "3", *given]) == 0
            assert get_threads() == used
    finally:
        set_threads(before)


def test_evaluate_without_a_log_says_what_is_left_out(
    runs: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["rl", "evaluate", str(runs[1]), "-k", "2", "--seeds", "1", "--users", "10"]
    assert main([*command, *SMALL, *SHORT]) == 0
    out = capsys.readouterr().out
    assert "left out" in out
    assert "cascade-dqn" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "RUN", "-o", "OUT", "--policy", "cascade"], "cascade-dqn"),
        (["train", "RUN", "-o", "OUT", "--policy", "random"], "not trained"),
        (["train", "RUN", "-o", "OUT", "--set", "gama=1"], "gamma"),
        (["train", "RUN", "-o", "OUT", "-k", "99"], "slate of 99"),
        (["train", "OUT/none", "-o", "OUT"], "no model"),
        (["evaluate", "RUN", "--policies", "randm"], "random"),
        (["evaluate", "RUN", "--policies", "wd-lr"], "--log"),
        (["evaluate", "RUN", "-k", "three"], "three"),
        (["evaluate", "RUN", "--seeds", "0"], "1 seed"),
        (["adapt", "OUT/none", "RUN"], "no policy"),
    ],
)
def test_mistakes(
    runs: tuple[Path, Path, Path],
    fails: Callable[[list[str]], str],
    tmp_path: Path,
    arguments: list[str],
    words: str,
) -> None:
    texts = [
        text.replace("RUN", str(runs[1])).replace("OUT", str(tmp_path / "out"))
        for text in arguments
    ]
    assert words in fails(["rl", *texts])


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

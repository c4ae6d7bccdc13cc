"""`fastgaum rl train` that was interrupted or killed goes on to the files of one that never was."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastgaum.cli.app import main
from fastgaum.locks import folder_lock
from fastgaum.policies import training as train
from tests.cli.rl_runs import SHORT, SMALL


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
    # a scheduler gives one command, however early the training was cut off
    assert main([*train_again(run, tmp_path / "new"), "--resume"]) == 0
    assert "this one begins" in capsys.readouterr().err
    assert files_of(tmp_path / "new") == files_of(tmp_path / "whole")
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

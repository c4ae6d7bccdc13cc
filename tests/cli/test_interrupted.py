"""`fastgaum train` that is stopped: by signals to a real process, by a full disk; and what --resume
takes and refuses."""

from __future__ import annotations

import contextlib
import io
import os
import re
import resource
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastgaum.cli.app import main
from fastgaum.game import checkpoint
from fastgaum.game.loop import Trainer
from fastgaum.interrupts import Interrupted
from fastgaum.locks import folder_lock
from tests.crash.zygote import Zygote
from tests.game.interrupted import check_same

LONG = shlex.split(
    "--set epochs=400 --set patience=400 --set players=exact --set search=[] --set folds=0"
)
SHORT = ["--set", "epochs=6", "--set", "players=exact", "--set", "search=[]", "--set", "folds=0"]


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Zygote:
    return Zygote(tmp_path_factory.mktemp("zygote"))


def epochs_of(run: Path) -> int:
    """Rows of its metrics; a run that begins anew removes those of the former one."""
    # asked for and read are two moments: between them it may be removed
    try:
        return len((run / "metrics.jsonl").read_text().splitlines())
    except FileNotFoundError:
        return 0


def failing(argv: list[str]) -> str:
    """A command that must fail; what it complains of."""
    with contextlib.redirect_stderr(io.StringIO()) as err:
        assert main(argv) == 2
    return err.getvalue()


def test_a_signal_goes_back_to_the_last_epoch_and_prints_what_goes_on(
    zygote: Zygote, log_file: Path, tmp_path: Path
) -> None:
    """Ctrl-C, and SIGTERM to the run that goes on with it."""
    run, done = tmp_path / "run", 0
    command = ["fastgaum", "train", str(log_file), "-o", str(run)]
    argv = [*command[1:], "--candidate-field", "price", *LONG]
    for signum, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        pid = zygote.start(*argv)
        wait_for_more(run, done)
        os.kill(pid, signum)
        assert zygote.wait(pid) == code
        last = zygote.said().splitlines()[-1]
        kept = r"(at the beginning of a fit|after epoch \d+)"
        says = rf"fastgaum: interrupted: the run is kept as it was {kept}: go on with `(.*)`"
        found = re.fullmatch(says, last)
        assert found is not None, last
        argv = shlex.split(found[2])[1:]
        assert argv == [*command[1:], "--resume"]
        assert done < epochs_of(run) < 400
        done = epochs_of(run)


def wait_for_more(run: Path, epochs: int) -> None:
    for _ in range(30_000):
        if epochs_of(run) > epochs:
            return
        time.sleep(0.02)
    raise AssertionError("no further epoch came")


@pytest.fixture(scope="module")
def stopped(log_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that a signal has stopped in its third epoch of six."""
    run, epochs, epoch = tmp_path_factory.mktemp("runs") / "stopped", [], Trainer._epoch

    def counted(trainer: Trainer, step: Any) -> Any:
        epochs.append(1)
        if len(epochs) == 3:
            raise Interrupted(signal.SIGTERM)
        return epoch(trainer, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_epoch", counted)
        patch.setattr(checkpoint, "SHARE", 1e9)
        assert main([*train(log_file), "-o", str(run), *SHORT]) == 143
    return run


@pytest.fixture(scope="module")
def whole(log_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, that nothing has stopped."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    assert main([*train(log_file), "-o", str(run), *SHORT]) == 0
    return run


def train(log_file: Path) -> list[str]:
    reading = ["--candidate-field", "price", "--split-by", "user"]
    return ["train", str(log_file), *reading, "--seed", "4"]


def test_resume_takes_the_run_s_options_and_repeated_ones(
    log_file: Path, stopped: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = train(log_file)
    for again in (argv[:2], [*argv, *SHORT]):
        copy = shutil.copytree(stopped, tmp_path / f"copy{len(again)}")
        assert main([*again, "-o", str(copy), "--resume"]) == 0
        check_same(whole, copy)
    capsys.readouterr()
    for again in (argv[:2], [*argv, *SHORT]):
        assert main([*again, "-o", str(whole), "--resume"]) == 0
        assert f"{epochs_of(whole)} epochs, finished before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--set", "lr=0.5", "--set", "eta=2"], "eta = 1.0, not 2.0, lr = 0.003, not 0.5"),
        (["--preset", "paper-lstm"], "preset = fastgaum, not paper-lstm"),
        (["--seed", "9"], "seed = 4, not 9"),
        (["--candidate-field", "cost"], "--candidate-field"),
        (["--split-by", "half"], "--split-by was user, not half"),
        (["--overwrite"], "give one of them"),
    ],
    ids=" ".join,
)
def test_options_that_say_otherwise_are_named(
    log_file: Path, stopped: Path, options: list[str], says: str
) -> None:
    before = {path: path.read_bytes() for path in stopped.iterdir()}
    assert says in failing(["train", str(log_file), "-o", str(stopped), "--resume", *options])
    assert before == {path: path.read_bytes() for path in stopped.iterdir()}


def test_a_run_that_has_not_ended_is_said_where_it_is_scored(
    stopped: Path, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict = ["predict", str(stopped), str(log_file), "-o", str(tmp_path / "p.csv")]
    for argv in (["evaluate", str(stopped), str(log_file), "--split", "validation"], predict):
        assert main(argv) == 0
        said = capsys.readouterr().err
        assert "its training has not ended, this is" in said
        assert f"-o {stopped} --resume" in said


def test_a_folder_in_use_is_refused_by_name(log_file: Path, tmp_path: Path) -> None:
    with folder_lock(tmp_path / "run"):
        for option in ([], ["--resume"], ["--overwrite"]):
            said = failing(["train", str(log_file), "-o", str(tmp_path / "run"), *option])
            assert f"in use by process {os.getpid()} on '" in said


def test_a_full_disk_leaves_the_last_good_checkpoint(
    log_file: Path,
    stopped: Path,
    whole: Path,
    tmp_path: Path,
    disk_full_beyond: Callable[[int], None],
) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    disk_full_beyond((run / "model.safetensors").stat().st_size // 2)
    said = failing(["train", str(log_file), "-o", str(run), "--resume"])
    assert "cannot write" in said
    disk_full_beyond(-1)
    assert {path.name for path in run.iterdir()} == before.keys()
    for name in ("model.safetensors", "resume.safetensors", "metrics.jsonl"):
        assert (run / name).read_bytes() == before[name]
    assert main(["train", str(log_file), "-o", str(run), "--resume"]) == 0
    check_same(whole, run)


@pytest.fixture
def disk_full_beyond() -> Iterator[Callable[[int], None]]:
    """Sets how long a file may become, in bytes; -1: as long as before."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (former[0] if size < 0 else size, former[1]))

    yield limit
    limit(-1)

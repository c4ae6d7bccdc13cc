"""`fastgaum train` that is stopped: by signals to a real process, by a full disk; and what --resume
takes and refuses."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from fastgaum.cli.app import main
from fastgaum.locks import folder_lock
from fastgaum.models.run_folder import run_checkpoint
from tests.crash.zygote import Zygote
from tests.game.interrupted import check_same

LONG = [
    "--set",
    "epochs=400",
    "--set",
    "patience=400",
    "--set",
    "players=exact",
    "--set",
    "search=[]",
]
SHORT = ["--set", "epochs=6", "--set", "players=exact", "--set", "search=[]"]


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    with Zygote(tmp_path_factory.mktemp("zygote")) as started:
        yield started


def wait_for(file: Path) -> None:
    for _ in range(2000):
        if file.exists():
            return
        time.sleep(0.02)
    raise AssertionError(f"{file} did not come")


def epochs_of(run: Path) -> int:
    return len((run / "metrics.jsonl").read_text().splitlines())


def failing(argv: list[str]) -> str:
    """A command that must fail; what it complains of."""
    with contextlib.redirect_stderr(io.StringIO()) as err:
        assert main(argv) == 2
    return err.getvalue()


def test_a_signal_ends_the_batch_and_prints_what_goes_on(
    zygote: Zygote, log_file: Path, tmp_path: Path
) -> None:
    """Ctrl-C, and SIGTERM to the run that goes on with it."""
    run, done = tmp_path / "run", 0
    command = ["fastgaum", "train", str(log_file), "-o", str(run)]
    argv = [*command[1:], "--candidate-field", "price", *LONG]
    for signum, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        pid = zygote.start(*argv)
        wait_for(run / "metrics.jsonl")
        wait_for_more(run, done)
        os.kill(pid, signum)
        assert zygote.wait(pid) == code
        last = zygote.said().splitlines()[-1]
        assert last.startswith("fastgaum: interrupted: go on with `fastgaum train ")
        argv = shlex.split(last.partition("`")[2].partition("`")[0])[1:]
        assert argv == [*command[1:], "--resume"]
        assert done < epochs_of(run) < 400
        done = epochs_of(run)


def wait_for_more(run: Path, epochs: int) -> None:
    for _ in range(2000):
        if epochs_of(run) > epochs:
            return
        time.sleep(0.02)
    raise AssertionError("no further epoch came")


def test_a_second_signal_stops_at_once(zygote: Zygote, log_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    huge = [
        "--set",
        "batch_sessions=100000",
        "--set",
        "history=bilstm",
        "--set",
        "history_dim=600",
        *LONG,
    ]
    pid = zygote.start("train", str(log_file), "-o", str(run), *huge)
    wait_for(run / "resume.safetensors")
    os.kill(pid, signal.SIGINT)
    time.sleep(0.3)
    os.kill(pid, signal.SIGTERM)
    # where the machine is so fast that the batch was done between the two, the first one was
    # answered, and the run saved
    code, kept = zygote.wait(pid), run_checkpoint(run)
    assert kept is not None
    assert (code, kept.trainer is None) in ((143, True), (130, False))
    assert not list(run.glob(".*"))


def test_before_the_first_batch_nothing_is_left(
    log_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("fastgaum.cli.reading.Reading.load", interrupted)
    assert main(["train", str(log_file), "-o", str(tmp_path / "run")]) == 143
    assert capsys.readouterr().err == "fastgaum: interrupted\n"
    assert list(tmp_path.iterdir()) == []


def test_resume_takes_the_run_s_options_and_repeated_ones(
    log_file: Path, tmp_path: Path, capsys
) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    argv = [
        "train",
        str(log_file),
        "--candidate-field",
        "price",
        "--seed",
        "4",
        "--split-by",
        "user",
    ]
    assert main([*argv, "-o", str(whole), *SHORT]) == 0
    assert main([*argv, "-o", str(run), *SHORT, "--set", "epochs=2"]) == 0
    for again in (argv[:2], [*argv, *SHORT]):
        copy = shutil.copytree(run, tmp_path / f"copy{len(again)}")
        assert main([*again, "-o", str(copy), "--resume", "--set", "epochs=6"]) == 0
        check_same(whole, copy)
    capsys.readouterr()
    assert main([*argv[:2], "-o", str(whole), "--resume"]) == 0
    assert f"{epochs_of(whole)} epochs, finished before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--set", "lr=0.5", "--set", "eta=2"], "eta = 1.0, not 2.0, lr = 0.003, not 0.5"),
        (["--preset", "paper-lstm"], "preset = fastgaum, not paper-lstm"),
        (["--seed", "9"], "seed = 0, not 9"),
        (["--set", "epochs=1"], "epochs = 2, not 1"),
        (["--candidate-field", "cost"], "--candidate-field"),
        (["--split-by", "user"], "--split-by was None, not user"),
        (["--overwrite"], "give one of them"),
    ],
    ids=" ".join,
)
def test_options_that_say_otherwise_are_named(
    log_file: Path, finished: Path, options: list[str], says: str
) -> None:
    before = {path: path.read_bytes() for path in finished.iterdir()}
    assert says in failing(["train", str(log_file), "-o", str(finished), "--resume", *options])
    assert before == {path: path.read_bytes() for path in finished.iterdir()}


@pytest.fixture(scope="module")
def finished(log_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs."""
    run = tmp_path_factory.mktemp("runs") / "finished"
    options = ["--candidate-field", "price", *SHORT, "--set", "epochs=2"]
    assert main(["train", str(log_file), "-o", str(run), *options]) == 0
    return run


def test_a_run_that_has_not_ended_is_said_where_it_is_scored(
    finished: Path, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a signal leaves one: without its last file."""
    run = tmp_path / "run"
    for is_finished in (True, False):
        shutil.copytree(finished, run, dirs_exist_ok=True)
        if not is_finished:
            (run / "metrics.parquet").unlink()
        predict = ["predict", str(run), str(log_file), "-o", str(tmp_path / f"{is_finished}.csv")]
        for argv in (["evaluate", str(run), str(log_file)], predict):
            assert main(argv) == 0
            said = capsys.readouterr().err
            assert ("its training has not ended (phase 'exact';" in said) is not is_finished
            assert (f"-o {run} --resume" in said) is not is_finished


def test_another_log_is_refused(finished: Path, frame: pl.DataFrame, tmp_path: Path) -> None:
    frame.head(frame.height // 2).write_parquet(tmp_path / "other.parquet")
    said = failing(["train", str(tmp_path / "other.parquet"), "-o", str(finished), "--resume"])
    assert "fingerprint" in said


def test_a_search_that_is_killed_goes_on(
    zygote: Zygote,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """SIGKILL within a trial, and the same command again: what had ended is kept."""
    pytest.importorskip("optuna", reason="tune needs fastgaum[tune]")
    log = str(tmp_path / "log.csv")
    assert main(["data", "synth", "-o", log, "--events", "120", "--seed", "3", "--quiet"]) == 0
    quick = ["epochs=1", "warm_start=2", "catch_up=1", "batch_sessions=16", "seed=2"]
    argv = ["tune", log, "--threads", "1"]
    argv += [word for one in quick for word in ("--set", one)]
    killed = tmp_path / "killed.toml"
    pid = zygote.start(*argv, "-o", str(killed), "--trials", "400")
    while "[3/400]" not in zygote.said():
        time.sleep(0.02)
    assert zygote.kill(pid) == -signal.SIGKILL
    assert not killed.exists()
    # one may have ended unheard, another has been cut off
    done = [line for line in zygote.said().splitlines() if "/400]" in line]
    argv += ["--trials", str(len(done) + 2), "-o", str(killed), "--json", f"{killed}.json"]
    monkeypatch.setattr("fastgaum.models.tuning._Search.held_out_difference", lambda *_: None)
    assert main(argv) == 0
    facts = json.loads(Path(f"{killed}.json").read_text())
    assert len(facts["trials"]) == len(done) + 2
    capsys.readouterr()
    # what has ended is not replaced, and goes on for more
    assert "pass --overwrite to replace it" in failing(argv)
    assert main([*argv, "--resume"]) == 0
    assert f"{len(done) + 2} trials (" in capsys.readouterr().out


def test_resume_without_a_run_begins_one(log_file: Path, tmp_path: Path, capsys) -> None:
    argv = ["train", str(log_file), "-o", str(tmp_path / "run"), "--resume", *SHORT]
    assert main(argv) == 0
    assert "there is no run to go on with, this one begins" in capsys.readouterr().err


def test_a_folder_in_use_is_refused_by_name(log_file: Path, tmp_path: Path) -> None:
    with folder_lock(tmp_path / "run"):
        for option in ([], ["--resume"], ["--overwrite"]):
            said = failing(["train", str(log_file), "-o", str(tmp_path / "run"), *option])
            assert f"in use by process {os.getpid()} on '" in said


def test_a_full_disk_leaves_the_last_good_checkpoint(
    log_file: Path, tmp_path: Path, disk_full_beyond: Callable[[int], None]
) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    argv = ["train", str(log_file), *SHORT]
    assert main([*argv, "-o", str(whole)]) == 0
    assert main([*argv, "-o", str(run), "--set", "epochs=2"]) == 0
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    disk_full_beyond((run / "model.safetensors").stat().st_size // 2)
    said = failing(["train", str(log_file), "-o", str(run), "--resume", "--set", "epochs=6"])
    assert "cannot write" in said
    disk_full_beyond(-1)
    assert (
        before.keys() - {"metrics.parquet"}
        <= {path.name for path in run.iterdir()}
        <= before.keys()
    )
    for name in ("model.safetensors", "resume.safetensors", "metrics.jsonl"):
        assert (run / name).read_bytes() == before[name]
    assert main(["train", str(log_file), "-o", str(run), "--resume", "--set", "epochs=6"]) == 0
    check_same(whole, run)


@pytest.fixture
def disk_full_beyond() -> Iterator[Callable[[int], None]]:
    """Sets how long a file may become, in bytes; -1: as long as before."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (former[0] if size < 0 else size, former[1]))

    yield limit
    limit(-1)

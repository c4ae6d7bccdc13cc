"""`fastgaum simulate`: a file that is a log, the same for the same seed, and errors in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from fastgaum.cli.app import main

SMALL = ["--episodes", "30", "--slate-size", "3", "--horizon", "4"]


@pytest.fixture(scope="module")
def plain(frame: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A log without fields of its own, and a run of it."""
    folder = tmp_path_factory.mktemp("plain")
    frame.drop("price").write_parquet(folder / "log.parquet")
    argv = [
        "train",
        str(folder / "log.parquet"),
        "-o",
        str(folder / "run"),
        "--set",
        "epochs=1",
        "--set",
        "warm_start=1",
    ]
    assert main(argv) == 0
    return str(folder / "log.parquet"), str(folder / "run")


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_trajectories_are_audited_and_trained_on(plain: tuple[str, str], tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"t{suffix}"
    assert main(["simulate", plain[1], "-o", str(out), *SMALL]) == 0
    frame = pl.read_parquet(out) if suffix == ".parquet" else pl.read_csv(out)
    assert frame.columns == ["session", "event", "item", "chosen", "utility", "probability"]
    assert frame.height == 30 * 4 * 3
    assert frame["session"].n_unique() == 30
    assert main(["data", "audit", str(out)]) == 0
    train = ["train", str(out), "-o", str(tmp_path / "again"), "--set", "epochs=1", "--set", "warm_start=1"]
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
    assert (
        main(["simulate", plain[1], "-o", str(tmp_path / "d.parquet"), "--threads", "1", *SMALL, "--head", "reward"])
        == 0
    )


def test_users_may_begin_within_a_logged_session(plain: tuple[str, str], tmp_path: Path) -> None:
    log, run = plain
    frames = []
    for name, more in (("empty", []), ("logged", ["--starts", "logged", "--log", log])):
        assert main(["simulate", run, "-o", str(tmp_path / f"{name}.parquet"), *SMALL, *more]) == 0
        frames.append(pl.read_parquet(tmp_path / f"{name}.parquet").filter(pl.col("event") == 0))
    assert frames[0]["item"].equals(frames[1]["item"])
    assert not frames[0]["utility"].equals(frames[1]["utility"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--policy", "randm"], "did you mean 'random'"),
        (["--slate-size", "100"], "does not fill a slate of 100"),
        (["--episodes", "0"], "number of episodes is 0"),
        (["--leaving", "1.5"], "a probability in [0, 1]"),
        (["--starts", "logged"], "log"),
        (["--threads", "0"], "--threads must be at least 1"),
        (["-o", "t.txt"], ".parquet or .csv"),
    ],
)
def test_a_mistake_is_one_line(
    plain: tuple[str, str], tmp_path: Path, more: list[str], message: str, fails: Callable[[list[str]], str]
) -> None:
    out = [] if "-o" in more else ["-o", str(tmp_path / "t.parquet")]
    assert message in fails(["simulate", plain[1], *out, *more])


def test_a_run_that_reads_further_fields_asks_for_its_log(
    trained: Path, log_file: Path, tmp_path: Path, fails: Callable[[list[str]], str]
) -> None:
    """The run was trained with a price per candidate, which a simulated slate does not have."""
    assert "price" in fails(["simulate", str(trained), "-o", str(tmp_path / "t.parquet"), *SMALL])


def test_no_run_is_one_line(tmp_path: Path, fails: Callable[[list[str]], str]) -> None:
    assert "nothing" in fails(["simulate", str(tmp_path / "nothing"), "-o", str(tmp_path / "t.parquet")])

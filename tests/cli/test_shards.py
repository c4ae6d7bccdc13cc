"""Logs in shards on the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from fastgaum.cli.app import main
from fastgaum.logs.fold import to_frame
from fastgaum.logs.read import read_log
from tests.cli.bad_input import QUICK

FIELD = ["--candidate-field", "price"]


@pytest.fixture(scope="module")
def shards(log_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards") / "world"
    assert main(["data", "convert", str(log_file), "-o", str(out), "--shards", "3", *FIELD]) == 0
    return out


def test_converted_checked_and_read_back(
    shards: Path, log_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, back = read_log(log_file, candidate_fields=["price"]), read_log(shards)
    rows = [sorted(to_frame(log).drop("user").rows()) for log in (whole, back)]
    assert rows[0] == rows[1]
    capsys.readouterr()
    assert main(["data", "check", str(shards)]) == 0
    assert f"{whole.n_events} events" in capsys.readouterr().out


def test_trained_evaluated_predicted_and_audited(
    shards: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", str(shards), "-o", str(run), *FIELD, *QUICK]) == 0
    assert main(["evaluate", str(run), str(shards), "--json", str(tmp_path / "figures.json")]) == 0
    assert json.loads((tmp_path / "figures.json").read_text())["n_events"] == read_log(
        shards
    ).count("events", "test")
    assert main(["predict", str(run), str(shards), "-o", str(tmp_path / "probs.parquet")]) == 0
    assert pl.read_parquet(tmp_path / "probs.parquet").height == read_log(shards).n_candidates
    # a run of the file itself is evaluated on the shards, and the other way round
    assert main(["evaluate", str(trained), str(shards)]) == 0
    capsys.readouterr()
    assert main(["data", "audit", str(shards)]) == 0
    assert "a saved log no longer has them" in capsys.readouterr().out


def test_several_files_and_worlds(log_file: Path, tmp_path: Path) -> None:
    shutil.copy(log_file, tmp_path / "more.parquet")
    frame = pl.read_parquet(log_file).with_columns(pl.col("session") + "b", pl.col("user") + 10_000)
    frame.write_parquet(tmp_path / "more.parquet")
    argv = [
        "data",
        "convert",
        str(log_file),
        str(tmp_path / "more.parquet"),
        "-o",
        str(tmp_path / "both"),
        "--shards",
        "2",
    ]
    assert main(argv) == 0
    assert read_log(tmp_path / "both").n_sessions == 2 * read_log(log_file).n_sessions
    assert (
        main(
            [
                "data",
                "synth",
                "--events",
                "500",
                "--items",
                "30",
                "--shards",
                "3",
                "-o",
                str(tmp_path / "made"),
            ]
        )
        == 0
    )
    assert read_log(tmp_path / "made").n_events == 500
    assert (
        main(
            [
                "data",
                "convert",
                str(tmp_path / "made"),
                "-o",
                str(tmp_path / "again"),
                "--shards",
                "2",
            ]
        )
        == 0
    )
    assert read_log(tmp_path / "again").n_events == 500


COMMANDS = {
    "train": lambda log, run, out: ["train", log, "-o", f"{out}/new", *FIELD],
    "evaluate": lambda log, run, out: ["evaluate", run, log],
    "predict": lambda log, run, out: ["predict", run, log, "-o", f"{out}/probs.parquet"],
    "audit": lambda log, run, out: ["data", "audit", log],
    "check": lambda log, run, out: ["data", "check", log],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_shard_ends_a_command_at_once(
    command: str, shards: Path, trained: Path, tmp_path: Path, fails: Callable[[list[str]], str]
) -> None:
    shutil.copytree(shards, tmp_path / "log")
    shutil.copy(tmp_path / "log" / "shard-00000.parquet", tmp_path / "log" / "shard-00002.parquet")
    message = fails(COMMANDS[command](str(tmp_path / "log"), str(trained), str(tmp_path)))
    assert "shard-00002.parquet" in message


def test_what_is_refused(
    shards: Path, log_file: Path, tmp_path: Path, fails: Callable[[list[str]], str]
) -> None:
    out = ["-o", str(tmp_path / "out")]
    assert "pass --shards N" in fails(["data", "convert", str(log_file), str(log_file), *out])
    assert "converted alone" in fails(
        ["data", "convert", str(log_file), str(shards), *out, "--shards", "2"]
    )
    assert "a folder's name" in fails(
        ["data", "convert", str(log_file), "-o", str(tmp_path / "x.csv"), "--shards", "2"]
    )
    assert "shards is 0" in fails(["data", "convert", str(log_file), *out, "--shards", "0"])
    assert "shards is 0" in fails(["data", "synth", *out, "--shards", "0"])
    assert "the split as a column" in fails(
        ["data", "convert", str(log_file), *out, "--shards", "2", "--split-by", "time"]
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    assert "no saved log" in fails(
        ["data", "convert", str(log_file), "-o", str(tmp_path / "mine"), "--shards", "2"]
    )
    assert "'--window'" not in fails(["train", str(shards), *out, "--set", "window=0", *FIELD])

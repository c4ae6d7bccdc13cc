"""`fastgaum data`: what each command prints and writes, and what it refuses."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from fastgaum.baselines.floors import floor_table
from fastgaum.cli.app import main
from fastgaum.logs.datasets import names
from fastgaum.logs.read import load, read_log
from fastgaum.logs.store import load_log
from fastgaum.worlds.oracle import read_truth

Fails = Callable[[list[str]], str]


@pytest.fixture(scope="module")
def yelp_file(shared_data: Callable[[str], Path]) -> Path:
    """Found before `no_data_of_the_user` hides the folder that the environment names."""
    return shared_data("yelp.txt")


@pytest.fixture(autouse=True)
def no_data_of_the_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    empty = tmp_path_factory.mktemp("home")
    monkeypatch.delenv("FASTGAUM_DATA_DIR", raising=False)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(empty))


def test_list_names_every_set_and_says_what_is_at_hand(
    yelp_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "list", "--data-dir", str(yelp_file.parent)]) == 0
    lines = filter(None, map(str.strip, capsys.readouterr().out.splitlines()))
    at_hand = {line.split()[0]: line for line in lines}
    assert set(names()) <= set(at_hand)
    assert str(yelp_file.parent) in at_hand["yelp"]
    assert "bundled" in at_hand["sample"]
    assert main(["data", "list"]) == 0
    assert "absent" in next(line for line in capsys.readouterr().out.splitlines() if "yelp" in line)


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "info", "yelp"]) == 0
    out = capsys.readouterr().out
    for what in ("1,725 events", "311c9395", "terms: ", "at hand: no"):
        assert what in out
    assert not any(line.endswith(" ") for line in out.splitlines())


def test_traps_in_a_log_are_no_failure(
    frame: pl.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.csv"
    frame.sort("session", "event", "chosen", maintain_order=True).write_csv(log)
    capsys.readouterr()
    assert main(["data", "audit", str(log), "--json", str(tmp_path / "audit.json")]) == 0
    out = capsys.readouterr().out
    assert "last position" in out
    assert re.search(r"floors, prec@1 on all test events: .*\brandom \d", out)
    report = json.loads((tmp_path / "audit.json").read_text())
    flagged = [finding["rule"] for finding in report["findings"] if finding["flagged"]]
    assert any("last" in rule for rule in flagged)
    assert report["has_rows"]
    floors = floor_table(load(log))
    assert {name: by_k["1"] for name, by_k in report["floors"].items()} == {
        name.replace(" ", "_"): pytest.approx(by_k[1]) for name, by_k in floors.items()
    }


@pytest.mark.parametrize("out", ["log.parquet", "log.csv", "packed"])
def test_convert_and_back(log_file: Path, tmp_path: Path, out: str) -> None:
    fields = "--candidate-field price --context-field query"
    assert main(f"data convert {log_file} {fields} -o {tmp_path / out}".split()) == 0
    given = {"candidate_fields": ["price"], "context_fields": ["query"]}
    log = read_log(log_file, **given)
    back = load_log(tmp_path / out) if out == "packed" else read_log(tmp_path / out, **given)
    assert back.columns_of("event").keys() == {"query"}
    assert back.fingerprint == log.fingerprint


def test_durations_are_no_csv(frame: pl.DataFrame, tmp_path: Path, fails: Fails) -> None:
    frame.with_columns(event=pl.duration(hours="event")).write_parquet(tmp_path / "log.parquet")
    argv = ["data", "convert", str(tmp_path / "log.parquet"), "-o"]
    assert "cannot hold the durations that order" in fails([*argv, str(tmp_path / "log.csv")])
    assert main([*argv, str(tmp_path / "new.parquet")]) == 0


@pytest.mark.parametrize(
    ("out", "truth"), [("w.parquet", "w.truth.parquet"), ("w", "w/truth.parquet")]
)
def test_synth_writes_the_truth_beside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str, truth: str
) -> None:
    argv = shlex.split("data synth --events 400 --items 50 --seed 3 --no-click 0.3 --rule l2")
    assert main([*argv, "-o", str(tmp_path / out)]) == 0
    log = load(tmp_path / out)
    assert (log.n_events, log.has_no_click) == (400, True)
    assert read_truth(tmp_path / truth, log).probability.max() <= 1
    assert "the oracle's prec@1" in capsys.readouterr().out


def test_synth_of_an_order_says_how_to_read_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["data", "synth", "--events", "60", "--order", "random", "--examination", "1"]
    assert main([*argv, "-o", str(tmp_path / "w.csv")]) == 0
    assert "read it with --ordered" in capsys.readouterr().out
    assert main([*argv, "-o", str(tmp_path / "v")]) == 0
    assert "--ordered" not in capsys.readouterr().out, "a saved log keeps its order"
    assert load(tmp_path / "v").ordered

"""`--sample-users` is a choice at training: what is predicted or evaluated afterwards is read
whole."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

import fastgaum as fg
from fastgaum.cli.app import main
from fastgaum.logs.read import read_log
from tests.cli.good_files import QUICK
from tests.test_docs import undrawn

SAMPLE = ["--sample-users", "0.5"]


@pytest.fixture(scope="module")
def run(log_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on half of the users."""
    folder = tmp_path_factory.mktemp("runs") / "half"
    assert main(["train", str(log_file), "-o", str(folder), "--quiet", *QUICK, *SAMPLE]) == 0
    return folder


def json_of(path: Path, argv: list[str]) -> dict:
    assert main([*argv, "--quiet", "--json", str(path)]) == 0
    return json.loads(path.read_text())


def test_a_model_of_a_sample_reads_other_logs_whole(
    run: Path, log_file: Path, frame: pl.DataFrame, tmp_path: Path
) -> None:
    whole, half = read_log(log_file), read_log(log_file, sample_users=0.5)
    assert 0 < half.n_events < whole.n_events
    assert json.loads((run / "reading.json").read_text()) == {"sample_users": 0.5}
    assert json.loads((run / "machine.json").read_text())["log"]["events"] == half.n_events
    about = json_of(tmp_path / "e.json", ["evaluate", str(run), str(log_file), "--split", "all"])
    assert about["log"]["fingerprint"] == whole.fingerprint
    assert about["n_events"] == whole.n_events
    assert about["seen_users"]["n_seen"] == half.count("sessions", "train")
    # the test users of the whole log trained nothing
    json_of(tmp_path / "t.json", ["evaluate", str(run), str(log_file)])
    rows = tmp_path / "rows.parquet"
    assert main(["predict", str(run), str(log_file), "-o", str(rows), "--quiet"]) == 0
    assert pl.read_parquet(rows).height == frame.height

    model = fg.UserModel.load(run)
    assert model.reading.sample_users == 1
    assert model.predict(frame).height == frame.height
    assert model.evaluate(frame, "all", allow_seen_users=True).n_events == whole.n_events
    with_file = fg.UserModel.load(run / "model.safetensors")
    assert with_file.reading == model.reading


def test_what_goes_on_with_a_run_reads_its_sample(
    run: Path, log_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastgaum.reports.charts.picture_of", undrawn)
    again = ["train", str(log_file), "-o", str(run), "--resume", "--quiet"]
    assert json_of(tmp_path / "again.json", again)["finished_before"]
    page = tmp_path / "page.html"
    facts = json_of(tmp_path / "f.json", ["report", str(run), "-o", str(page)])
    half = read_log(log_file, sample_users=0.5)
    assert [one["fingerprint"] for one in facts["logs"]] == [half.fingerprint]
    # new data are read as they are asked for
    folder = tmp_path / "next"
    start = ["--from", str(run), "--quiet", "--set", "epochs=1", "--set", "warm_start=1"]
    assert main(["train", str(log_file), "-o", str(folder), *start]) == 0
    assert "sample_users" not in json.loads((folder / "reading.json").read_text())


def test_a_converted_sample_is_the_sample(log_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "half"
    assert main(["data", "convert", str(log_file), "-o", str(out), "--quiet", *SAMPLE]) == 0
    wanted = read_log(log_file, sample_users=0.5)
    assert read_log(out).fingerprint == wanted.fingerprint
    assert read_log(out, sample_users=0.5).fingerprint == wanted.fingerprint

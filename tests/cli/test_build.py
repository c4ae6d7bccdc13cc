"""`fastgaum data build`, and the commands that take a name whose displays are made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fastgaum.cli.app import main
from fastgaum.logs.made_up_displays import make_displays
from fastgaum.logs.read import read_log
from fastgaum.logs.store import load_log


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MovieLens latest of 30 users and 40 films."""
    folder = tmp_path_factory.mktemp("choices") / "films"
    folder.mkdir()
    rng = np.random.default_rng(1)
    user, film = np.divmod(rng.permutation(30 * 40)[:400], 40)
    frame = {
        "userId": user + 1,
        "movieId": film + 1,
        "rating": 3.5,
        "timestamp": rng.integers(946_684_800, 978_307_200, 400),
    }
    pl.DataFrame(frame).write_csv(folder / "ratings.csv")
    return folder


def test_build_writes_a_log(
    ratings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "packed"
    assert main(f"data build {ratings} -o {out} --displayed 5 --seed 3".split()) == 0
    printed = capsys.readouterr()
    assert "30 sessions, 400 events, 2000 candidates, 40 items" in printed.out
    assert f"fastgaum data audit {out}" in printed.out
    assert printed.err == ""
    expected, back = read_log(make_displays(ratings, displayed=5, seed=3)), load_log(out)
    for name in ("items", "choices", "display_offsets", "session_offsets", "users", "split"):
        np.testing.assert_array_equal(getattr(back, name), getattr(expected, name), err_msg=name)


def test_rows_are_written_in_an_order_that_says_nothing(ratings: Path, tmp_path: Path) -> None:
    assert main(["data", "build", str(ratings), "-o", str(tmp_path / "log.csv")]) == 0
    chosen = pl.read_csv(tmp_path / "log.csv")["chosen"].to_numpy().reshape(400, 10)
    assert np.abs(chosen.mean(axis=0) - 0.1).max() < 0.08
    items = pl.read_csv(tmp_path / "log.csv")["item"].to_numpy().reshape(400, 10)
    assert (np.diff(items, axis=1) > 0).mean() == pytest.approx(0.5, abs=0.05)


def test_the_name_stands_for_the_built_log(
    shared_data: Callable[[str], Path], tmp_path: Path
) -> None:
    folder, out = shared_data("ml-latest-small/ratings.csv").parents[1], tmp_path / "t.json"
    argv = ["reproduce", "--datasets", "movielens-small", "--models", "click-rate", "--seeds", "1"]
    assert main([*argv, "--jobs", "1", "--data-dir", str(folder), "--json", str(out)]) == 0
    facts = json.loads(out.read_text())["datasets"]["movielens-small"]
    assert facts["simulated"]["rule"] == "nearest"
    assert facts["simulated"]["trace"] > 80 > facts["floors"]["random"]["1"]

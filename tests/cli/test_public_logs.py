"""A public log's raw file becomes a trained run in one command."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastgaum.cli.app import main
from fastgaum.logs.read import read_log
from fastgaum.models.user_model import UserModel
from tests.logs.public_files import FILES

QUICK = ["--set", "epochs=1", "--set", "warm_start=1", "--set", "batch_sessions=256"]


@pytest.mark.parametrize(("name", "write"), FILES.items())
def test_a_raw_file_becomes_a_run_in_one_command(
    name: str,
    write: Callable[[Path], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, run = write(tmp_path), tmp_path / "run"
    assert main(["train", str(path), "-o", str(run), *QUICK]) == 0
    assert f"{path.name} is read as {name}" in capsys.readouterr().err
    # nothing was given, and the file is read alike again
    assert json.loads((run / "reading.json").read_text()) == {}
    assert main(["evaluate", str(run), str(path), "--json", str(tmp_path / "e.json")]) == 0
    assert json.loads((tmp_path / "e.json").read_text())["log"]
    assert main(["data", "convert", str(path), "-o", str(tmp_path / "packed")]) == 0
    assert main(["evaluate", str(run), str(tmp_path / "packed")]) == 0
    if name == "MIND":
        check_history(path, run)


def check_history(path: Path, run: Path) -> None:
    """What MIND's users had read enters their state: another history, other utilities, where there
    is one; and news of histories alone are known."""
    model, log = UserModel.load(run), read_log(path)
    assert model.space is not None
    assert [field.values.to_list()[:1] for field in model.space.actions] == [["past"], ["N50"]]
    other = path.with_name("other.tsv")
    other.write_text(re.sub(r"N5(\d)", r"N6\1", path.read_text()))
    mine, theirs = (model.predict(of)["utility"].to_numpy() for of in (log, read_log(other)))
    assert log.actions is not None
    first = log.session_offsets[:-1]
    has_past = np.diff(log.actions.offsets)[first] > 0
    assert 0 < has_past[log.split > 0].mean() < 1
    moved = np.add.reduceat(np.abs(mine - theirs), log.display_offsets[:-1]) > 0
    # training users read the counts of those before them in their own log, and all in the other
    others = log.split > 0
    assert not moved[first][others & ~has_past].any()
    # news that training users had not read are unknown in both logs
    assert moved[first][others & has_past].mean() > 0.5


def test_a_bandit_s_propensities_value_a_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The column that is read for the propensities replaces none of those that the model reads."""
    path, run = FILES["Open Bandit"](tmp_path), str(tmp_path / "run")
    assert main(["train", str(path), "-o", run, *QUICK]) == 0
    value = ["--propensity", "propensity_score", "--json", str(tmp_path / "v.json")]
    assert main(["ope", str(path), "--policy", "greedy", "--run", run, *value]) == 0
    assert json.loads((tmp_path / "v.json").read_text())["propensities"] == "logged"

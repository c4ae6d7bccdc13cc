"""`fastgaum what-if`: one command line from a run to figures, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fastgaum.cli.app import main


def test_all_questions_at_once(
    trained: Path, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = tmp_path / "what-if.json"
    argv = ["what-if", str(trained), str(log_file), "--scale", "price=.5", "--drop", "i10"]
    argv += ["--items", "i11,i12", "--elasticity", "price", "--worth", "price=price"]
    capsys.readouterr()
    assert main([*argv, "--json", str(facts)]) == 0
    out = capsys.readouterr().out
    assert "difference, points" in out
    # the prices of this log are drawn at random: nobody pays
    assert re.search(r" all +- +[-+]?0\.\d+ \(-\) +[-+]?0\.\d+ \(-\)", out)
    assert "no intervals: nothing says how sure these figures are" in out
    found = json.loads(facts.read_text())
    (gone,) = (row for row in found["shares"] if row["item"] == "i10")
    assert gone["after"] == 0 < gone["before_low"] < gone["before"] < gone["before_high"]
    changed = [row["changed"] for row in found["elasticity price"] if row["item"] == "i11"]
    assert changed == ["i11", "i12"]
    assert [row["item"] for row in found["worth price=price"]] == [None, "i11", "i12"]
    assert found["worth price=price"][0]["by_price_low"] is None


def test_a_worth_of_a_logit_says_whose_error_it_holds(
    log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    assert main(["train", str(log_file), "-o", run, *LOGIT]) == 0
    capsys.readouterr()
    assert main(["what-if", run, str(log_file), "--worth", "price=price"]) == 0
    said = capsys.readouterr()
    assert "figures of the fit without penalty, 95 % intervals by the delta method" in said.out
    assert re.search(r"[-+]?\d\.\d+ \([-+]?\d\.\d+ to [-+]?\d\.\d+\)", said.out)
    # what its summary warns of is a line beside the table
    assert "choices are few for" in said.err


LOGIT = ["--preset", "logit", "--candidate-field", "price", "--quiet"]

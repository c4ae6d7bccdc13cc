"""Parts of a log and their fits, on the sample: parts are nested, tests stay unread, a fit that
fails stops no other, and a call goes on where an earlier one ended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastgaum.bench.experiments import learning_curve as script
from fastgaum.bench.experiments.learning_curve import (
    curves_to_markdown,
    draw_curves,
    fit_parts,
    part_of,
)
from fastgaum.logs.log import TEST
from fastgaum.logs.read import load


def test_parts_of_a_seed_are_nested_and_leave_validation_alone() -> None:
    log = load("sample")
    kept = [set(log.users[part_of(log, n, 3).split == 0].tolist()) for n in (16, 4, 1)]
    everyone = set(log.users[log.split == 0].tolist())
    assert kept[0] < kept[1] < kept[2] == everyone
    assert [len(one) for one in kept] == [-(-len(everyone) // n) for n in (16, 4, 1)]
    part = part_of(log, 4, 3)
    np.testing.assert_array_equal(part.split == 1, log.split == 1)
    assert kept[1] != set(log.users[part_of(log, 4, 4).split == 0].tolist())


def test_fits_are_written_as_they_end_and_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "PARTS", (4, 1))
    log, path = load("sample"), tmp_path / "curve.json"
    first = fit_parts({"sample": log}, ["logit", "no-model"], 1, path)
    assert [row["part"] for row in first["rows"]] == [4, 1]
    assert [row["model"] for row in first["failed"]] == ["no-model", "no-model"]
    assert first["rows"][1]["sessions"] == log.count("sessions", "train")
    assert first["rows"][1]["nll"] < first["rows"][0]["nll"]
    # choices of the test split say nothing
    hidden = np.where(log.split[log.session_of_event] == TEST, 0, log.choices).astype(np.int32)
    unread = fit_parts({"sample": replace(log, choices=hidden)}, ["logit"], 1)
    assert [row["nll"] for row in unread["rows"]] == [row["nll"] for row in first["rows"]]
    again = fit_parts({"sample": log}, ["logit"], 2, path)
    assert again["rows"][:2] == first["rows"]
    assert [row["seed"] for row in again["rows"]] == [0, 0, 1, 1]
    assert "[4/4] sample, logit, 1/1 of the users, seed 1: NLL " in capsys.readouterr().out
    text = curves_to_markdown(again)
    assert "| log | training sessions | `logit` |" in text
    assert text.count("| sample | ") == 2
    assert "deviation over 2 seeds" in text
    draw_curves(again, tmp_path / "curve.svg")
    assert "logit" in (tmp_path / "curve.svg").read_text()

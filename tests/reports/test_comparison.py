"""`fastgaum compare` and `fastgaum.compare`: reproduce's table, of a log that is read by options."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

import fastgaum as fg
from fastgaum.cli.app import main
from fastgaum.logs.fold import to_frame
from fastgaum.logs.synthetic import synthesise
from fastgaum.reports.comparison import Comparison
from fastgaum.reports.log_facts import log_facts, title_of

MODELS = ["click-rate", "click-count"]


@pytest.fixture(scope="module")
def renamed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 events whose item column has a name of its own."""
    frame = to_frame(synthesise(300, preset="sample")[0]).rename({"item": "sku"})
    path = tmp_path_factory.mktemp("logs") / "yelp.parquet"
    frame.write_parquet(path)
    return path


@pytest.fixture(scope="module")
def table(renamed: Path) -> Comparison:
    return fg.compare(fg.read_log(renamed, columns={"item": "sku"}), MODELS, seeds=1)


def _without_machine(result: dict[str, object]) -> dict[str, object]:
    """Without what depends on the clock and on how the log was named."""
    text = json.dumps({k: v for k, v in result.items() if k not in ("machine", "reading")})
    kept = json.loads(text)
    for cell in kept["cells"]:
        cell.pop("seconds")
    return dict(kept)


def test_the_command_writes_what_reproduce_and_python_give(
    renamed: Path, table: Comparison, tmp_path: Path
) -> None:
    out, models = tmp_path / "t.json", ["--models", ",".join(MODELS), "--seeds", "1", "--jobs", "1"]
    argv = ["compare", str(renamed), "--column", "item=sku", *models, "--json", str(out)]
    assert main(argv) == 0
    result = json.loads(out.read_text())
    assert result["reading"] == {"column": ["item=sku"]}
    assert _without_machine(result) == _without_machine(table.result)
    assert (
        main(["data", "convert", str(renamed), "--column", "item=sku", "-o", str(tmp_path / "log")])
        == 0
    )
    again = tmp_path / "again.json"
    assert (
        main(["reproduce", "--datasets", str(tmp_path / "log"), *models, "--json", str(again)]) == 0
    )
    reproduced = _without_machine(json.loads(again.read_text()))
    for cell in reproduced["cells"]:  # type: ignore[attr-defined]
        cell["dataset"] = "yelp (another log)"
    assert reproduced["cells"] == _without_machine(result)["cells"]


@pytest.mark.parametrize("option", [["--split-by", "user"], []])
def test_a_split_that_was_drawn_is_not_the_log_s_own(
    renamed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    frame = pl.read_parquet(renamed)
    frame = frame if option else frame.drop("split")
    frame.write_parquet(tmp_path / "log.parquet")
    argv = ["compare", str(tmp_path / "log.parquet"), "--column", "item=sku", "--jobs", "1"]
    models = ["--models", "click-rate,logit", "--seeds", "1", "--set", "folds=2"]
    assert main([*argv, *models, *option]) == 0
    said = capsys.readouterr().out
    assert "1 seed, split by --split-by user, seed 0;" in said
    # settings were tried on the published logs, and on no other
    assert "settings tried" not in said


def test_a_comparison_is_a_frame_and_a_line(table: Comparison) -> None:
    frame = table.to_frame()
    assert frame.select("model", "k").rows() == [(name, k) for name in MODELS for k in (1, 2)]
    for cell, row in zip(table.cells, frame.to_dicts(), strict=True):
        assert [row["low"], row["high"]] == cell["ci"]
        assert row["vs_best_other"] == cell["vs_best_other"]["diff"]
        assert [row["nll_vs_best_other_low"], row["nll_vs_best_other_high"]] == cell[
            "nll_vs_best_other"
        ]["ci"]
    linear = {"model": "logit", "head": "reward", "diff": 1.5, "ci": [0.5, 2.5]}
    cells = [{**cell, "vs_logit": linear, "nll_vs_logit": None} for cell in table.cells]
    beside = Comparison({**table.result, "cells": cells}).to_frame()
    assert beside.select("vs_logit", "vs_logit_low", "vs_logit_high").row(0) == (1.5, 0.5, 2.5)
    for one in (frame, beside):
        assert not any(isinstance(kind, pl.Struct | pl.List) for kind in one.dtypes)
    assert "floor: random" in table.to_markdown()
    line = repr(table)
    assert line.startswith("Comparison(2 models on 'yelp (another log)', lowest NLL ")
    assert "\n" not in line


def test_published_figures_are_of_the_published_log_alone(table: Comparison, renamed: Path) -> None:
    assert table.result["datasets"]["yelp (another log)"]["published_best"] == {}
    assert "published_table" not in table.result
    log = fg.read_log(renamed, columns={"item": "sku"})
    assert log_facts(log, "test", {})["published_best"] == {}
    assert title_of(fg.load("sample")) == "sample"


def test_a_split_is_pooled_once_however_often_it_is_named() -> None:
    log = synthesise(120, preset="sample")[0]
    once, twice = (
        fg.compare(log, ["click-rate"], seeds=1, resplits=splits) for splits in ([3, 1], [3, 1, 3])
    )
    assert twice.result["resplit"] == [3, 1]
    assert _without_machine(once.result) == _without_machine(twice.result)

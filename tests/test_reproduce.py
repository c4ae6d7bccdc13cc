"""The grid: what its object holds, that it depends on seeds alone, and how the table reads."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastgaum.cli.app import main
from fastgaum.config import PRESETS
from fastgaum.errors import ConfigError
from fastgaum.metrics.published import authors_code, best_published, published_mean
from fastgaum.metrics.table import blocks, to_markdown
from fastgaum.reproduce import plan, reproduce
from fastgaum.sessions.synthetic import synthesise

QUICK = {"epochs": 2, "warm_start": 2, "batch_sessions": 256}
CELL = {
    "dataset": str, "model": str, "head": str, "k": int, "mean": float, "sd": float, "ci": list, "seeds": int,
    "n_events": int, "nll": float, "seconds": float, "ece": float, "brier": float, "prec_nontrivial": float,
}  # fmt: skip


@pytest.fixture(scope="module")
def sample_table(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, str]:
    """What the command writes for the bundled sample: object, markdown, and what it printed."""
    folder = tmp_path_factory.mktemp("table")
    settings = [word for key, value in QUICK.items() for word in ("--set", f"{key}={value}")]
    argv = ["reproduce", "--datasets", "sample", "--models", "fastgaum", "--seeds", "1", "--jobs", "1"]
    assert main([*argv, *settings, "--json", str(folder / "t.json"), "--markdown", str(folder / "t.md")]) == 0
    return json.loads((folder / "t.json").read_text()), (folder / "t.md").read_text(), ""


def test_object_has_the_documented_form(sample_table: tuple[dict[str, Any], str, str]) -> None:
    result = sample_table[0]
    assert {"machine", "protocol", "datasets", "cells"} <= set(result)
    facts = result["datasets"]["sample"]
    assert set(facts["floors"]) == {"random", "train_click_rate", "train_click_count", "fewest_train_displays"}
    assert all(0 < precs["1"] < precs["2"] <= 100 for precs in facts["floors"].values())
    assert facts["oracle"]["1"] > facts["floors"]["random"]["1"]
    assert [(c["head"], c["k"]) for c in result["cells"]] == [
        ("reward", 1), ("reward", 2), ("generator", 1), ("generator", 2),
    ]  # fmt: skip
    for cell in result["cells"]:
        assert {key: type(cell[key]) for key in CELL} == CELL
        assert cell["ci"][0] <= cell["mean"] <= cell["ci"][1]
        assert cell["n_events"] == facts["n_test_events"]
        assert cell["published"] is None
        assert cell["gap"] >= 0
        assert 0 < cell["way_to_oracle"] < 1.2


def test_markdown_has_a_row_per_floor_head_and_oracle(sample_table: tuple[dict[str, Any], str, str]) -> None:
    result, markdown, _ = sample_table
    rows = [line.split("|")[1].strip() for line in markdown.splitlines() if line.startswith("|")]
    assert rows[2:] == [
        "floor: random", "floor: train click rate", "floor: train click count", "floor: fewest train displays",
        "fastgaum, reward", "fastgaum, generator", "oracle",
    ]  # fmt: skip
    assert f"{result['cells'][0]['mean']:.1f}" in markdown
    assert "1 seed," in markdown
    assert "epoch chosen on validation by loss (fastgaum)" in markdown
    assert "test events whose user has no earlier event: " in markdown


def test_floors_of_the_table_are_those_of_evaluation(sample_table: tuple[dict[str, Any], str, str]) -> None:
    random = sample_table[0]["datasets"]["sample"]["floors"]["random"]
    way = sample_table[0]["cells"][0]["way_to_oracle"]
    oracle = sample_table[0]["datasets"]["sample"]["oracle"]["1"]
    assert way == pytest.approx((sample_table[0]["cells"][0]["mean"] - random["1"]) / (oracle - random["1"]))


def _without_clock(result: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in result.items() if key != "machine"}
    return kept | {"cells": [{k: v for k, v in cell.items() if k != "seconds"} for cell in result["cells"]]}


def test_figures_depend_on_seeds_alone() -> None:
    """Not on how many processes shared the work, nor on the order in which they finished."""
    log, _ = synthesise(300, preset="sample")
    runs = plan(["world"], ["fastgaum"], 2, "bags", QUICK)
    alone, shared = (reproduce({"world": log}, runs, jobs=jobs, device="cpu") for jobs in (1, 2))
    assert _without_clock(alone) == _without_clock(shared)
    assert alone["cells"][0]["nll_sd"] > 0


def test_error_ends_the_other_runs_at_once() -> None:
    class StopError(Exception):
        pass

    def stop(*_: object) -> None:
        raise StopError

    log, _ = synthesise(300, preset="sample")
    runs = plan(["world"], ["fastgaum"], 50, "bags", {})
    with pytest.raises(StopError):
        reproduce({"world": log}, runs, jobs=2, device="cpu", on_done=stop)
    assert multiprocessing.active_children() == []


def test_cell_is_the_mean_over_seeds() -> None:
    log, _ = synthesise(300, preset="sample")
    runs = plan(["world"], ["fastgaum"], 2, "identity", QUICK)
    single: list[float] = []
    result = reproduce(
        {"world": log}, runs, device="cpu",
        on_done=lambda run, figures, done: single.append(figures.test.heads["reward"].precision[1].mean),
    )  # fmt: skip
    cell = result["cells"][0]
    assert cell["mean"] == pytest.approx(np.mean(single))
    assert cell["sd"] == pytest.approx(np.std(single, ddof=1))


def test_exact_players_have_no_gap_and_no_generator() -> None:
    log, _ = synthesise(300, preset="sample")
    result = reproduce(
        {"world": log}, plan(["world"], ["fastgaum"], 1, "bags", {**QUICK, "players": "exact"}), device="cpu"
    )
    assert {cell["head"] for cell in result["cells"]} == {"reward"}
    assert all(cell["gap"] is None for cell in result["cells"])


def test_plan_counts_seeds_from_the_one_that_is_set() -> None:
    runs = plan(["a", "b"], ["fastgaum"], 2, "views", {"seed": 10})
    assert [(run.dataset, run.config.seed) for run in runs] == [("a", 10), ("a", 11), ("b", 10), ("b", 11)]
    assert {run.config.protocol for run in runs} == {"views"}
    with pytest.raises(ConfigError, match="seeds must be at least 1"):
        plan(["a"], ["fastgaum"], 0, "bags", {})


def test_every_preset_can_be_planned() -> None:
    assert {run.model for run in plan(["a"], list(PRESETS), 1, "identity", {})} == set(PRESETS)


def test_published_figures() -> None:
    assert published_mean("yelp", "paper-lstm", "reward", 1) == 73.0
    assert published_mean("taobao", "paper-pw", "reward", 2) == 54.1
    assert published_mean("yelp", "report", "generator", 1) == pytest.approx(3.43)
    assert published_mean("yelp", "fastgaum", "reward", 1) is None
    assert published_mean("sample", "paper-lstm", "reward", 1) is None


@pytest.mark.parametrize(
    ("dataset", "best"), [("yelp", (73.2, 92.5)), ("taobao", (35.9, 55.0)), ("yoochoose", (61.3, 82.5)), ("sample", ())]
)
def test_best_published(dataset: str, best: tuple[float, ...]) -> None:
    assert tuple(row["mean"] for row in best_published(dataset).values()) == best


def test_authors_code_stands_in_the_table() -> None:
    assert authors_code("yelp")["GAN-LSTM"] == {"1": 74.5, "2": 85.9}
    assert authors_code("sample") == {}


def test_table_puts_published_figures_beside_ours() -> None:
    cells = [
        {"dataset": "yelp", "model": "paper-lstm", "head": "reward", "k": k, "mean": 75.0 + k, "sd": 0.5,
         "ci": [71.0, 79.0], "published": mean, "seeds": 5, "n_events": 437, "nll": 0.6, "gap": None, "seconds": 2.0,
         "ece": 0.02, "selection": "prec@1", "way_to_oracle": None}
        for k, mean in ((1, 73.0), (2, 88.7))
    ]  # fmt: skip
    facts = {
        "n_test_events": 437, "n_test_users": 352, "floors": {"random": {"1": 39.7, "2": 63.6}},
        "shares": {
            "test events whose user has no earlier event": {"percent": 80.8, "n": 437},
            "none": {"percent": None, "n": 0},
        },
        "published_best": best_published("yelp"), "authors_code": authors_code("yelp"),
    }  # fmt: skip
    result = {"protocol": "identity", "seeds": 5, "resplit": 3, "datasets": {"yelp": facts}, "cells": cells}
    (block,) = blocks(result)
    row = dict(zip(block.columns, block.rows[-1], strict=True))
    assert (row["model"], row["prec@1"], row["published"]) == ("paper-lstm, reward", "76.0 ±0.5", "73.0 / 88.7")
    assert row["gap"] == ""
    assert [row[0] for row in block.rows[1:3]] == ["best published: W&D-CCF / GAN-PW", "authors' code: GAN-LSTM"]
    assert "users split anew with seed 3" in block.notes[0]
    assert "released split" in block.notes[1]
    assert block.notes[-1] == "test events whose user has no earlier event: 81 %"
    assert "random → oracle" not in block.columns
    assert "| paper-lstm, reward | 76.0 ±0.5 | 71.0 to 79.0 |" in to_markdown(result)


def test_no_arguments_run_the_sample_when_no_data_is_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("FASTGAUM_DATA_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    capsys.readouterr()
    argv = [
        "reproduce",
        "--models",
        "fastgaum",
        "--seeds",
        "1",
        "--jobs",
        "1",
        "--set",
        "epochs=1",
        "--set",
        "warm_start=1",
    ]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert "bundled sample" in err
    assert "sample, protocol bags" in out
    assert "oracle" in out

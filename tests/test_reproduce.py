"""`fastgaum reproduce`, end to end: what its object holds, that its outputs agree, that it depends
on seeds alone."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from msgspec.json import schema

from fastgaum.baselines import floors
from fastgaum.cli.app import main
from fastgaum.errors import NumericsError
from fastgaum.logs.synthetic import synthesise
from fastgaum.reports.comparison import compare_logs
from fastgaum.reports.grid import GridPlan
from fastgaum.reports.published_figures import OtherRows, read_rows

QUICK = {"epochs": 1, "warm_start": 2, "batch_sessions": 256, "search": [], "folds": 2}
SET = [word for key, value in QUICK.items() for word in ("--set", f"{key}={value}")]
SCHEMA = Path(__file__).resolve().parents[1] / "docs" / "rows.schema.json"
CELL = {
    "dataset": str,
    "model": str,
    "head": str,
    "k": int,
    "mean": float,
    "sd": float,
    "ci": list,
    "seeds": int,
    "folds": int,
    "n_events": int,
    "nll": float,
    "seconds": float,
    "ece": float,
    "brier": float,
    "prec_nontrivial": float,
    "protocol": str,
    "selection": str,
    "bold": bool,
    "vs_best_other": dict,
}


@dataclass(frozen=True)
class Written:
    """What the command wrote for the bundled sample."""

    result: dict[str, Any]
    markdown: str


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Two splits, one seed, a preset, a model and a floor."""
    folder = tmp_path_factory.mktemp("table")
    models = "--models fastgaum,logit,click-rate --seeds 1 --jobs 1"
    argv = f"reproduce --datasets sample {models}".split()
    files = [word for name in ("json", "markdown") for word in (f"--{name}", str(folder / name))]
    assert main([*argv, "--resplit", "3..4", *SET, *files]) == 0
    return Written(json.loads((folder / "json").read_text()), (folder / "markdown").read_text())


def test_object_has_the_documented_form(sample: Written) -> None:
    result = sample.result
    assert {"machine", "protocol", "datasets", "cells", "failed"} <= set(result)
    assert (result["resplit"], result["failed"]) == ([3, 4], [])
    facts = result["datasets"]["sample"]
    assert set(facts["floors"]) == {
        "random",
        "train_click_rate",
        "train_click_count",
        "fewest_train_displays",
    }
    assert all(0 < precs["1"] < precs["2"] <= 100 for precs in facts["floors"].values())
    assert facts["oracle"]["1"] > facts["floors"]["random"]["1"]
    rows = [
        ("fastgaum", "reward"),
        ("fastgaum", "generator"),
        ("logit", "reward"),
        ("click-rate", "reward"),
    ]
    assert [(c["model"], c["head"], c["k"]) for c in result["cells"]] == [
        (*row, k) for row in rows for k in (1, 2)
    ]
    for cell in result["cells"]:
        assert {key: type(cell[key]) for key in CELL} == CELL
        assert cell["ci"][0] <= cell["mean"] <= cell["ci"][1]
        assert cell["n_events"] == facts["n_test_events"]
        assert cell["published"] is None
        assert (cell["gap"] is None) == (cell["model"] != "fastgaum")
        assert 0 < cell["way_to_oracle"] < 1.2
        assert list(cell["by_split"]) == ["3", "4"]
        assert "precision_per_event" not in str(cell)


def test_cells_say_what_they_read_and_how_they_were_chosen(sample: Written) -> None:
    says = {cell["model"]: (cell["protocol"], cell["selection"]) for cell in sample.result["cells"]}
    assert says == {
        "fastgaum": ("bags", "loss"),
        "logit": ("bags", "—"),
        "click-rate": ("identity", "—"),
    }
    folds = {cell["model"]: cell["folds"] for cell in sample.result["cells"]}
    assert folds == {"fastgaum": 2, "logit": 2, "click-rate": 0}


def test_a_floor_that_is_a_model_scores_what_the_floor_scores(sample: Written) -> None:
    """On the same pooled events, and so the floor's row may hold the model's figures."""
    for cell in sample.result["cells"][6:8]:
        floor = sample.result["datasets"]["sample"]["floors"]["train_click_rate"]
        assert cell["mean"] == pytest.approx(floor[str(cell["k"])])


def test_markdown_has_a_row_per_floor_head_and_oracle(sample: Written) -> None:
    rows = [
        line.split("|")[1].strip() for line in sample.markdown.splitlines() if line.startswith("|")
    ]
    floors = [
        "floor: random",
        "floor: train click rate",
        "floor: train click count",
        "floor: fewest train displays",
    ]
    assert rows[2:6] == floors
    assert sorted(rows[6:9]) == ["fastgaum, generator", "fastgaum, reward", "logit"]
    assert rows[9:] == ["oracle"]
    assert "1 seed, pooled over 2 splits of the users anew (seeds 3..4)" in sample.markdown
    chosen = "epoch of each fit on folds chosen on the fold that it left out by loss"
    assert chosen in sample.markdown
    names = ", ".join(sorted({"fastgaum", "logit"}, key=sample.markdown.index))
    says = f"mean of the fits on 2 folds of users over training and validation: {names}\n"
    assert says in sample.markdown
    assert "fastgaum against the best other model: prec@1 " in sample.markdown
    assert "test events whose user has no earlier event: " in sample.markdown


def _without_clock(result: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in result.items() if key != "machine"}
    return kept | {
        "cells": [{k: v for k, v in cell.items() if k != "seconds"} for cell in result["cells"]]
    }


def test_figures_depend_on_seeds_alone() -> None:
    """Not on how many processes shared the work, nor on the order in which they finished."""
    log, _ = synthesise(300, preset="sample")
    plan = GridPlan(["fastgaum", "click-rate"], 1, "bags", (4, 5), QUICK | {"folds": 0})
    alone, shared = (
        compare_logs({"world": log}, plan, jobs=jobs, device="cpu").result for jobs in (1, 2)
    )
    assert _without_clock(alone) == _without_clock(shared)
    assert alone["failed"] == []


def test_error_ends_the_other_runs_at_once() -> None:
    class StopError(Exception):
        pass

    def stop(*_: object) -> None:
        raise StopError

    log, _ = synthesise(300, preset="sample")
    with pytest.raises(StopError):
        compare_logs(
            {"world": log},
            GridPlan(["random"], 200),
            jobs=2,
            device="cpu",
            on_done=stop,
        )
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (NumericsError("the loss is not finite"), "the loss is not finite"),
        (KeyError("x"), "a bug: "),
    ],
)
def test_a_failed_run_leaves_the_others_their_rows(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    says: str,
) -> None:
    fit = floors.ClickCountFloor._fit

    def diverge(self: floors.ClickCountFloor, *splits: Any) -> Any:
        if self.seed == 1:
            raise error
        return fit(self, *splits)

    monkeypatch.setattr(floors.ClickCountFloor, "_fit", diverge)
    models = "--models random,click-count,click-rate --seeds 2 --jobs 1"
    argv = f"reproduce --datasets sample {models}".split()
    assert main([*argv, "--json", str(tmp_path / "t.json")]) == 1
    out, err = capsys.readouterr()
    result = json.loads((tmp_path / "t.json").read_text())
    assert {cell["model"] for cell in result["cells"]} == {"random", "click-rate"}
    (failed,) = result["failed"]
    assert (failed["dataset"], failed["model"], failed["resplit"], failed["seed"]) == (
        "sample",
        "click-count",
        None,
        1,
    )
    assert says in failed["reason"]
    assert "failed, so without a row: click-count (seed 1): " in out
    assert "click-count seed 1 failed: " in err


def test_no_arguments_run_the_sample_when_no_data_is_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("FASTGAUM_DATA_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    capsys.readouterr()
    argv = ["reproduce", "--models", "click-rate", "--seeds", "1", "--jobs", "1"]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert "bundled sample" in err
    assert "sample, protocol bags" in out
    assert "oracle" in out
    # nobody published figures of the sample
    assert "Published figures" not in out


def test_rows_of_others_stand_above_the_models(tmp_path: Path) -> None:
    log = synthesise(120, preset="sample")[0]
    rows = [
        {"dataset": "sample", "model": "th|eirs", "source": "a paper", "prec1": 61.0, "nll": 1.5}
    ]
    rows.append({**rows[0], "model": "known", "prec2": 80.0, "fingerprint": log.fingerprint[:12]})
    rows.append({**rows[0], "dataset": "another log"})
    (tmp_path / "rows.json").write_text(json.dumps({"rows": rows}))
    found = read_rows(tmp_path / "rows.json", ["sample"])
    table = compare_logs({"sample": log}, GridPlan(["click-rate"], 1), others=found)
    own = [row for row in table.blocks[0].rows if row[0].startswith("others")]
    assert [row[0] for row in own] == ["others: th|eirs", "others: known"]
    assert [(row[1], row[3], row[6]) for row in own] == [
        ("61.0", "-", "1.500"),
        ("61.0", "80.0", "1.500"),
    ]
    unknown = "whether it is of these test events is not known"
    notes = table.blocks[0].notes
    assert f"others, th|eirs: a paper; {unknown}" in notes
    assert "others, known: a paper" in notes
    assert "others: th\\|eirs" in table.to_markdown()


def test_the_schema_of_rows_is_the_documented_one() -> None:
    """Made anew by `python -m tests.test_reproduce`."""
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == schema(OtherRows)


if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(schema(OtherRows), indent=2) + "\n", encoding="utf-8")

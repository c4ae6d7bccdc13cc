"""The published figures are read as they are written in data/published."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from fastgaum.baselines.registry import BASELINES, baseline_class
from fastgaum.errors import ConfigError
from fastgaum.reports.others import (
    authors_code,
    best_published,
    published_mean,
    published_models,
    published_row,
    published_table,
    tuning_budget,
)


def test_figures_by_row() -> None:
    assert published_mean("yelp", "GAN-LSTM", 1) == 73.0
    assert published_mean("taobao", "GAN-PW", 2) == 54.1
    assert published_mean("yelp", "report: generator", 1) == pytest.approx(3.43)
    assert published_mean("yelp", None, 1) is published_mean("sample", "GAN-LSTM", 1) is None
    assert authors_code("yelp")["GAN-LSTM"] == {"1": 74.5, "2": 85.9}
    assert authors_code("sample") == {}


def test_rows_that_models_repeat_are_in_the_table() -> None:
    rows = published_table()["rows"]
    assert published_row("fastgaum", "reward") is published_row("random", "reward") is None
    for preset, head in (("paper-lstm", "reward"), ("paper-pw", "reward"), ("report", "generator")):
        assert published_row(preset, head) in rows
    for name in BASELINES:
        with suppress(ConfigError):  # its extra is not installed
            assert baseline_class(name).published_name in (None, *rows)


@pytest.mark.parametrize(
    ("dataset", "best"),
    [("yelp", (73.2, 92.5)), ("taobao", (35.9, 55.0)), ("yoochoose", (61.3, 82.5)), ("sample", ())],
)
def test_best_published(dataset: str, best: tuple[float, ...]) -> None:
    assert tuple(row["mean"] for row in best_published(dataset).values()) == best


def test_choice_models_of_others_have_an_nll() -> None:
    """They are no part of the paper's table."""
    names = {name: [one["model"] for one in published_models(name)] for name in ("lpmc", "yelp")}
    assert names == {"lpmc": ["MNL", "SVM", "RF", "XGBoost", "NN", "DNN"], "yelp": []}
    alone, persons = published_models("lpmc"), published_models("lpmc-persons")
    assert [one["nll"] for one in alone] == [one["nll"] for one in persons]
    assert (alone[3]["mean"], alone[3]["nll"]) == (74.72, 0.6568)
    assert published_models("tastenet")[0]["nll"] == 0.44655
    assert best_published("lpmc")["1"]["model"] == "XGBoost"
    rows = published_table()["rows"]
    assert not any({"lpmc", "lpmc-persons", "tastenet"} & set(row) for row in rows.values())
    assert "MNL" not in rows


def test_tuning_budget(tmp_path: Path) -> None:
    file = tmp_path / "tuning.csv"
    assert tuning_budget(file) == {}
    file.write_text(
        'model,settings_tried,where\nfastgaum,24,"bench/tune.py, 5 folds"\nlogit,24,bench/tune.py\n'
    )
    assert tuning_budget(file) == {
        "fastgaum": {"settings_tried": 24, "where": "bench/tune.py, 5 folds"},
        "logit": {"settings_tried": 24, "where": "bench/tune.py"},
    }
